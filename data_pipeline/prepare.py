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
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import errno
import os
import pathlib
import shutil
import sys
import tempfile

import rich.console
import rich.progress
import rich.table

from data_pipeline import (
  command_line,
  corruptions,
  duplicates,
  folder_lock,
  inspection,
  known_videos,
  outcome_report,
  places,
  prepared_video,
  quality_page,
  records,
  stored_videos,
  verify,
  video_work,
)
from data_pipeline import staging as staging_lib
from data_pipeline.engines import engine as engine_lib
from data_pipeline.faces import backends, tracks
from data_pipeline.faces import video as video_lib
from data_pipeline.sources import catalogue, file_names, published

_TABLE_ROWS = 40  # longer tables show what was skipped only
# Choice: and of that so much. A row takes 3.7 kB until the table is printed,
# which for a long list with a wrong --root would be most of a gigabyte.
_MOST_ROWS = 1000


def prepare(
  root: str | os.PathLike,
  out: str | os.PathLike,
  videos: Sequence[catalogue.Video],
  rules: Sequence[str],
  settings: prepared_video.Settings,
  engine: engine_lib.Engine,
  console: rich.console.Console,
  replace: bool = False,
) -> outcome_report.Rows:
  """Prepares videos on an engine, and writes data sets and report.

  Videos join those that the data set holds already. One that was prepared
  before and cannot be read now stays as it was.

  Args:
    root: folder that the videos' paths are relative to.
    out: data root.
    videos: of one dataset, each with its split.
    rules: some of `records.RULES`.
    settings: how.
    engine: does the work on videos, then on the files of records.
    console: shows progress.
    replace: whether the data set shall hold these videos alone.

  Returns:
    What became of every video under every rule, in the order of `videos`: the
    first lines of the report.

  Raises:
    ValueError: another process is at it, the data set or its report is
      damaged, or a video would take the place of another.
    OSError: no space left, or no worker can be started.
  """
  # A name like 12:30.mp4 by itself would be a protocol to FFmpeg, and workers
  # may have another working directory.
  root, out = pathlib.Path(root).absolute(), pathlib.Path(out).absolute()
  dataset = videos[0].dataset
  with folder_lock.hold(out / dataset):
    report = out / dataset / 'report.csv'
    outcome_report.check(report)
    staging = staging_lib.Staging(out / dataset / '.staging', root, settings)
    staging.folder.mkdir(exist_ok=True)
    staging.clear_partial()
    known = [
      known_videos.look_up(out, videos, rule, staging, replace)
      for rule in rules
    ]
    work = video_work.VideoWork(root, staging, settings)
    _run(engine, work, videos, known_videos.Unfinished(known), console)
    with outcome_report.replacing(report) as draft:
      draft.add(known_videos.outcomes(known))
      for of_rule in known:
        _write(out, dataset, of_rule, engine, console)
      draft.add(_earlier(report, videos, rules, replace))
    rows = outcome_report.Rows(report)
    found = duplicates.find(rows)
    quality_page.write(out / dataset / 'quality.html', rows, found, dataset)
    for warning in found.warnings():
      console.print(f'warning: {warning} (quality.html names them)')
    for video in videos:
      for rule in rules:
        staging.record_path(video, rule).unlink(missing_ok=True)
  return outcome_report.Rows(report, len(videos) * len(rules))


def _run(
  engine: engine_lib.Engine,
  work: video_work.VideoWork,
  videos: Sequence[catalogue.Video],
  todo: known_videos.Unfinished,
  console: rich.console.Console,
) -> None:
  """Does the work on videos of which something is not known, with a bar."""
  misnamed = sum(not file_names.is_text(video.video_id) for video in videos)
  if len(videos) > len(todo) + misnamed:
    console.print(
      f'{len(videos) - len(todo) - misnamed} of {len(videos)} videos were'
      ' finished before'
    )
  columns = (
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
  )
  if todo:
    with rich.progress.Progress(*columns, console=console) as progress:
      bar = progress.add_task('videos', total=len(todo))
      engine.run(work, todo, lambda: progress.advance(bar))


def _write(
  out: pathlib.Path,
  dataset: str,
  known: known_videos.KnownVideos,
  engine: engine_lib.Engine,
  console: rich.console.Console,
) -> None:
  """Writes the records of one rule, and says what stays beside them."""
  stored_videos.write(
    out,
    dataset,
    known.rule,
    known.videos,
    known.kept,
    known.staged,
    known.places,
    known.replace,
    engine,
  )
  num_others = len(known.places.others)
  if num_others and not known.replace:
    console.print(
      f'{dataset}/{known.rule} keeps {num_others} videos that are not listed '
      'now; --replace leaves them out'
    )


