"""What is hidden stays hidden, and what is said of it comes from the rest."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_compile
from random_detector import make_detector

from configs import mae_faces
from stormer_jax import flops, model, steps
from stormer_jax.pretraining import masked_autoencoder, reconstruction

GRID, T = 4, 3


def small_config(masking='frame', **changes):
  config = mae_faces.get_config(masking)
  config.model.update(
    {
      'width': 24,
      'depth': 2,
      'num_heads': 2,
      'image_size': 16 * GRID,
      'num_frames': T,
      'dtype': 'float32',
      'mae_mask_ratio': 0.75,
      'mae_decoder_width': 16,
      'mae_decoder_depth': 1,
      'mae_decoder_heads': 2,
      **changes,
    }
  )
  return config


@functools.cache
def program(masking, **changes):
  """A function (params, clips, seeds) -> what is said, and random params."""
  made = make_detector(small_config(masking, **changes))

  def forward(params, clip, seeds):
    autoencoder = steps.merge(made.graphdef, params, made.stats)
    autoencoder.eval()
    return autoencoder(clip, seeds)

  jitted = jax.jit(forward, compiler_options=quick_compile.OPTIONS)
  return jitted, made.params


def apply(masking, clip, seeds):
  jitted, params = program(masking)
  return jitted(params, jnp.asarray(clip), jnp.array(seeds, jnp.uint32))


def clips(num):
  rng = np.random.default_rng(1)
  size = 16 * GRID
  return rng.normal(size=(num, T, size, size, 3)).astype(np.float32)


def repaint(clip, patches):
  """Other pixels where `patches` [b, t, n] is 1."""
  grid = np.asarray(patches).reshape(*patches.shape[:2], GRID, GRID)
  where = grid.repeat(16, 2).repeat(16, 3)[..., None]
  return np.where(where > 0, clips(2)[::-1, :, ::-1], clip)


@pytest.mark.parametrize('masking', mae_faces.MASKINGS)
def test_what_is_hidden_is_not_looked_at(masking):
  clip, seeds = clips(2), [3, 4]
  said = apply(masking, clip, seeds)
  assert said.pixels.shape == (2, T, GRID**2, 16 * 16 * 3)
  np.testing.assert_array_equal(said.hidden.sum(axis=-1), 12)  # 0.75 of 16
  other = apply(masking, repaint(clip, said.hidden), seeds)
  np.testing.assert_array_equal(said.pixels, other.pixels)
  shown = apply(masking, repaint(clip, 1 - said.hidden), seeds)
  changed = np.abs(said.pixels - shown.pixels).max(axis=-1)
  assert changed.min() > 1e-4  # every patch is told from what is shown


def test_frames_are_images_and_tubes_are_clips():
  """One frame's shown patches repainted: which frames are then filled anew."""
  seeds = [3, 4]
  for masking, expected in (('frame', [0, 0]), ('tube', [1, 1])):
    said = apply(masking, clips(2), seeds)
    first = np.array(said.hidden)
    first[:, 1:] = 1  # of the first frame alone
    said_after = apply(masking, repaint(clips(2), 1 - first), seeds)
    moved = np.abs(said.pixels - said_after.pixels).max(axis=(0, 2, 3)) > 1e-5
    assert moved.tolist() == [True, *map(bool, expected)]
    same = np.ptp(np.asarray(said.hidden), axis=1).max() == 0
    assert same == (masking == 'tube')


def test_masks_are_of_the_seed_and_not_of_the_batch():
  said = apply('frame', clips(2), [3, 4])
  alone = apply('frame', clips(2)[1:], [4])
  np.testing.assert_array_equal(said.hidden[1:], alone.hidden)
  np.testing.assert_allclose(said.pixels[1:], alone.pixels, atol=1e-5)
  assert np.any(said.hidden[0] != said.hidden[1])
  # Over many seeds every place is hidden as often as the next.
  config = model.StormerConfig(**small_config().model)
  order = masked_autoencoder._draw_order(
    jnp.arange(1000, dtype=jnp.uint32), config
  )
  shown = np.bincount(np.asarray(order[:, :4]).ravel(), minlength=16) / 3000
  assert np.all(np.abs(shown - 0.25) < 0.04)


