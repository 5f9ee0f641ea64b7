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
from collections.abc import Mapping, Sequence
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
  outcome_report,
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


def prepare(
  root: str | os.PathLike,
  out: str | os.PathLike,
  videos: Sequence[catalogue.Video],
  rules: Sequence[str],
  settings: prepared_video.Settings,
  engine: engine_lib.Engine,
  console: rich.console.Console,
  replace: bool = False,
) -> list[prepared_video.Outcome]:
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
    What became of every video under every rule, in the order of `videos`.

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
    places = {rule: _find_places(out, dataset, rule, replace) for rule in rules}
    staging = staging_lib.Staging(out / dataset / '.staging', root, settings)
    staging.folder.mkdir(exist_ok=True)
    staging.clear_partial()
    if not replace:
      _refuse_clashes(videos, staging, places)
      for of_rule in places.values():
        stored_videos.refuse_backend(of_rule, videos, settings.faces.full_name)
    known = {
      rule: [_look_up(video, rule, staging, of_rule) for video in videos]
      for rule, of_rule in places.items()
    }
    work = video_work.VideoWork(root, staging, settings)
    _run(engine, work, videos, known, console)
    outcomes: dict[str, list[prepared_video.Outcome]] = {}
    for rule in rules:
      became = outcomes[rule] = []
      for video, outcome in zip(videos, known[rule], strict=True):
        outcome = outcome or staging.outcome(video, rule)
        outcome = outcome or _crashed(video, rule)
        place = places[rule].get(video.video_id)
        if outcome.status == 'skipped' and place and not replace:
          outcome = _as_before(outcome, place)
        became.append(outcome)
      stored_videos.write(
        out,
        dataset,
        rule,
        videos,
        {outcome.video_id for outcome in became if outcome.status == 'kept'},
        staging,
        places[rule],
        replace,
        engine,
      )
      others = set(places[rule]) - {video.video_id for video in videos}
      if others and not replace:
        console.print(
          f'{dataset}/{rule} keeps {len(others)} videos that are not listed '
          'now; --replace leaves them out'
        )
    in_order = [
      outcome
      for of_video in zip(*outcomes.values(), strict=True)
      for outcome in of_video
    ]
    everything = outcome_report.with_earlier(
      report,
      in_order,
      keeps=lambda rule: not replace or rule not in rules,
    )
    outcome_report.write(report, everything)
    found = duplicates.find(everything)
    quality_page.write(
      out / dataset / 'quality.html', everything, found, dataset
    )
    for warning in found.warnings():
      console.print(f'warning: {warning} (quality.html names them)')
    for video in videos:
      for rule in rules:
        staging.record_path(video, rule).unlink(missing_ok=True)
  return in_order


def _run(
  engine: engine_lib.Engine,
  work: video_work.VideoWork,
  videos: Sequence[catalogue.Video],
  known: Mapping[str, Sequence[prepared_video.Outcome | None]],
  console: rich.console.Console,
) -> None:
  """Does the work on videos of which something is not known, with a bar."""
  todo: list[video_work.VideoTask] = []
  sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # one of each
  for video, *of_rules in zip(videos, *known.values(), strict=True):
    missing = tuple(
      rule
      for rule, outcome in zip(known, of_rules, strict=True)
      if outcome is None
    )
    if missing:
      rules = sets.setdefault(missing, missing)
      todo.append(video_work.VideoTask(video, rules))
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


def _find_places(
  out: pathlib.Path, dataset: str, rule: str, replace: bool
) -> dict[str, stored_videos.Place]:
  """What a data set holds; a damaged one holds nothing that is to be kept."""
  stored_videos.restore(out, dataset, rule)
  try:
    return stored_videos.find_places(out, dataset, rule)
  except ValueError as error:
    if replace:
      return {}
    raise ValueError(f'{error}; --replace makes the data set anew') from error


