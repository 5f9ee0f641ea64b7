"""What happens in one step: the training state, its update, the scoring step.

Enters: a sharded `pipeline.Batch`; clips are [b, t, h, w, 3] float32,
ImageNet-normalised. Leaves: a new `TrainState` and scalar terms. Everything
here is pure and runs under `jax.jit`; the only randomness is
`fold_in(key(seed), step)`, so a resumed run needs nothing but the step.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from einops import rearrange
import flax
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import config_dict
import numpy as np
import optax

from stormer_jax import kinds, losses, model, objectives, optimizer

Tree = Any  # nested dict of arrays


@flax.struct.dataclass
class TrainState:
  """All that a run must remember: arrays, or their abstract or sharded twins.

  Attributes:
    step: Updates done so far.
    params: Parameters, nested dict, float32.
    stats: BatchNorm statistics and tensors carried for the original code.
    opt_state: Moments of Adam.
    ema: Averaged parameters, or None if no average is kept.
    term_sums: Loss terms summed since the last logged step, and the number of
      'steps' summed, so that what is logged does not depend on where a run was
      interrupted.
    skipped: Steps that changed nothing because a term was not finite.
  """

  step: Any  # int32 []
  params: Tree
  stats: Tree
  opt_state: Tree
  ema: Tree | None
  term_sums: dict[str, Any]  # float32 [] each
  skipped: Any  # int32 []


def make_model(config: config_dict.ConfigDict) -> tuple[nnx.GraphDef, Callable]:
  """Returns the model's static half and a function that makes its arrays.

  Args:
    config: The whole configuration; `model`, `loss` and `seed` are read.

  Returns:
    graphdef: Structure for `merge`.
    init: Function of nothing -> (params, stats), nested dicts of arrays.

  Raises:
    ValueError: If there is no such `model.kind`, or a loss has weight for a
      head that it has not.
  """
  model_config = model.StormerConfig(**config.model)
  make = kinds.choose(model_config)
  kinds.check_losses(model_config.kind, dict(config.loss))

  def build():
    detector = make(model_config, rngs=nnx.Rngs(config.seed))
    return nnx.split(detector, nnx.Param, ...)

  graphdef = nnx.eval_shape(build)[0]

  def init() -> tuple[Tree, Tree]:
    _, params, stats = build()
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

  return graphdef, init


def merge(graphdef: nnx.GraphDef, params: Tree, stats: Tree) -> kinds.Model:
  """Builds the module again from its halves; safe inside `jax.grad`."""
  return nnx.merge(graphdef, nnx.State(params), nnx.State(stats), copy=True)


def split_stats(detector: kinds.Model) -> Tree:
  """The non-parameter arrays of a module, as a nested dict."""
  parts: Any = nnx.split(detector, nnx.Param, ...)
  return nnx.to_pure_dict(parts[2])


def learning_rate(config: config_dict.ConfigDict) -> np.ndarray:
  """The run's learning rate of every epoch (METHOD section 8.3)."""
  return optimizer.learning_rate(
    num_epochs=config.train.num_epochs,
    init_lr=config.optimizer.init_lr,
    peak_lr=config.optimizer.peak_lr,
    warmup_epochs=config.optimizer.warmup_epochs,
  )


