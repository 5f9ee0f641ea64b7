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
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys

import cv2
from jaxtyping import Float32, Int32, UInt8
import numpy as np
import onnxruntime
import rich.console
import rich.progress
import rich.table

from data_pipeline import catalogue, faces, records
from data_pipeline import video as video_lib

_REPORT_FIELDS = (
  'video_id', 'split', 'label', 'rule', 'status', 'reason', 'num_frames',
  'detail',
)  # fmt: skip
_TABLE_ROWS = 40  # longer tables show what was skipped only


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a prepared video depends on besides its file.

  Attributes:
    train_frames: first frames of a training video ('consecutive').
    eval_frames: the same for val and test.
    uniform_frames: frames spread over a video ('uniform').
    min_frames: fewer frames with a face than this are too few for a clip.
    margin: of the face box, added on every side of it.
    encoding: of the stored frames, 'jpeg' or 'png'.
  """

  train_frames: int = 256
  eval_frames: int = 32
  uniform_frames: int = 32
  min_frames: int = 4
  margin: float = 0.25
  encoding: str = 'jpeg'

  def count(self, rule: str, split: str) -> int:
    """How many frames a rule asks for."""
    if rule == 'uniform':
      return self.uniform_frames
    return self.train_frames if split == 'train' else self.eval_frames


@dataclasses.dataclass(frozen=True)
class FaceClip:
  """The frames of a video that show its main face.

  Attributes:
    frames: RGB crops.
    landmarks: 81 points in pixels of the crop.
    boxes: x0, y0, x1, y1 of the face in pixels of the frame.
    frame_indices: positions in the video.
  """

  frames: UInt8[np.ndarray, 'n 256 256 3']
  landmarks: Float32[np.ndarray, 'n 81 2']
  boxes: Float32[np.ndarray, 'n 4']
  frame_indices: Int32[np.ndarray, 'n']


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of one video under one rule.

  Attributes:
    status: 'kept' or 'skipped'.
    reason: '' or one of unreadable, missing, too_short, no_face.
    num_frames: frames kept.
    detail: one line for people.
  """

  video_id: str
  split: str
  label: str
  rule: str
  status: str
  reason: str = ''
  num_frames: int = 0
  detail: str = ''


def extract_faces(
  path: str | os.PathLike,
  rules: Mapping[str, Sequence[int] | np.ndarray],
  backend: faces.FaceBackend,
  margin: float = 0.25,
) -> tuple[dict[str, FaceClip], int]:
  """Crops the main face out of chosen frames of a video.

  Which face that is, is known after the last frame only. No more than one
  whole frame is held, so the heaviest face of every frame is cut out while the
  frame is at hand; those of the followed face that it was not are cut out in a
  second reading of the file.

  Args:
    path: a video file.
    rules: ascending frame numbers by name. The face is followed through each
      set of frames by itself, so one set's result does not depend on another.
    backend: finds faces.
    margin: of the face box, added on every side of it.

  Returns:
    By name, the frames that show the face (possibly none); and how many of
    the asked frames could be decoded.
  """
  asked = sorted({int(i) for indices in rules.values() for i in indices})
  detections: dict[int, faces.Faces] = {}
  crops: dict[_Face, faces.FaceCrop | None] = {}

  def cut(frame: np.ndarray, face: _Face) -> None:
    crops[face] = faces.crop_face(
      frame, face.box, face.keypoints, backend, margin
    )

  for index, frame in video_lib.decode_frames(path, asked):
    found = detections[index] = backend.detect(frame)
    if len(found.scores):
      heaviest = max(range(len(found.scores)), key=found.weight)
      cut(frame, _Face.at(index, found, heaviest))
  tracks = {}
  missing: dict[int, set[_Face]] = {}
  for rule, indices in rules.items():
    decoded = np.array([i for i in indices if i in detections], np.int64)
    track = faces.main_track([detections[i] for i in decoded], decoded)
    tracks[rule] = dataclasses.replace(
      track,
      boxes=faces.interpolate_landmarks(track.boxes, decoded),
      keypoints=faces.interpolate_landmarks(track.keypoints, decoded),
    )
    for _, face in _faces_of(tracks[rule]):
      if face not in crops:
        missing.setdefault(face.index, set()).add(face)
  for index, frame in video_lib.decode_frames(path, sorted(missing)):
    for face in missing[index]:
      cut(frame, face)
  clips = {rule: _face_clip(crops, track) for rule, track in tracks.items()}
  return clips, len(detections)


