"""The parts of benchmarks/gpu_report.py, each a process of its own.

  python -m benchmarks.gpu_parts PART --folder=FOLDER [--small] ...

Prints a line `ROW {...}`, a JSON object, for each figure as soon as it is
measured, and for each program as soon as it is compiled, so that a part that is
stopped has said what it found. Ends in status
3 if a package is missing. Imports stand in the functions: a package that a
part does not need shall not end it.
"""

import argparse
import collections
from collections.abc import Iterator
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

Row = dict[str, Any]

MISSING = 3  # exit status where a package is not there
_PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain'),
  *('tensorflow-datasets', 'array-record', 'numpy', 'torch'),
)
# What is computed on the device and compared with the CPU in float32:
# `model.dtype`, `model.attention`, precision of float32 products.
_FORMS = (
  ('float32', 'xla', 'highest'),
  ('float32', 'xla', 'default'),
  ('bfloat16', 'xla', 'default'),
  ('bfloat16', 'cudnn', 'default'),
)


def main() -> None:
  """Runs one part."""
  arguments = _parse()
  try:
    for row in PARTS[arguments.part](arguments):
      print('ROW', json.dumps(row), flush=True)
  except ModuleNotFoundError as error:
    print(f'missing package: {error.name}', file=sys.stderr)
    sys.exit(MISSING)


def machine(arguments: argparse.Namespace) -> Iterator[Row]:
  """Versions, card and driver."""
  del arguments
  yield {'what': 'python', 'value': platform.python_version()}
  yield {'what': 'system', 'value': platform.platform()}
  yield {'what': 'cores', 'value': os.cpu_count()}
  for name in _PACKAGES:
    try:
      version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      version = 'missing'
    yield {'what': name, 'value': version}
  if shutil.which('nvidia-smi'):
    query = '--query-gpu=name,driver_version,memory.total,power.limit'
    said = subprocess.run(
      ['nvidia-smi', query, '--format=csv,noheader'],
      capture_output=True,
      text=True,
    ).stdout
    yield {'what': 'card, driver, memory, power', 'value': said.strip()}
  import jax

  from stormer_jax import flops

  kind = jax.devices()[0].device_kind
  yield {'what': 'platform', 'value': jax.default_backend()}
  yield {'what': 'device', 'value': f'{len(jax.devices())} x {kind}'}
  peak = flops.peak_flops(kind, 'bfloat16')
  yield {
    'what': 'bfloat16 peak, TFLOP/s',
    'value': None if peak is None else peak / 1e12,
  }


def blending(arguments: argparse.Namespace) -> Iterator[Row]:
  """Pairs a second of the blending alone, 64 at once."""
  from benchmarks import step

  config = _config(arguments, pairs=2 if arguments.small else 64)
  repeats = 3 if arguments.small else 20
  for row in step.measure(config, 1, repeats, (step.PAIRS,)):
    yield _of_step(row)


def sam_step(arguments: argparse.Namespace) -> Iterator[Row]:
  """The SAM step of one size and form."""
  from benchmarks import step

  config = _config(arguments, pairs=arguments.pairs)
  for row in step.measure(config, 1, _repeats(arguments), (step.STEP,)):
    yield _of_step(row)


def growth(arguments: argparse.Namespace) -> Iterator[Row]:
  """The SAM step, its batch doubled until memory is full or time is short.

  From twice --pairs on; no size is begun that would not be done in what is left
  of --seconds if it took as long as the one before.
  """
  from benchmarks import step

  begun = last = time.monotonic()
  config = _config(arguments, pairs=2 * arguments.pairs)
  most = config.data.batch_size if arguments.small else None
  for row in step.grow(config, 1, _repeats(arguments), (step.STEP,), most=most):
    yield _of_step(row)
    if row.has_run:
      now = time.monotonic()
      if now + (now - last) > begun + arguments.seconds:
        return
      last = now