def make_optimizer(
  config: config_dict.ConfigDict, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Adam with the run's learning-rate table (METHOD section 8)."""
  return optimizer.make_optimizer(
    learning_rate(config),
    steps_per_epoch,
    b1=config.optimizer.b1,
    b2=config.optimizer.b2,
    eps=config.optimizer.eps,
    weight_decay=config.optimizer.weight_decay,
    decoupled_weight_decay=config.optimizer.decoupled_weight_decay,
    freeze_epochs=config.optimizer.freeze_epochs,
  )


def init_state(
  params: Tree,
  stats: Tree,
  tx: optax.GradientTransformation,
  ema_decay: float,
  terms: tuple[str, ...] = losses.TERMS,
) -> TrainState:
  """A state at step 0 around given weights; terms are the objective's."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    stats=stats,
    opt_state=tx.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
    term_sums={name: jnp.zeros(()) for name in (*terms, 'steps')},
    skipped=jnp.zeros((), jnp.int32),
  )


def make_train_step(
  config: config_dict.ConfigDict,
  graphdef: nnx.GraphDef,
  tx: optax.GradientTransformation,
  steps_per_epoch: int,
  platform: str | None = None,
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, dict]]:
  """Returns `train_step(state, batch) -> (state, terms)`, to be jitted.

  `platform` is that of the devices it is compiled for, if not JAX's own.

  `terms` are those of the first SAM pass at this step, with the norm of the
  gradient that the step follows; `terms['mean']` is the mean of the loss terms
  since the last logged step, and `terms['skipped']` the number of steps so far
  that changed nothing.
  """
  seed = config.seed
  objective = objectives.choose(config)
  rho = config.optimizer.rho
  batch_stats = config.optimizer.batch_stats
  ema_decay = config.optimizer.ema_decay
  log_every = config.train.log_every
  skip_nonfinite = config.train.nonfinite == 'skip'
  freeze_steps = config.optimizer.freeze_epochs * steps_per_epoch
  accumulate = config.train.accumulate
  # In a loop XLA for CPU takes half as long again for a step of the demo.
  loop = (platform or jax.default_backend()) != 'cpu'

  def train_step(state, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    # Both SAM passes see the same dropout masks, so that the ascent looks at
    # the function that the descent then minimises.
    def loss_fn(params, stats, part=(batch, key)):
      clips, dropout_key = part
      detector = merge(graphdef, params, stats)
      detector.train()
      total, terms = objective.loss(detector, clips, dropout_key)
      return total, (terms, split_stats(detector))

    parts = None
    if accumulate != 1:
      keys = jax.random.split(key, accumulate)
      parts = (split_batch(batch, accumulate, objective.clips_each), keys)

    # Frozen at first: no gradient, so neither SAM's norm nor the weight decay
    # sees the backbone (METHOD 8.2, D22). Traced, so one program serves all
    # epochs.
    trainable = optimizer.trainable_mask(state.params, state.step, freeze_steps)
    grads, stats, _, terms = optimizer.sam_gradients(
      loss_fn,
      state.params,
      state.stats,
      rho=rho,
      batch_stats=batch_stats,
      trainable=trainable,
      micro_batches=parts,
      loop=loop,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema_decay:
      ema = optimizer.ema_update(ema, params, ema_decay)
    gradient_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(terms['total']) & jnp.isfinite(gradient_norm)
    new = (params, stats, opt_state, ema)
    if skip_nonfinite:
      old = (state.params, state.stats, state.opt_state, state.ema)
      new = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)
    params, stats, opt_state, ema = new
    fresh = state.step % log_every == 0
    term_sums = {
      name: jnp.where(fresh, 0.0, total)
      + jnp.where(finite, terms.get(name, 1.0), 0.0)  # 1 more of 'steps'
      for name, total in state.term_sums.items()
    }
    means = {name: term_sums[name] / term_sums['steps'] for name in terms}
    state = state.replace(
      step=state.step + 1,
      params=params,
      stats=stats,
      opt_state=opt_state,
      ema=ema,
      term_sums=term_sums,
      skipped=state.skipped + ~finite,
    )
    terms |= {'gradient_norm': gradient_norm, 'mean': means}
    return state, terms | {'skipped': state.skipped}

  return train_step


def split_batch(
  batch: Mapping[str, Array], accumulate: int, clips_each: int = 2
) -> dict[str, Array]:
  """Cuts a batch of pairs into micro-batches, [b, ...] -> [n, b / n, ...].

  Of pairs, or of what else stands in `clips_each` rows one after the other.
  Micro-batch i takes the pairs i, i + n, i + 2n, ...: every device has some of
  each, and none moves, if the pairs on a device divide into n.

  Raises:
    ValueError: If the pairs do not divide into n.
  """
  num_pairs = len(next(iter(batch.values()))) // clips_each
  if accumulate < 1 or num_pairs % accumulate:
    raise ValueError(
      f'train.accumulate is {accumulate}; it must divide the {num_pairs} pairs'
      ' of a step (data.batch_size)'
    )
  return {
    name: rearrange(
      x, '(pair n two) ... -> n (pair two) ...', n=accumulate, two=clips_each
    )
    for name, x in batch.items()
  }


def make_eval_step(
  config: config_dict.ConfigDict, graphdef: nnx.GraphDef
) -> Callable[[Tree, Tree, Mapping[str, Array]], dict[str, Array]]:
  """Returns `eval_step(params, stats, batch) -> logits and terms per clip`.

  Terms come per clip ([b] each), so that the caller can leave out padding; the
  mean over clips is the term of the batch.
  """
  weights = dict(config.loss)
  alone = config.model.temporal_token == 'first_clip'

  def eval_step(params, stats, batch):
    outputs = score_clips(graphdef, params, stats, batch['clip'], alone=alone)

    def clip_terms(outputs, targets):
      """Terms of a batch of one."""
      outputs, targets = jax.tree.map(lambda x: x[None], (outputs, targets))
      return losses.three_task_loss(
        model.Outputs(**outputs), targets, **weights
      )[1]

    targets = {name: x for name, x in batch.items() if name != 'clip'}
    terms = jax.vmap(clip_terms)(outputs, targets)
    return {
      'logits': outputs['logits'],
      'label': batch['label'],
      'terms': terms,
    }

  return eval_step


def score_clips(
  graphdef: nnx.GraphDef,
  params: Tree,
  stats: Tree,
  clip: Float[Array, 'b t h w 3'],
  *,
  alone: bool,
) -> dict[str, Array]:
  """Runs the detector in eval mode; returns the fields of `model.Outputs`.

  Args:
    graphdef: Static half of the model.
    params: Parameters.
    stats: BatchNorm statistics and carried tensors.
    clip: ImageNet-normalised.
    alone: Whether every clip is a batch of its own. Needed with the token
      'first_clip' (D4), which makes outputs depend on the batch's first clip.
  """
  detector = merge(graphdef, params, stats)
  detector.eval()

  def forward(clip):
    outputs = detector(clip)
    return {
      field.name: getattr(outputs, field.name)
      for field in dataclasses.fields(outputs)
    }

  if not alone:
    return forward(clip)
  outputs = jax.vmap(lambda one: forward(one[None]))(clip)
  return {name: x[:, 0] for name, x in outputs.items()}


def count_parameters(params: Tree) -> int:
  """Number of trained values."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