def _earlier(
  report: pathlib.Path,
  videos: Sequence[catalogue.Video],
  rules: Sequence[str],
  replace: bool,
) -> Iterator[prepared_video.Outcome]:
  """Yields the lines of earlier commands that stay."""
  if not report.exists():
    return
  listed = {file_names.as_text(video.video_id) for video in videos}
  for outcome in outcome_report.read(report):
    if outcome.rule not in rules or not (replace or outcome.video_id in listed):
      yield outcome


def _show(
  outcomes: Iterable[prepared_video.Outcome], console: rich.console.Console
) -> bool:
  """Prints the table of what was kept and skipped, and why.

  Returns:
    Whether any was kept.
  """
  counts: dict[str, int] = {}
  shown: list[prepared_video.Outcome] = []
  num_shown = 0
  for number, outcome in enumerate(outcomes):
    key = outcome.reason or 'kept'
    counts[key] = counts.get(key, 0) + 1
    if number == _TABLE_ROWS:
      shown = [o for o in shown if o.status == 'skipped']
      num_shown = len(shown)
    if number < _TABLE_ROWS or outcome.status == 'skipped':
      num_shown += 1
      if len(shown) < _MOST_ROWS:
        shown.append(outcome)
  if shown:
    # Names are broken, not shortened.
    name = rich.table.Column('video', overflow='fold')
    table = rich.table.Table(name, 'split', 'rule', 'result', 'why')
    for o in shown:
      result = f'{o.num_frames} frames' if o.status == 'kept' else o.reason
      why = '; '.join([*o.notes, o.detail])
      video_id, why = map(file_names.printable, (o.video_id, why))
      table.add_row(video_id, o.split, o.rule, result, why)
    console.print(table)
  if num_shown > len(shown):
    console.print(f'and {num_shown - len(shown)} more rows in report.csv')
  console.print(', '.join(f'{n} {key}' for key, n in sorted(counts.items())))
  return 'kept' in counts


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.Parser(
    prog='python -m data_pipeline.prepare',
    description='Turns a folder of videos into records to train and score on.',
  )
  parser.add_argument('--root', default='', help='folder of videos')
  parser.add_argument('--out', required=True, help='data root to write to')
  parser.add_argument(
    '--csv',
    default='',
    help='list of videos: path,label[,split,identity,method,start,end,group,'
    'pair]; without it the folders real/, fake/, train/, val/, test/ tell',
  )
  parser.add_argument(
    '--source',
    default='',
    metavar='NAME',
    help='the published data set that --root holds, splits included: '
    f'{", ".join(published.SOURCES)}',
  )
  parser.add_argument(
    '--corrupt',
    default='',
    metavar='KIND:LEVEL',
    help='damage every video first, and name the result NAME-KIND-LEVEL; '
    f'kinds: {", ".join(corruptions.PARAMETERS)}; levels 1 to 5',
  )
  parser.add_argument(
    '--backend',
    choices=backends.NAMES,
    default='embedded',
    help='what finds faces and places landmarks; all but the default need a '
    'file of yours',
  )
  parser.add_argument(
    '--face_model',
    action='append',
    default=[],
    metavar='FILE',
    help='of --backend: a predictor of dlib (.dat, 68 or 81 points), an SCRFD '
    'or RetinaFace (.onnx); for scrfd+dlib twice, in this order',
  )
  parser.add_argument(
    '--track',
    choices=tracks.RULES,
    default='track',
    help='track: follow the main face; official: take the best face of every '
    'frame by itself, as the released code does',
  )
  parser.add_argument(
    '--boxes_of',
    choices=('self', 'pair'),
    default='self',
    help='pair: cut a fake out where its original (column pair) shows the face',
  )
  parser.add_argument(
    '--dataset', default='', help='default: that of --source, or of root'
  )
  parser.add_argument(
    '--replace',
    action='store_true',
    help='leave out what the data set holds of videos that are not listed now',
  )
  parser.add_argument(
    '--rule',
    choices=[*records.RULES, 'both'],
    default='both',
    help='consecutive: the first frames, to train on; uniform: frames spread '
    'over the video, to score as the paper does; dense: clips of consecutive '
    'frames spread over it; default: the first two',
  )
  parser.add_argument(
    '--num_frames',
    type=int,
    help='frames a video; default 256 (train), 32 (val, test, uniform)',
  )
  parser.add_argument(
    '--clip_frames',
    type=int,
    default=4,
    help='frames of a clip of the rule dense',
  )
  parser.add_argument(
    '--min_frames', type=int, default=4, help='fewer with a face: skipped'
  )
  parser.add_argument(
    '--val_fraction', type=float, default=0.2, help='if no splits are given'
  )
  parser.add_argument('--encoding', choices=records.ENCODINGS, default='jpeg')
  parser.add_argument(
    '--engine',
    choices=engine_lib.NAMES,
    default='processes',
    help='who does the work: processes of this machine (default), this process '
    'alone, or a pipeline of Apache Beam (docs/prepare_at_scale.md)',
  )
  parser.add_argument(
    '--workers',
    type=int,
    default=len(os.sched_getaffinity(0)),
    help='of --engine=processes',
  )
  parser.add_argument(
    '--beam_pipeline_options',
    default='',
    metavar='NAME=VALUE,...',
    help='of --engine=beam, as runner=FlinkRunner,flink_master=HOST:8081',
  )
  parser.add_argument(
    '--inspect',
    type=int,
    default=0,
    metavar='N',
    help='write a sheet of the crops of N videos with their landmarks, '
    'OUT/DATASET/inspect-RULE.png; without --root of what is prepared already',
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='prepare nothing; compare the records in --out of --dataset with'
    ' their checksums (exit code 1: some are not as written)',
  )
  args = parser.parse_args(argv)
  if args.inspect < 0:
    parser.error(f'--inspect is {args.inspect}; it is 0 or more')
  for name in ('verify', 'inspect'):
    if getattr(args, name) and not args.root and not args.dataset:
      parser.error(f'--{name} needs --dataset')
  if not (args.verify or args.inspect or args.root):
    parser.error('the following arguments are required: --root')
  return args