def whole(arguments: argparse.Namespace) -> Iterator[Row]:
  """One size: the step, the step with its blending, and scoring."""
  from benchmarks import step

  config = _config(arguments, pairs=arguments.pairs)
  what = (step.PAIRS, step.STEP, step.BOTH, step.SCORE)
  for row in step.measure(config, 1, _repeats(arguments), what):
    yield _of_step(row)


def profile(arguments: argparse.Namespace) -> Iterator[Row]:
  """Kernels of the SAM step, grouped by name, by their share of its time."""
  import jax

  from benchmarks import step

  config = _config(arguments, pairs=arguments.pairs)
  folder = arguments.folder / 'profile'
  with jax.profiler.trace(folder):
    for row in step.measure(config, 1, 3, (step.STEP,)):
      yield _of_step(row)
  times = collections.Counter()
  for path in folder.rglob('*.xplane.pb'):
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
      for line in plane.lines if plane.name.startswith('/device:GPU') else ():
        if line.name.startswith('Stream'):
          for event in line.events:
            times[re.sub(r'[_.]?\d+', '', event.name)] += event.duration_ns
  for name, duration in times.most_common(24):
    share = duration / times.total()
    yield {'what': 'kernel', 'name': name[:90], 'share': round(share, 4)}


def reference(arguments: argparse.Namespace) -> Iterator[Row]:
  """Pairs, outputs and gradients of this process's platform, to a file."""
  import numpy as np

  config = _config(arguments, pairs=1)
  config.model.update(dtype='float32', attention='xla', scan_layers=True)
  pairs = _pairs(config)
  np.savez(
    arguments.folder / 'reference.npz',
    **{f'pairs/{name}': value for name, value in pairs.items()},
    **_outputs_and_gradients(config, pairs, 'highest'),
  )
  yield {'what': 'reference', 'arrays': len(pairs)}


def agreement(arguments: argparse.Namespace) -> Iterator[Row]:
  """Pairs, outputs and gradients against those of the CPU."""
  import numpy as np

  command = [sys.executable, '-m', 'benchmarks.gpu_parts', 'reference']
  command += [f'--folder={arguments.folder}']
  command += ['--small'] if arguments.small else []
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
  cpu = dict(np.load(arguments.folder / 'reference.npz'))
  given = {
    name.removeprefix('pairs/'): cpu.pop(name)
    for name in list(cpu)
    if name.startswith('pairs/')
  }
  config = _config(arguments, pairs=1)
  config.model.scan_layers = True  # five programs, each quick to compile
  here = _pairs(config)
  for name, value in given.items():
    yield {
      'what': f'pairs: {name}',
      'largest_difference': _largest(here[name], value),
    }
  for dtype, attention, precision in _FORMS:
    if attention == 'cudnn' and arguments.small:
      continue
    config.model.update(dtype=dtype, attention=attention)
    # The CPU's pairs, so that only the model can differ.
    found = _outputs_and_gradients(config, given, precision)
    form = f'{dtype}, {attention}, {precision}'
    outputs = [name for name in cpu if not name.startswith('gradient/')]
    for name in outputs:
      yield {
        'what': f'{form}: {name}',
        'largest_difference': _largest(found[name], cpu[name]),
      }
    names = [name for name in cpu if name.startswith('gradient/')]
    error, size = (
      np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in arrays))
      for arrays in (
        [found[name] - cpu[name] for name in names],
        [cpu[name] for name in names],
      )
    )
    yield {'what': f'{form}: gradient', 'relative_error': float(error / size)}


