"""Colour operations and JPEG against the original's bytes and against cv2."""

import functools

import cv2
import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cv2_blending
from data_pipeline.synthesis import photometric


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'synthesis.npz')


def planar(image):
  return jnp.moveaxis(jnp.float32(image), -1, 0)[None]


def packed(image):
  return np.moveaxis(np.asarray(image[0]), 0, -1)


def psnr(ours, theirs):
  """dB over all frames together, of levels 0 to 255."""
  pixels = (
    np.float32(x).reshape(-1, x.shape[-2], x.shape[-1]) / 255
    for x in (ours, theirs)
  )
  return float(dm_pix.psnr(*map(jnp.asarray, pixels)))


OPERATIONS = {
  'rgb_shift': lambda image, p: photometric.rgb_shift(image, p),
  'hsv_shift': lambda image, p: photometric.hsv_shift(image, p),
  'brightness_contrast': lambda image, p: photometric.brightness_contrast(
    image, p[1], p[0] - 1
  ),
  'sharpen': lambda image, p: photometric.sharpen(image, p[0], p[1]),
  'downscale': lambda image, p: photometric.downscale(
    image, (p[0] == 4).astype(int), ratios=(2, 4), gather=False
  ),
  'jpeg': lambda image, p: photometric.jpeg(image, p[0], gather=True),
  'jpeg_by_matrices': lambda image, p: photometric.jpeg(
    image, p[0], gather=False
  ),
}
# Least PSNR in dB and greatest share of bytes that differ.
BARS = {
  'rgb_shift': (99, 0.0),
  'hsv_shift': (80, 0.001),
  'brightness_contrast': (55, 0.08),  # whole products, alpha once more rounded
  'sharpen': (60, 0.05),
  'downscale': (55, 0.15),
  'jpeg': (50, 0.3),
}


@pytest.fixture(scope='module')
def operations():
  return {name: jax.jit(f) for name, f in OPERATIONS.items()}


@pytest.mark.parametrize('case', range(18))
def test_operation_gives_the_original_bytes(arrays, operations, case):
  name = next(
    key.split('/')[2]
    for key in arrays.files
    if key.startswith(f'ops/{case}/') and not key.endswith('params')
  )
  params = jnp.float32(arrays[f'ops/{case}/params'])
  ours = packed(operations[name](planar(arrays['face']), params))
  ours, theirs = ours[64:160, 64:160], arrays[f'ops/{case}/{name}']
  least, share = BARS[name]
  assert psnr(ours, theirs) > least
  assert (ours != theirs).mean() <= share


@pytest.mark.parametrize('jpeg', ['jpeg', 'jpeg_by_matrices'])
@pytest.mark.parametrize('quality', range(40, 101))
def test_jpeg_matches_opencv_at_every_quality(
  arrays, operations, quality, jpeg
):
  image = arrays['face'][64:192, 64:192]
  ours = packed(operations[jpeg](planar(image), jnp.float32([quality])))
  theirs = cv2_blending.jpeg(np.ascontiguousarray(image), quality)
  assert psnr(ours, theirs) > 48


@pytest.mark.parametrize('jpeg', ['jpeg', 'jpeg_by_matrices'])
def test_jpeg_takes_sizes_that_are_no_multiple_of_a_block(
  arrays, operations, jpeg
):
  image = arrays['face'][30:131, 20:151]
  ours = packed(operations[jpeg](planar(image), jnp.float32([75])))
  theirs = cv2_blending.jpeg(np.ascontiguousarray(image), 75)
  assert ours.shape == theirs.shape
  assert psnr(ours, theirs) > 44


def test_hsv_shift_acts_by_its_sign_alone(arrays, operations):
  # METHOD 2.8b: [0, 0.3] changes nothing but the round trip, < 0 takes one.
  image = planar(arrays['face'])
  shift = operations['hsv_shift']
  plain = shift(image, jnp.zeros(3))
  np.testing.assert_array_equal(shift(image, jnp.full(3, 0.29)), plain)
  np.testing.assert_array_equal(
    shift(image, jnp.full(3, -0.01)), shift(image, jnp.full(3, -0.3))
  )
  assert (shift(image, jnp.full(3, -0.1)) != plain).mean() > 0.5


def test_hue_wraps_at_180():
  red = planar(np.full((1, 1, 3), [200, 0, 0]))
  shifted = photometric.hsv_shift(red, jnp.array([-0.1, 0, 0]))
  # Hue 179 is a red with a trace of blue.
  np.testing.assert_array_equal(packed(shifted)[0, 0, :2], [200, 0])
  assert 0 < packed(shifted)[0, 0, 2] < 10


def test_downscale_by_gather_equals_matrices(arrays):
  image = planar(arrays['face'])
  for index in range(2):
    ours = [
      functools.partial(photometric.downscale, ratios=(2, 4), gather=gather)(
        image, jnp.int32(index)
      )
      for gather in (True, False)
    ]
    np.testing.assert_array_equal(*ours)


@pytest.mark.parametrize('value', [0, 255])
def test_flat_images_stay_finite(operations, value):
  image = jnp.full((1, 3, 32, 32), float(value))
  for name, params in [
    ('hsv_shift', [-0.3, -0.3, -0.3]),
    ('sharpen', [0.5, 1.0]),
    ('jpeg', [40.0]),
  ]:
    out = operations[name](image, jnp.float32(params))
    assert jnp.isfinite(out).all()
    assert out.min() >= 0 and out.max() <= 255


@pytest.mark.parametrize('sigma', [0.5, 1.3, 2.0])
def test_a_gaussian_blur_is_that_of_opencv(arrays, sigma):
  image = arrays['face'][30:131, 20:151]
  theirs = cv2.GaussianBlur(
    np.float32(image), (13, 13), sigma, borderType=cv2.BORDER_REFLECT_101
  )
  blur = jax.jit(functools.partial(photometric.gaussian_blur, max_sigma=2.0))
  ours = packed(blur(planar(image), jnp.float32(sigma)))
  # Its own are not rounded.
  assert np.abs(ours - theirs).max() <= 0.5 + 1e-3
