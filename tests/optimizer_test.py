"""Learning rate, Adam with its decay, the frozen start, and SAM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormer_jax import optimizer

B1, B2, EPS, DECAY = 0.9, 0.995, 1e-8, 0.1


def _make(lr_table=(1e-2,), steps_per_epoch=1, freeze_epochs=0, **changes):
  return optimizer.make_optimizer(
    np.asarray(lr_table, np.float64),
    steps_per_epoch,
    b1=B1,
    b2=B2,
    eps=EPS,
    weight_decay=DECAY,
    freeze_epochs=freeze_epochs,
    **{'decoupled_weight_decay': False, **changes},
  )


@pytest.fixture
def params():
  random = np.random.default_rng(0)

  def array(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)

  return {
    'blocks': {'attn': {'kernel': array(2, 3, 4)}},
    'class_token': array(1, 1, 3),
    'class_head': {'kernel': array(3, 1), 'bias': array(1)},
    'map_head': {'conv1': {'bias': array(5)}},
  }


def _gradients(params, step):
  return jax.tree.map(lambda w: jnp.cos(3 * w + step), params)


def _run(tx, params, num_steps, first=0):
  """The parameters after each step."""
  state, update, seen = tx.init(params), jax.jit(tx.update), []
  for step in range(first, first + num_steps):
    updates, state = update(_gradients(params, step), state, params)
    params = optax.apply_updates(params, updates)
    seen.append(params)
  assert update._cache_size() == 1
  return seen


def test_rate_climbs_to_the_peak_and_falls_towards_zero():
  table = optimizer.learning_rate(200, 1e-7, 5e-5, 50)
  assert table.dtype == np.float64 and table.shape == (200,)
  assert table[0] == 1e-7 and table[50] == table.max() == 5e-5
  assert (np.diff(table[:51]) > 0).all() and (np.diff(table[50:]) < 0).all()
  np.testing.assert_allclose(table[199], 5e-5 / 150)


@pytest.mark.parametrize(('num_epochs', 'warmup'), [(1, 0), (3, 3), (2, 9)])
def test_rate_is_positive_in_short_runs(num_epochs, warmup):
  table = optimizer.learning_rate(num_epochs, 1e-4, 1e-3, warmup)
  assert (table > 0).all() and (table <= 1e-3).all()


def test_a_run_of_no_epochs_is_refused():
  with pytest.raises(ValueError, match='num_epochs=0'):
    optimizer.learning_rate(0, 1e-7, 5e-5, 0)


@pytest.mark.parametrize('decoupled', [False, True])
def test_adam_equals_a_numpy_rewrite(params, decoupled):
  tx = _make([1e-2, 2e-3], 2, decoupled_weight_decay=decoupled)
  w = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  mean = jax.tree.map(np.zeros_like, w)
  square = jax.tree.map(np.zeros_like, w)
  for step, ours in enumerate(_run(tx, params, 5)):
    lr = [1e-2, 1e-2, 2e-3, 2e-3, 2e-3][step]  # the last rate goes on
    g = jax.tree.map(
      lambda w, step=step: np.cos(3 * w + step) + (not decoupled) * DECAY * w, w
    )
    mean = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, mean, g)
    square = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g**2, square, g)

    def move(w, m, v, lr=lr, count=step + 1):
      root = np.sqrt(v / (1 - B2**count)) + EPS
      return w - lr * (m / (1 - B1**count) / root + decoupled * DECAY * w)

    w = jax.tree.map(move, w, mean, square)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      ours,
      w,
    )


def test_the_backbone_stands_still_until_its_epoch_then_starts_afresh(params):
  table = [1e-2, 5e-3]
  # Two epochs of three steps, the first frozen.
  frozen = _run(_make(table, 3, freeze_epochs=1), params, 6)
  free = _run(_make(table, 3), params, 6)
  for seen in frozen[:3]:
    jax.tree.map(
      np.testing.assert_array_equal, seen['blocks'], params['blocks']
    )
    np.testing.assert_array_equal(seen['class_token'], params['class_token'])
  for name in ('class_head', 'map_head'):  # as if nothing had been frozen
    for seen, expected in zip(frozen, free, strict=True):
      jax.tree.map(np.testing.assert_array_equal, seen[name], expected[name])
  # Moments and step count are those of a run that starts at epoch 1, at the
  # second learning rate.
  late = _run(_make(table[1:], 3), params, 3, first=3)
  for seen, expected in zip(frozen[3:], late, strict=True):
    for name in ('blocks', 'class_token'):
      jax.tree.map(np.testing.assert_array_equal, seen[name], expected[name])


def test_mask_names_what_is_frozen(params):
  mask = jax.jit(optimizer.trainable_mask, static_argnums=2)
  early, late = mask(params, 5, 6), mask(params, 6, 6)
  assert jax.tree.structure(early) == jax.tree.structure(params)
  assert early['blocks']['attn']['kernel'] == early['class_token'] == 0
  assert all(jax.tree.leaves([early['class_head'], early['map_head']]))
  assert all(jax.tree.leaves(late))


def _bowl(params, stats):
  """A quartic whose statistics tell where it was evaluated, and how often."""
  loss = sum(jnp.sum(w**4) for w in jax.tree.leaves(params)) / 4
  new_stats = {
    'count': stats['count'] + 1,
    'sum': stats['sum'] + params['class_head']['bias'],
  }
  return loss, ({'total': loss}, new_stats)


_STATS = {'count': jnp.zeros((), jnp.int32), 'sum': jnp.zeros(1)}


def _sam(params, **changes):
  return optimizer.sam_gradients(
    _bowl,
    params,
    _STATS,
    **{'rho': 0.05, 'batch_stats': 'first_pass', **changes},
  )


@pytest.mark.parametrize('loop', [False, True])
def test_sam_takes_the_gradient_at_the_end_of_a_step_of_length_rho(
  params, loop
):
  gradients, _, loss, terms = _sam(params, loop=loop)
  first = jax.tree.map(lambda w: w**3, params)
  norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(first)))
  jax.tree.map(
    lambda g, w, f: np.testing.assert_allclose(
      g, (w + 0.05 * f / norm) ** 3, rtol=1e-5, atol=1e-7
    ),
    gradients,
    params,
    first,
  )
  np.testing.assert_allclose(loss, _bowl(params, _STATS)[0])
  assert terms['total'] == loss


def test_frozen_parameters_neither_enter_the_norm_nor_move(params):
  step = jax.jit(
    lambda step: _sam(
      params, trainable=optimizer.trainable_mask(params, step, 1)
    )
  )
  gradients, _, _, _ = step(0)
  heads = {name: params[name] for name in ('class_head', 'map_head')}
  first = jax.tree.map(lambda w: w**3, heads)
  norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(first)))
  for name in heads:
    jax.tree.map(
      lambda g, w: np.testing.assert_allclose(
        g, (w + 0.05 * w**3 / norm) ** 3, rtol=1e-5, atol=1e-7
      ),
      gradients[name],
      heads[name],
    )
  assert not any(x.any() for x in jax.tree.leaves(gradients['blocks']))
  assert not gradients['class_token'].any()
  jax.tree.map(np.testing.assert_array_equal, step(1)[0], _sam(params)[0])
  assert step._cache_size() == 1


def test_a_nan_in_a_frozen_part_does_not_reach_the_others(params):
  poisoned = {**params, 'class_token': jnp.full((1, 1, 3), jnp.nan)}
  mask = optimizer.trainable_mask(params, jnp.zeros((), int), 1)
  gradients, _, _, _ = _sam(poisoned, trainable=mask)
  assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
  ('batch_stats', 'passes', 'loop'),
  [
    ('first_pass', 1, False),
    ('both_passes', 2, False),
    ('both_passes', 2, True),
  ],
)
def test_statistics_come_from_the_passes_asked_for(
  params, batch_stats, passes, loop
):
  _, stats, _, _ = _sam(params, batch_stats=batch_stats, loop=loop)
  assert stats['count'] == passes
  at_w = params['class_head']['bias']
  # The second pass adds what it saw at w + e, not at w.
  assert jnp.allclose(stats['sum'], passes * at_w) == (passes == 1)


def test_without_a_radius_sam_is_one_plain_pass(params):
  gradients, stats, _, _ = _sam(params, rho=0.0, batch_stats='both_passes')
  jax.tree.map(
    lambda g, w: np.testing.assert_allclose(g, w**3, rtol=1e-5),
    gradients,
    params,
  )
  assert stats['count'] == 1


@pytest.mark.parametrize('rho', [0.0, 0.05])
def test_micro_batches_give_the_gradient_of_the_whole_batch(params, rho):
  weights = jnp.arange(1.0, 7.0)

  def loss_fn(params, stats, weights):
    loss, (_, stats) = _bowl(params, stats)
    # A loss that is a mean over the batch, and not the same for all of it.
    return loss * weights.mean(), ({'total': loss * weights.mean()}, stats)

  whole = optimizer.sam_gradients(
    functools.partial(loss_fn, weights=weights),
    params,
    _STATS,
    rho=rho,
    batch_stats='both_passes',
  )
  cut = optimizer.sam_gradients(
    loss_fn,
    params,
    _STATS,
    rho=rho,
    batch_stats='both_passes',
    micro_batches=weights.reshape(3, 2),
  )
  for ours, theirs in zip(
    jax.tree.leaves((cut[0], cut[2:])),
    jax.tree.leaves((whole[0], whole[2:])),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  assert cut[1]['count'] == 3 * whole[1]['count']  # one after the other


def test_unknown_passes_are_refused(params):
  with pytest.raises(ValueError, match='first_pass or both_passes'):
    optimizer.sam_gradients(
      _bowl, params, _STATS, rho=0.1, batch_stats='second_pass'
    )


def test_average_moves_by_what_decay_leaves(params):
  zeros = jax.tree.map(jnp.zeros_like, params)
  average = optimizer.ema_update(zeros, params, 0.75)
  jax.tree.map(
    lambda a, w: np.testing.assert_allclose(a, w / 4, rtol=1e-6),
    average,
    params,
  )
