"""Measures the loader: clips a second, CPU time, bytes, memory, at work too.

  python -m benchmarks.loader --make=FOLDER
  python -m benchmarks.loader --data_root=FOLDER --dataset=made \
    [--batches=10000] [--against-step=configs/demo.py]

The first makes 20 videos of 256 frames, about 8 MB each as those of real faces.
The second reads training clips as a run does (`clips.train_dataset`: records
read, JPEG decoded, shuffled, batched) and throws them away. Prints Markdown:
speed, CPU time, bytes read (as the system counts them, `rchar`), how many times
the bytes of the frames used that is, and resident memory every 500 batches;
the slope of the memory after the first tenth; clips a CPU second, and how many
accelerators one core feeds. With --against-step it then takes training steps
of a configuration, first on one batch that lies ready, then on batches from the
loader, and says how many times faster the loader is and how long the steps
wait. The figures of CPU time do not depend on what else the machine does; those
of wall time do; on a machine that others keep busy CPU time grows too, so the
time of decoding the same frames, alone in one thread, stands beside it. Needs
Linux (/proc).
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

from benchmarks import made_records
from configs import base
from data_pipeline import clips, records
from stormer_jax import flops, model, sharding, steps, train

_WARM_UP = 20  # batches
_MFU = 0.45  # what a step of ViT-B may reach on an accelerator
_FED = ('NVIDIA H100 80GB HBM3', 'TPU v6e')


@dataclasses.dataclass(frozen=True)
class Window:
  """What one stretch of batches took.

  Attributes:
    batches: Batches read since the start, at its end.
    clips: Clips read in it.
    wall: Seconds.
    cpu: CPU seconds of all threads.
    read: Bytes that system calls read.
    resident: MiB at its end.
  """

  batches: int
  clips: int
  wall: float
  cpu: float
  read: int
  resident: float


def main() -> None:
  """Measures the loader, and the step if asked to."""
  args = _parse()
  if args.make:
    print(made_records.write(args.make))
    return
  config = _load_config(args.against_step) if args.against_step else None
  videos = records.open_records(
    args.data_root, args.dataset, 'consecutive', 'train'
  )
  num_frames = config.model.num_frames if config else args.num_frames
  batch_size = args.batch or (config.data.batch_size if config else 64)
  open_stream = functools.partial(
    clips.train_dataset,
    videos,
    num_frames=num_frames,
    batch_size=batch_size,
    max_offset=-1,
    seed=0,
    num_threads=args.threads,
    prefetch=args.prefetch,
  )
  print(
    f'{len(videos)} videos of {args.dataset}, {batch_size} clips of'
    f' {num_frames} frames a batch,'
    f' {args.threads} threads, {args.prefetch} batches ahead,'
    f' {len(os.sched_getaffinity(0))} cores\n'
  )
  windows = measure_loader(open_stream(), batch_size, args.batches, args.every)
  used, decoding = _frame_costs(videos)
  _print_windows(windows, used * num_frames)
  _print_feeding(windows, decoding * num_frames, num_frames)
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
    wall, cpu, read = time.perf_counter(), time.process_time(), _bytes_read()
    for _ in range(count):
      next(stream)
    windows.append(
      Window(
        batches=done + count,
        clips=count * batch_size,
        wall=time.perf_counter() - wall,
        cpu=time.process_time() - cpu,
        read=_bytes_read() - read,
        resident=_resident_mib(),
      )
    )
  return windows


def describe_memory(windows: list[Window]) -> str:
  """Says what 1,000 batches add, by least squares after the first tenth."""
  settled = [w for w in windows if w.batches > windows[-1].batches / 10]
  if len(settled) < 5:
    return 'too few lines to say whether memory grows (more --batches)'
  batches = [w.batches / 1000 for w in settled]
  slope = np.polyfit(batches, [w.resident for w in settled], 1)[0]
  return f'memory grows by {slope:+.2f} MiB per 1,000 batches'


def _resident_mib() -> float:
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def _bytes_read() -> int:
  lines = pathlib.Path('/proc/self/io').read_text().splitlines()
  return int(dict(line.split(': ') for line in lines)['rchar'])


def _frame_costs(videos: records.Records) -> tuple[float, float]:
  """Mean bytes, and CPU seconds of decoding, of a frame of a few videos."""
  chosen = np.linspace(0, len(videos) - 1, min(len(videos), 20)).astype(int)
  frames = [f for i in chosen for f in videos.read_record(int(i)).frames[:64]]
  cpu = time.process_time()
  for frame in frames:
    records.decode_frame(frame)
  cpu = time.process_time() - cpu
  return sum(map(len, frames)) / len(frames), cpu / len(frames)


def _print_windows(windows: list[Window], used: float) -> None:
  """Prints the measurements; `used` are the bytes of a clip's frames."""
  print(
    '| batches | clips/s | CPU-ms a clip | MB read a clip | times those used |'
    ' resident MiB |'
  )
  print('| --- | --- | --- | --- | --- | --- |')
  for w in windows:
    read = w.read / w.clips
    print(
      f'| {w.batches:,} | {w.clips / w.wall:.1f} |'
      f' {1e3 * w.cpu / w.clips:.2f} | {read / 1e6:.3f} | {read / used:.2f} |'
      f' {w.resident:.0f} |'
    )
  wall, cpu = _seconds_a_clip(windows)
  print(
    f'\nmedian: {1 / wall:.1f} clips/s, {1e3 * cpu:.2f} CPU-ms a clip;'
    f' {describe_memory(windows)}\n'
  )


def _print_feeding(
  windows: list[Window], decoding: float, num_frames: int
) -> None:
  """Prints what one core delivers beside what accelerators take."""
  _, cpu = _seconds_a_clip(windows)
  config = base.get_config()
  config.model.num_frames = num_frames
  work = flops.train_step_flops(
    model.StormerConfig(**config.model), 2, config.optimizer.rho
  )
  print(
    f'{1 / cpu:.0f} clips a CPU second; {1e3 * decoding:.2f} of the'
    f' {1e3 * cpu:.2f} CPU-ms are to decode the frames (alone in one thread:'
    f' {1e3 * decoding / num_frames:.3f} a frame)\n'
  )
  for kind in _FED:
    pairs = _MFU * (flops.peak_flops(kind, 'bfloat16') or 0) / work
    print(
      f'one core feeds {1 / cpu / pairs:.2f} of {kind} (ViT-B, T ='
      f' {num_frames}, {_MFU:.0%} MFU: {pairs:.0f} pairs/s)'
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
  parser.add_argument('--make', help='folder: make videos in it, no more')
  parser.add_argument('--data_root', help='as --out of prepare')
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
  args = parser.parse_args()
  if not args.make and not args.data_root:
    parser.error('--data_root or --make is needed')
  return args


if __name__ == '__main__':
  main()
