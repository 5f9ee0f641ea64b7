"""Whole clips against the original and cv2; the laws of the draws."""

import dataclasses
import functools
import types

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cv2_blending
from configs import base
from data_pipeline.synthesis import blending, targets
from tests.synthesis.photometric_test import psnr


@pytest.fixture(scope='module')
def config():
  return blending.SynthesisConfig(**base.get_config().synthesis)


@pytest.fixture(scope='module')
def clips(golden):
  return np.load(golden / 'clips.npz')


@pytest.fixture(scope='module')
def blend(config):
  return jax.jit(
    functools.partial(
      blending.blend_clip, config=config, image_size=224, gather=True
    )
  )


@pytest.fixture(scope='module')
def sample(config):
  def one(seed):
    key = jax.random.key(seed)
    return blending.sample_blend_params(key, config, 256, 256)

  return jax.jit(one)


def as_numpy(params):
  names = [field.name for field in dataclasses.fields(params)]
  values = {name: np.asarray(getattr(params, name)) for name in names}
  return types.SimpleNamespace(**values)


def cells_of(result, params):
  return targets.boundary_cells(
    result.boundary,
    jnp.asarray(params.margin),
    image_size=224,
    patch_size=16,
    grid='point',
  )


@pytest.mark.parametrize('clip', ['clip0', 'clip1'])
def test_a_clip_is_the_original_one(clips, blend, clip):
  state = np.random.RandomState(int(clips[f'{clip}/elastic_seed']))
  state.uniform(-1, 1, 6)
  noise = np.stack([state.rand(256, 256) * 2 - 1 for _ in range(2)])
  fields = dataclasses.fields(blending.BlendParams)
  params = blending.BlendParams(
    noise=jnp.float32(noise),
    **{
      field.name: jnp.asarray(clips[f'{clip}/params/{field.name}'])
      for field in fields
      if field.name != 'noise'
    },
  )
  # Flipped landmarks lie at W - x there, at W - 1 - x here (METHOD D9).
  landmarks = jnp.float32(clips[f'{clip}/landmarks']) - jnp.array([[[1.0, 0]]])
  ours = blend(params, jnp.asarray(clips[f'{clip}/frames']), landmarks)
  hull = np.unpackbits(clips[f'{clip}/hull']).reshape(2, 256, 256) > 0
  union = (ours.hull | hull).sum((1, 2))
  assert ((ours.hull & hull).sum((1, 2)) / union).min() > 0.998
  assert np.abs(ours.mask - clips[f'{clip}/mask'] / 65535).mean() < 1e-3
  for version, name in ((ours.real, 'real'), (ours.pseudo_fake, 'fake')):
    pixels = np.moveaxis(np.asarray(version), 1, -1)
    assert psnr(pixels, clips[f'{clip}/{name}']) > 55
  difference = cells_of(ours, params) - clips[f'{clip}/target14_fake'][:2]
  assert np.abs(difference).mean() / 255 < 0.002


def test_pairs_match_opencv_with_the_same_draws(clips, config, blend, sample):
  # Bars: 45 dB without JPEG, 40 with; SSIM 0.99; mask 0.002; cells 0.003.
  for seed in range(12):
    clip = f'clip{seed % 2}'
    params = sample(np.uint32(seed))
    frames, landmarks = clips[f'{clip}/frames'], clips[f'{clip}/landmarks']
    ours = blend(params, jnp.asarray(frames), jnp.asarray(landmarks))
    theirs = cv2_blending.blend_clip(
      as_numpy(params), frames, landmarks, config, 224, 16
    )
    mask = np.stack([frame['mask'] for frame in theirs])
    assert np.abs(ours.mask - mask).mean() < 0.002
    least = 40 if params.jpeg_on else 45
    for name in ('real', 'pseudo_fake'):
      pixels = np.moveaxis(np.asarray(getattr(ours, name)), 1, -1)
      reference = np.stack([frame[name] for frame in theirs])
      assert psnr(pixels, reference) > least
      images = (jnp.float32(x) / 255 for x in (pixels, reference))
      assert dm_pix.ssim(*images).min() > 0.99
    cells = np.stack([frame['cells'] for frame in theirs])
    assert np.abs(cells_of(ours, params) - cells).mean() / 255 < 0.003


def test_a_given_flip_probability_changes_the_flip_alone(config):
  key = jax.random.key(3)
  unflipped = dataclasses.replace(config, flip_prob=0.0)
  for probability, other in ((0.0, unflipped), (config.flip_prob, config)):
    ours = blending.sample_blend_params(
      key, config, 32, 32, jnp.float32(probability)
    )
    theirs = blending.sample_blend_params(key, other, 32, 32)
    for leaf, other_leaf in zip(
      *map(jax.tree.leaves, (ours, theirs)), strict=True
    ):
      np.testing.assert_array_equal(leaf, other_leaf)


