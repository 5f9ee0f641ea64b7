"""Landmark order, smoothing, mirroring and raised brows."""

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline import landmarks


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'synthesis.npz')


def test_forehead_order_is_the_original_one(arrays):
  ours = landmarks.reorder_forehead(jnp.float32(arrays['reorder/in']))
  np.testing.assert_array_equal(ours, np.float32(arrays['reorder/out']))


def test_mirror_order_is_the_original_one_and_its_own_inverse(arrays):
  np.testing.assert_array_equal(landmarks.MIRROR, arrays['hflip/perm81'])
  points = jnp.float32(arrays['hflip/lm81_in'])
  twice = landmarks.mirror(landmarks.mirror(points, 256), 256)
  np.testing.assert_array_equal(twice, points)


def test_mirroring_lands_one_pixel_left_of_the_original(arrays):
  # x := W - 1 - x against the original's W - x (METHOD D9).
  ours = landmarks.mirror(jnp.float32(arrays['hflip/lm81_in']), 256)
  theirs = np.float32(arrays['hflip/lm81_out']) - np.float32([[1, 0]])
  np.testing.assert_array_equal(ours, theirs)


def test_mirroring_moves_pixels_and_landmarks_together():
  rng = np.random.default_rng(0)
  points = rng.integers(0, 64, (81, 2))
  image = np.zeros((64, 64))
  image[points[:, 1], points[:, 0]] = 1
  x, y = np.asarray(landmarks.mirror(jnp.float32(points), 64)).astype(int).T
  assert (image[:, ::-1][y, x] == 1).all()


@pytest.mark.parametrize(
  'distance', ['0.1', '0.34', '0.36', '0.45', '0.5', '0.52', '2.5', '10.0']
)
def test_smoothing_shortens_a_move_as_the_original_does(arrays, distance):
  name = f'lminterp/{distance}/'
  clip = np.stack([arrays[name + 'prev'], arrays[name + 'cur']])
  ours = landmarks.smooth(jnp.float32(clip))[1]
  np.testing.assert_allclose(ours, arrays[name + 'out'], atol=2e-5)


def test_smoothing_follows_the_smoothed_frame_before(golden):
  clips = np.load(golden / 'clips.npz')
  points = landmarks.reorder_forehead(jnp.float32(clips['clip0/landmarks_all']))
  # Both golden clips are flipped; W - x becomes W - 1 - x.
  ours = landmarks.mirror(landmarks.smooth(points), 256)
  theirs = clips['clip0/landmarks_ready'] - np.float32([[[1, 0]]])
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_raised_brows_move_up_by_half_their_distance_to_the_eye():
  points = np.zeros((81, 2), np.float32)
  points[:, 1] = 100
  points[17:27, 1] = 81
  raised = np.asarray(landmarks.raise_brows(jnp.asarray(points)))
  # (81 - 100) // 2 = -10
  np.testing.assert_array_equal(raised[17:27, 1], 71)
  np.testing.assert_array_equal(np.delete(raised, range(17, 27), 0)[:, 1], 100)