def _check(args: argparse.Namespace) -> None:
  """Raises ValueError for flags out of range."""
  for name in ('num_frames', 'min_frames', 'clip_frames', 'workers'):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise ValueError(f'--{name} is {value}; it is 1 or more')
  if args.num_frames is not None and args.num_frames < args.min_frames:
    raise ValueError(
      f'--num_frames is {args.num_frames} and --min_frames {args.min_frames}: '
      'no video could be kept'
    )
  if args.source and args.csv:
    raise ValueError('--source and --csv both say which videos there are')
  if not 0 < args.val_fraction < 1:
    raise ValueError(
      f'--val_fraction is {args.val_fraction}; it lies between 0 and 1'
    )


def _settings(args: argparse.Namespace) -> prepared_video.Settings:
  """The settings that the flags say.

  Raises:
    ValueError: the backend cannot be opened.
  """
  faces = backends.Choice(args.backend, tuple(args.face_model))
  if faces.files:
    backends.open_backend(faces)  # a wrong file ends the command, not a worker
  settings = prepared_video.Settings(
    min_frames=args.min_frames,
    encoding=args.encoding,
    corruption=args.corrupt,
    clip_frames=args.clip_frames,
    faces=faces,
    track=args.track,
    boxes_of=args.boxes_of,
  )
  if not args.num_frames:
    return settings
  return dataclasses.replace(
    settings,
    train_frames=args.num_frames,
    eval_frames=args.num_frames,
    uniform_frames=args.num_frames,
  )


def _dataset_name(args: argparse.Namespace) -> str:
  """The name of the data set, which is a folder and part of file names."""
  name = args.dataset or args.source or pathlib.Path(args.root).resolve().name
  if args.corrupt:
    name = f'{name}-{corruptions.parse(args.corrupt)}'
  if (
    not name
    or name.startswith('.')
    or name != name.strip()
    or any(character in '/\\:' for character in name)
    or file_names.printable(name) != name
    or len(name.encode()) > 200
  ):
    raise ValueError(
      f'{name!r} cannot be the name of a data set: it is a folder and stands '
      'in NAME:SPLIT, so it has no slash, colon or control character, at most '
      '200 bytes, and no dot in front; --dataset gives another'
    )
  return name