@dataclasses.dataclass(frozen=True)
class _Face:
  """All that a crop depends on; float32 as bytes, so that it is a key."""

  index: int  # frame number
  box_bytes: bytes
  keypoint_bytes: bytes

  @classmethod
  def at(
    cls, index: int, place: faces.Faces | faces.FaceTrack, row: int
  ) -> '_Face':
    """The face in one row of the faces of a frame, or of a track."""
    return cls(
      index, place.boxes[row].tobytes(), place.keypoints[row].tobytes()
    )

  @property
  def box(self) -> Float32[np.ndarray, '4']:
    return np.frombuffer(self.box_bytes, np.float32)

  @property
  def keypoints(self) -> Float32[np.ndarray, '5 2']:
    return np.frombuffer(self.keypoint_bytes, np.float32).reshape(-1, 2)


def _faces_of(track: faces.FaceTrack) -> Iterator[tuple[int, _Face]]:
  """Yields the slots of a track that show its face, and the face."""
  for slot in np.flatnonzero(track.seen).tolist():
    yield slot, _Face.at(int(track.frame_indices[slot]), track, slot)


def _face_clip(
  crops: Mapping[_Face, faces.FaceCrop | None], track: faces.FaceTrack
) -> FaceClip:
  """Gathers crops, leaving out those that no landmarks can be given to."""
  of_track = [
    (slot, crop)
    for slot, face in _faces_of(track)
    if (crop := crops.get(face)) is not None
  ]
  slots = np.array([slot for slot, _ in of_track], np.int64)
  indices = track.frame_indices[slots]
  in_frame = np.array([crop.landmarks for _, crop in of_track], np.float32)
  in_frame = faces.interpolate_landmarks(in_frame.reshape(-1, 81, 2), indices)
  kept = np.flatnonzero(np.isfinite(in_frame).all((1, 2))).tolist()
  images = [of_track[i][1].image for i in kept]
  landmarks = [
    faces.to_crop_pixels(in_frame[i], of_track[i][1].corners) for i in kept
  ]
  return FaceClip(
    frames=np.array(images, np.uint8).reshape(-1, 256, 256, 3),
    landmarks=np.array(landmarks, np.float32).reshape(-1, 81, 2),
    boxes=track.boxes[slots[kept]],
    frame_indices=indices[kept].astype(np.int32),
  )


def prepare_video(
  root: pathlib.Path,
  video: catalogue.Video,
  rules: Sequence[str],
  settings: Settings,
  backend: faces.FaceBackend,
) -> tuple[list[records.VideoRecord], list[Outcome]]:
  """Prepares one video under each rule; a bad one is an Outcome, no error."""
  path = root / video.path
  skipped = functools.partial(_skip, video, rules)
  try:
    stream = video_lib.probe(path)
  except FileNotFoundError:
    return [], skipped('missing', 'no such file')
  except ValueError as error:
    return [], skipped('unreadable', _relative(str(error), root))
  end = min(stream.num_frames, video.end or stream.num_frames)
  if end - video.start < settings.min_frames:
    return [], skipped(
      'too_short',
      f'{max(end - video.start, 0)} frames; a clip needs {settings.min_frames}',
    )

  def choose(rule: str, num_frames: int) -> np.ndarray:
    count = settings.count(rule, video.split)
    return video.start + video_lib.frame_indices(num_frames, count, rule)

  length = end - video.start
  chosen = {rule: choose(rule, length) for rule in rules}
  clips, num_decoded = extract_faces(path, chosen, backend, settings.margin)
  asked = sorted({int(i) for indices in chosen.values() for i in indices})
  note = ''
  if num_decoded < len(asked):
    # The packets are there but do not all decode: spread over what does.
    length = asked[num_decoded - 1] + 1 - video.start if num_decoded else 0
    note = f'damaged after frame {video.start + length - 1}; '
    if length < settings.min_frames:
      return [], skipped('unreadable', f'{length} frames decode')
    chosen = {rule: choose(rule, length) for rule in rules}
    clips, _ = extract_faces(path, chosen, backend, settings.margin)
  elif stream.truncated:
    note = (
      f'cut off: {stream.num_frames} of {stream.declared_frames} declared '
      'frames; '
    )
  kept, outcomes = [], []
  for rule in rules:
    clip, asked_for = clips[rule], len(chosen[rule])
    detail = f'{note}face in {len(clip.frames)} of {asked_for} frames'
    if len(clip.frames) < settings.min_frames:
      reason = 'too_short' if len(clip.frames) else 'no_face'
      outcomes += _skip(video, [rule], reason, detail)
      continue
    kept.append(_record(path, video, rule, clip, stream, settings, backend))
    outcomes.append(_outcome(video, rule, 'kept', '', len(clip.frames), detail))
  return kept, outcomes


