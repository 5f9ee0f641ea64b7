"""Adam with L2 decay inside SAM, its learning rate and the frozen start.

Enters: gradients or a loss function, and plain pytrees whose top level names
the parts of the detector. Leaves: updates, or gradients to update with
(METHOD 8). Nothing here branches in Python on the step, so one compiled
training step serves the frozen epochs and the others.
"""

from collections.abc import Callable
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float64, Int
import numpy as np
import optax

Tree = Any  # a pytree of arrays

# All else is the backbone, which can be frozen.
HEADS = ('class_head', 'soft_label_head', 'map_head')


def learning_rate(
  num_epochs: int, init_lr: float, peak_lr: float, warmup_epochs: int
) -> Float64[np.ndarray, ' num_epochs']:
  """Tabulates the rate of each epoch: linear up, then linear down to 0.

  The peak is reached at epoch `warmup_epochs`; 0 would be reached at
  `num_epochs`, one after the last (METHOD 8.3).

  Raises:
    ValueError: If an argument is out of range.
  """
  if num_epochs < 1 or warmup_epochs < 0 or init_lr < 0 or peak_lr < 0:
    raise ValueError(
      f'num_epochs={num_epochs}, warmup_epochs={warmup_epochs}, '
      f'init_lr={init_lr}, peak_lr={peak_lr}: train at least one epoch, and '
      'let nothing be negative'
    )
  epoch = np.arange(num_epochs, dtype=np.float64)
  up = init_lr + (peak_lr - init_lr) * epoch / max(warmup_epochs, 1)
  decay_epochs = max(num_epochs - warmup_epochs, 1)
  down = peak_lr * (1 - (epoch - warmup_epochs) / decay_epochs)
  return np.where(epoch < warmup_epochs, up, down)


