"""A linear probe learns nothing but one weight a feature, and learns it so."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import random_detector

from configs import baselines, small, small_probe
from stormer_jax import kinds, model, optimizer, steps
from stormer_jax.baselines import frame_probe


def small_config():
  config = small_probe.get_config()
  config.model.update(image_size=32)
  return config


def frames(count: int, seed: int = 0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(count, 32, 32, 3)), jnp.float32)


def test_one_weight_a_feature_is_all_that_is_trained():
  made = random_detector.make_detector(small_config())
  shapes = jax.tree.map(lambda x: x.shape, made.params)
  assert shapes == {'class_head': {'kernel': (992, 1), 'bias': (1,)}}
  assert len(made.stats['stem']['blocks']) == frame_probe.NUM_BLOCKS


def test_the_logit_reads_means_and_deviations_of_each_block():
  made = random_detector.make_detector(small_config())
  params, stats = jax.tree.map(jnp.asarray, (made.params, made.stats))
  got = steps.score_clips(
    made.graphdef, params, stats, frames(3)[:, None], alone=False
  )
  probe = nnx.merge(made.graphdef, params, stats)
  probe = nnx.view(probe, use_running_average=True)
  features = []
  for x in probe.stem.outputs_of_blocks(frames(3)):
    x = np.asarray(x, np.float64)
    features += [x.mean(axis=(1, 2)), x.std(axis=(1, 2))]
  z = np.concatenate(features, axis=-1) - np.asarray(
    stats['standardise']['mean']
  )
  z /= np.sqrt(np.asarray(stats['standardise']['var']) + 1e-3)
  want = z @ np.asarray(params['class_head']['kernel'], np.float64)[:, 0]
  want += np.asarray(params['class_head']['bias'])
  np.testing.assert_allclose(got['logits'], want, rtol=1e-3, atol=1e-3)


def test_the_stored_statistics_are_the_means_over_all_batches():
  layer = frame_probe.Standardise(3)
  rng = np.random.default_rng(0)
  batches = rng.normal(2, 3, (5, 8, 3)).astype(np.float32)
  for batch in batches:
    got = layer(jnp.asarray(batch))
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(got.var(axis=0), 1, atol=1e-3)
  np.testing.assert_allclose(
    layer.mean[...], batches.mean(axis=(0, 1)), rtol=1e-5
  )
  np.testing.assert_allclose(
    layer.var[...], batches.var(axis=1).mean(axis=0), rtol=1e-5
  )


def test_training_finds_a_third_of_the_difference_of_means():
  """The diagonal linear discriminant, by the fields of configs/small_probe."""
  config = small_config()
  rng = np.random.default_rng(1)
  true = np.array([0.3, -0.1, 0.0, 0.2], np.float32)
  weights = {'w': jnp.zeros(4)}
  tx = optimizer.make_optimizer(
    np.array([3e-3, 3e-3, 1e-3, 3e-4, 0.0]),
    150,
    b1=config.optimizer.b1,
    b2=config.optimizer.b2,
    eps=config.optimizer.eps,
    weight_decay=config.optimizer.weight_decay,
    decoupled_weight_decay=config.optimizer.decoupled_weight_decay,
    freeze_epochs=0,
  )
  state = tx.init(weights)

  def loss(weights, x, label):
    logits = x @ weights['w'] / config.loss.temperature
    return optax.sigmoid_binary_cross_entropy(logits, label).mean()

  @jax.jit
  def step(weights, state, x, label):
    change, state = tx.update(jax.grad(loss)(weights, x, label), state, weights)
    return optax.apply_updates(weights, change), state

  label = np.repeat([0.0, 1.0], 128).astype(np.float32)
  for _ in range(700):
    x = rng.normal(size=(256, 4)).astype(np.float32)
    x += (label[:, None] - 0.5) * true
    weights, state = step(weights, state, x, label)
  np.testing.assert_allclose(weights['w'], true / 3, atol=0.02)


def test_what_is_left_out_is_not_counted():
  config = small_config().model
  count = frame_probe.FrameProbe.count_multiply_adds(
    model.StormerConfig(**config)
  )
  config.kind, config.stem_frozen_stride = 'frame_cnn', 16
  whole = kinds.choose(model.StormerConfig(**config)).count_multiply_adds(
    model.StormerConfig(**config)
  )
  assert 0 < count < whole


def test_without_convolutions_there_is_one_clear_error():
  config = small_config()
  config.model.stem = 'patch'
  with pytest.raises(ValueError, match=r'model\.stem=efficientnet_lite0'):
    steps.make_model(config)


def test_the_probe_of_the_small_detector_sees_its_pairs_more_damaged():
  cnn, probe = small.get_config(), small_probe.get_config()
  assert cnn.data == probe.data
  differing = {k for k, v in probe.synthesis.items() if v != cnn.synthesis[k]}
  assert differing == {
    'post_blur_prob',
    'post_blur_sigma',
    'jpeg_prob',
    'jpeg_quality',
  }
  alone = baselines.get_config('frame_probe')
  for name in ('loss', 'optimizer'):
    assert alone[name].to_dict() == probe[name].to_dict()
