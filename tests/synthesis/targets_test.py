"""Temporal targets against the original's and NumPy rewrites."""

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.synthesis import targets

CASES = ['rand_full', 'rand_sparse', 'ring0', 'const', 'zeros', 'ring_T8']


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'targets.npz')


def find(arrays, case, word):
  names = [
    n for n in arrays.files if n.startswith(f'encode/{case}/') and word in n
  ]
  return names


@pytest.mark.parametrize('case', CASES)
def test_wrapped_standardized_map_is_the_original_one(arrays, case):
  cells = jnp.float32(arrays[f'encode/{case}/stack'][..., 0])
  fake, real = targets.vulnerability_map(
    cells, change='uint8_wrap', kind='standardized'
  )
  np.testing.assert_allclose(
    fake, arrays[f'encode/{case}/m_std_normalized/heatmap'], atol=1e-4
  )
  np.testing.assert_allclose(
    real, arrays[f'encode/{case}/m_std_normalized/heatmap_real'], atol=1e-4
  )


@pytest.mark.parametrize('case', CASES)
def test_gaussian_map_is_the_original_one(arrays, case):
  cells = jnp.float32(arrays[f'encode/{case}/stack'][..., 0])
  fake, real = targets.vulnerability_map(
    cells, change='uint8_wrap', kind='gaussian'
  )
  np.testing.assert_allclose(
    fake, arrays[f'encode/{case}/gaussian/heatmap'], atol=1e-5
  )
  assert not real.any()


def test_absolute_map_is_the_standardized_absolute_difference():
  cells = np.random.default_rng(0).integers(0, 256, (4, 14, 14))
  changes = np.abs(np.diff(cells, axis=0))
  fake, real = targets.vulnerability_map(
    jnp.float32(cells), change='absolute', kind='standardized'
  )
  mean, deviation = changes.mean(), changes.std()
  np.testing.assert_allclose(fake[1:], (changes - mean) / deviation, atol=1e-4)
  np.testing.assert_allclose(fake[0], -mean / deviation, atol=1e-4)
  np.testing.assert_allclose(real, -mean / deviation, atol=1e-4)


def test_max_normalized_map_peaks_at_one():
  cells = jnp.float32(np.random.default_rng(0).integers(0, 256, (5, 7, 7)))
  fake, real = targets.vulnerability_map(
    cells, change='absolute', kind='max_normalized'
  )
  assert fake.max() == 1 and not fake[0].any() and not real.any()


@pytest.mark.parametrize('kind', ['standardized', 'gaussian', 'max_normalized'])
@pytest.mark.parametrize('num_frames', [1, 3])
def test_a_boundary_that_does_not_move_has_no_target(kind, num_frames):
  fake, real = targets.vulnerability_map(
    jnp.full((num_frames, 14, 14), 90.0), change='absolute', kind=kind
  )
  assert not fake.any() and not real.any()


def test_area_grid_is_the_mean_over_patches():
  rng = np.random.default_rng(0)
  boundary = jnp.float32(rng.integers(0, 256, (2, 72, 72)))
  # A margin of 4 leaves 64 px, which a size of 64 does not resample.
  ours = targets.boundary_cells(
    boundary, jnp.int32(4), image_size=64, patch_size=16, grid='area'
  )
  crop = np.asarray(boundary)[:, 4:-4, 4:-4]
  means = crop.reshape(2, 4, 16, 4, 16).mean((2, 4))
  np.testing.assert_allclose(ours, means, atol=0.5001)


def test_the_two_golden_clips_have_the_original_maps(golden):
  clips = np.load(golden / 'clips.npz')
  for clip in ('clip0', 'clip1'):
    fake, real = targets.vulnerability_map(
      jnp.float32(clips[f'{clip}/target14_fake']),
      change='uint8_wrap',
      kind='standardized',
    )
    np.testing.assert_allclose(fake, clips[f'{clip}/heatmap_fake'], atol=1e-4)
    np.testing.assert_allclose(real, clips[f'{clip}/heatmap_real'], atol=1e-4)