def _list_videos(
  args: argparse.Namespace, console: rich.console.Console
) -> tuple[catalogue.Video, ...]:
  root = pathlib.Path(args.root)
  if args.source:
    return _list_published(args, console)
  listing = catalogue.list_videos(root, _dataset_name(args), args.csv)
  videos = listing.videos
  for note in listing.notes:
    console.print(file_names.printable(note))
  if all(video.label for video in videos):
    console.print('all are fakes: to be scored, not to train on')
  # A fake is cut from no training video, and goes to val as it is.
  if len(videos) == 1 and not videos[0].split and not videos[0].label:
    try:
      path = root.absolute() / videos[0].path
      num_frames = video_lib.probe(path).num_frames
    except (ValueError, FileNotFoundError):
      return catalogue.assign_splits(videos, args.val_fraction)
    console.print('one video: its last quarter is for validation')
    return catalogue.split_in_time(videos[0], num_frames)
  return catalogue.assign_splits(videos, args.val_fraction)


def _list_published(
  args: argparse.Namespace, console: rich.console.Console
) -> tuple[catalogue.Video, ...]:
  """Lists a published set. Its training fakes are no training data here."""
  videos = published.list_published(args.source, args.root, _dataset_name(args))
  kept = tuple(v for v in videos if not (v.label and v.split == 'train'))
  if len(kept) < len(videos):
    console.print(
      f'left out {len(videos) - len(kept)} fakes of the training split: '
      'training takes real videos alone'
    )
  unsplit = catalogue.assign_splits(
    [video for video in kept if not video.split], args.val_fraction
  )
  return (*(video for video in kept if video.split), *unsplit)


def _inspect(
  args: argparse.Namespace,
  rules: Sequence[str],
  dataset: str,
  console: rich.console.Console,
) -> None:
  """Writes a sheet for each rule that the data set has.

  Raises:
    ValueError: it has none, or a damaged record.
  """
  for rule in inspection.stored_rules(args.out, dataset, rules) or rules[:1]:
    path = inspection.write_sheet(args.out, dataset, rule, args.inspect)
    console.print(f'crops with landmarks in {path}')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  command_line.open_streams()
  args = _parse(argv)
  # No markup: names of files hold brackets and colons.
  console = rich.console.Console(
    stderr=True, markup=False, emoji=False, highlight=False
  )
  video_work.silence_decoder()
  rules = ('consecutive', 'uniform') if args.rule == 'both' else (args.rule,)
  out = pathlib.Path(args.out)
  try:
    if args.verify:
      return verify.verify(out, args.dataset, rules, console)
    if not args.root:
      _inspect(args, rules, args.dataset, console)
      return 0
    _check(args)
    settings = _settings(args)
    # Before anything is searched: an engine may not be installed.
    engine = engine_lib.make(
      args.engine,
      args.workers,
      [o for o in args.beam_pipeline_options.split(',') if o],
      out / _dataset_name(args) / '.staging',
    )
    videos = _list_videos(args, console)
    catalogue.refuse_shared_files(args.root, videos)
    outcomes = prepare(
      args.root,
      out,
      videos,
      rules,
      settings,
      engine,
      console,
      args.replace,
    )
    # At once, and where a report that cannot be read is one line.
    any_kept = _show(outcomes, console)
    if args.inspect:
      _inspect(args, rules, videos[0].dataset, console)
  except ValueError as error:
    return command_line.fail(error)
  except ChildProcessError as error:
    return command_line.fail(
      f'{error}; finished videos are kept: run the same command to go on'
    )
  except OSError as error:
    if error.errno not in places.NO_SPACE:
      return command_line.fail(error)
    place, hint = out, ''
    if error.filename == tempfile.gettempdir():  # of a copy compressed anew
      place, hint = pathlib.Path(error.filename), ' (or name another in TMPDIR)'
    free = f'{shutil.disk_usage(place).free / 2**20:.0f} MB free'
    if error.errno == errno.EDQUOT:
      free = 'your quota there is used up'
    return command_line.fail(
      f'no space left below {place} ({free}); finished videos are '
      f'kept: make room{hint} and run the same command again'
    )
  except KeyboardInterrupt:
    print(
      'stopped; finished videos are kept: run the same command to go on',
      file=sys.stderr,
    )
    return 130
  folder = out / videos[0].dataset
  console.print(
    f'records in {folder}, this table in {folder / "report.csv"}, how well'
    f' faces were cut out in {folder / "quality.html"}'
  )
  if not any_kept:
    return command_line.fail('no video could be kept')
  return 0


if __name__ == '__main__':
  sys.exit(main())