def _record(
  path: pathlib.Path,
  video: catalogue.Video,
  rule: str,
  clip: FaceClip,
  stream: video_lib.VideoStream,
  settings: Settings,
  backend: faces.FaceBackend,
) -> records.VideoRecord:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  provenance = {
    'source': {
      'sha256': digest,
      'stream': dataclasses.asdict(stream),
      'start': video.start,
      'end': video.end,
    },
    'settings': dataclasses.asdict(settings),
    'backend': backend.name,
    'versions': {
      'opencv': cv2.__version__,
      'onnxruntime': onnxruntime.__version__,
    },
  }
  return records.VideoRecord(
    video_id=video.video_id,
    frames=tuple(
      records.encode_frame(frame, settings.encoding) for frame in clip.frames
    ),
    landmarks=clip.landmarks,
    boxes=clip.boxes,
    frame_indices=clip.frame_indices,
    fps=stream.fps,
    label=video.label,
    dataset=video.dataset,
    identity=video.identity,
    method=video.method,
    source_path=video.path,
    provenance=json.dumps(provenance, sort_keys=True),
  )


def _outcome(
  video: catalogue.Video,
  rule: str,
  status: str,
  reason: str,
  num_frames: int,
  detail: str,
) -> Outcome:
  return Outcome(
    video_id=video.video_id,
    split=video.split,
    label=records.LABELS[video.label],
    rule=rule,
    status=status,
    reason=reason,
    num_frames=num_frames,
    detail=detail,
  )


def _skip(
  video: catalogue.Video, rules: Sequence[str], reason: str, detail: str
) -> list[Outcome]:
  return [_outcome(video, rule, 'skipped', reason, 0, detail) for rule in rules]


def _relative(message: str, root: pathlib.Path) -> str:
  return message.replace(f'{root}{os.sep}', '')


