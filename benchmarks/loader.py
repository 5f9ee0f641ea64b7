"""Measures the loader: clips a second, CPU time, memory, alone and at work.

  python -m benchmarks.loader --data_root=DATA --dataset=NAME \
    [--batches=10000] [--against-step=configs/demo.py]

Reads training clips as a run does (`clips.train_dataset`: records read, JPEG
decoded, shuffled, batched) and throws them away. Prints Markdown: speed, CPU
time and resident memory every 500 batches, and the slope of the memory after
the first tenth. With --against-step it then takes training steps of a
configuration, first on one batch that lies ready, then on batches from the
loader, and says how many times faster the loader is and how long the steps
wait. The figures of CPU time do not depend on what else the machine does; those
of wall time do. Needs Linux (/proc).
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import runpy
import time

import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import clips, records
from stormer_jax import sharding, steps, train

_WARM_UP = 20  # batches


@dataclasses.dataclass(frozen=True)
class Window:
  """What one stretch of batches took.

  Attributes:
    batches: Batches read since the start, at its end.
    clips: Clips read in it.
    wall: Seconds.
    cpu: CPU seconds of all threads.
    resident: MiB at its end.
  """

  batches: int
  clips: int
  wall: float
  cpu: float
  resident: float


def main() -> None:
  """Measures the loader, and the step if asked to."""
  args = _parse()
  config = _load_config(args.against_step) if args.against_step else None
  videos = records.open_records(
    args.data_root, args.dataset, 'consecutive', 'train'
  )
  batch_size = args.batch or (config.data.batch_size if config else 64)
  open_stream = functools.partial(
    clips.train_dataset,
    videos,
    num_frames=config.model.num_frames if config else args.num_frames,
    batch_size=batch_size,
    max_offset=-1,
    seed=0,
    num_threads=args.threads,
    prefetch=args.prefetch,
  )
  print(
    f'{len(videos)} videos of {args.dataset}, {batch_size} clips a batch,'
    f' {args.threads} threads, {args.prefetch} batches ahead,'
    f' {len(os.sched_getaffinity(0))} cores\n'
  )
  windows = measure_loader(open_stream(), batch_size, args.batches, args.every)
  _print_windows(windows)
  if config:
    config.data.batch_size = batch_size
    _compare(config, open_stream, windows, args.steps)


def measure_loader(
  stream: clips.ClipIterator, batch_size: int, num_batches: int, every: int
) -> list[Window]:
  """Reads batches and throws them away."""
  for _ in range(_WARM_UP):
    next(stream)
  windows: list[Window] = []
  while (done := windows[-1].batches if windows else 0) < num_batches:
    count = min(every, num_batches - done)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
      next(stream)
    windows.append(
      Window(
        batches=done + count,
        clips=count * batch_size,
        wall=time.perf_counter() - wall,
        cpu=time.process_time() - cpu,
        resident=_resident_mib(),
      )
    )
  return windows


def memory_slope(windows: list[Window]) -> float:
  """MiB that 1,000 batches add, by least squares after the first tenth.

  NaN where too few windows are left to tell a slope from noise.
  """
  settled = [w for w in windows if w.batches > windows[-1].batches / 10]
  if len(settled) < 5:
    return float('nan')
  batches = [w.batches / 1000 for w in settled]
  return float(np.polyfit(batches, [w.resident for w in settled], 1)[0])


def _resident_mib() -> float:
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def _print_windows(windows: list[Window]) -> None:
  print('| batches | clips/s | CPU-ms a clip | resident MiB |')
  print('| --- | --- | --- | --- |')
  for w in windows:
    print(
      f'| {w.batches:,} | {w.clips / w.wall:.1f} |'
      f' {1e3 * w.cpu / w.clips:.2f} | {w.resident:.0f} |'
    )
  wall, cpu = _seconds_a_clip(windows)
  print(
    f'\nmedian: {1 / wall:.1f} clips/s, {1e3 * cpu:.2f} CPU-ms a clip; memory'
    f' grows by {memory_slope(windows):+.2f} MiB per 1,000 batches\n'
  )


def _seconds_a_clip(windows: list[Window]) -> tuple[float, float]:
  return (
    float(np.median([w.wall / w.clips for w in windows])),
    float(np.median([w.cpu / w.clips for w in windows])),
  )


def _compare(config, open_stream, windows, num_steps) -> None:
  """Prints the loader beside the step, and both together."""
  take_step = _train_step(config)
  batch_size = config.data.batch_size
  batch = next(open_stream())
  for _ in range(2):
    take_step(batch)
  wall, cpu = _measure_steps(lambda: batch, take_step, num_steps)[:2]
  step = [x / batch_size for x in (wall, cpu)]
  loader = _seconds_a_clip(windows)
  stream = open_stream()
  for _ in range(2):
    take_step(next(stream))
  wall, cpu, waited = _measure_steps(lambda: next(stream), take_step, num_steps)
  both = [x / batch_size for x in (wall, cpu)]
  print('| | clips/s | CPU-ms a clip |')
  print('| --- | --- | --- |')
  for name, (wall_a_clip, cpu_a_clip) in (
    ('loader alone', loader),
    ('step alone', step),
    ('step fed by the loader', both),
  ):
    print(f'| {name} | {1 / wall_a_clip:.1f} | {1e3 * cpu_a_clip:.1f} |')
  print(
    f'\nthe loader delivers {step[0] / loader[0]:.1f} times what the step'
    f' consumes by wall time, {step[1] / loader[1]:.1f} times by CPU time; fed'
    f' by it, the step waits for data {waited / wall:.2%} of the time'
  )


def _measure_steps(get_batch, take_step, num_steps):
  """Median (wall, CPU) seconds of a step, and mean seconds of waiting."""
  times = []
  for _ in range(num_steps):
    wall, cpu = time.perf_counter(), time.process_time()
    batch = get_batch()
    waited = time.perf_counter() - wall
    take_step(batch)
    times.append(
      (time.perf_counter() - wall, time.process_time() - cpu, waited)
    )
  wall, cpu, _ = np.median(times, axis=0)
  return float(wall), float(cpu), float(np.mean([t[2] for t in times]))


def _train_step(config: config_dict.ConfigDict):
  """A function that makes pairs of a batch and takes one SAM step on them."""
  mesh = sharding.make_mesh()
  graphdef, init_weights = steps.make_model(config)
  tx = steps.make_optimizer(config, steps_per_epoch=100)
  make_pairs = train.jit_pairs(config, mesh)
  update = jax.jit(
    steps.make_train_step(config, graphdef, tx, 100), donate_argnums=0
  )
  states = [
    jax.jit(
      lambda: steps.init_state(*init_weights(), tx, config.optimizer.ema_decay)
    )()
  ]

  def take_step(batch):
    batch = sharding.put_batch(batch, mesh)
    pairs = make_pairs(batch['frames'], batch['landmarks'], batch['seed'])
    states[0], terms = update(states[0], pairs)
    jax.block_until_ready(terms)

  return take_step


def _load_config(path: str) -> config_dict.ConfigDict:
  return runpy.run_path(path)['get_config']()


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data_root', required=True, help='as --out of prepare')
  parser.add_argument('--dataset', default='demo')
  parser.add_argument(
    '--batch', type=int, help="clips; default: the configuration's, or 64"
  )
  parser.add_argument('--num_frames', type=int, default=4)
  parser.add_argument('--threads', type=int, default=8)
  parser.add_argument('--prefetch', type=int, default=8, help='batches')
  parser.add_argument('--batches', type=int, default=10_000)
  parser.add_argument('--every', type=int, default=500, help='batches a line')
  parser.add_argument('--against-step', help='file in configs/')
  parser.add_argument('--steps', type=int, default=30)
  return parser.parse_args()


if __name__ == '__main__':
  main()