def make_optimizer(
  lr_table: Float[np.ndarray, ' num_epochs'],
  steps_per_epoch: int,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  decoupled_weight_decay: bool,
  freeze_epochs: int,
) -> optax.GradientTransformation:
  """Makes Adam with the released code's decay, schedule and frozen start.

  Args:
    lr_table: Learning rate of each epoch; the last holds for ever after.
    steps_per_epoch: Steps that share one entry of the table.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    weight_decay: On every parameter, biases and norms included (METHOD 8.1).
    decoupled_weight_decay: Whether decay goes past the moments, as in AdamW,
      not through them, as an L2 penalty does.
    freeze_epochs: Epochs in which the backbone stands still. Its moments and
      the step count of their bias correction start after them (D22).

  Returns:
    A transformation whose `update` needs the parameters, and whose state
    counts all steps from 0.
  """
  decay = optax.add_decayed_weights(weight_decay)
  adam = optax.scale_by_adam(b1, b2, eps)
  if decoupled_weight_decay:
    direction = optax.chain(adam, decay)
  else:
    direction = optax.chain(decay, adam)

  def schedule(step: Int[Array, '']) -> Float[Array, '']:
    # Put on the device here: a program that closes over a device array reads
    # it back when it is compiled, which `jax.transfer_guard` refuses.
    table = jnp.asarray(lr_table, jnp.float32)
    return table[jnp.minimum(step // steps_per_epoch, len(lr_table) - 1)]

  if freeze_epochs:
    frozen = _frozen_until(freeze_epochs * steps_per_epoch, direction)
    direction = optax.partition(
      {'heads': direction, 'backbone': frozen}, _part_of
    )
  return optax.chain(direction, optax.scale_by_learning_rate(schedule))


def trainable_mask(
  params: Tree, step: Int[Array, ''], freeze_steps: int
) -> Tree:
  """For each leaf, 1.0 if it is trained at `step`, 0.0 if it is frozen."""
  thawed = (jnp.asarray(step) >= freeze_steps).astype(jnp.float32)
  return jax.tree.map(
    lambda part: thawed if part == 'backbone' else jnp.ones(()),
    _part_of(params),
  )


def sam_gradients(
  loss_fn: Callable[..., tuple[Array, tuple[Any, Tree]]],
  params: Tree,
  stats: Tree,
  *,
  rho: float,
  batch_stats: str,
  trainable: Tree | None = None,
  micro_batches: Tree | None = None,
  loop: bool = False,
) -> tuple[Tree, Tree, Float[Array, ''], Any]:
  """Returns the gradient at the worst point within `rho` of the parameters.

  Sharpness-aware minimisation (Foret et al. 2021, Eq. 2-4): the gradient is
  taken at w + rho * g / |g|, where g is the gradient at w.

  Args:
    loss_fn: (params, stats) -> (loss, (terms, new stats), shaped like stats).
    params: Where to start, w.
    stats: BatchNorm statistics and the like; no gradient is taken.
    rho: Radius; 0 gives the plain gradient in one pass.
    batch_stats: Whether the statistics that are returned have seen the
      'first_pass' alone, or 'both_passes' one after the other (D15).
    trainable: Scalars shaped like the tree of parameters, may be traced; a
      leaf with 0 enters neither |g| nor the ascent, and its gradient is 0.
    micro_batches: Tree of arrays [n, ...]; `loss_fn` then takes one of the n
      as its third argument. Each gradient is the mean over all n, loss and
      terms too; statistics pass through them in order. Only one of the n is
      worked on at a time.
    loop: Whether the two passes are a loop in the compiled program, the same
      numbers by half the program. XLA for CPU runs loops slower.

  Returns:
    gradients: At the worst point.
    stats: After the step.
    loss: Of the first pass.
    terms: Of the first pass.

  Raises:
    ValueError: If `batch_stats` is neither of the two.
  """
  if batch_stats not in ('first_pass', 'both_passes'):
    raise ValueError(
      f'optimizer.batch_stats is {batch_stats!r}; it is first_pass or '
      'both_passes'
    )
  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
  if micro_batches is not None:
    value_and_grad = _over_micro_batches(value_and_grad, micro_batches)

  def masked(gradients):
    if trainable is None:
      return gradients
    return jax.tree.map(
      lambda mask, g: jnp.where(mask > 0, g, 0), trainable, gradients
    )

  if rho == 0:
    (loss, (terms, stats)), gradients = value_and_grad(params, stats)
    return masked(gradients), stats, loss, terms

  def one_pass(carry, _):
    gradients, stats = carry
    scale = rho / (optax.tree.norm(gradients) + 1e-12)
    point = jax.tree.map(lambda w, g: w + scale * g, params, gradients)
    (loss, (terms, stats)), gradients = value_and_grad(point, stats)
    return (masked(gradients), stats), (loss, terms, stats)

  # The first pass is at w + 0. As a loop this is half the program. On a TPU a
  # scan over blocks beside its twin would also fill with zeros first what it
  # keeps for the way back, a sixth of the step's cost.
  carry = jax.tree.map(jnp.zeros_like, params), stats
  if loop:
    carry, seen = jax.lax.scan(one_pass, carry, length=2)
    first, second = (jax.tree.map(operator.itemgetter(i), seen) for i in (0, 1))
  else:
    carry, first = one_pass(carry, None)
    carry, second = one_pass(carry, None)
  gradients, _ = carry
  loss, terms, stats = first
  if batch_stats == 'both_passes':
    stats = second[-1]
  return gradients, stats, loss, terms


def _over_micro_batches(value_and_grad: Callable, micro_batches: Tree):
  """Makes (params, stats) -> mean values and gradients, in one loop."""
  num = jax.tree.leaves(micro_batches)[0].shape[0]

  def mean_value_and_grad(params, stats):
    def body(carry, micro_batch):
      stats, sums = carry
      (loss, (terms, stats)), gradients = value_and_grad(
        params, stats, micro_batch
      )
      sums = jax.tree.map(jnp.add, sums, (loss, terms, gradients))
      return (stats, sums), None

    one = jax.tree.map(lambda x: x[0], micro_batches)
    (loss, (terms, _)), gradients = jax.eval_shape(
      value_and_grad, params, stats, one
    )
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), (loss, terms, gradients)
    )
    (stats, sums), _ = jax.lax.scan(body, (stats, zeros), micro_batches)
    loss, terms, gradients = jax.tree.map(lambda x: x / num, sums)
    return (loss, (terms, stats)), gradients

  return mean_value_and_grad


def ema_update(ema: Tree, params: Tree, decay: float) -> Tree:
  """Moves an exponential moving average one step towards the parameters."""
  return optax.incremental_update(params, ema, 1 - decay)


class _FrozenState(NamedTuple):
  step: Int[Array, '']
  inner: Any


def _frozen_until(
  first_step: int, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Makes `inner` give zeros, and keep its state, before `first_step`.

  Selects instead of branching as `optax.conditionally_mask` does, so that the
  update stays one fused loop and the state can be updated in place.
  """

  def init(params):
    return _FrozenState(jnp.zeros((), jnp.int32), inner.init(params))

  def update(gradients, state, params=None):
    thawed = state.step >= first_step
    updates, new_inner = inner.update(gradients, state.inner, params)

    def select(new, old):
      return jnp.where(thawed, new, old)

    return (
      jax.tree.map(lambda u: jnp.where(thawed, u, 0), updates),
      _FrozenState(
        optax.safe_increment(state.step),
        jax.tree.map(select, new_inner, state.inner),
      ),
    )

  return optax.GradientTransformation(init, update)


def _part_of(params: Tree) -> Tree:
  """Names the part, 'heads' or 'backbone', of each leaf."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: 'heads' if path[0].key in HEADS else 'backbone', params
  )
