"""Figures of one video."""

import numpy as np

from data_pipeline import clip_quality


def test_the_size_of_a_face_is_its_shorter_side():
  boxes = np.array(
    [[0, 0, 30, 40], [0, 0, 50, 20], [9, 9, 59, 109]], np.float32
  )
  assert clip_quality.face_size(boxes) == 30
  assert clip_quality.face_size(boxes[:0]) == 0


def test_a_steady_move_is_no_jitter_and_a_tremble_is():
  rng = np.random.default_rng(0)
  face = rng.uniform(0, 256, (81, 2))
  indices = np.arange(9, dtype=np.int32)
  moving = (face + 3.0 * indices[:, None, None]).astype(np.float32)
  assert clip_quality.jitter(moving, indices) < 1e-4
  # Up and down by 1 px each frame: 2 px off the line between the neighbours.
  trembling = moving + np.where(indices % 2, 1, -1)[:, None, None] * [0, 1]
  trembling = trembling.astype(np.float32)
  np.testing.assert_allclose(
    clip_quality.jitter(trembling, indices), 2, rtol=1e-4
  )


def test_frames_far_apart_say_nothing_of_jitter():
  points = np.zeros((4, 81, 2), np.float32)
  points[::2] = 9
  assert clip_quality.jitter(points, np.array([0, 5, 6, 20], np.int32)) == 0
  assert clip_quality.jitter(points[:1], np.array([0], np.int32)) == 0
