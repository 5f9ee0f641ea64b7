"""Positions, resampling, the elastic field and displaced masks."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from data_pipeline.synthesis import blending, targets, warp


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'synthesis.npz')


def test_gather_and_matrices_resample_alike():
  rng = np.random.default_rng(0)
  image = jnp.float32(rng.integers(0, 256, (2, 3, 40, 56)))
  rows = warp.linear_taps(jnp.linspace(-3.3, 44.0, 31))
  columns = warp.linear_taps(jnp.linspace(-1.0, 57.5, 64))
  ours = [
    warp.resample(image, rows, columns, gather=gather)
    for gather in (True, False)
  ]
  np.testing.assert_allclose(*ours, atol=1e-3)


def test_affine_resampling_matches_opencv():
  rng = np.random.default_rng(1)
  image = cv2.GaussianBlur(
    rng.integers(0, 256, (96, 128)).astype(np.uint8), (5, 5), 0
  )
  scale, move = (0.96, 1.04), (2.7, -1.3)
  matrix = np.array(
    [
      [scale[0], 0, 63.5 * (1 - scale[0]) + move[0]],
      [0, scale[1], 47.5 * (1 - scale[1]) + move[1]],
    ]
  )
  theirs = cv2.warpAffine(image, matrix, (128, 96))
  taps = [
    warp.linear_taps(
      warp.affine_positions(
        size, *warp.scale_about_centre(size, jnp.float32(s), jnp.float32(m))
      )
    )
    for size, s, m in ((96, scale[1], move[1]), (128, scale[0], move[0]))
  ]
  ours = warp.resample(jnp.float32(image), *taps, gather=False)
  assert np.abs(np.asarray(ours) - theirs).mean() < 0.6


@pytest.mark.parametrize('margin', [5, 24])
def test_crop_and_resize_gives_the_original_bytes(arrays, margin):
  face = jnp.moveaxis(jnp.float32(arrays['face']), -1, 0)[None]
  ours = blending.crop_and_resize(face, jnp.int32(margin), 224, gather=False)
  ours = np.moveaxis(np.asarray(ours[0]), 0, -1)[40:140, 30:130]
  assert (ours != arrays[f'warp/m{margin}/img224']).mean() < 0.005


@pytest.mark.parametrize('margin', [5, 24])
@pytest.mark.parametrize('num_cells', [14, 28])
def test_target_grid_gives_the_original_levels(arrays, margin, num_cells):
  boundary = jnp.float32(arrays['blend/3/boundary_u8'])[None]
  ours = targets.boundary_cells(
    boundary,
    jnp.int32(margin),
    image_size=224,
    patch_size=224 // num_cells,
    grid='point',
  )
  np.testing.assert_array_equal(
    ours[0], arrays[f'warp/m{margin}/target{num_cells}']
  )


def original_noise(seed):
  state = np.random.RandomState(seed)
  state.uniform(-1, 1, 6)  # three points of an affine map that stays put
  return np.stack([state.rand(256, 256) * 2 - 1 for _ in range(2)])


@pytest.mark.parametrize('gather', [True, False])
@pytest.mark.parametrize('seed', [0, 1, 7090])
def test_elastic_field_and_mask_are_the_original_ones(arrays, seed, gather):
  noise = jnp.float32(original_noise(seed))
  field = warp.elastic_field(noise, sigma=7.0, alpha=50.0)
  np.testing.assert_allclose(
    field[:, ::8, ::8],
    [arrays[f'elastic/{seed}/dx'], arrays[f'elastic/{seed}/dy']],
    atol=1e-4,
  )
  bits = arrays['hull/flip0/type3_lm81']
  hull = jnp.asarray(np.unpackbits(bits).reshape(1, 256, 256) > 0)
  moved = warp.displace(hull, field, reach=9, gather=gather)[0]
  theirs = np.unpackbits(arrays[f'elastic/{seed}/mask_out']).reshape(256, 256)
  assert (np.asarray(moved) != theirs).sum() <= 2


def test_elastic_field_is_scipys_filter_at_other_sizes():
  noise = np.random.default_rng(0).uniform(-1, 1, (2, 40, 72))
  ours = warp.elastic_field(jnp.float32(noise), sigma=9.0, alpha=30.0)
  theirs = [scipy.ndimage.gaussian_filter(axis, 9.0) * 30 for axis in noise]
  np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_displacements_stay_within_the_stated_reach():
  reach = warp.elastic_reach(7.0, 50.0)
  noise = jax.random.uniform(jax.random.key(0), (64, 256, 256), minval=-1.0)
  fields = [
    warp.elastic_field(noise[i : i + 2], sigma=7.0, alpha=50.0)
    for i in range(0, 64, 2)
  ]
  assert reach == 9
  assert max(float(jnp.abs(field).max()) for field in fields) < reach


def test_a_field_that_leaves_the_packed_bits_is_refused():
  with pytest.raises(ValueError, match='elastic_alpha'):
    warp.elastic_reach(3.0, 200.0)


@pytest.mark.parametrize('gather', [True, False])
def test_displace_looks_up_the_nearest_pixel_and_mirrors_borders(gather):
  rng = np.random.default_rng(0)
  mask = rng.random((11, 20, 24)) < 0.5  # more than the bits of a byte
  field = rng.uniform(-4.4, 4.4, (2, 20, 24)).astype(np.float32)
  x, y = np.meshgrid(np.arange(24), np.arange(20))
  ours = warp.displace(
    jnp.asarray(mask), jnp.asarray(field), reach=5, gather=gather
  )
  x = np.rint(x + field[0]).astype(int)
  y = np.rint(y + field[1]).astype(int)
  x, y = np.abs(x), np.abs(y)
  x, y = np.where(x > 23, 46 - x, x), np.where(y > 19, 38 - y, y)
  np.testing.assert_array_equal(ours, mask[:, y, x])


def test_settle_branches_alone_and_does_nothing_in_a_batch():
  pair = {'mask': jnp.ones((2, 3), bool), 'levels': jnp.arange(2.0)}
  assert 'cond' in str(jax.make_jaxpr(warp.settle)(pair))
  in_a_batch = jax.make_jaxpr(jax.vmap(warp.settle))(pair)
  assert not {'cond', 'select_n'} & {e.primitive.name for e in in_a_batch.eqns}
  for settled in (warp.settle(pair), jax.vmap(warp.settle)(pair)):
    jax.tree.map(np.testing.assert_array_equal, settled, pair)