def resume(arguments: argparse.Namespace) -> Iterator[Row]:
  """A training that is killed and resumes, against one that was not."""
  from stormer_jax.runs import metric_writer

  write_records(arguments.folder / 'data')
  command = [sys.executable, '-m', 'benchmarks.gpu_parts', 'train']
  command += [f'--folder={arguments.folder}']
  command += ['--small'] if arguments.small else []

  log = arguments.folder / 'training.log'

  def start(workdir):
    with log.open('w') as file:
      return subprocess.Popen(
        [*command, f'--workdir={workdir}'], stdout=file, stderr=file
      )

  def lines(workdir):
    found = metric_writer.read_metrics(workdir / 'metrics.jsonl')
    return [{k: v for k, v in x.items() if k != 'time'} for x in found]

  def finish(process):
    if process.wait():
      raise RuntimeError(f'training failed: {log.read_text().strip()[-300:]}')
    return log.read_text()

  begun = time.monotonic()
  finish(start(arguments.folder / 'unbroken'))
  unbroken = lines(arguments.folder / 'unbroken')
  steps = unbroken[-1]['step']
  yield {
    'what': 'never stopped',
    'steps': steps,
    'seconds': time.monotonic() - begun,
  }

  workdir = arguments.folder / 'killed'
  process = start(workdir)
  while process.poll() is None:
    done = lines(workdir)
    if done and done[-1]['step'] >= steps // 3:
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.02)
  process.wait()
  killed_at = lines(workdir)[-1]['step']
  yield {'what': 'killed', 'steps': killed_at}
  begun = time.monotonic()
  said = finish(start(workdir))
  place = re.search(r'resuming at step (\d+)', said)
  yield {
    'what': 'resumed',
    'steps': int(place[1]) if place else None,
    'seconds': time.monotonic() - begun,
  }
  resumed = lines(workdir)
  if [set(x) for x in resumed] != [set(x) for x in unbroken]:
    raise RuntimeError('the resumed run has not the lines of the other')
  yield {
    'what': 'resumed against never stopped',
    'lines': len(resumed),
    'bit_equal': resumed == unbroken,
    'relative_error': max(
      abs(ours[name] - theirs[name]) / max(1e-9, abs(theirs[name]))
      for ours, theirs in zip(resumed, unbroken, strict=True)
      for name in theirs
      if isinstance(theirs[name], float)
    ),
  }


def train(arguments: argparse.Namespace) -> Iterator[Row]:
  """The training of `resume`; goes on where its workdir was left.

  Not by stormer_jax.main, which imports what decodes videos: that is too large
  to take along, and training needs none of it.
  """
  from absl import logging

  from configs import demo, tiny
  from stormer_jax import train as train_lib

  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  config = (tiny if arguments.small else demo).get_config()
  config.data.batch_size = 2 if arguments.small else 4
  config.train.num_epochs = 2 if arguments.small else 20
  config.train.eval_every_epochs = 1000  # at the end alone
  config.train.log_every = 1
  config.train.checkpoint_every = 5
  config.eval.batch_size = 4
  figures = train_lib.train_and_evaluate(
    config, arguments.workdir, arguments.folder / 'data'
  )
  yield {'what': 'trained'} | figures


PARTS = {
  function.__name__: function
  for function in (
    *(machine, sam_step, blending, growth, whole, profile),
    *(agreement, reference, resume, train),
  )
}


def write_records(data_root: pathlib.Path) -> None:
  """Writes eight videos of noise with a circle of landmarks, 24 frames each."""
  import numpy as np

  from data_pipeline import record_writer, records

  rng = np.random.default_rng(0)
  angle = np.linspace(0, 2 * np.pi, 81)
  circle = 128 + 80 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  num_frames = 24

  def video(name):
    coarse = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = coarse.repeat(8, axis=0).repeat(8, axis=1)
    points = circle + rng.normal(0, 2, (num_frames, 81, 2))
    return records.VideoRecord(
      video_id=name,
      frames=tuple(
        records.encode_frame(np.roll(image, i, axis=1))
        for i in range(num_frames)
      ),
      landmarks=points.astype(np.float32),
      boxes=np.tile(np.float32([64, 32, 192, 224]), (num_frames, 1)),
      frame_indices=np.arange(num_frames, dtype=np.int32),
      times=np.arange(num_frames, dtype=np.float32) / 25,
      fps=25.0,
      label=0,
      dataset='demo',
      identity=name,
      method='',
      source_path=f'{name}.mp4',
      provenance='{}',
    )

  splits = {
    'train': [video(f'train{i}') for i in range(8)],
    'val': [video(f'val{i}') for i in range(2)],
  }
  record_writer.write_records(data_root, 'demo', 'consecutive', splits)