def _refuse_clashes(
  videos: Sequence[catalogue.Video],
  staging: staging_lib.Staging,
  places: Mapping[str, Mapping[str, stored_videos.Place]],
) -> None:
  """Raises ValueError where a listed video would take the place of another."""
  for rule, of_rule in places.items():
    stored_videos.refuse_overlap(of_rule, videos)
    for video in videos:
      other = staging.other_root(video, rule)
      if other and video.video_id in of_rule:
        raise ValueError(
          f'{video.video_id} is in the data set already, from {other}, and is '
          'another file there: name one of the two differently, or take '
          '--replace to make the data set anew, of the videos listed now'
        )


def _look_up(
  video: catalogue.Video,
  rule: str,
  staging: staging_lib.Staging,
  places: Mapping[str, stored_videos.Place],
) -> prepared_video.Outcome | None:
  """What is known of a video; None: it is to be done."""
  if not file_names.is_text(video.video_id):
    return _misnamed(video, rule)
  outcome = staging.outcome(video, rule)
  if (
    outcome is None
    or outcome.status != 'kept'
    or video.video_id in places
    or staging.record_path(video, rule).exists()
  ):
    return outcome
  return None


def _crashed(video: catalogue.Video, rule: str) -> prepared_video.Outcome:
  """Of a video that ended its process; the next command tries it again."""
  (outcome,) = prepared_video.skip(
    video,
    [rule],
    'crashed',
    'its process died, twice (out of memory, or a fault in a decoder)',
  )
  return outcome


def _misnamed(video: catalogue.Video, rule: str) -> prepared_video.Outcome:
  return prepared_video.Outcome(
    video_id=file_names.printable(video.video_id),
    split=video.split,
    label=records.LABELS[video.label],
    rule=rule,
    status='skipped',
    reason='unreadable',
    detail='its name is not UTF-8; rename the file',
  )


def _as_before(
  outcome: prepared_video.Outcome, place: stored_videos.Place
) -> prepared_video.Outcome:
  """The outcome of a video that is kept as an earlier run prepared it."""
  return dataclasses.replace(
    outcome,
    split=place.split,
    label=records.LABELS[place.info.label],
    status='kept',
    reason='',
    num_frames=place.info.num_frames,
    detail=f'as prepared before; now {outcome.reason}: {outcome.detail}',
  )


def _show(
  outcomes: Sequence[prepared_video.Outcome], console: rich.console.Console
) -> None:
  """Prints the table of what was kept and skipped, and why."""
  everything = len(outcomes) <= _TABLE_ROWS
  shown = [o for o in outcomes if everything or o.status == 'skipped']
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
  counts: dict[str, int] = {}
  for outcome in outcomes:
    key = outcome.reason or 'kept'
    counts[key] = counts.get(key, 0) + 1
  console.print(', '.join(f'{n} {key}' for key, n in sorted(counts.items())))


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
    if args.inspect:
      _inspect(args, rules, videos[0].dataset, console)
  except ValueError as error:
    return command_line.fail(error)
  except ChildProcessError as error:
    return command_line.fail(
      f'{error}; finished videos are kept: run the same command to go on'
    )
  except OSError as error:
    if error.errno != errno.ENOSPC:
      return command_line.fail(error)
    place, hint = out, ''
    if error.filename == tempfile.gettempdir():  # of a copy compressed anew
      place, hint = pathlib.Path(error.filename), ' (or name another in TMPDIR)'
    free = shutil.disk_usage(place).free / 2**20
    return command_line.fail(
      f'no space left below {place} ({free:.0f} MB free); finished videos are '
      f'kept: make room{hint} and run the same command again'
    )
  except KeyboardInterrupt:
    print(
      'stopped; finished videos are kept: run the same command to go on',
      file=sys.stderr,
    )
    return 130
  _show(outcomes, console)
  folder = out / videos[0].dataset
  console.print(
    f'records in {folder}, this table in {folder / "report.csv"}, how well'
    f' faces were cut out in {folder / "quality.html"}'
  )
  if not any(outcome.status == 'kept' for outcome in outcomes):
    return command_line.fail('no video could be kept')
  return 0


if __name__ == '__main__':
  sys.exit(main())