def test_blending_a_clip_with_itself_returns_it(clips, blend, sample):
  params = sample(np.uint32(0)).replace(
    augment_source=jnp.bool_(True),
    rgb_on=jnp.bool_(False),
    hsv=jnp.zeros(3),
    brightness=jnp.float32(0),
    contrast=jnp.float32(0),
    downscale_on=jnp.bool_(False),
    sharpen_alpha=jnp.float32(0),
    translate=jnp.zeros(2),
    scale=jnp.ones(2),
    ratio=jnp.float32(1),
  )
  # Grey survives the round trip through HSV.
  grey = clips['clip0/frames'][..., :1].repeat(3, axis=-1)
  ours = blend(params, jnp.asarray(grey), jnp.asarray(clips['clip0/landmarks']))
  np.testing.assert_array_equal(ours.real, ours.pseudo_fake)
  assert ours.mask.max() == 1


@pytest.mark.parametrize('trouble', ['collapsed', 'outside', 'half', 'black'])
def test_degenerate_input_stays_finite(clips, blend, sample, trouble):
  frames, points = clips['clip0/frames'], clips['clip0/landmarks']
  change = {
    'collapsed': (frames, 0 * points + 100),
    'outside': (frames, points + 1000),
    'half': (frames, points - np.float32([[[128, 0]]])),
    'black': (0 * frames, points),
  }
  frames, points = change[trouble]
  for seed in range(4):
    params = sample(np.uint32(seed)).replace(hull_type=jnp.int32(seed))
    ours = blend(params, jnp.asarray(frames), jnp.asarray(points))
    for leaf in jax.tree.leaves(ours):
      assert np.isfinite(np.asarray(leaf, np.float32)).all()


@pytest.fixture(scope='module')
def draws(config):
  # Little noise: frames of 16 px, with the mask sizes of 256 px.
  assert blending.mask_size_bounds(config, 256) == (204, 319)
  config = dataclasses.replace(config, mask_resize=(204 / 16, 320 / 16))

  def one(seed):
    return blending.sample_blend_params(jax.random.key(seed), config, 16, 16)

  seeds = jnp.arange(20_000, dtype=jnp.uint32)
  return as_numpy(jax.jit(jax.vmap(one))(seeds))


# 20,000 draws; each test has a false alarm rate of about 1e-5 (4.4 sigma, or
# Kolmogorov-Smirnov at 2.47 / sqrt(n)).
@pytest.mark.parametrize(
  ('name', 'probability'),
  [
    ('flip', 0.5),
    ('first_68', 0.25),
    ('augment_source', 0.5),
    ('rgb_on', 0.3),
    ('downscale_on', 0.5),
    ('post_rgb_on', 0.3),
    ('post_hsv_on', 0.3),
    ('post_brightness_contrast_on', 0.3),
    ('jpeg_on', 0.5),
    ('cutout_on', 0.5),
  ],
)
def test_chances_are_those_of_the_method(draws, name, probability):
  count = getattr(draws, name).sum()
  deviation = np.sqrt(20_000 * probability * (1 - probability))
  assert abs(count - 20_000 * probability) < 4.4 * deviation


@pytest.mark.parametrize(
  ('name', 'low', 'high'),
  [
    ('rgb', -20, 20),
    ('hsv', -0.3, 0.3),
    ('brightness', -0.1, 0.1),
    ('contrast', -0.1, 0.1),
    ('sharpen_alpha', 0.2, 0.5),
    ('sharpen_lightness', 0.5, 1.0),
    ('scale', 0.95, 1 / 0.95),
    ('post_rgb', -20, 20),
    ('post_hsv', -0.3, 0.3),
    ('post_brightness', -0.3, 0.3),
    ('post_contrast', -0.3, 0.3),
    ('cutout_threshold', 0.5, 1.0),
  ],
)
def test_real_draws_are_uniform(draws, name, low, high):
  values = getattr(draws, name).reshape(20_000, -1)
  for column in values.T:
    assert_uniform(column, low, high)
  if values.shape[1] > 1:
    correlation = np.corrcoef(values[:, 0], values[:, 1])[0, 1]
    assert abs(correlation) < 4.4 / np.sqrt(20_000)


def test_translation_is_uniform_and_wider_in_x(draws):
  assert_uniform(draws.translate[:, 0], -0.03, 0.03)
  assert_uniform(draws.translate[:, 1], -0.015, 0.015)


