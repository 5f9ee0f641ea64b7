"""A whole training run, told top to bottom.

records -> clips + seed (host) -> self-blended pairs (device) -> SAM step ->
checkpoint -> validation on held-out videos. Rerunning the same command
continues a run that was stopped in any way; it ends in the same numbers as one
that never was.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

from absl import logging
import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import blending, clips, pipeline
from data_pipeline import records as records_lib
from stormer_jax import (
  checkpoint,
  detector,
  losses,
  metric_writer,
  metrics,
  pretrained,
  sharding,
  steps,
)

# Fields that change how a run is carried out and not what it computes; all
# others must be those that the workdir was started with.
_FREE_FIELDS = (
  'data.corrupt_',
  'data.num_threads',
  'data.prefetch',
  'eval.',
  'model.attention',
  'model.remat',
  'model.scan_layers',
  'synthesis.mode',
  'train.checkpoint_every',
  'train.keep_last',
  'train.mesh_data',
  'train.mesh_fsdp',
  'train.mesh_tensor',
)

BEST_METRICS = (
  'val/video_auc',
  'val/clip_auc',
  'val/video_accuracy',
  'val/clip_accuracy',
)


def train_and_evaluate(
  config: config_dict.ConfigDict, workdir: pathlib.Path, data_root: pathlib.Path
) -> dict[str, float]:
  """Trains the detector, or goes on training it.

  Args:
    config: As in configs/base.py.
    workdir: Folder of the run: config.json, checkpoints, metrics.
    data_root: Folder that `data_pipeline.prepare` wrote.

  Returns:
    The last validation figures.

  Raises:
    ValueError: If the data are missing, or the workdir belongs to a run with
      another configuration or model.
    FloatingPointError: If a loss term is not finite; names step and term.
  """
  _check(config)
  mesh = sharding.make_mesh(
    config.train.mesh_data, config.train.mesh_fsdp, config.train.mesh_tensor
  )

  # Data.
  open_split = functools.partial(records_lib.open_records, data_root)
  train_records = open_split(
    config.data.train_dataset, 'consecutive', config.data.train_split
  )
  val_records = open_split(
    config.data.val_dataset, 'consecutive', config.data.val_split
  )
  iterator = clips.train_dataset(
    train_records,
    num_frames=config.model.num_frames,
    batch_size=config.data.batch_size,
    max_offset=config.data.max_offset,
    seed=config.seed,
    num_threads=config.data.num_threads,
    prefetch=config.data.prefetch,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    corrupt_records=config.data.corrupt_records,
    corrupt_budget=config.data.corrupt_budget,
    synthetic=config.data.synthetic,
  )
  if not clips.list_windows(val_records, config.model.num_frames):
    raise ValueError(
      f'{config.data.val_dataset}:{config.data.val_split} has no video of'
      f' {config.model.num_frames} frames (model.num_frames) to validate on'
    )
  num_windows = len(
    clips.list_windows(
      train_records, config.model.num_frames, config.data.max_offset
    )
  )
  steps_per_epoch = max(1, num_windows // config.data.batch_size)
  num_steps = config.train.num_epochs * steps_per_epoch

  # Programs. All arrays of a run live where `shardings` says.
  graphdef, init_weights = steps.make_model(config)
  tx = steps.make_optimizer(config, steps_per_epoch)
  init = functools.partial(
    steps.init_state, tx=tx, ema_decay=config.optimizer.ema_decay
  )
  abstract = jax.eval_shape(lambda: init(*init_weights()))
  shardings = sharding.state_shardings(abstract, mesh)
  make_pairs = _jit_pairs(config, mesh, train=True)
  train_step = jax.jit(
    steps.make_train_step(config, graphdef, tx, steps_per_epoch),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  validate = _Validation(config, val_records, graphdef, mesh)

  # Only now: a run that could not start leaves no workdir behind.
  claim_workdir(config, workdir)

  # Start: 1. this workdir's newest checkpoint; 2. config.init_from; 3. a
  # pretrained image ViT; 4. from scratch.
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
  )
  resumed = checkpointer.latest_step()
  if resumed is not None:
    state, place = checkpointer.restore(resumed, abstract, shardings)
    iterator.set_state(place)
    logging.info('resuming at step %d of %d', resumed, num_steps)
  else:
    weights = _starting_weights(config, abstract, init_weights)
    state = jax.jit(init, out_shardings=shardings)(*weights)
  step = resumed or 0
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

  writer = metric_writer.MetricWriter(
    workdir, step=step, enabled=jax.process_index() == 0
  )
  progress = _Progress(config, writer, num_steps, steps_per_epoch, step)
  figures: dict[str, float] = {}
  with jax.transfer_guard('disallow'):
    while True:
      # Evaluate and save before taking a batch, so that the state and the
      # place in the data agree.
      selection = None
      due = step % eval_every == 0 or step == num_steps
      if due and step > 0:
        progress.flush()
        figures = validate(state)
        writer.write(step, figures)
        _log_validation(step, figures)
        progress.forget_time()
        selection = figures[config.train.best_metric]
      if checkpointer.should_save(step):
        progress.flush()
        checkpointer.save(step, state, iterator.get_state(), selection)
      if step == num_steps:
        break
      if checkpointer.reached_preemption(step):
        checkpointer.close()
        raise SystemExit(
          f'stopped at step {step} of {num_steps}, saved; the same command'
          ' continues'
        )
      with progress.waiting_for_data():
        batch = next(iterator)
      batch = sharding.put_batch(batch, mesh)
      pairs = make_pairs(batch['frames'], batch['landmarks'], batch['seed'])
      state, terms = train_step(state, pairs)
      step += 1
      progress.add(step, terms)  # fetches the previous step's
  checkpointer.close()
  writer.close()
  return figures


def _check(config: config_dict.ConfigDict) -> None:
  for name in (
    'num_epochs',
    'eval_every_epochs',
    'checkpoint_every',
    'log_every',
  ):
    if config.train[name] < 1:
      raise ValueError(f'train.{name} is {config.train[name]}; at least 1')
  if config.train.best_metric not in BEST_METRICS:
    raise ValueError(
      f'train.best_metric is {config.train.best_metric!r}; it is one of'
      f' {BEST_METRICS}'
    )


def claim_workdir(
  config: config_dict.ConfigDict, workdir: pathlib.Path
) -> None:
  """Writes config.json, or checks that the one there is of the same run.

  Raises:
    ValueError: Naming every differing field.
  """
  path = workdir / 'config.json'
  ours = json.loads(config.to_json_best_effort())
  if path.exists():
    theirs = json.loads(path.read_text())
    ours_flat, theirs_flat = _flatten(ours), _flatten(theirs)
    differing = [
      f'{name}: {theirs_flat.get(name, "absent")} there,'
      f' {ours_flat.get(name, "absent")} here'
      for name in sorted(ours_flat.keys() | theirs_flat.keys())
      if ours_flat.get(name) != theirs_flat.get(name)
      and not name.startswith(_FREE_FIELDS)
    ]
    if differing:
      raise ValueError(
        f'{path}: written by another configuration ({"; ".join(differing)});'
        ' choose another --workdir, or set these fields as they were'
      )
  elif jax.process_index() == 0:
    if workdir.exists() and not workdir.is_dir():
      raise ValueError(f'{workdir}: a file; --workdir is the folder of a run')
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(ours, indent=2, sort_keys=True) + '\n')
    temporary.rename(path)


def _flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _starting_weights(config, abstract, init_weights):
  if config.init_from:
    weights = detector.read_weights(
      config.init_from, {'params': abstract.params, 'stats': abstract.stats}
    )
    logging.info('starting from the weights of %s', config.init_from)
    return weights['params'], weights['stats']
  params, stats = jax.jit(init_weights)()
  if config.pretrained_vit:
    params = pretrained.init_backbone_from_vit(
      jax.device_get(params),
      pretrained.read_state_dict(pathlib.Path(config.pretrained_vit)),
    )
    logging.info('backbone from %s', config.pretrained_vit)
  return params, stats


def _jit_pairs(config, mesh, *, train: bool):
  synthesis = blending.SynthesisConfig(**config.synthesis)
  if not train:  # METHOD 1.4: validation items differ in the flip alone
    synthesis = dataclasses.replace(synthesis, flip_prob=0.0)
  return jax.jit(
    functools.partial(
      pipeline.make_pairs,
      synthesis=synthesis,
      image_size=config.model.image_size,
      patch_size=config.model.patch_size,
      mesh=mesh,
      batch_axes=sharding.BATCH_AXES,
    ),
    out_shardings=sharding.batch_sharding(mesh),
  )


class _Validation:
  """Scores fixed pairs of the held-out videos; the same in every epoch."""

  def __init__(self, config, records, graphdef, mesh):
    self._config = config
    self._records = records
    self._mesh = mesh
    self._make_pairs = _jit_pairs(config, mesh, train=False)
    self._eval_step = jax.jit(
      steps.make_eval_step(config, graphdef),
      out_shardings=sharding.replicated(mesh),
    )
    self._gather = jax.jit(
      lambda place: place, out_shardings=sharding.replicated(mesh)
    )

  def __call__(self, state: steps.TrainState) -> dict[str, float]:
    params = state.params if state.ema is None else state.ema
    rows = []
    for batch in clips.eval_dataset(
      self._records,
      num_frames=self._config.model.num_frames,
      batch_size=self._config.data.batch_size,
      num_threads=self._config.data.num_threads,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      real_only=True,
    ):
      batch = sharding.put_batch(batch, self._mesh)
      pairs = self._make_pairs(
        batch['frames'], batch['landmarks'], batch['seed']
      )
      scored = jax.device_get(self._eval_step(params, state.stats, pairs))
      place = jax.device_get(
        self._gather({name: batch[name] for name in ('video', 'valid')})
      )
      # Pair i is rows 2i and 2i + 1.
      place = {name: np.repeat(x, 2) for name, x in place.items()}
      rows.append(place | scored | scored['terms'])
    columns = {
      name: np.concatenate([row[name] for row in rows])
      for name in rows[0]
      if name != 'terms'
    }
    valid = columns.pop('valid')
    columns = {name: x[valid] for name, x in columns.items()}
    return summarize_validation(columns)


def summarize_validation(columns: dict[str, np.ndarray]) -> dict[str, float]:
  """Figures of one validation from its clips.

  Args:
    columns: Arrays [n] over clips: logits, label, video and the loss terms.

  Returns:
    'val/...' figures. `video_auc` ranks the mean logits of a video's real and
    of its pseudo-fake clips (METHOD 9), `clip_auc` single clips.
  """
  label = columns['label'].astype(int)
  # A video and its pseudo-fake twin are two things to rank, drawn together.
  unit = columns['video'] * 2 + label
  units = np.unique(unit)
  video_logits = np.array([columns['logits'][unit == u].mean() for u in units])
  figures = {'val/clips': float(len(label))}
  for name, labels, logits, groups in (
    ('video', units % 2, video_logits, units // 2),
    ('clip', label, columns['logits'], columns['video']),
  ):
    estimates = metrics.estimates(
      labels,
      logits.astype(np.float64),
      threshold=0.0,
      num_bootstrap=1000,
      groups=groups,
    )
    auc, accuracy = estimates['auc'], estimates['accuracy']
    figures[f'val/{name}_auc'] = auc.value
    figures[f'val/{name}_auc_low'] = auc.low
    figures[f'val/{name}_auc_high'] = auc.high
    figures[f'val/{name}_accuracy'] = accuracy.value
  return figures | {
    f'val/{term}': float(columns[term].mean()) for term in losses.TERMS
  }


def _log_validation(step: int, figures: Mapping[str, float]) -> None:
  logging.info(
    'step %d  validation: video AUC %.3f [%.3f, %.3f], clip AUC %.3f'
    ' [%.3f, %.3f], clip accuracy %.3f, loss %.4f (%d clips)',
    step,
    figures['val/video_auc'],
    figures['val/video_auc_low'],
    figures['val/video_auc_high'],
    figures['val/clip_auc'],
    figures['val/clip_auc_low'],
    figures['val/clip_auc_high'],
    figures['val/clip_accuracy'],
    figures['val/total'],
    figures['val/clips'],
  )


class _Progress:
  """Fetches terms one step late, checks them, and says how fast it goes."""

  def __init__(self, config, writer, num_steps, steps_per_epoch, step):
    self._clips = 2 * config.data.batch_size
    self._log_every = config.train.log_every
    self._writer = writer
    self._num_steps = num_steps
    self._steps_per_epoch = steps_per_epoch
    self._table = steps.learning_rate(config)
    self._pending: tuple[int, Any] | None = None
    self._first = step  # the first step compiles: left out of the speed
    self.forget_time()

  def forget_time(self):
    """Starts the clock again, after something that is not training."""
    self._steps = 0
    self._waited = 0.0
    self._started = time.perf_counter()

  def waiting_for_data(self):
    return _Stopwatch(self)

  def waited(self, seconds: float):
    self._waited += seconds

  def add(self, step: int, terms):
    self.flush()
    self._pending = (step, terms)

  def flush(self):
    if self._pending is None:
      return
    step, terms = self._pending
    self._pending = None
    terms = jax.device_get(terms)
    mean = terms.pop('mean')
    for name, value in terms.items():
      if not np.isfinite(value):
        # The norm of the second SAM pass, if no term of the first one.
        what = name.replace('_', ' ')
        raise FloatingPointError(
          f'step {step}: the {what} is {value}; the last'
          ' checkpoint is from before it. Lower optimizer.peak_lr, or look at'
          ' the data of this step'
        )
    if step == self._first + 1:
      self.forget_time()
    else:
      self._steps += 1
    if step % self._log_every and step != self._num_steps:
      return
    seconds = max(time.perf_counter() - self._started, 1e-9)
    speed = self._clips * self._steps / seconds
    wait = self._waited / seconds
    epoch = (step - 1) // self._steps_per_epoch
    figures = {f'train/{name}': float(x) for name, x in mean.items()}
    figures['train/learning_rate'] = float(self._table[epoch])
    timing = {'clips_per_second': speed, 'data_wait_share': wait}
    self._writer.write(step, figures, timing if self._steps else None)
    logging.info(
      'step %d/%d  epoch %d  %s%s',
      step,
      self._num_steps,
      epoch,
      '  '.join(f'{name} {x:.4f}' for name, x in mean.items()),
      f'  {speed:.1f} clips/s, {wait:.1%} waiting for data'
      if self._steps
      else '',
    )
    self.forget_time()


@dataclasses.dataclass
class _Stopwatch:
  progress: _Progress
  started: float = 0.0

  def __enter__(self):
    self.started = time.perf_counter()

  def __exit__(self, *exc):
    self.progress.waited(time.perf_counter() - self.started)
