"""The three losses against a NumPy rewrite, and what must not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormer_jax import losses, model

WEIGHTS = {
  'classification_weight': 0.8,
  'spatial_weight': 100.0,
  'temporal_weight': 0.2,
  'temperature': 2.0,
}


@pytest.fixture
def outputs_and_batch():
  random = np.random.default_rng(0)
  shape = (3, 4, 5, 6)
  outputs = model.Outputs(
    logits=jnp.asarray(random.normal(size=3), jnp.float32),
    soft_label_logits=jnp.asarray(random.normal(size=(3, 4)), jnp.float32),
    vulnerability_map=jnp.asarray(random.normal(size=shape), jnp.float32),
  )
  batch = {
    'label': jnp.array([0.0, 1.0, 1.0]),
    'soft_label': jnp.asarray(random.uniform(size=(3, 4)), jnp.float32),
    'vulnerability_map': jnp.asarray(random.normal(size=shape), jnp.float32),
    'kept': jnp.asarray(random.uniform(size=shape) > 0.2, jnp.float32),
  }
  return outputs, batch


def _cross_entropy(logits, target):
  p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
  target = np.asarray(target, np.float64)
  return -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))


def test_terms_equal_a_numpy_rewrite(outputs_and_batch):
  outputs, batch = outputs_and_batch
  total, terms = losses.three_task_loss(outputs, batch, **WEIGHTS)
  kept = np.asarray(batch['kept'], np.float64)
  error = np.asarray(outputs.vulnerability_map - batch['vulnerability_map'])
  expected = {
    'classification': 0.8 * _cross_entropy(outputs.logits / 2, batch['label']),
    'spatial': 100 * np.sum(kept * error**2) / (2 * kept.size),
    'temporal': 0.2
    * _cross_entropy(outputs.soft_label_logits, batch['soft_label']),
  }
  assert tuple(terms) == losses.TERMS
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-6)
  np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-6)
  assert total == terms['total']


def test_cut_out_patches_have_no_part_in_loss_or_gradient(outputs_and_batch):
  outputs, batch = outputs_and_batch
  cut = batch['kept'] == 0

  def spatial(prediction):
    return losses.spatial_loss(
      prediction, batch['vulnerability_map'], batch['kept']
    )

  prediction = outputs.vulnerability_map
  assert spatial(jnp.where(cut, 1e3, prediction)) == spatial(prediction)
  gradient = jax.grad(spatial)(prediction)
  assert not gradient[cut].any() and gradient[~cut].all()


def test_temperature_softens_classification_alone(outputs_and_batch):
  outputs, batch = outputs_and_batch
  _, soft = losses.three_task_loss(outputs, batch, **WEIGHTS)
  _, sharp = losses.three_task_loss(
    outputs, batch, **{**WEIGHTS, 'temperature': 1.0}
  )
  assert soft['classification'] != sharp['classification']
  assert soft['spatial'] == sharp['spatial']
  assert soft['temporal'] == sharp['temporal']


def test_a_weight_of_zero_silences_its_task(outputs_and_batch):
  outputs, batch = outputs_and_batch
  weights = {**WEIGHTS, 'temporal_weight': 0.0}

  def total(outputs):
    return losses.three_task_loss(outputs, batch, **weights)[0]

  gradient = jax.grad(total)(outputs)
  assert not gradient.soft_label_logits.any()
  assert gradient.logits.all()


def test_extreme_logits_stay_finite():
  logits = jnp.array([-1e4, 1e4])
  loss, gradient = jax.value_and_grad(losses.classification_loss)(
    logits, jnp.array([1.0, 0.0]), 2.0
  )
  assert loss == 5e3
  assert jnp.isfinite(gradient).all()
