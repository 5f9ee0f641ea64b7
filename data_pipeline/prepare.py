"""Command: a folder of videos -> prepared records.

  python -m data_pipeline.prepare --root VIDEOS --out DATA_ROOT

Every video is decoded, its main face followed, cropped and landmarked, and
kept as one record under each frame rule (METHOD 1.1): 'consecutive', the
first frames, to train on; 'uniform', frames spread over the video, to score.

A finished video lies in a file of its own until all are done, so killing the
command loses only the videos being worked on; the same command goes on where
it stopped, and takes up videos that were added since.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import process as process_pool
import csv
import dataclasses
import errno
import functools
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys

import cv2
import rich.console
import rich.progress
import rich.table

from data_pipeline import prepared_video, record_writer, records, verify
from data_pipeline import staging as staging_lib
from data_pipeline.faces import embedded
from data_pipeline.faces import video as video_lib
from data_pipeline.sources import catalogue

_REPORT_FIELDS = (
  'video_id', 'split', 'label', 'rule', 'status', 'reason', 'num_frames',
  'detail', 'notes',
)  # fmt: skip
_TABLE_ROWS = 40  # longer tables show what was skipped only


class _Finished(Sequence[records.VideoRecord]):
  """Finished records of a split, each loaded when it is asked for."""

  def __init__(
    self, sources: Sequence[pathlib.Path | tuple[records.Records, int]]
  ):
    """Takes staged files, and (records, index) of the dataset as it is."""
    self._sources = sources

  def __len__(self) -> int:
    return len(self._sources)

  def __getitem__(self, index):
    source = self._sources[index]
    if isinstance(source, pathlib.Path):
      return staging_lib.load_record(source)
    stored, position = source
    return stored.read_record(position)


def prepare(
  root: str | os.PathLike,
  out: str | os.PathLike,
  videos: Sequence[catalogue.Video],
  rules: Sequence[str],
  settings: prepared_video.Settings,
  num_workers: int,
  console: rich.console.Console,
) -> list[prepared_video.Outcome]:
  """Prepares videos in worker processes and writes the datasets.

  Args:
    root: folder that the videos' paths are relative to.
    out: data root.
    videos: of one dataset, each with its split.
    rules: 'consecutive', 'uniform' or both.
    settings: how.
    num_workers: processes.
    console: shows progress.

  Returns:
    What became of every video under every rule, in the order of `videos`.
  """
  root, out = pathlib.Path(root), pathlib.Path(out)
  dataset = videos[0].dataset
  staging = staging_lib.Staging(out / dataset / '.staging', root, settings)
  staging.folder.mkdir(parents=True, exist_ok=True)
  stored = {rule: _stored_positions(out, dataset, rule) for rule in rules}
  done: dict[tuple[str, str], prepared_video.Outcome] = {}
  todo: list[tuple[catalogue.Video, tuple[str, ...]]] = []
  for video in videos:
    missing = []
    for rule in rules:
      outcome = staging.outcome(video, rule)
      if outcome is None or (
        outcome.status == 'kept'
        and not staging.record_path(video, rule).exists()
        and video.video_id not in stored[rule]
      ):
        missing.append(rule)
      else:
        done[video.video_id, rule] = outcome
    if missing:
      todo.append((video, tuple(missing)))
  if len(done):
    console.print(
      f'{len(videos) - len(todo)} of {len(videos)} videos were finished before'
    )
  for outcome in _run(root, staging, todo, settings, num_workers, console):
    done[outcome.video_id, outcome.rule] = outcome
  for rule in rules:
    kept = [v for v in videos if done[v.video_id, rule].status == 'kept']
    _write(out, dataset, rule, kept, staging, stored[rule])
  for video in videos:
    for rule in rules:
      staging.record_path(video, rule).unlink(missing_ok=True)
  return [done[video.video_id, rule] for video in videos for rule in rules]


def _stored_positions(
  out: pathlib.Path, dataset: str, rule: str
) -> dict[str, tuple[records.Records, int]]:
  """Where each video of a dataset already written lies, by video_id."""
  positions = {}
  for split in records.SPLITS:
    try:
      stored = records.open_records(out, dataset, rule, split)
    except ValueError:
      continue
    for index, info in enumerate(stored.videos):
      positions[info.video_id] = (stored, index)
  return positions


def _write(
  out: pathlib.Path,
  dataset: str,
  rule: str,
  kept: Sequence[catalogue.Video],
  staging: staging_lib.Staging,
  stored: Mapping[str, tuple[records.Records, int]],
) -> None:
  """Writes a dataset from staged files and what it holds already."""
  if not kept:
    return
  sources: dict[str, list] = {}
  for split in records.SPLITS:
    for video in kept:
      if video.split == split:
        staged = staging.record_path(video, rule)
        source = staged if staged.exists() else stored[video.video_id]
        sources.setdefault(split, []).append(source)
  added = any(
    isinstance(source, pathlib.Path) for of in sources.values() for source in of
  )
  if not added and len(kept) == len(stored):
    return  # it is what lies there already
  record_writer.write_records(
    out,
    dataset,
    rule,
    {split: _Finished(of_split) for split, of_split in sources.items()},
  )


def _run(
  root: pathlib.Path,
  staging: staging_lib.Staging,
  todo: Sequence[tuple[catalogue.Video, tuple[str, ...]]],
  settings: prepared_video.Settings,
  num_workers: int,
  console: rich.console.Console,
) -> Iterator[prepared_video.Outcome]:
  """Yields outcomes as worker processes finish videos."""
  if not todo:
    return
  queue = iter(todo)
  pending: set[futures.Future] = set()
  executor = futures.ProcessPoolExecutor(
    min(num_workers, len(todo)),
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_start_worker,
  )
  columns = (
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
  )
  try:
    with rich.progress.Progress(*columns, console=console) as progress:
      bar = progress.add_task('videos', total=len(todo))
      while True:
        # Few wait in the queue, so memory does not grow with their number.
        while len(pending) < 2 * num_workers:
          task = next(queue, None)
          if task is None:
            break
          pending.add(
            executor.submit(_finish_video, root, staging, *task, settings)
          )
        if not pending:
          break
        finished, pending = futures.wait(
          pending, return_when=futures.FIRST_COMPLETED
        )
        for future in finished:
          yield from future.result()
          progress.advance(bar)
  except BaseException:
    # Finished videos are on disk; those under way are done again next time.
    for process in multiprocessing.active_children():
      process.terminate()
    raise
  finally:
    executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
  cv2.setNumThreads(1)
  silence_decoder()


def silence_decoder() -> None:
  """Keeps FFmpeg from talking: what matters goes into the report."""
  os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
  cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@functools.cache
def _backend() -> embedded.EmbeddedBackend:
  return embedded.EmbeddedBackend()  # one per process


def _finish_video(
  root: pathlib.Path,
  staging: staging_lib.Staging,
  video: catalogue.Video,
  rules: tuple[str, ...],
  settings: prepared_video.Settings,
) -> list[prepared_video.Outcome]:
  kept, outcomes = prepared_video.prepare_video(
    root, video, rules, settings, _backend()
  )
  staging.finish(video, kept, outcomes)
  return outcomes


def write_report(
  path: pathlib.Path, outcomes: Sequence[prepared_video.Outcome]
) -> None:
  """Writes one CSV line per video and rule."""
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, _REPORT_FIELDS)
    writer.writeheader()
    for outcome in outcomes:
      notes = '; '.join(outcome.notes)
      writer.writerow({**dataclasses.asdict(outcome), 'notes': notes})


def _show(
  outcomes: Sequence[prepared_video.Outcome], console: rich.console.Console
) -> None:
  """Prints the table of what was kept and skipped, and why."""
  everything = len(outcomes) <= _TABLE_ROWS
  shown = [o for o in outcomes if everything or o.status == 'skipped']
  if shown:
    table = rich.table.Table('video', 'split', 'rule', 'result', 'why')
    for o in shown:
      result = f'{o.num_frames} frames' if o.status == 'kept' else o.reason
      why = '; '.join([*o.notes, o.detail])
      table.add_row(o.video_id, o.split, o.rule, result, why)
    console.print(table)
  counts: dict[str, int] = {}
  for outcome in outcomes:
    key = outcome.reason or 'kept'
    counts[key] = counts.get(key, 0) + 1
  console.print(', '.join(f'{n} {key}' for key, n in sorted(counts.items())))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m data_pipeline.prepare',
    description='Turns a folder of videos into records to train and score on.',
  )
  parser.add_argument('--root', default='', help='folder of videos')
  parser.add_argument('--out', required=True, help='data root to write to')
  parser.add_argument(
    '--csv',
    default='',
    help='list of videos: path,label[,split,identity,method,start,end]; '
    'without it the folders real/, fake/, train/, val/, test/ tell',
  )
  parser.add_argument('--dataset', default='', help="default: root's name")
  parser.add_argument(
    '--rule', choices=[*records.RULES, 'both'], default='both'
  )
  parser.add_argument(
    '--num_frames',
    type=int,
    default=0,
    help='frames a video; default 256 (train), 32 (val, test, uniform)',
  )
  parser.add_argument(
    '--min_frames', type=int, default=4, help='fewer with a face: skipped'
  )
  parser.add_argument(
    '--val_fraction', type=float, default=0.2, help='if no splits are given'
  )
  parser.add_argument('--encoding', choices=records.ENCODINGS, default='jpeg')
  parser.add_argument(
    '--workers', type=int, default=len(os.sched_getaffinity(0))
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='prepare nothing; compare the records in --out of --dataset with'
    ' their checksums (exit code 1: some are not as written)',
  )
  args = parser.parse_args(argv)
  if args.verify and not args.dataset:
    parser.error('--verify needs --dataset')
  if not args.verify and not args.root:
    parser.error('the following arguments are required: --root')
  return args


def _list_videos(
  args: argparse.Namespace, console: rich.console.Console
) -> tuple[catalogue.Video, ...]:
  root = pathlib.Path(args.root)
  dataset = args.dataset or root.resolve().name
  videos = catalogue.list_videos(root, dataset, args.csv)
  if not args.csv and not catalogue.has_class_folders(videos):
    console.print(
      f'{root} has no real/ or fake/ folder: all {len(videos)} videos are '
      'taken to be real'
    )
  if len(videos) == 1 and not videos[0].split:
    try:
      num_frames = video_lib.probe(root / videos[0].path).num_frames
    except (ValueError, FileNotFoundError):
      return catalogue.assign_splits(videos, args.val_fraction)
    console.print('one video: its last quarter is for validation')
    return catalogue.split_in_time(videos[0], num_frames)
  return catalogue.assign_splits(videos, args.val_fraction)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = _parse(argv)
  console = rich.console.Console(stderr=True)
  silence_decoder()
  rules = records.RULES if args.rule == 'both' else (args.rule,)
  settings = prepared_video.Settings(
    min_frames=args.min_frames, encoding=args.encoding
  )
  if args.num_frames:
    settings = dataclasses.replace(
      settings,
      train_frames=args.num_frames,
      eval_frames=args.num_frames,
      uniform_frames=args.num_frames,
    )
  out = pathlib.Path(args.out)
  try:
    if args.verify:
      return verify.verify(out, args.dataset, rules, console)
    videos = _list_videos(args, console)
    outcomes = prepare(
      args.root, out, videos, rules, settings, args.workers, console
    )
    report = out / videos[0].dataset / 'report.csv'
    write_report(report, outcomes)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except OSError as error:
    if error.errno != errno.ENOSPC:
      print(f'error: {error}', file=sys.stderr)
      return 2
    free = shutil.disk_usage(out).free / 2**20
    print(
      f'error: no space left below {out} ({free:.0f} MB free); finished videos '
      'are kept: make room and run the same command again',
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt:
    print(
      'stopped; finished videos are kept: run the same command to go on',
      file=sys.stderr,
    )
    return 130
  except process_pool.BrokenProcessPool:
    print(
      'error: a worker process was killed (out of memory?); finished videos '
      'are kept: run the same command to go on, with fewer --workers',
      file=sys.stderr,
    )
    return 2
  _show(outcomes, console)
  console.print(f'records in {report.parent}, this table in {report}')
  if not any(outcome.status == 'kept' for outcome in outcomes):
    print('error: no video could be kept', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
