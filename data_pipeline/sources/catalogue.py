"""Which videos there are: path, label, split, person.

What enters: a folder of videos, or a folder and a CSV list. What leaves:
`Video`s, one per video or per stretch of one, in the order of their paths.

Class folders may be named in any part of the path below the root, with or
without split folders above or below them: real/a.mp4, train/fake/b.mp4,
fake/val/c.mp4. A folder without class folders is taken to be all real, which
is what training wants. Published data sets have functions of their own
(`published`), which return `Video`s too.
"""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
from typing import NamedTuple

from data_pipeline.sources import file_names, folder_words, lists
from data_pipeline.sources import tree as tree_lib

LABELS = {'real': 0, 'fake': 1}
SPLITS = ('train', 'val', 'test')
LIST_COLUMNS = (
  'path', 'label', 'split', 'identity', 'method', 'start', 'end', 'group',
  'pair',
)  # fmt: skip
_SHOWN = 5  # names in a note


@dataclasses.dataclass(frozen=True, slots=True)
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
    landmarks: where the landmarks lie that came with such frames, relative to
      the root (`faces.given_landmarks`); '' where they have to be placed.
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
  landmarks: str = ''


class Listing(NamedTuple):
  """What a folder or a list holds.

  Attributes:
    videos: in the order of the list, or of their paths.
    notes: what was taken for granted and what was passed over, a sentence each.
  """

  videos: tuple[Video, ...]
  notes: tuple[str, ...] = ()


