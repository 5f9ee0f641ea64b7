"""Which videos there are: path, label, split, person.

What enters: a folder of videos, or a folder and a CSV list. What leaves:
`Video`s, one per video or per stretch of one, in the order of their paths.

Class folders may be named in any part of the path below the root, with or
without split folders above or below them: real/a.mp4, train/fake/b.mp4,
fake/val/c.mp4. A folder without class folders is taken to be all real, which
is what training wants. Lists of published datasets fit in as further
functions that return `Video`s.
"""

from collections.abc import Iterable
import csv
import dataclasses
import hashlib
import os
import pathlib

LABELS = {'real': 0, 'fake': 1}
SPLITS = ('train', 'val', 'test')
SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


@dataclasses.dataclass(frozen=True)
class Video:
  """A video file, or the frames [start, end) of one.

  Attributes:
    path: relative to the root, with forward slashes.
    label: 0 real, 1 fake.
    video_id: unique; the path, and the stretch where there is one.
    dataset: name of the dataset it belongs to.
    split: 'train', 'val' or 'test'; '' until `assign_splits`.
    identity: the person shown; '' where unknown.
    method: how the fake was made; '' where unknown or real.
    start: first frame.
    end: frame after the last; None for the end of the file.
    group: videos that are compared with each other alone; '' where all are.
    pair: path of the real video that a fake was made from; '' where unknown.
    is_crop: whether its frames are cut-out faces already.
  """

  path: str
  label: int
  video_id: str
  dataset: str
  split: str = ''
  identity: str = ''
  method: str = ''
  start: int = 0
  end: int | None = None
  group: str = ''
  pair: str = ''
  is_crop: bool = False


