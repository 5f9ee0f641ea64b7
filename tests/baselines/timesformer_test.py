"""TimeSformer attends to tubes, then to frames, as published."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_detector import make_detector

from configs import baselines
from stormer_jax import flops, model, steps

T, N, WIDTH, HEADS = 3, 4, 24, 2


def small_config(kind='timesformer', **changes):
  config = baselines.get_config(kind)
  config.model.update(
    {
      'width': WIDTH,
      'depth': 2,
      'num_heads': HEADS,
      'image_size': 32,
      'num_frames': T,
      'dtype': 'float32',
      **changes,
    }
  )
  return config


def clips(num, frames=T):
  rng = np.random.default_rng(1)
  return rng.normal(size=(num, frames, 32, 32, 3)).astype(np.float32)


def score(made, clip):
  # Compiled, as it runs: a compiler may make another number of a network.
  program = functools.partial(steps.score_clips, made.graphdef, alone=False)
  scored = jax.jit(program)(made.params, made.stats, jnp.asarray(clip))
  return scored['logits']


def written_out(params, clip):
  """The logit of one clip in plain NumPy, token by token."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

  def norm(x, w):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * w['scale'] + w['bias']

  def linear(x, w):
    return x @ w['kernel'] + w['bias']

  def attend(x, w):
    q, k, v = np.split(linear(x, w['qkv']), 3, axis=-1)
    heads = []
    for h in range(HEADS):
      part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
      logits = q[:, part] @ k[:, part].T / (WIDTH // HEADS) ** 0.5
      weights = np.exp(logits - logits.max(1, keepdims=True))
      heads.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
    return linear(np.concatenate(heads, 1), w['proj'])

  def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))

  pixels = clip.reshape(T, 2, 16, 2, 16, 3).transpose(0, 1, 3, 2, 4, 5)
  kernel = p['patch_embed']['proj']['kernel'].reshape(-1, WIDTH)
  x = pixels.reshape(T, N, -1) @ kernel + p['patch_embed']['proj']['bias']
  x = x + p['position_embed'][0, 1:] + p['time_embed'][0][:, None]
  token = p['class_token'][0, 0] + p['position_embed'][0, 0]
  for i in range(2):
    w = jax.tree.map(lambda leaf, i=i: leaf[i], p['blocks'])
    for n in range(N):
      seen = attend(norm(x[:, n], w['temporal_norm1']), w['temporal_attn'])
      x[:, n] += linear(seen, w['temporal_fc'])
    said = []
    for t in range(T):
      seen = attend(norm(np.vstack([token, x[t]]), w['norm1']), w['attn'])
      said.append(seen[0])
      x[t] += seen[1:]
    token = token + np.mean(said, axis=0)

    def mlp(x, w=w):
      hidden = gelu(linear(norm(x, w['norm2']), w['mlp']['fc1']))
      return x + linear(hidden, w['mlp']['fc2'])

    x, token = mlp(x), mlp(token)
  return linear(norm(token, p['norm']), p['class_head'])[0]


def test_it_is_divided_attention_written_out():
  made = make_detector(small_config())
  batch = clips(2)
  expected = [written_out(made.params, clip) for clip in batch]
  np.testing.assert_allclose(score(made, batch), expected, atol=1e-4)


def test_the_order_of_the_frames_matters():
  made = make_detector(small_config())
  batch = clips(2)
  there, back = score(made, batch), score(made, batch[:, ::-1])
  assert np.all(np.abs(there - back) > 1e-3)


def test_it_starts_as_a_frame_wise_vit():
  """A fresh start adds nothing for time, so T = 1 is the image ViT."""
  time = make_detector(small_config(num_frames=1))
  frame = make_detector(small_config('frame_vit', num_frames=1))
  params = time.params
  params['time_embed'] *= 0
  for leaf in ('kernel', 'bias'):
    params['blocks']['temporal_fc'][leaf] *= 0
  shared = {
    name: value for name, value in params.items() if name != 'time_embed'
  }
  shared['blocks'] = {
    name: value
    for name, value in params['blocks'].items()
    if not name.startswith('temporal')
  }
  assert jax.tree.structure(shared) == jax.tree.structure(frame.params)
  frame = dataclasses.replace(frame, params=shared)
  batch = clips(2, frames=1)
  np.testing.assert_allclose(
    score(time, batch), score(frame, batch), rtol=1e-5, atol=1e-5
  )


def test_it_has_the_published_number_of_parameters():
  config = baselines.get_config('timesformer')
  config.model.num_frames = 8
  params, _ = jax.eval_shape(steps.make_model(config)[1])
  # Bertasius et al. 2021, Table 1: 121.4 M with the 400 classes of Kinetics.
  number = steps.count_parameters(params) + 399 * 769
  assert number == pytest.approx(121.4e6, rel=2e-3)


def test_the_formula_counts_the_published_multiply_adds():
  config = baselines.get_config('timesformer')
  config.model.num_frames = 8
  forward = flops.forward_flops(model.StormerConfig(**config.model), 1)
  # Bertasius et al. 2021, Table 2: 0.59 T multiply-adds for three crops.
  assert 3 * forward / 2e12 == pytest.approx(0.59, rel=0.02)