@dataclasses.dataclass(frozen=True)
class Staging:
  """The finished videos of a command that is still going on.

  Each leaves a small outcome file, which stays, and (if kept) its record,
  which goes once the dataset is written.
  """

  folder: pathlib.Path
  root: pathlib.Path
  settings: Settings

  def outcome(self, video: catalogue.Video, rule: str) -> Outcome | None:
    """The outcome of an earlier run, if nothing has changed since."""
    try:
      stored = json.loads(self._outcome_path(video, rule).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
      return None
    if stored['made_from'] != self._made_from(video, rule):
      return None
    return Outcome(**stored['outcome'])

  def finish(
    self,
    video: catalogue.Video,
    kept: Sequence[records.VideoRecord],
    outcomes: Sequence[Outcome],
  ) -> None:
    """Stores what became of a video: records first, then outcomes."""
    by_rule = iter(kept)
    for outcome in outcomes:
      if outcome.status == 'kept':
        records.save_staged(
          self.record_path(video, outcome.rule), next(by_rule)
        )
      path = self._outcome_path(video, outcome.rule)
      partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
      partial.write_text(
        json.dumps(
          {
            'made_from': self._made_from(video, outcome.rule),
            'outcome': dataclasses.asdict(outcome),
          }
        )
      )
      partial.replace(path)

  def record_path(self, video: catalogue.Video, rule: str) -> pathlib.Path:
    """Where the record of a kept video lies until the dataset is written."""
    return self.folder / f'{self._key(video, rule)}.npz'

  def _outcome_path(self, video: catalogue.Video, rule: str) -> pathlib.Path:
    return self.folder / f'{self._key(video, rule)}.json'

  def _key(self, video: catalogue.Video, rule: str) -> str:
    name = hashlib.sha256(video.video_id.encode()).hexdigest()[:24]
    return f'{name}-{rule}'

  def _made_from(self, video: catalogue.Video, rule: str) -> dict:
    """What a stored outcome must agree with to be taken over."""
    try:
      status = (self.root / video.path).stat()
      file = [status.st_size, status.st_mtime_ns]
    except FileNotFoundError:
      file = []
    return {
      'file': file,
      'video': dataclasses.asdict(video),
      'rule': rule,
      'settings': dataclasses.asdict(self.settings),
      'version': records.VERSION,
    }


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
      return records.load_staged(source)
    stored, position = source
    return stored.read_record(position)


def prepare(
  root: str | os.PathLike,
  out: str | os.PathLike,
  videos: Sequence[catalogue.Video],
  rules: Sequence[str],
  settings: Settings,
  num_workers: int,
  console: rich.console.Console,
) -> list[Outcome]:
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
  staging = Staging(out / dataset / '.staging', root, settings)
  staging.folder.mkdir(parents=True, exist_ok=True)
  stored = {rule: _stored_positions(out, dataset, rule) for rule in rules}
  done: dict[tuple[str, str], Outcome] = {}
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
  staging: Staging,
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
  records.write_records(
    out,
    dataset,
    rule,
    {split: _Finished(of_split) for split, of_split in sources.items()},
  )


def _run(
  root: pathlib.Path,
  staging: Staging,
  todo: Sequence[tuple[catalogue.Video, tuple[str, ...]]],
  settings: Settings,
  num_workers: int,
  console: rich.console.Console,
) -> Iterator[Outcome]:
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
def _backend() -> faces.EmbeddedBackend:
  return faces.EmbeddedBackend()  # one per process


def _finish_video(
  root: pathlib.Path,
  staging: Staging,
  video: catalogue.Video,
  rules: tuple[str, ...],
  settings: Settings,
) -> list[Outcome]:
  kept, outcomes = prepare_video(root, video, rules, settings, _backend())
  staging.finish(video, kept, outcomes)
  return outcomes


def write_report(path: pathlib.Path, outcomes: Sequence[Outcome]) -> None:
  """Writes one CSV line per video and rule."""
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, _REPORT_FIELDS)
    writer.writeheader()
    writer.writerows(dataclasses.asdict(outcome) for outcome in outcomes)


def _show(outcomes: Sequence[Outcome], console: rich.console.Console) -> None:
  """Prints the table of what was kept and skipped, and why."""
  everything = len(outcomes) <= _TABLE_ROWS
  shown = [o for o in outcomes if everything or o.status == 'skipped']
  if shown:
    table = rich.table.Table('video', 'split', 'rule', 'result', 'why')
    for o in shown:
      result = f'{o.num_frames} frames' if o.status == 'kept' else o.reason
      table.add_row(o.video_id, o.split, o.rule, result, o.detail)
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
  parser.add_argument('--root', required=True, help='folder of videos')
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
  return parser.parse_args(argv)


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
  settings = Settings(min_frames=args.min_frames, encoding=args.encoding)
  if args.num_frames:
    settings = dataclasses.replace(
      settings,
      train_frames=args.num_frames,
      eval_frames=args.num_frames,
      uniform_frames=args.num_frames,
    )
  out = pathlib.Path(args.out)
  try:
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