def list_videos(
  root: str | os.PathLike, dataset: str, list_file: str | os.PathLike = ''
) -> tuple[Video, ...]:
  """Lists the videos of a folder.

  Args:
    root: the folder.
    dataset: name to give to the dataset.
    list_file: a CSV with the columns path (relative to root), label (real or
      fake), and optionally split, identity, method, start, end. Without it
      the folder is searched.

  Raises:
    ValueError: no folder, no video in it, or a list that cannot be read.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise ValueError(f'no folder {root}; --root names the folder of videos')
  if list_file:
    videos = _read_list(pathlib.Path(list_file), dataset)
  else:
    videos = _search(root, dataset)
  seen: set[str] = set()
  for video in videos:
    if video.video_id in seen:
      raise ValueError(f'{video.video_id} is listed twice')
    seen.add(video.video_id)
  if any(v.split for v in videos) and not all(v.split for v in videos):
    odd = next(v for v in videos if not v.split)
    raise ValueError(
      f'{odd.path} is in none of {SPLITS} while other videos are: give every '
      'video a split, or none'
    )
  return videos


def has_class_folders(videos: Iterable[Video]) -> bool:
  """Whether any path names its class, i.e. labels were not just assumed."""
  return any(_label_of(pathlib.PurePosixPath(v.path)) for v in videos)


def assign_splits(
  videos: Iterable[Video], val_fraction: float
) -> tuple[Video, ...]:
  """Gives videos without a split one of 'train' and 'val'.

  All videos of a person go to the same side. The side depends on a hash of
  the person (of the video, where unknown), so that it stays when videos are
  added. With two or more people each side gets at least one. A fake goes to
  'val': training takes real videos alone.

  Args:
    videos: all with a split (returned as they are) or all without.
    val_fraction: expected share of people in 'val', in (0, 1).
  """
  videos = tuple(videos)
  if not 0 < val_fraction < 1:
    raise ValueError(f'val_fraction is {val_fraction}; it lies between 0 and 1')
  if all(video.split for video in videos):
    return videos
  people = sorted(
    {v.identity or v.path for v in videos if not v.label}, key=_unit_hash
  )
  in_val = {person for person in people if _unit_hash(person) < val_fraction}
  if len(people) > 1:
    in_val = (in_val | {people[0]}) - {people[-1]}
  return tuple(
    dataclasses.replace(
      video,
      split='val'
      if video.label or (video.identity or video.path) in in_val
      else 'train',
    )
    for video in videos
  )


def split_in_time(
  video: Video, num_frames: int, val_fraction: float = 0.25
) -> tuple[Video, Video]:
  """Cuts one video into a part to train on and a later one to validate on.

  A tenth of the later part is left out between the two, so that they do not
  share a moment.
  """
  if not 0 < val_fraction < 1:
    raise ValueError(f'val_fraction is {val_fraction}; it lies between 0 and 1')
  end = min(num_frames, video.end or num_frames)
  length = end - video.start
  cut = end - round(length * val_fraction)
  gap = round(length * val_fraction * 0.1)
  return (
    stretch(video, 'train', video.start, cut),
    stretch(video, 'val', min(cut + gap, end), end),
  )


def stretch(video: Video, split: str, start: int, end: int) -> Video:
  """The frames [start, end) of a video, as a video of its own."""
  return dataclasses.replace(
    video,
    video_id=_video_id(video.path, start, end),
    split=split,
    start=start,
    end=end,
  )


def _search(root: pathlib.Path, dataset: str) -> tuple[Video, ...]:
  """Finds the video files below a folder; hidden folders are left out."""
  paths = sorted(
    path.relative_to(root)
    for path in root.rglob('*')
    if path.suffix.lower() in SUFFIXES and path.is_file()
  )
  paths = [p for p in paths if not any(q.startswith('.') for q in p.parts)]
  if not paths:
    raise ValueError(f'no video below {root} (looked for {" ".join(SUFFIXES)})')
  labels = [_label_of(pathlib.PurePosixPath(path)) for path in paths]
  if any(labels) and not all(labels):
    raise ValueError(
      f'{paths[labels.index("")]} is under neither real/ nor fake/ while other '
      'videos are; move it, or list the videos in a CSV (--csv)'
    )
  return tuple(
    Video(
      path=path.as_posix(),
      label=LABELS[label or 'real'],
      video_id=path.as_posix(),
      dataset=dataset,
      split=next((p.lower() for p in path.parts if p.lower() in SPLITS), ''),
    )
    for path, label in zip(paths, labels, strict=True)
  )


def _label_of(path: pathlib.PurePosixPath) -> str:
  """The class folder of a path, or ''."""
  return next((p.lower() for p in path.parts[:-1] if p.lower() in LABELS), '')


def _read_list(list_file: pathlib.Path, dataset: str) -> tuple[Video, ...]:
  if not list_file.is_file():
    raise ValueError(f'no list of videos {list_file}')
  with list_file.open(newline='', encoding='utf-8') as file:
    reader = csv.DictReader(file)
    columns = set(reader.fieldnames or ())
    known = {'path', 'label', 'split', 'identity', 'method', 'start', 'end'}
    if not {'path', 'label'} <= columns <= known:
      raise ValueError(
        f'{list_file} has the columns {sorted(columns)}; it needs path and '
        f'label, and may have {sorted(known - {"path", "label"})}'
      )
    videos = tuple(
      _read_row(row, dataset, f'{list_file} line {reader.line_num}')
      for row in reader
    )
  if not videos:
    raise ValueError(f'{list_file} lists no video')
  return videos


def _read_row(row: dict[str, str], dataset: str, where: str) -> Video:
  row = {key: (value or '').strip() for key, value in row.items() if key}
  label = row['label'].lower()
  if label not in LABELS:
    raise ValueError(f'{where}: label is {label!r}; it is real or fake')
  split = row.get('split', '')
  if split and split not in SPLITS:
    raise ValueError(f'{where}: split is {split!r}; it is one of {SPLITS}')
  path = pathlib.PurePosixPath(row['path'])
  if path.is_absolute() or '..' in path.parts or not path.name:
    raise ValueError(f'{where}: path {row["path"]!r} is not below the root')
  try:
    start = int(row.get('start') or 0)
    end = int(row['end']) if row.get('end') else None
  except ValueError as error:
    raise ValueError(f'{where}: start and end are frame numbers') from error
  if start < 0 or (end is not None and end <= start):
    raise ValueError(f'{where}: frames {start} to {end} are none')
  return Video(
    path=path.as_posix(),
    label=LABELS[label],
    video_id=_video_id(path.as_posix(), start, end),
    dataset=dataset,
    split=split,
    identity=row.get('identity', ''),
    method=row.get('method', ''),
    start=start,
    end=end,
  )


def _video_id(path: str, start: int, end: int | None) -> str:
  if start == 0 and end is None:
    return path
  return f'{path}#{start}-{"" if end is None else end}'


def _unit_hash(text: str) -> float:
  """A number in [0, 1) that depends on the text alone."""
  digest = hashlib.sha256(text.encode()).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64
