"""Views of real clips are functions of clip and seed, and blend nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline import pipeline, views


@pytest.fixture(scope='module')
def frames():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (3, 2, 256, 256, 3), np.uint8)


@functools.cache
def program(margin):
  return jax.jit(
    functools.partial(views.make_views, margin=margin, image_size=64)
  )


def make(frames, seeds, flip=0.0, margin=(5, 24)):
  flips = np.full(len(seeds), flip, np.float32)
  return program(margin)(frames, np.array(seeds, np.uint32), flips)


def test_a_view_of_one_margin_is_what_scoring_sees(frames):
  made = make(frames, [1, 2, 3], margin=(15, 15))
  scored = pipeline.eval_clips(jnp.asarray(frames), 15, 64)
  np.testing.assert_allclose(made['clip'], scored, atol=1e-5)


def test_a_view_does_not_depend_on_its_batch_mates(frames):
  together = make(frames, [1, 2, 3])
  alone = make(frames[1:2], [2])
  np.testing.assert_array_equal(together['clip'][1:2], alone['clip'])
  assert together['seed'].tolist() == [1, 2, 3]


def test_seeds_draw_margins_of_the_whole_range():
  # Light grows with the distance from the edge: the corner tells the margin.
  ramp = np.minimum(np.arange(256), 255 - np.arange(256)).astype(np.uint8)
  frames = np.broadcast_to(
    np.minimum(ramp[:, None], ramp)[..., None], (256, 2, 256, 256, 3)
  )
  made = make(frames, range(256), margin=(5, 8))
  corner = made['clip'][:, 0, 0, 0, 0] * 255 * 0.229 + 255 * 0.485
  assert set(np.round(corner).astype(int).tolist()) == {5, 6, 7, 8}


def test_mirroring_turns_all_frames_of_a_clip(frames):
  there = make(frames, [1, 2, 3], flip=0.0)['clip']
  mirrored = make(frames, [1, 2, 3], flip=1.0)['clip']
  np.testing.assert_array_equal(mirrored, there[:, :, :, ::-1])
  some = make(np.repeat(frames[:1], 64, 0), [1] * 32 + [*range(32)], flip=0.5)
  flat = some['clip'].reshape(64, -1)
  assert np.ptp(flat[:32], axis=0).max() == 0  # the seed alone decides
