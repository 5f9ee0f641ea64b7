"""Measures the training and the scoring step: time, compile, memory, MFU.

  python -m benchmarks.step                       # demo and tiny, a minute
  python -m benchmarks.step --configs ffpp_c23 --dtypes bfloat16 \
    --remats none dots full --batches 8           # on an accelerator
  python -m benchmarks.step --configs ffpp_c23 --dtypes bfloat16 \
    --set model.attention=cudnn --grow            # batch doubled to memory

Prints a Markdown table, a row for each choice: the SAM step alone, with the
blending of its batch before it, and the scoring of as many clips. `ms` is the
median wall time of a call, `CPU ms` the median of all threads of this process
(on a busy machine the honest one), `compile` the wall seconds of trace and
compilation, `temporaries` what the compiler reserves beside state and batch,
`peak` what the device had at most in use since the program began, and MFU the
formula's FLOPs (stormer_jax/flops.py) over time and peak of the devices.
Nothing here depends on what the weights are, so they are noise.
"""

import argparse
import ast
from collections.abc import Iterator, Sequence
import dataclasses
import importlib
import itertools
import math
import time

import jax
from ml_collections import config_dict
import numpy as np

from stormer_jax import flops, model, sharding, steps
from stormer_jax import train as train_lib

# What can be measured, in this order.
PAIRS, STEP, BOTH, SCORE = (
  'blending',
  'train step',
  'blending, train step',
  'score',
)
_HEADER = (
  '| config | devices | pairs | dtype | remat | what | ms | CPU ms | clips/s |'
  ' compile s | temporaries | peak | MFU |'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One measured program.

  Attributes:
    what: PAIRS, STEP, BOTH or SCORE.
    devices: Devices of the mesh.
    pairs: Pairs of a call; clips are twice that.
    dtype: Of the computation.
    remat: As configured.
    attention: As configured.
    scan_layers: As configured.
    ms: Median wall time of a call; not a number before it has run.
    cpu_ms: Median CPU time of a call, all threads of this process.
    clips_per_second: By wall time.
    compile_seconds: Wall time of trace and compilation.
    temporary_bytes: What the compiler reserves beside state and batch.
    peak_bytes: Most in use on a device since the program began, or None.
    mfu: Useful FLOP/s over the peak of the devices; None: not known.
  """

  what: str
  devices: int
  pairs: int
  dtype: str
  remat: str
  attention: str
  scan_layers: bool
  ms: float
  cpu_ms: float
  clips_per_second: float
  compile_seconds: float
  temporary_bytes: int
  peak_bytes: int | None
  mfu: float | None

  @property
  def has_run(self) -> bool:
    """Whether there are times, not only what compiling says."""
    return not math.isnan(self.ms)


def main() -> None:
  """Measures every combination of the choices."""
  arguments = _parse()
  if max(arguments.devices) > 1:
    jax.config.update('jax_num_cpu_devices', max(arguments.devices))
  device = jax.devices()[0]
  print(
    f'{len(jax.devices())} x {device.device_kind}, jax {jax.__version__},'
    f' {arguments.repeats} repeats\n\n{_HEADER}\n|{" --- |" * 13}',
    flush=True,
  )
  for name, devices, dtype, remat, batch in itertools.product(
    arguments.configs,
    arguments.devices,
    arguments.dtypes or [None],
    arguments.remats or [None],
    arguments.batches or [None],
  ):
    config = importlib.import_module(f'configs.{name}').get_config()
    changes = {
      'model.dtype': dtype,
      'model.remat': remat,
      'data.batch_size': batch,
      **dict(change.split('=', 1) for change in arguments.set),
    }
    config.update_from_flattened_dict(
      {key: _value(text) for key, text in changes.items() if text is not None}
    )
    if arguments.grow:
      config.data.batch_size = devices * config.train.accumulate
    what = (STEP, BOTH, SCORE)
    rows = (grow if arguments.grow else measure)(
      config, devices, arguments.repeats, what
    )
    for row in rows:
      if row.has_run:
        _print(name, row)


def grow(
  config: config_dict.ConfigDict,
  num_devices: int,
  repeats: int,
  what: Sequence[str],
  *,
  most: int | None = None,
) -> Iterator[Row]:
  """Doubles the batch, from the configured one, until memory runs out.

  Args:
    config: The whole configuration; its batch size is what grows.
    num_devices: Devices of the mesh.
    repeats: Calls whose median is taken.
    what: As in `measure`.
    most: Pairs to end with, where memory would take too long to fill.

  Yields:
    The rows of `measure`, batch after batch.
  """
  while most is None or config.data.batch_size <= most:
    try:
      yield from measure(config, num_devices, repeats, what)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      print(f'{config.data.batch_size} pairs do not fit', flush=True)
      return
    config.data.batch_size *= 2


def measure(
  config: config_dict.ConfigDict,
  num_devices: int,
  repeats: int,
  what: Sequence[str],
) -> Iterator[Row]:
  """Compiles the programs of a configuration and times them.

  Args:
    config: The whole configuration.
    num_devices: Devices of the mesh.
    repeats: Calls whose median is taken.
    what: Any of PAIRS, STEP, BOTH, SCORE; nothing else is compiled.

  Yields:
    Two rows for each: as soon as it is compiled, and when it has run.
  """
  mesh = sharding.make_mesh(
    config.train.mesh_data,
    config.train.mesh_fsdp,
    config.train.mesh_tensor,
    jax.devices()[:num_devices],
  )
  sharding.check_batch(config.data.batch_size, config.train.accumulate, mesh)
  model_config = model.StormerConfig(**config.model)
  num_clips = 2 * config.data.batch_size
  raw = sharding.put_batch(random_clips(config), mesh)
  raw = (raw['frames'], raw['landmarks'], raw['seed'])
  make_pairs = train_lib.jit_pairs(config, mesh)
  pairs_program, pairs_compile = None, 0.0
  if PAIRS in what or BOTH in what:
    pairs_program, pairs_compile = _compile(make_pairs, *raw)

  def rows(name, call, compiling, program, needed):
    device = mesh.devices.flat[0]
    peak = flops.peak_flops(device.device_kind, config.model.dtype)
    compiled = Row(
      what=name,
      devices=mesh.size,
      pairs=config.data.batch_size,
      dtype=config.model.dtype,
      remat=config.model.remat,
      attention=config.model.attention,
      scan_layers=config.model.scan_layers,
      ms=math.nan,
      cpu_ms=math.nan,
      clips_per_second=math.nan,
      compile_seconds=compiling,
      temporary_bytes=program.memory_analysis().temp_size_in_bytes,
      peak_bytes=None,
      mfu=None,
    )
    yield compiled
    wall, cpu = _measure(call, repeats)
    yield dataclasses.replace(
      compiled,
      ms=1e3 * wall,
      cpu_ms=1e3 * cpu,
      clips_per_second=num_clips / wall,
      peak_bytes=(device.memory_stats() or {}).get('peak_bytes_in_use'),
      mfu=None
      if peak is None or needed is None
      else needed / (wall * peak * mesh.size),
    )

  if PAIRS in what:
    yield from rows(
      PAIRS, lambda: pairs_program(*raw), pairs_compile, pairs_program, None
    )
  if not {STEP, BOTH, SCORE} & set(what):
    return
  if pairs_program is not None:
    batch = pairs_program(*raw)
  else:  # to compile it takes as long as to compile a step
    batch = _noise(jax.eval_shape(make_pairs, *raw), mesh)
  graphdef, state, shardings = random_state(config, mesh)
  live = [state]  # donated and replaced at every step

  def train(clips):
    live[0], terms = step_program(live[0], clips)
    return terms

  if STEP in what or BOTH in what:
    tx = steps.make_optimizer(config, steps_per_epoch=1)
    step_program, step_compile = _compile(
      jax.jit(
        steps.make_train_step(config, graphdef, tx, steps_per_epoch=1),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
      ),
      state,
      batch,
    )
    sam = flops.train_step_flops(model_config, num_clips, config.optimizer.rho)
    if STEP in what:
      yield from rows(
        STEP, lambda: train(batch), step_compile, step_program, sam
      )
    if BOTH in what:
      yield from rows(
        BOTH,
        lambda: train(pairs_program(*raw)),
        pairs_compile + step_compile,
        step_program,
        sam,
      )
  if SCORE in what:
    score_program, score_compile = _compile(
      jax.jit(
        steps.make_eval_step(config, graphdef),
        out_shardings=sharding.replicated(mesh),
      ),
      live[0].params,
      live[0].stats,
      batch,
    )
    yield from rows(
      SCORE,
      lambda: score_program(live[0].params, live[0].stats, batch),
      score_compile,
      score_program,
      flops.forward_flops(model_config, num_clips),
    )


def _print(name, row):
  """Prints one row of the table."""
  cells = (
    name,
    row.devices,
    row.pairs,
    row.dtype,
    row.remat,
    row.what,
    f'{row.ms:.1f}',
    f'{row.cpu_ms:.1f}',
    f'{row.clips_per_second:.1f}',
    f'{row.compile_seconds:.1f}',
    _mib(row.temporary_bytes),
    '-' if row.peak_bytes is None else _mib(row.peak_bytes),
    '-' if row.mfu is None else f'{row.mfu:.1%}',
  )
  print(f'| {" | ".join(map(str, cells))} |', flush=True)


def _noise(abstract, mesh):
  """A batch of random numbers; of zeros, devices run faster than of these."""
  rng = np.random.default_rng(0)
  return sharding.put_batch(
    {
      name: rng.random(leaf.shape, np.float32).astype(leaf.dtype)
      for name, leaf in abstract.items()
    },
    mesh,
  )


def random_state(config: config_dict.ConfigDict, mesh):
  """A state of noise on the mesh; to compile the true start takes longer."""
  graphdef, init_weights = steps.make_model(config)
  rng = np.random.default_rng(0)

  def noise(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    return (0.02 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

  params, stats = jax.tree_util.tree_map_with_path(
    noise, jax.eval_shape(init_weights)
  )
  tx = steps.make_optimizer(config, steps_per_epoch=1)
  state = steps.init_state(params, stats, tx, config.optimizer.ema_decay)
  shardings = sharding.state_shardings(state, mesh)
  return graphdef, jax.device_put(state, shardings), shardings


def random_clips(config: config_dict.ConfigDict) -> dict[str, np.ndarray]:
  """Frames of noise, and landmarks on a circle."""
  rng = np.random.default_rng(0)
  shape = (config.data.batch_size, config.model.num_frames)
  angle = np.linspace(0, 2 * np.pi, 81)
  points = 128 + 80 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  return {
    'frames': rng.integers(0, 256, (*shape, 256, 256, 3), dtype=np.uint8),
    'landmarks': (points + rng.normal(0, 2, (*shape, 81, 2))).astype(
      np.float32
    ),
    'seed': np.arange(shape[0], dtype=np.uint32),
  }


def _compile(function, *values):
  """The program, and wall seconds of trace and compilation."""
  start = time.perf_counter()
  program = function.lower(*values).compile()
  return program, time.perf_counter() - start


def _measure(call, repeats):
  """Median (wall, CPU) seconds of a call, all threads counted."""
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    times.append((time.perf_counter() - wall, time.process_time() - cpu))
  return tuple(np.median(times, axis=0))


def _mib(number: int) -> str:
  return f'{number / 2**20:,.0f} MiB'


def _value(text):
  """A number, tuple or truth value if it is one, else the text."""
  try:
    return ast.literal_eval(text) if isinstance(text, str) else text
  except (ValueError, SyntaxError):
    return text


def _parse():
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--configs', nargs='+', default=['tiny', 'demo'])
  parser.add_argument('--devices', type=int, nargs='+', default=[1])
  parser.add_argument('--dtypes', nargs='*', help='else as configured')
  parser.add_argument('--remats', nargs='*', help='else as configured')
  parser.add_argument('--batches', type=int, nargs='*', help='pairs')
  parser.add_argument(
    '--set', nargs='*', default=[], metavar='SECTION.FIELD=VALUE'
  )
  parser.add_argument('--repeats', type=int, default=10)
  parser.add_argument(
    '--grow', action='store_true', help='double the batch to memory'
  )
  return parser.parse_args()


if __name__ == '__main__':
  main()