def test_what_is_said_of_a_place_stands_at_that_place():
  """Places alone are told: the head's answer is the decoder's own places."""
  jitted, params = program('frame', mae_decoder_width=24)
  params = jax.tree.map(np.zeros_like, params)
  params['decoder_norm']['scale'] += 1
  params['decoder_head']['kernel'][:24, :24] = np.eye(24)
  seeds = jnp.array([3, 4], jnp.uint32)
  said = jitted(params, jnp.asarray(clips(2)), seeds).pixels[..., :24]
  places = masked_autoencoder.sincos_places(GRID, 24)
  places = places - places.mean(axis=1, keepdims=True)
  places /= places.std(axis=1, keepdims=True)
  for clip in range(2):
    for frame in range(T):
      np.testing.assert_allclose(said[clip, frame], places, atol=1e-4)


def test_fixed_places_are_those_of_mae():
  """Its first place, and the waves of a row that it steps along."""
  places = masked_autoencoder.sincos_places(3, 8)
  np.testing.assert_allclose(places[0], [0, 0, 1, 1, 0, 0, 1, 1], atol=1e-7)
  np.testing.assert_allclose(  # row 1, column 2: columns first
    places[5],
    [
      *(np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)),
      *(np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)),
    ],
    rtol=1e-5,
  )


@pytest.mark.parametrize('masking', mae_faces.MASKINGS)
def test_the_formula_agrees_with_the_compiler(masking):
  """To 4 %: XLA counts norms, softmax and fixed places too.

  The blocks are unrolled: it counts the body of a loop once.
  """
  config = small_config(
    masking, width=192, mae_decoder_width=96, scan_layers=False
  )
  made_config = model.StormerConfig(**config.model)
  graphdef, init = steps.make_model(config)

  def forward(params, stats, clip):
    autoencoder = steps.merge(graphdef, params, stats)
    autoencoder.eval()
    return autoencoder(clip)

  clip = jax.ShapeDtypeStruct((2, T, 64, 64, 3), np.float32)
  lowered = jax.jit(forward).lower(*jax.eval_shape(init), clip)
  np.testing.assert_allclose(
    flops.forward_flops(made_config, 2),
    lowered.cost_analysis()['flops'],
    rtol=0.04,
  )


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'mae_mask_ratio': 0.98},
      r'mae_mask_ratio is 0\.98: 0 of the 16',
    ),
    ({'mae_mask_ratio': 0.0}, '16 of the 16 patches'),
    ({'mae_decoder_heads': 3}, 'mae_decoder_width is 16.*mae_decoder_heads, 3'),
    ({'mae_decoder_depth': 0}, 'mae_decoder_depth is 0; at least 1'),
    ({'stem': 'efficientnet_lite0'}, r'set model\.stem=patch'),
    ({'mae_masking': 'clip'}, "mae_masking is 'clip'"),
  ],
)
def test_what_cannot_be_hidden_is_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    steps.make_model(small_config(**changes))


def test_the_error_is_of_hidden_patches_alone():
  config = model.StormerConfig(**small_config().model)
  clip = jnp.asarray(clips(2))
  wanted = reconstruction.targets(clip, config)
  np.testing.assert_allclose(wanted.mean(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(wanted.var(axis=-1), 1, rtol=1e-3)
  rng = np.random.default_rng(0)
  hidden = jnp.asarray(rng.integers(0, 2, (2, T, GRID**2)), jnp.float32)
  noise = rng.normal(size=wanted.shape).astype(np.float32)
  said = masked_autoencoder.Reconstruction(
    pixels=wanted + (1 - hidden)[..., None] * noise, hidden=hidden
  )
  np.testing.assert_allclose(reconstruction.clip_errors(said, wanted), 0)
  off = said.replace(pixels=wanted + 2 * hidden[..., None])
  np.testing.assert_allclose(
    reconstruction.clip_errors(off, wanted), 4, rtol=1e-5
  )
  # The pixels of a patch, row by row.
  plain = dataclasses.replace(config, mae_normalize_pixels=False)
  patch = reconstruction.targets(clip, plain)[1, 2, 1 * GRID + 3]
  np.testing.assert_array_equal(
    patch.reshape(16, 16, 3), clip[1, 2, 16:32, 48:64]
  )