def list_videos(
  root: str | os.PathLike, dataset: str, list_file: str | os.PathLike = ''
) -> Listing:
  """Lists the videos of a folder.

  Args:
    root: the folder.
    dataset: name to give to the dataset.
    list_file: a CSV with the columns path (relative to root), label (real or
      fake), and optionally the others of `LIST_COLUMNS`; or lines of 'path
      label' or 'path start end label' without a header. Without it the folder
      is searched.

  Raises:
    ValueError: no folder, no video in it, a list that cannot be read, or
      folders that leave class or split in doubt.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise ValueError(f'no folder {root}; --root names the folder of videos')
  if list_file:
    listing = _read_list(pathlib.Path(list_file), root, dataset)
  else:
    listing = _search(root, dataset)
  videos = listing.videos
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
  return listing


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


def refuse_shared_files(
  root: str | os.PathLike, videos: Iterable[Video]
) -> None:
  """Raises where one file under two names is on two sides of the data.

  A link, symbolic or hard, shows the same film: what is trained on would be
  validated on as well, or be real and fake at once.

  Args:
    root: what the videos' paths are relative to.
    videos: with their splits. Stretches of one path are left alone, and so is
      what is not there, which is told when it is read.

  Raises:
    ValueError: naming both.
  """
  first: dict[tuple[int, int], Video] = {}
  for video in videos:
    try:
      status = (pathlib.Path(root) / video.path).stat()
    except OSError:
      continue
    other = first.setdefault((status.st_dev, status.st_ino), video)
    sides = [(v.split, 'fake' if v.label else 'real') for v in (other, video)]
    if other.path != video.path and sides[0] != sides[1]:
      raise ValueError(
        f'{other.path} ({" ".join(sides[0])}) and {video.path} '
        f'({" ".join(sides[1])}) are one file: leave one of them out'
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


def _search(root: pathlib.Path, dataset: str) -> Listing:
  """Finds the video files below a folder; hidden ones are left out."""
  tree = tree_lib.read_tree(root)
  notes = _passed_over(tree)
  paths = tree.videos('')
  if not paths:
    raise ValueError('; '.join([f'no video below {root}', *notes]))
  _refuse_published(root, paths)
  labels = [folder_words.class_of(pathlib.PurePosixPath(p)) for p in paths]
  if not any(labels):
    _refuse_fake_root(root)
    notes.append(
      f'{root} has no real/ or fake/ folder: all {len(paths)} videos are taken '
      'to be real'
    )
  elif not all(labels):
    raise ValueError(
      f'{paths[labels.index("")]} is under neither real/ nor fake/ while other '
      'videos are; move it, or list the videos in a CSV (--csv)'
    )
  videos = (
    Video(
      path=path,
      label=LABELS[label or 'real'],
      video_id=path,
      dataset=dataset,
      split=folder_words.split_of(pathlib.PurePosixPath(path)),
    )
    for path, label in zip(paths, labels, strict=True)
  )
  return Listing(tuple(videos), tuple(notes))


def _passed_over(tree: tree_lib.Tree) -> list[str]:
  """Says what lies below a folder that is no video, counted and named."""
  notes = []
  found: Sequence[str]
  for found, what in (
    (tree.unreadable, 'folders that cannot be opened'),
    (tree.no_files, 'links to nothing, pipes or devices'),
  ):
    if found:
      notes.append(f'left out {len(found)} {what}: {_some(found)}')
  others: dict[str, list[str]] = collections.defaultdict(list)
  for path in tree.sizes:
    if not path.lower().endswith(tree_lib.VIDEO_SUFFIXES):
      others[pathlib.PurePosixPath(path).suffix.lower()].append(path)
  for suffix, found in sorted(others.items()):
    kind = f'ending in {suffix}' if suffix else 'without an ending'
    notes.append(
      f'left out {len(found)} files {kind}, which is none of videos: '
      f'{_some(found)}'
    )
  return notes


def _refuse_published(root: pathlib.Path, paths: Sequence[str]) -> None:
  """Raises for a layout whose class and split are not told by its folders."""
  for path in paths:
    for folder in path.split('/')[:-1]:
      if name := folder_words.published_set(folder):
        raise ValueError(
          f'{root} looks like {name} ({folder}/), whose folders do not tell '
          'class and split by name: say which set it is with --source '
          '(docs/published_sets.md), or write a list with the header '
          f'path,label,split,identity,method and lines like {path},LABEL,SPLIT'
          ', and give it as --csv'
        )


def _refuse_fake_root(root: pathlib.Path) -> None:
  """Raises where all would be taken to be real in a folder of fakes."""
  place = root.resolve()
  fakes = [p for p in place.parts if p.lower() in folder_words.FAKE_SETS]
  if folder_words.CLASS_WORDS.get(place.name.lower()) == 'fake':
    fakes.append(place.name)
  if fakes:
    raise ValueError(
      f'{root} lies in {fakes[0]}/ and names no class below: its videos would '
      'be taken to be real. Give a folder above as --root, with class folders, '
      'or a list (--csv)'
    )


def _some(paths: Sequence[str]) -> str:
  more = f' and {len(paths) - _SHOWN} more' if len(paths) > _SHOWN else ''
  return ', '.join(map(file_names.printable, paths[:_SHOWN])) + more


def _read_list(
  list_file: pathlib.Path, root: pathlib.Path, dataset: str
) -> Listing:
  plain = lists.read_plain(list_file)
  if plain:
    return _read_plain(list_file, plain, root, dataset)
  rows = lists.read_rows(list_file, needed=('path', 'label'))
  if not rows:
    raise ValueError(f'{list_file} lists no video')
  unknown = sorted(set(rows[0].cells) - set(LIST_COLUMNS))
  notes = []
  if unknown:
    notes.append(
      f'{list_file}: not read are the columns {", ".join(unknown)}; known are '
      f'{", ".join(LIST_COLUMNS)}'
    )
  videos = tuple(_read_row(row, root, dataset) for row in rows)
  return Listing(videos, tuple(notes))


def _read_plain(
  list_file: pathlib.Path,
  rows: Sequence[lists.Row],
  root: pathlib.Path,
  dataset: str,
) -> Listing:
  """Takes lines without a header for what they are in other programs."""
  words = re.split(r'[^a-z]+', list_file.stem.lower())
  named = {folder_words.SPLIT_WORDS.get(word, '') for word in words} - {''}
  split = named.pop() if len(named) == 1 else ''
  # In the lists of action recognition, which these are, frames count from 1.
  first = min((int(row.cells.get('first', 1)) for row in rows), default=1)
  videos = []
  for row in rows:
    cells = dict(row.cells)
    label = cells['label'].lower()
    cells['label'] = {'0': 'real', '1': 'fake'}.get(label, label)
    cells['split'] = split
    if 'first' in cells:
      base = min(first, 1)
      cells['start'] = str(int(cells['first']) - base)
      cells['end'] = str(int(cells['last']) - base + 1)
    videos.append(_read_row(lists.Row(row.where, cells), root, dataset))
  fakes = sum(video.label for video in videos)
  if split == 'train':
    videos = [video for video in videos if not video.label]
  form = 'path start end label' if 'first' in rows[0].cells else 'path label'
  notes = [
    f'{list_file}: no header; read as lines of "{form}", 1 for fake: '
    f'{len(rows) - fakes} real, {fakes} fake'
    + (f', all of {split} by its name' if split else '')
  ]
  if len(videos) < len(rows):
    notes.append(
      f'left out {fakes} fakes of the training split: training takes real '
      'videos alone'
    )
  if 'first' in rows[0].cells:
    notes.append(
      f'{list_file}: frames count from {min(first, 1)}, the last one included'
    )
  return Listing(tuple(videos), tuple(notes))


def _read_row(row: lists.Row, root: pathlib.Path, dataset: str) -> Video:
  cells, where = row.cells, row.where
  label = cells['label'].lower()
  if label not in LABELS:
    raise ValueError(f'{where}: label is {label!r}; it is real or fake')
  split = cells.get('split', '')
  if split and split not in SPLITS:
    raise ValueError(f'{where}: split is {split!r}; it is one of {SPLITS}')
  path = pathlib.PurePosixPath(cells['path'])
  if path.is_absolute() or '..' in path.parts or not path.name:
    raise ValueError(f'{where}: path {cells["path"]!r} is not below the root')
  if '\\' in cells['path'] and not (root / path).exists():
    raise ValueError(
      f'{where}: path {cells["path"]!r} has backslashes; folders are separated '
      'by forward slashes'
    )
  try:
    start = int(cells.get('start') or 0)
    end = int(cells['end']) if cells.get('end') else None
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
    identity=cells.get('identity', ''),
    method=cells.get('method', ''),
    start=start,
    end=end,
    group=cells.get('group', ''),
    pair=cells.get('pair', ''),
  )


def _video_id(path: str, start: int, end: int | None) -> str:
  if start == 0 and end is None:
    return path
  return f'{path}#{start}-{"" if end is None else end}'


def stretch_of(video_id: str, path: str) -> tuple[int, int | None]:
  """The first frame of a video and the one after its last, from its id."""
  stretch = video_id.removeprefix(f'{path}#')
  start, dash, end = stretch.partition('-')
  if stretch == video_id or not dash or not start.isdecimal():
    return 0, None
  return int(start), int(end) if end.isdecimal() else None


def _unit_hash(text: str) -> float:
  """A number in [0, 1) that depends on the text alone."""
  digest = hashlib.sha256(os.fsencode(text)).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64
