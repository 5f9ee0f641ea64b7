"""SCRFD's outputs become boxes; its real weights are nobody's to ship.

The file is made here, of constants laid out as the published exports lay them
out: three outputs for each stride, two anchors a cell.
"""

import pathlib

import handmade_onnx
import numpy as np
import pytest

from data_pipeline.faces import scrfd

SIDE = 640


def make_outputs(faces=(), side=SIDE, with_points=True) -> list[np.ndarray]:
  """Outputs with faces (score, stride, row, column, anchor, distances, points).

  In the order of InsightFace's exports: scores, boxes, points, each by stride.
  """
  widths = (1, 4, 10) if with_points else (1, 4)
  outputs = [
    np.zeros((2 * (side // stride) ** 2, width), np.float32)
    for width in widths
    for stride in (8, 16, 32)
  ]
  for score, stride, row, column, anchor, distances, points in faces:
    level = (8, 16, 32).index(stride)
    place = 2 * (row * (side // stride) + column) + anchor
    outputs[level][place] = score
    outputs[3 + level][place] = distances
    outputs[6 + level][place] = np.reshape(points, -1)
  return outputs


def open_made(tmp_path: pathlib.Path, *faces, **options) -> scrfd.Scrfd:
  path = handmade_onnx.write_constants(
    tmp_path / 'scrfd_bnkps.onnx', make_outputs(faces), **options
  )
  return scrfd.Scrfd(str(path))


POINTS = [[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]]
FACE = (0.9, 16, 6, 10, 1, (2, 3, 4, 5), POINTS)


def test_distances_and_points_count_from_a_cell_in_its_strides(tmp_path):
  # A frame of half the network's width: what it sees is twice as large.
  frame = np.zeros((160, 320, 3), np.uint8)
  found = open_made(tmp_path, FACE).detect(frame)
  x, y = 10 * 16, 6 * 16
  np.testing.assert_allclose(
    found.boxes, [np.array([x - 32, y - 48, x + 64, y + 80]) / 2]
  )
  np.testing.assert_allclose(
    found.keypoints[0], (np.array([x, y]) + 16 * np.array(POINTS)) / 2
  )
  np.testing.assert_allclose(found.scores, [0.9])


def test_of_boxes_that_overlap_the_best_stays_and_the_best_is_first(tmp_path):
  # The same place by another stride; a doubtful face; another face.
  same = (0.8, 8, 12, 20, 0, (4, 6, 8, 10), POINTS)
  doubtful = (0.49, 32, 3, 3, 0, (1, 1, 1, 1), POINTS)
  other = (0.95, 32, 15, 15, 0, (1, 1, 1, 1), POINTS)
  backend = open_made(tmp_path, same, FACE, doubtful, other)
  found = backend.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
  np.testing.assert_allclose(found.scores, [0.95, 0.9])


def test_a_frame_without_a_face_has_none(tmp_path):
  found = open_made(tmp_path).detect(np.zeros((90, 120, 3), np.uint8))
  assert found.boxes.shape == (0, 4)
  assert found.keypoints.shape == (0, 5, 2)


@pytest.mark.parametrize('shape', [(1, 3, SIDE, SIDE), ('n', 3, 'h', 'w')])
def test_the_network_sees_rgb_of_unit_range_black_around_it(tmp_path, shape):
  backend = open_made(tmp_path, input_shape=shape)
  seen = []
  session = backend._session

  class Noting:
    def run(self, outputs, feed):
      seen.extend(feed.values())
      return session.run(outputs, feed)

  backend._session = Noting()
  frame = np.full((100, 50, 3), (255, 0, 127), np.uint8)
  backend.detect(frame)
  (image,) = seen
  assert image.shape == (1, 3, SIDE, SIDE)
  np.testing.assert_allclose(
    image[0, :, SIDE - 1, 0], (np.array([255, 0, 127]) - 127.5) / 128
  )
  assert (image[0, :, :, SIDE // 2 :] == -127.5 / 128).all()


def test_two_files_have_two_names(tmp_path):
  one = open_made(tmp_path).name
  assert one.startswith('scrfd-')
  path = handmade_onnx.write_constants(
    tmp_path / 'other.onnx', make_outputs([FACE])
  )
  assert scrfd.Scrfd(str(path)).name != one


def test_a_file_that_is_no_scrfd_is_named_with_what_is_wrong(tmp_path):
  path = tmp_path / 'model.onnx'
  path.write_bytes(b'no model')
  with pytest.raises(ValueError, match=r'model\.onnx: not an ONNX model'):
    scrfd.Scrfd(str(path))
  handmade_onnx.write_constants(path, make_outputs(with_points=False))
  with pytest.raises(ValueError, match='without the five points'):
    scrfd.Scrfd(str(path))
  handmade_onnx.write_constants(path, [np.zeros((1, 2), np.float32)])
  with pytest.raises(ValueError, match='it has 1 outputs, not 9'):
    scrfd.Scrfd(str(path))
  handmade_onnx.write_constants(path, make_outputs(), input_shape=('n', 128))
  with pytest.raises(ValueError, match=r"it takes \[\['n', 128\]\]"):
    scrfd.Scrfd(str(path))
  handmade_onnx.write_constants(path, [np.zeros((7, 1), np.float32)] * 9)
  with pytest.raises(ValueError, match='strides of 8 px are'):
    scrfd.Scrfd(str(path)).detect(np.zeros((64, 64, 3), np.uint8))
