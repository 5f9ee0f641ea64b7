"""Measures the engines of `prepare`, and what a long list takes of memory.

  python -m benchmarks.prepare_engines VIDEOS            # a folder of videos
  python -m benchmarks.prepare_engines --names=100000    # made-up ones

The first prints, for one process and for worker processes, CPU seconds and how
many cores were busy. On a machine with other work wall times say nothing of an
engine: what it costs is the CPU seconds that it takes beyond those of one
process; whether it keeps its cores busy shows where they were free. The second
prepares records of a few bytes and prints how the memory of the process that
hands out the work has grown for every name: of the first command, and of the
same one when all is there already.
"""

import argparse
import dataclasses
import hashlib
import multiprocessing
import os
import pathlib
import resource
import tempfile
import time

import numpy as np
import rich.console

from data_pipeline import prepare, prepared_video, records, shard_work
from data_pipeline.engines import engine as engine_lib
from data_pipeline.engines import in_process, processes
from data_pipeline.sources import catalogue


def main() -> None:
  """Measures one or the other."""
  args = _parse()
  if args.names:
    _measure_names(args.names)
  else:
    _measure_engines(pathlib.Path(args.videos), args.workers, args.rounds)


def _measure_engines(
  root: pathlib.Path, num_workers: int, num_rounds: int
) -> None:
  """Prints a line a round and engine; rounds in turn, for what drifts."""
  listing = catalogue.list_videos(root, 'bench')
  videos = catalogue.assign_splits(listing.videos, 0.2)
  print(
    f'{len(videos)} videos, {len(os.sched_getaffinity(0))} cores\n\n'
    '| engine | wall s | CPU s | cores busy | CPU of one process / CPU |\n'
    '| --- | --- | --- | --- | --- |'
  )
  engines: dict[str, engine_lib.Engine] = {
    'in process': in_process.InProcess(),
    f'{num_workers} processes': processes.Processes(num_workers),
  }
  for _ in range(num_rounds):
    alone = 0.0
    for name, engine in engines.items():
      wall, cpu = _time(root, videos, engine)
      alone = alone or cpu
      print(
        f'| {name} | {wall:.1f} | {cpu:.1f} | {cpu / wall:.2f} |'
        f' {alone / cpu:.3f} |',
        flush=True,
      )


def _time(
  root: pathlib.Path, videos: tuple[catalogue.Video, ...], engine
) -> tuple[float, float]:
  """Wall and CPU seconds of preparing the videos, workers included."""
  with tempfile.TemporaryDirectory() as out:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    prepare.prepare(
      root,
      out,
      videos,
      ('consecutive', 'uniform'),
      prepared_video.Settings(),
      engine,
      rich.console.Console(quiet=True),
    )
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
  of = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  return sum(usage.ru_utime + usage.ru_stime for usage in of)


@dataclasses.dataclass(frozen=True)
class MadeUp:
  """An engine that stages a record of a few bytes for every video."""

  def run(self, work, tasks, tick=lambda: None) -> None:
    if isinstance(work, shard_work.ShardWork):
      in_process.InProcess().run(work, tasks, tick)
      return
    for number, (video, rules) in enumerate(tasks):
      digest = hashlib.sha256(video.video_id.encode()).hexdigest()
      work.staging.finish(
        video,
        [_record(video) for _ in rules],
        [
          prepared_video.Outcome(
            video_id=video.video_id,
            split=video.split,
            label='real',
            rule=rule,
            status='kept',
            num_frames=4,
            detail='face in 4 of 4 frames',
            num_asked=4,
            face_size=100 + number % 1000 / 10,
            jitter=number % 1777 / 1000,
            source_digest=digest[:16],
            looks=digest[:48],
          )
          for rule in rules
        ],
      )


def _record(video: catalogue.Video) -> records.VideoRecord:
  return records.VideoRecord(
    video_id=video.video_id,
    frames=(b'0',) * 4,
    landmarks=np.zeros((4, 81, 2), np.float32),
    boxes=np.zeros((4, 4), np.float32),
    frame_indices=np.arange(4, dtype=np.int32),
    times=np.arange(4, dtype=np.float32),
    fps=25.0,
    label=0,
    dataset='bench',
    identity='',
    method='',
    source_path=video.path,
    provenance='{}',
  )


def _measure_names(count: int) -> None:
  """Prepares made-up videos under one rule, twice, and prints the memory.

  Each command has a process of its own, as it has from a terminal.
  """
  with tempfile.TemporaryDirectory() as out:
    for what in ('a list', 'the same list again'):
      context = multiprocessing.get_context('spawn')
      command = context.Process(target=_command, args=(what, count, out))
      command.start()
      command.join()


def _command(what: str, count: int, out: str) -> None:
  """Prepares made-up videos and prints what this process took."""
  before = _resident_mib()
  videos = tuple(
    catalogue.Video(
      path=(path := f'train/real/person{i % 500:03}/video{i:06}.mp4'),
      label=0,
      video_id=path,
      dataset='bench',
      split='train',
    )
    for i in range(count)
  )
  listed = _resident_mib()
  prepare.prepare(
    out,
    out,
    videos,
    ('uniform',),
    prepared_video.Settings(),
    MadeUp(),
    rich.console.Console(quiet=True),
  )
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(
    f'{what}: {count} videos: list {listed - before:.0f} MiB, peak of the whole'
    f' command {peak:.0f} MiB, {peak - before:.0f} above its start:'
    f' {(peak - before) * 2**20 / count:.0f} bytes a video'
  )


def _resident_mib() -> float:
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('videos', nargs='?', help='folder of videos')
  parser.add_argument('--workers', type=int, default=2)
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--names', type=int, default=0)
  args = parser.parse_args()
  if not args.videos and not args.names:
    parser.error('a folder of videos, or --names')
  return args


if __name__ == '__main__':
  main()