def _config(arguments, *, pairs):
  """ViT-B of the headline run in bfloat16, or the tests' tiny model."""
  from configs import ffpp_c23, tiny

  config = (tiny if arguments.small else ffpp_c23).get_config()
  config.model.dtype = 'bfloat16'
  config.model.scan_layers = arguments.scan_layers == 'True'
  config.model.attention = arguments.attention
  config.model.remat = arguments.remat
  config.data.batch_size = pairs
  return config


def _of_step(row):
  """A row of benchmarks/step.py without what does not change."""
  result = {
    name: value
    for name, value in dataclasses.asdict(row).items()
    if name not in ('devices', 'cpu_ms')
    and not (isinstance(value, float) and math.isnan(value))
  }
  if not row.has_run:
    result['what'] = f'compiled: {row.what}'
  elif row.what == 'blending':
    result['pairs_per_second'] = row.clips_per_second / 2
  level = re.findall(
    r'--xla_gpu_autotune_level=(\d+)', os.environ.get('XLA_FLAGS', '')
  )
  return result | {'autotune': level[-1] if level else 'default'}


def _repeats(arguments):
  return 2 if arguments.small else 8


def _pairs(config):
  """A made-up pair, as host arrays."""
  import jax
  import numpy as np

  from benchmarks import step
  from stormer_jax import sharding, train

  mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
  raw = step.random_clips(config)
  pairs = train.jit_pairs(config, mesh)(
    raw['frames'], raw['landmarks'], raw['seed']
  )
  return {name: np.asarray(value) for name, value in pairs.items()}


def _outputs_and_gradients(config, pairs, precision):
  """Training outputs and the loss's gradient, float32 host arrays by name."""
  from flax import nnx
  import jax
  import numpy as np

  from benchmarks import step
  from stormer_jax import losses, sharding, steps

  mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
  graphdef, state, _ = step.random_state(config, mesh)

  def loss_fn(params, pairs):
    detector = steps.merge(graphdef, params, state.stats)
    detector.train()
    dropout = nnx.Rngs(dropout=jax.random.key(0))
    outputs = detector(pairs['clip'], rngs=dropout)
    loss, _ = losses.three_task_loss(outputs, pairs, **config.loss)
    return loss, (loss, outputs)

  with jax.default_matmul_precision(precision):
    gradients, (loss, outputs) = jax.jit(jax.grad(loss_fn, has_aux=True))(
      state.params, pairs
    )
  named = {'loss': loss, **dataclasses.asdict(outputs)}
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    named[f'gradient/{jax.tree_util.keystr(path)}'] = leaf
  return {
    name: np.asarray(value).astype(np.float32) for name, value in named.items()
  }


def _largest(one, other):
  """Largest absolute difference of two arrays, as float."""
  return float(abs(one.astype('float64') - other.astype('float64')).max())


def _parse():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('part', choices=PARTS)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--workdir', type=pathlib.Path, help='of train')
  parser.add_argument('--small', action='store_true')
  parser.add_argument('--attention', default='xla')
  parser.add_argument('--remat', default='none')
  parser.add_argument(
    '--scan_layers', choices=('True', 'False'), default='False'
  )
  parser.add_argument('--pairs', type=int, default=32)
  parser.add_argument('--seconds', type=float, default=600, help='of growth')
  return parser.parse_args()


if __name__ == '__main__':
  main()