def assert_uniform(values, low, high):
  shares = np.sort((values - low) / (high - low))
  assert shares[0] >= -1e-6 and shares[-1] <= 1 + 1e-6
  steps = (np.arange(len(shares)) + 0.5) / len(shares)
  assert np.abs(shares - steps).max() < 2.5 / np.sqrt(len(shares))


@pytest.mark.parametrize(
  ('name', 'values'),
  [
    ('hull_type', range(4)),
    ('downscale_index', range(2)),
    ('kernel_1', range(5, 26, 2)),
    ('kernel_2', range(5, 26, 2)),
    ('sigma', range(5, 46)),
    ('margin', range(5, 25)),
    ('jpeg_quality', range(40, 101)),
    ('mask_size', range(204, 320)),
  ],
)
def test_whole_draws_are_uniform_and_reach_both_ends(draws, name, values):
  for column in getattr(draws, name).reshape(20_000, -1).T:
    found, counts = np.unique(column, return_counts=True)
    np.testing.assert_array_equal(found, list(values))
    expected = 20_000 / len(found)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    freedom = len(found) - 1
    assert chi_square < freedom + 4.4 * np.sqrt(2 * freedom) + 8


def test_elastic_noise_is_uniform_and_independent_of_the_other_draws(draws):
  noise = draws.noise.reshape(20_000, -1)
  assert_uniform(noise[:, 0], -1, 1)
  assert_uniform(noise[0], -1, 1)
  for other in (noise[:, -1], draws.sigma, draws.cutout_threshold):
    correlation = np.corrcoef(noise[:, 0], other)[0, 1]
    assert abs(correlation) < 4.4 / np.sqrt(20_000)


def test_full_strength_is_drawn_half_of_the_time(draws):
  found, counts = np.unique(draws.ratio, return_counts=True)
  np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1.0])
  expected = 20_000 * np.array([1, 1, 1, 3]) / 6
  assert np.sum((counts - expected) ** 2 / expected) < 27


def test_jitter_varies_mask_and_colour_alone(config):
  params = blending.sample_blend_params(jax.random.key(0), config, 32, 32)
  frames = blending.sample_frame_params(
    jax.random.key(1), params, 1.0, 6, config
  )
  for name in ('rgb', 'hsv', 'brightness', 'translate', 'scale', 'noise'):
    assert jnp.std(getattr(frames, name), axis=0).min() > 0
  for name in ('flip', 'hull_type', 'margin', 'post_rgb', 'jpeg_quality'):
    assert (getattr(frames, name) == getattr(params, name)[None]).all()
  none = blending.sample_frame_params(jax.random.key(1), params, 0.0, 6, config)
  np.testing.assert_array_equal(none.noise[3], params.noise)


def test_a_blur_of_both_versions_is_drawn_as_often_as_asked(config):
  blurred = dataclasses.replace(
    config, post_blur_prob=0.5, post_blur_sigma=(1.0, 3.0)
  )
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = functools.partial(blending.sample_post_blur, config=blurred)
  sigma = np.asarray(jax.vmap(draw)(keys))
  assert abs((sigma > 0).mean() - 0.5) < 4.4 * 0.5 / np.sqrt(4000)
  assert_uniform(sigma[sigma > 0], 1.0, 3.0)
  assert blending.sample_post_blur(keys[0], config) is None


def test_a_blur_softens_both_versions_alike(clips, blend, sample):
  params = sample(np.uint32(3)).replace(jpeg_on=jnp.bool_(False))
  clip = (jnp.asarray(clips[f'clip0/{x}']) for x in ('frames', 'landmarks'))
  make = functools.partial(blend, params, *clip)

  def roughness(sigma):
    made = make(post_blur_sigma=jnp.float32(sigma)).clips
    return np.abs(np.diff(np.float32(made), axis=-1)).mean(axis=(1, 2, 3, 4))

  assert (roughness(2.0) < 0.9 * roughness(0.0)).all()
  np.testing.assert_array_equal(
    make(post_blur_sigma=jnp.float32(0)).clips, make().clips
  )


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('mode', 'pmap', 'vmap'),
    ('flip_prob', 1.5, 'probability'),
    ('brightness', (0.2, 0.1), 'least'),
    ('blur_kernel', (4, 25), 'odd'),
    ('hull_probs', (0.5, 0.5, 0.5, 0.5), 'sum'),
  ],
)
def test_nonsense_in_the_configuration_is_named(config, field, value, message):
  with pytest.raises(ValueError, match=message) as error:
    dataclasses.replace(config, **{field: value})
  assert field in str(error.value)
