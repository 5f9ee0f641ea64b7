"""RetinaFace's outputs become boxes; its real weights are nobody's to ship.

The file is made here, of constants laid out as the exports of the PyTorch
implementations lay them out.
"""

import math
import pathlib

import handmade_onnx
import numpy as np
import pytest

from data_pipeline.faces import retinaface

SIDE = 640
NUM_ANCHORS = 2 * (80**2 + 40**2 + 20**2)


def make_outputs(faces=(), background=0.0) -> list[np.ndarray]:
  """Boxes, scores and points with faces (anchor, score, steps, points)."""
  boxes, scores, points = (
    np.zeros((1, NUM_ANCHORS, width), np.float32) for width in (4, 2, 10)
  )
  scores[..., 0] = 1 - background
  scores[..., 1] = background
  for anchor, score, steps, five in faces:
    boxes[0, anchor] = steps
    scores[0, anchor] = 1 - score, score
    points[0, anchor] = np.reshape(five, -1)
  return [boxes, scores, points]


def anchor_at(cell: int, row: int, column: int, number: int) -> int:
  """Place of an anchor: all cells of 8 px row by row, then 16, then 32."""
  before = {8: 0, 16: 2 * 80**2, 32: 2 * (80**2 + 40**2)}[cell]
  return before + 2 * (row * (SIDE // cell) + column) + number


def open_made(
  tmp_path: pathlib.Path, outputs, **options
) -> retinaface.RetinaFace:
  path = tmp_path / 'retinaface.onnx'
  handmade_onnx.write_constants(path, outputs, **options)
  return retinaface.RetinaFace(str(path))


POINTS = [[-2, -2], [2, -2], [0, 0], [-1, 3], [1, 3]]
# The larger anchor, 128 px, of the cell of 16 px in row 6, column 10.
FACE = (anchor_at(16, 6, 10, 1), 0.9, (1, -2, 5 * math.log(1.5), 0), POINTS)


def test_boxes_and_points_are_steps_from_their_anchor(tmp_path):
  # A frame of half the network's width: what it sees is twice as large.
  found = open_made(tmp_path, make_outputs([FACE])).detect(
    np.zeros((160, 320, 3), np.uint8)
  )
  x, y = 10.5 * 16, 6.5 * 16  # middle of the cell
  middle = np.array([x + 0.1 * 128, y - 0.2 * 128])
  half = np.array([1.5 * 128, 128]) / 2
  np.testing.assert_allclose(
    found.boxes, [np.concatenate([middle - half, middle + half]) / 2], rtol=1e-5
  )
  np.testing.assert_allclose(
    found.keypoints[0],
    (np.array([x, y]) + 12.8 * np.array(POINTS)) / 2,
    rtol=1e-5,
  )
  np.testing.assert_allclose(found.scores, [0.9])


def test_outputs_may_come_in_any_order_and_without_their_softmax(tmp_path):
  boxes, scores, points = make_outputs([FACE])
  frame = np.zeros((SIDE, SIDE, 3), np.uint8)
  found = open_made(tmp_path, [boxes, scores, points]).detect(frame)
  logits = np.log(np.maximum(scores, 1e-9)) + 3
  again = open_made(tmp_path, [points, boxes, logits]).detect(frame)
  np.testing.assert_allclose(again.boxes, found.boxes)
  np.testing.assert_allclose(again.scores, found.scores, rtol=1e-5)


def test_of_boxes_that_overlap_the_best_stays(tmp_path):
  beside = (anchor_at(16, 6, 11, 1), 0.8, (0, -2, 5 * math.log(1.5), 0), POINTS)
  other = (anchor_at(32, 15, 15, 0), 0.95, (0, 0, 0, 0), POINTS)
  doubtful = (anchor_at(8, 70, 5, 0), 0.49, (0, 0, 0, 0), POINTS)
  backend = open_made(tmp_path, make_outputs([beside, FACE, other, doubtful]))
  found = backend.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
  np.testing.assert_allclose(found.scores, [0.95, 0.9])


def test_the_network_sees_bgr_less_its_mean(tmp_path):
  backend = open_made(tmp_path, make_outputs(), input_shape=('n', 3, 'h', 'w'))
  seen = []
  session = backend._session

  class Noting:
    def run(self, outputs, feed):
      seen.extend(feed.values())
      return session.run(outputs, feed)

  backend._session = Noting()
  backend.detect(np.full((100, 50, 3), (255, 0, 127), np.uint8))
  (image,) = seen
  assert image.shape == (1, 3, SIDE, SIDE)
  np.testing.assert_allclose(image[0, :, 9, 9], [127 - 104, -117, 255 - 123])
  np.testing.assert_allclose(image[0, :, 9, -1], [-104, -117, -123])


def test_a_file_that_is_no_retinaface_is_named_with_what_is_wrong(tmp_path):
  boxes, scores, points = make_outputs()
  with pytest.raises(ValueError, match='not RetinaFace: it takes'):
    open_made(tmp_path, [boxes, scores])
  with pytest.raises(ValueError, match='which has 16800 anchors'):
    open_made(tmp_path, [boxes[:, 1:], scores, points]).detect(
      np.zeros((64, 64, 3), np.uint8)
    )
