"""The stem is EfficientNet-Lite0, and a hybrid's tokens are its features."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import lite_weights
import numpy as np
import pytest

from configs import tiny
from data_pipeline import pipeline
from stormer_jax import model, stem
from stormer_jax.weights import stem_weights


@functools.cache
def parts(stride, statistics, frozen_stride=0):
  """Static half, parameters and statistics of a stem with made-up weights."""
  made = nnx.eval_shape(
    lambda: stem.EfficientNetLite(
      stride,
      statistics,
      'float32',
      frozen_stride=frozen_stride,
      rngs=nnx.Rngs(0),
    )
  )
  graphdef, *trees = nnx.split(made, nnx.Param, ...)
  zeros = [
    jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nnx.to_pure_dict(tree))
    for tree in trees
  ]
  params, stats = stem_weights.init_stem(
    *({'patch_embed': {'stem': tree}} for tree in zeros), lite_weights.make()
  )
  params, stats = jax.tree.map(jnp.asarray, (params, stats))
  return graphdef, params['patch_embed']['stem'], stats['patch_embed']['stem']


def features(stride, frames, statistics='frozen', train=False, frozen_stride=0):
  graphdef, params, stats = parts(stride, statistics, frozen_stride)
  net = nnx.merge(graphdef, nnx.State(params), nnx.State(stats), copy=True)
  net.train() if train else net.eval()
  return net(frames), nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))


def test_what_is_frozen_is_no_parameter_and_gives_the_same_features(frames):
  _, all_params, _ = parts(8, 'batch')
  _, params, before = parts(8, 'batch', 4)
  assert sorted(all_params['blocks']) == [0, 1, 2, 3, 4]
  assert 'conv' not in params and sorted(params['blocks']) == [3, 4]
  ours, _ = features(8, frames, 'batch', frozen_stride=4)
  np.testing.assert_array_equal(ours, features(8, frames, 'batch')[0])
  # In training nothing of it moves, and what follows sees the batch.
  ours, after = features(8, frames, 'batch', train=True, frozen_stride=4)
  jax.tree.map(
    np.testing.assert_array_equal,
    [after['conv'], after['blocks'][2]],
    [before['conv'], before['blocks'][2]],
  )
  assert (
    after['blocks'][3]['project']['mean']
    != before['blocks'][3]['project']['mean']
  ).any()
  with pytest.raises(ValueError, match=r'model\.stem_frozen_stride is 5'):
    dataclasses.replace(hybrid(), stem_frozen_stride=5)


def normalised(levels):
  """8-bit frames as the pipeline gives them to a detector."""
  levels = jnp.asarray(np.moveaxis(levels, -1, -3), jnp.float32)
  return pipeline.normalize(levels)


@pytest.fixture(scope='module')
def frames():
  random = np.random.default_rng(0)
  return normalised(random.integers(0, 256, (3, 32, 32, 3)))


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_features_are_those_that_pytorch_computed(golden, stride):
  with np.load(golden / 'lite0.npz') as arrays:
    levels, expected = arrays['frames'], arrays[f'stride{stride}']
  got, _ = features(stride, normalised(levels))
  assert np.abs(got - expected).max() < 1e-4
  assert np.abs(expected).max() > 10


@pytest.mark.parametrize(('stride', 'train'), [(32, False), (8, True)])
def test_the_compiled_stem_gives_what_the_single_operations_give(
  frames, stride, train
):
  """jax 0.10 on CPU computes one pattern wrongly under jit alone."""
  run = functools.partial(features, stride, statistics='batch', train=train)
  for a, b in zip(
    jax.tree.leaves(run(frames)),
    jax.tree.leaves(jax.jit(run)(frames)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_frozen_statistics_stay_and_keep_frames_apart(frames):
  alone, _ = features(16, frames[:1], train=True)
  together, stats = features(16, frames, train=True)
  np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-4)
  for a, b in zip(
    jax.tree.leaves(stats), jax.tree.leaves(parts(16, 'frozen')[2]), strict=True
  ):
    np.testing.assert_array_equal(a, b)


def test_statistics_of_the_batch_normalise_it_and_move_the_stored_ones(frames):
  apart, _ = features(16, frames[:1], 'batch', train=True)
  together, stats = features(16, frames, 'batch', train=True)
  assert np.abs(together[:1] - apart).max() > 0.1
  layer = stem.ConvNorm(
    (1, 1), statistics='batch', dtype='float32', rngs=nnx.Rngs(0)
  )
  layer.kernel[...] = jnp.ones((1, 1))
  x = jnp.arange(4.0).reshape(1, 2, 2, 1)
  y = layer(x, jnp.matmul)
  np.testing.assert_allclose(y.mean(), 0, atol=1e-6)
  np.testing.assert_allclose(y.var(), 1.25 / 1.251, rtol=1e-5)
  np.testing.assert_allclose(layer.mean[...], [0.015], rtol=1e-5)
  np.testing.assert_allclose(layer.var[...], [0.99 + 0.0125], rtol=1e-5)
  before = parts(16, 'batch')[2]['conv']['mean']
  assert not np.allclose(stats['conv']['mean'], before)


def test_in_scoring_both_rules_use_the_stored_statistics(frames):
  a, _ = features(16, frames, 'batch')
  b, _ = features(16, frames, 'frozen')
  np.testing.assert_array_equal(a, b)


def test_cut_values_have_the_gradient_of_what_was_kept():
  x = jnp.array([-1.0, 0.5, 5.5, 7.0])
  gradient = jax.grad(lambda x: (stem._relu6(x) * jnp.arange(4)).sum())(x)
  np.testing.assert_array_equal(gradient, [0, 1, 2, 0])


def test_the_stem_knows_the_scale_of_the_pipelines_clips():
  np.testing.assert_array_equal(stem._MEAN, pipeline._MEAN)
  np.testing.assert_array_equal(stem._DEVIATION, pipeline._DEVIATION)


@pytest.mark.parametrize(
  ('stride', 'blocks', 'channels'),
  [(4, 3, 24), (8, 5, 40), (16, 11, 112), (32, 16, 320)],
)
def test_a_stride_takes_all_blocks_of_its_resolution(stride, blocks, channels):
  listed = stem.list_blocks(stride)
  assert (len(listed), listed[-1].channels_out) == (blocks, channels)


def test_the_network_needs_the_published_multiply_adds():
  """407 million, counted with the classifier and more than convolutions."""
  head = 7 * 7 * 320 * 1280 + 1280 * 1000
  total = stem.count_multiply_adds(224, 32) + head
  assert total == pytest.approx(407e6, rel=0.06)


def hybrid(**changes):
  config = tiny.get_config()
  config.model.update(stem='efficientnet_lite0', image_size=32, **changes)
  return model.StormerConfig(**config.model)


def test_a_hybrid_has_one_token_for_each_place_of_the_stems_features():
  for patch_size, grid in ((8, 4), (16, 2), (32, 1)):
    config = hybrid(patch_size=patch_size)
    detector = nnx.eval_shape(
      lambda config=config: model.Stormer(config, rngs=nnx.Rngs(0))
    )
    assert detector.position_embed.shape == (1, 1 + grid**2, config.width)
    kernel = detector.patch_embed.proj.kernel
    channels = stem.list_blocks(patch_size)[-1].channels_out
    assert kernel.shape == (1, 1, channels, config.width)


def test_a_stride_that_the_network_has_not_is_refused():
  with pytest.raises(ValueError, match=r'model.patch_size is 2.*one of \(4, 8'):
    hybrid(patch_size=2)
  with pytest.raises(ValueError, match=r'model\.stem is'):
    dataclasses.replace(hybrid(), stem='resnet')
  with pytest.raises(ValueError, match=r'model\.stem_statistics is'):
    dataclasses.replace(hybrid(), stem_statistics='running')
