"""Hulls against cv2, softened masks against the original, boundary map."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cv2_blending
from data_pipeline import landmarks as landmarks_lib
from data_pipeline.synthesis import masks


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'synthesis.npz')


@pytest.fixture(scope='module')
def fill():
  grid = jnp.arange(256.0)
  return jax.jit(
    functools.partial(masks.hull_mask, rows=grid, columns=grid, gather=True)
  )


def overlap(ours, theirs):
  axes = (-2, -1)
  union = np.maximum((ours | theirs).sum(axes), 1)
  return (ours & theirs).sum(axes) / union


def reference_hull(points, hull_type, first_68):
  class Params:
    pass

  Params.hull_type, Params.first_68 = hull_type, first_68
  return cv2_blending.fill_hull(points, Params, (256, 256)) > 0


@pytest.mark.parametrize('hull_type', range(4))
@pytest.mark.parametrize('num_points', [68, 81])
def test_hull_is_the_original_one(arrays, fill, hull_type, num_points):
  points = jnp.float32(arrays['lm81_reordered'])[None]
  ours = fill(points, jnp.int32(hull_type), jnp.bool_(num_points == 68))[0]
  bits = arrays[f'hull/flip0/type{hull_type}_lm{num_points}']
  theirs = np.unpackbits(bits).reshape(256, 256) > 0
  assert overlap(np.asarray(ours), theirs) > 0.9993


@pytest.mark.parametrize('hull_type', range(4))
def test_hulls_of_real_landmarks_match_opencv(golden, fill, hull_type):
  # 1,000 sets over the four types: median IoU 0.999, minimum 0.995.
  sets = np.load(golden / 'landmarks.npz')['tenths'][hull_type::4] / 10
  points = landmarks_lib.reorder_forehead(jnp.float32(sets))
  ious = []
  for start in range(0, len(points), 50):
    chunk = points[start : start + 50]
    ours = fill(chunk, jnp.int32(hull_type), jnp.bool_(False))
    theirs = [reference_hull(np.asarray(p), hull_type, False) for p in chunk]
    ious.append(overlap(np.asarray(ours), np.stack(theirs)))
  ious = np.concatenate(ious)
  assert len(ious) == 250
  assert np.median(ious) >= 0.999
  assert ious.min() >= 0.995


def test_hulls_for_lip_sync_leave_the_eyes_alone(golden, fill):
  sets = np.load(golden / 'landmarks.npz')['tenths'][:50] / 10
  points = landmarks_lib.reorder_forehead(jnp.float32(sets))
  face, lower, mouth = (
    np.asarray(fill(points, jnp.int32(hull_type), jnp.bool_(True)))
    for hull_type in (3, 4, 5)
  )
  assert not (mouth & ~lower).any() and not (lower & ~face).any()
  for mask, least, most in ((lower, 0.4, 0.8), (mouth, 0.1, 0.5)):
    share = mask.sum((1, 2)) / face.sum((1, 2))
    assert least < share.min() and share.max() < most, (
      share.min(),
      share.max(),
    )
  for frame, (x, y) in enumerate(np.asarray(points)[:, 36:48].mean(1)):
    assert not lower[frame, round(float(y)), round(float(x))]


def test_hull_of_points_far_outside_is_cut_at_the_image(fill):
  rng = np.random.default_rng(0)
  points = rng.uniform(-150, 400, (81, 2)).astype(np.float32)
  ours = fill(jnp.asarray(points)[None], jnp.int32(3), jnp.bool_(False))[0]
  assert overlap(np.asarray(ours), reference_hull(points, 3, False)) > 0.999


@pytest.mark.parametrize('hull_type', range(4))
def test_collapsed_landmarks_fill_one_pixel(fill, hull_type):
  points = jnp.full((1, 81, 2), 50.0)
  mask = fill(points, jnp.int32(hull_type), jnp.bool_(False))
  assert mask.sum() == 1 and bool(mask[0, 50, 50])


def test_landmarks_on_a_line_fill_the_line(fill):
  points = jnp.stack([jnp.arange(81.0), jnp.arange(81.0)], axis=-1)[None]
  mask = fill(points, jnp.int32(3), jnp.bool_(False))[0]
  np.testing.assert_array_equal(
    mask, np.diag(np.r_[np.ones(81), np.zeros(175)]) > 0
  )


@pytest.fixture(scope='module', params=[True, False])
def soften(request):
  return jax.jit(
    functools.partial(
      masks.soften,
      size_bounds=((204, 319), (204, 319)),
      max_kernel=25,
      gather=request.param,
    )
  )


@pytest.mark.parametrize('case', [0, 2, 3, 6, 8])
def test_softened_mask_is_the_original_one(arrays, soften, case):
  bits = arrays[f'blend/{case}/mask_in']
  mask = np.unpackbits(bits).reshape(1, 256, 256) > 0
  *sizes, sigma = arrays[f'blend/{case}/params']
  ours = soften(jnp.asarray(mask), *map(jnp.int32, sizes), jnp.float32(sigma))
  theirs = arrays[f'blend/{case}/mask_out'] / 65535
  # The original's threshold is one rounding away from its blur's maximum.
  assert np.abs(ours[0] - theirs).mean() < 2e-4
  boundary = np.floor(255 * np.asarray(masks.boundary_map(ours[0])))
  difference = np.abs(boundary - arrays[f'blend/{case}/boundary_u8'])
  assert difference.mean() < 0.1


@pytest.mark.parametrize('value', [False, True])
def test_flat_masks_stay_flat(soften, value):
  mask = jnp.full((2, 256, 256), value)
  sizes = map(jnp.int32, (210, 300, 25, 13))
  ours = soften(mask, *sizes, jnp.float32(20))
  np.testing.assert_allclose(ours, float(value), atol=1e-6)


def test_softening_reaches_every_odd_kernel_and_size(soften):
  # Against cv2 step by step, over the corners of the ranges.
  mask = np.zeros((256, 256), np.float32)
  cv2.ellipse(mask, (120, 140), (60, 90), 0, 0, 360, 1.0, -1)

  class Params:
    pass

  for size_h, size_w, kernel_1, kernel_2, sigma in [
    (204, 319, 5, 25, 45),
    (319, 204, 25, 5, 5),
    (256, 256, 7, 7, 5),
    (251, 263, 15, 21, 9),
  ]:
    Params.mask_size = (size_h, size_w)
    Params.kernel_1, Params.kernel_2, Params.sigma = kernel_1, kernel_2, sigma
    theirs = cv2_blending.soften(mask, Params)
    sizes = map(jnp.int32, (size_h, size_w, kernel_1, kernel_2))
    ours = soften(jnp.asarray(mask)[None] > 0, *sizes, jnp.float32(sigma))
    assert np.abs(ours[0] - theirs).mean() < 0.002


def test_boundary_peaks_at_one_half_and_is_zero_where_the_mask_is_flat():
  boundary = masks.boundary_map(jnp.array([[0.0, 0.25, 0.5, 1.0]]))
  np.testing.assert_allclose(boundary, [[0, 0.75, 1, 0]])
