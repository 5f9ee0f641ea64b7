"""A whole training run, told top to bottom.

records -> clips + seed (host) -> self-blended pairs (device) -> SAM step ->
checkpoint -> validation on held-out videos. A masked autoencoder goes the same
way, with views of real clips in place of pairs (`_Task`). Rerunning the same
command continues a run that was stopped in any way; it ends in the same numbers
as one that never was.
"""

from collections.abc import Callable
import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import clips, pipeline, shard_cache, views
from data_pipeline import records as records_lib
from data_pipeline.synthesis import blending
from stormer_jax import (
  detector,
  flops,
  held_out,
  kinds,
  model,
  objectives,
  sharding,
  steps,
  validation,
)
from stormer_jax.runs import (
  checkpoint,
  metric_writer,
  progress,
  wandb_writer,
  watchdog,
)
from stormer_jax.runs import workdir as workdir_lib
from stormer_jax.weights import image_vit, stem_weights, weight_file

# `--profile` traces these steps, counted from where the process started: the
# first ones compile.
_PROFILED = range(3, 8)


class PeerLostError(RuntimeError):
  """Another process of the run has failed or is gone."""


def train_and_evaluate(
  config: config_dict.ConfigDict,
  workdir: pathlib.Path,
  data_root: pathlib.Path,
  *,
  cache: shard_cache.ShardCache | None = None,
  profile: bool = False,
  wandb_project: str = '',
) -> dict[str, float]:
  """Trains a model, or goes on training it.

  Args:
    config: As in configs/base.py.
    workdir: Folder of the run: config.json, checkpoints, metrics.
    data_root: Folder that `data_pipeline.prepare` wrote.
    cache: Where its shards are copied to before they are read, or None.
    profile: Whether to write a trace of a few steps to `<workdir>/profile`.
    wandb_project: Weights & Biases project that gets the figures, or ''.

  Returns:
    The last validation figures.

  Raises:
    ValueError: If the data are missing, or the workdir belongs to a run with
      another configuration or model.
    FloatingPointError: If a loss term is not finite; names step and term.
    OSError: If the workdir cannot be written.
    PeerLostError: If another process of the run has failed.
  """
  task = _choose_task(config)
  _check(config, task)
  mesh = sharding.make_mesh(
    config.train.mesh_data, config.train.mesh_fsdp, config.train.mesh_tensor
  )
  sharding.check_batch(config.data.batch_size, config.train.accumulate, mesh)

  # Data.
  open_split = functools.partial(
    records_lib.open_records, data_root, cache=cache
  )
  train_records = open_split(
    config.data.train_dataset, config.data.frame_rule, config.data.train_split
  )
  val_records = open_split(
    config.data.val_dataset, config.data.frame_rule, config.data.val_split
  )
  backend = _backend(train_records, val_records)
  # Dense records are clips already: none begins between two of them.
  is_dense = config.data.frame_rule == 'dense'
  max_offset = 0 if is_dense else config.data.max_offset
  iterator = clips.train_dataset(
    train_records,
    num_frames=config.model.num_frames,
    batch_size=config.data.batch_size,
    max_offset=max_offset,
    seed=config.seed,
    num_threads=config.data.num_threads,
    prefetch=config.data.prefetch,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    corrupt_records=config.data.corrupt_records,
    corrupt_budget=config.data.corrupt_budget,
    synthetic=config.data.synthetic,
  )
  num_windows = len(
    clips.list_windows(train_records, config.model.num_frames, max_offset)
  )
  steps_per_epoch = max(1, num_windows // config.data.batch_size)
  num_steps = config.train.num_epochs * steps_per_epoch

  # Programs. All arrays of a run live where `shardings` says.
  graphdef, init_weights = steps.make_model(config)
  tx = steps.make_optimizer(config, steps_per_epoch)
  init = functools.partial(
    steps.init_state,
    tx=tx,
    ema_decay=config.optimizer.ema_decay,
    terms=objectives.choose(config).terms,
  )
  abstract = jax.eval_shape(lambda: init(*init_weights()))
  shardings = sharding.state_shardings(abstract, mesh)
  make_batch, make_val_batch = task.batch_makers(config, mesh)
  train_step = jax.jit(
    steps.make_train_step(config, graphdef, tx, steps_per_epoch),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  validate = task.validation(
    config, val_records, graphdef, mesh, make_val_batch
  )

  # Only now: a run that could not start leaves no workdir behind.
  workdir_lib.claim(config, workdir)
  workdir_lib.claim_faces(backend, workdir)

  # Start: 1. this workdir's newest checkpoint; 2. config.init_from; 3. a
  # pretrained stem and a pretrained image ViT, either or both; 4. from scratch.
  eval_every = config.train.eval_every_epochs * steps_per_epoch

  def save_at(step: int) -> bool:
    return step > 0 and (
      step % config.train.checkpoint_every == 0
      or step % eval_every == 0
      or step == num_steps
    )

  checkpointer = checkpoint.Checkpointer(
    workdir / 'checkpoints',
    save_steps=save_at,
    keep_last=config.train.keep_last,
    keep_every=config.train.keep_every_epochs * steps_per_epoch,
  )
  restored = checkpointer.restore_latest(abstract, shardings)
  if restored is not None:
    state, step, saved_clock = restored.state, restored.step, restored.clock
    if restored.data['records'] != train_records.fingerprint():
      raise ValueError(
        f'{workdir}: trained on other videos than those that'
        f' {config.data.train_dataset}:{config.data.train_split} under'
        f' {data_root} now holds; give the --data_root of before, or another'
        ' --workdir (and --config.init_from to keep the weights)'
      )
    iterator.set_state(restored.data['place'])
    logging.info('resuming at step %d of %d', step, num_steps)
  else:
    weights = _starting_weights(config, abstract, init_weights)
    state, step, saved_clock = (
      jax.jit(init, out_shardings=shardings)(*weights),
      0,
      {},
    )
  first_step = step
  logging.info(
    '%s parameters, %d videos, %d windows, %d steps an epoch, %d steps,'
    ' %d devices',
    f'{steps.count_parameters(abstract.params):,}',
    len(train_records.videos),
    num_windows,
    steps_per_epoch,
    num_steps,
    mesh.size,
  )

  first_process = jax.process_index() == 0
  wandb = None
  if wandb_project and first_process:
    wandb = wandb_writer.WandbWriter(workdir, wandb_project, config.to_dict())
  writer = metric_writer.MetricWriter(
    workdir, step=step, enabled=first_process, wandb=wandb
  )
  clock = progress.Clock(saved_clock, workdir / 'config.json')
  tell = progress.Progress(
    writer,
    clock,
    _pace(config, mesh),
    step=step,
    num_steps=num_steps,
    steps_per_epoch=steps_per_epoch,
    learning_rate=steps.learning_rate(config),
    log_every=config.train.log_every,
    nonfinite_budget=config.train.nonfinite_budget
    if config.train.nonfinite == 'skip'
    else None,
  )
  watch = watchdog.Watchdog(config.train.stall_timeout)
  figures: dict[str, float] = {}
  try:
    with jax.transfer_guard('disallow'):
      while True:
        # Evaluate and save before taking a batch, so that the state and the
        # place in the data agree.
        selection = None
        if step > 0 and (step % eval_every == 0 or step == num_steps):
          tell.flush()
          with tell.spending('apart'):
            figures = validate(
              state,
              lambda: watch.expect(f'validation at step {step}'),  # noqa: B023 called at once
            )
          writer.write(step, figures)
          task.log_figures(step, figures)
          selection = figures[config.train.best_metric]
        if checkpointer.should_save(step):
          tell.flush()
          watch.expect(f'the checkpoint of step {step}')
          with tell.spending('checkpoint'):
            checkpointer.save(
              step,
              state,
              {
                'place': iterator.get_state(),
                'records': train_records.fingerprint(),
              },
              clock.state(),
              selection,
            )
        if step == num_steps:
          break
        if checkpointer.reached_preemption(step):
          checkpointer.close()
          raise SystemExit(
            f'stopped at step {step} of {num_steps}, saved; the same command'
            ' continues'
          )
        watch.expect(f'the data loader, for the batch of step {step + 1}')
        with tell.spending('data'):
          batch = next(iterator)
        watch.expect(f'training step {step + 1}')
        if profile and step - first_step == _PROFILED.start:
          jax.profiler.start_trace(workdir / 'profile')
        num_bytes = sum(array.nbytes for array in batch.values())
        batch = sharding.put_batch(batch, mesh)
        made = make_batch(batch['frames'], batch['landmarks'], batch['seed'])
        state, terms = train_step(state, made)
        step += 1
        tell.add(
          step, terms, num_bytes, iterator.num_corrupt
        )  # fetches the previous step's
        if profile and step - first_step == _PROFILED.stop:
          jax.block_until_ready(state)
          jax.profiler.stop_trace()
          logging.info('trace written to %s', workdir / 'profile')
    watch.expect('the last checkpoint')
    checkpointer.close()
    workdir_lib.finish(workdir, num_steps)
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    explained = _explained(error, step + 1)
    if explained is error:
      raise
    raise explained from error
  finally:
    watch.close()
    tell.close()
  writer.close()
  return figures


def jit_pairs(
  config: config_dict.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[..., pipeline.Batch]:
  """Returns `pipeline.make_pairs` of a run, jitted, split over its devices.

  Args:
    config: The whole configuration; `synthesis` and `model` are read.
    mesh: Of the run.
  """
  return jax.jit(
    functools.partial(
      pipeline.make_pairs,
      synthesis=blending.SynthesisConfig(**config.synthesis),
      image_size=config.model.image_size,
      patch_size=config.model.patch_size,
      mesh=mesh,
      batch_axes=sharding.BATCH_AXES,
    ),
    out_shardings=sharding.batch_sharding(mesh),
  )


def _backend(*splits: records_lib.Records) -> str:
  """What found the faces of the records; '' where nobody wrote it down."""
  names = sorted(set().union(*(records.backends() for records in splits)))
  if len(names) > 1:
    raise ValueError(
      f'training data: faces found by {" and by ".join(names)}, which cut them'
      ' out differently; prepare all with one --backend'
    )
  return names[0] if names else ''


def _explained(error: Exception, step: int) -> Exception:
  """What a failed device says, for somebody who did not write XLA."""
  said = str(error).partition('\n')[0][:300]
  if isinstance(error, ValueError) and 'Gloo' not in said:
    return error  # ours; JAX reports a broken connection as one, too
  if 'RESOURCE_EXHAUSTED' in said:
    return ValueError(
      f'step {step}: no room on the device ({said}); lower data.batch_size, or'
      ' set train.accumulate, model.remat=full or train.mesh_fsdp: --mode=plan'
      ' says what fits'
    )
  ours = ('INVALID_ARGUMENT', 'UNIMPLEMENTED', 'FAILED_PRECONDITION')
  if jax.process_count() == 1 or said.startswith(ours):
    return error
  return PeerLostError(
    f'step {step}: another process of this run failed or is gone ({said});'
    ' start the same command again on every host: it continues from the last'
    ' checkpoint'
  )


@dataclasses.dataclass(frozen=True)
class _Task:
  """What is made of clips and how it is validated; `objectives` has the loss.

  Attributes:
    batch_makers: (config, mesh) -> two jitted functions (frames, landmarks,
      seeds) -> batch, of training and of validation.
    validation: (config, records, graphdef, mesh, maker) -> function of (state,
      on_batch) -> figures.
    log_figures: Says them.
    best_metrics: Those of them that can name the best step.
  """

  batch_makers: Callable
  validation: Callable[..., Callable[..., dict[str, float]]]
  log_figures: Callable[[int, Any], None]
  best_metrics: tuple[str, ...]


def _choose_task(config: config_dict.ConfigDict) -> _Task:
  if config.model.kind in kinds.PRETRAINING:
    return _Task(
      _view_makers,
      held_out.HeldOut,
      held_out.log_figures,
      held_out.BEST_METRICS,
    )
  return _Task(
    _pair_makers,
    validation.Validation,
    validation.log_figures,
    validation.BEST_METRICS,
  )


def _check(config: config_dict.ConfigDict, task: _Task) -> None:
  for name, least in (
    ('num_epochs', 1),
    ('eval_every_epochs', 1),
    ('checkpoint_every', 1),
    ('log_every', 1),
    ('keep_last', 1),
    ('keep_every_epochs', 0),
    ('nonfinite_budget', 0),
    ('stall_timeout', 0),
  ):
    if config.train[name] < least:
      raise ValueError(
        f'train.{name} is {config.train[name]}; at least {least}'
      )
  if config.model.members != 1:
    raise ValueError(
      f'model.members is {config.model.members}; networks are trained one by'
      ' one and joined: --mode=convert --source=RUN_A,RUN_B'
      ' --destination=FOLDER'
    )
  if config.data.frame_rule not in ('consecutive', 'dense'):
    raise ValueError(
      f'data.frame_rule is {config.data.frame_rule!r}; it is consecutive or'
      ' dense: training shows clips of consecutive frames'
    )
  if config.train.nonfinite not in ('stop', 'skip'):
    raise ValueError(
      f'train.nonfinite is {config.train.nonfinite!r}; it is stop or skip'
    )
  if config.train.best_metric not in task.best_metrics:
    raise ValueError(
      f'train.best_metric is {config.train.best_metric!r}; it is one of'
      f' {task.best_metrics}'
    )


def _starting_weights(config, abstract, init_weights):
  if config.init_from:
    is_shipped = config.init_from == 'small'
    weights = detector.read_weights(
      detector.shipped_folder()
      if is_shipped
      else pathlib.Path(config.init_from),
      {'params': abstract.params, 'stats': abstract.stats},
      config.weights_key,
    )
    logging.info('starting from the weights of %s', config.init_from)
    return weights['params'], weights['stats']
  params, stats = jax.jit(init_weights)()
  if config.pretrained_stem:
    params, stats = stem_weights.init_stem(
      jax.device_get(params),
      jax.device_get(stats),
      weight_file.read_state_dict(config.pretrained_stem),
    )
    logging.info('stem from %s', config.pretrained_stem)
  if config.pretrained_vit:
    params = image_vit.init_backbone_from_vit(
      jax.device_get(params),
      weight_file.read_state_dict(config.pretrained_vit, config.weights_key),
      config.pretrained_vit_pixels,
    )
    logging.info('backbone from %s', config.pretrained_vit)
  return params, stats


def _pair_makers(config, mesh):
  """Makers of training pairs and of validation pairs, compiled once."""
  return _flipping(jit_pairs(config, mesh), config, mesh)


def _view_makers(config, mesh):
  """Makers of views of real clips, for training and for validation."""

  def make(frames, landmarks, seeds, flip_probs):
    del landmarks
    return views.make_views(
      frames,
      seeds,
      flip_probs,
      margin=config.synthesis.margin,
      image_size=config.model.image_size,
    )

  jitted = jax.jit(make, out_shardings=sharding.batch_sharding(mesh))
  return _flipping(jitted, config, mesh)


def _flipping(make, config, mesh):
  """The same program, mirroring as in training and never."""

  def flipping(probability):
    size = config.data.batch_size // jax.process_count()
    flips = sharding.put_batch(
      {'flip_probs': np.full(size, probability, np.float32)}, mesh
    )
    return functools.partial(make, **flips)

  # METHOD 1.4: validation items differ in the flip alone.
  return flipping(config.synthesis.flip_prob), flipping(0.0)


def _pace(config: config_dict.ConfigDict, mesh) -> progress.Pace:
  num_clips = objectives.choose(config).clips_each * config.data.batch_size
  peak = flops.peak_flops(jax.devices()[0].device_kind, config.model.dtype)
  return progress.Pace(
    clips=num_clips,
    flops=flops.train_step_flops(
      model.StormerConfig(**config.model), num_clips, config.optimizer.rho
    ),
    peak_flops=peak and peak * mesh.size,
  )
