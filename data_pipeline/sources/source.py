"""What is known of a published data set, and how its videos are listed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from data_pipeline.sources import catalogue
from data_pipeline.sources import tree as tree_lib

# Videos by (split, method). The method of real videos is '', that of all fakes
# together '*'; the split '' stands for all splits.
Counts = Mapping[tuple[str, str], int]


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set under one of its names.

  Attributes:
    title: as its authors write it.
    home: where it is asked for.
    licence: in a few words.
    size: on disk, or what is known of it.
    layout: of the folders, one line.
    traps: what goes wrong with it, each a sentence.
    list_videos: lists what belongs to the set. Where the set has a list, every
      video on it is named, whether it is on disk or not; else all that are on
      disk.
    expected: numbers of videos where they are published.
    margin: px cut off every side of the 256 crop to score it (METHOD 9).
    crf: constant rate factor of x264 that its videos were compressed with, 0
      for lossless; None where they were not made in one way.
  """

  title: str
  home: str
  licence: str
  size: str
  layout: str
  traps: tuple[str, ...]
  list_videos: Callable[[tree_lib.Tree], list[catalogue.Video]]
  expected: Counts = dataclasses.field(default_factory=dict)
  margin: int = 15
  crf: int | None = None


def video(path: str, label: int, **fields: Any) -> catalogue.Video:
  """A listed video; the data set's name is given to it later."""
  return catalogue.Video(
    path=path,
    label=label,
    video_id=fields.pop('video_id', path),
    dataset='',
    **fields,
  )


def base_of(tree: tree_lib.Tree, marker: str, title: str) -> str:
  """The folder, relative to the root, in which a data set's own tree begins.

  Raises:
    ValueError: the marker is nowhere below the root.
  """
  bases = tree.bases(marker)
  if not bases:
    there = ', '.join(tree.folders('')[:8]) or 'no folder'
    raise ValueError(
      f'{tree.root} is not {title}: no folder {marker} in it or below (it '
      f'holds {there})'
    )
  return bases[0]


def join(*parts: str) -> str:
  """Joins parts of a path, leaving out empty ones."""
  return '/'.join(part for part in parts if part)


def read_lines(tree: tree_lib.Tree, path: str, why: str) -> list[str]:
  """Reads a list that belongs to a data set, less empty lines.

  Raises:
    ValueError: it is not there; says what it is needed for.
  """
  return [
    line.strip() for line in _text(tree, path, why).splitlines() if line.strip()
  ]


def read_json(
  tree: tree_lib.Tree,
  path: str,
  why: str,
  hook: Callable[[dict], Any] | None = None,
) -> Any:
  """Reads a JSON file that belongs to a data set.

  Args:
    tree: of the data set.
    path: in it.
    why: what it is needed for.
    hook: what to keep of each object as it is read, where all would be much.

  Raises:
    ValueError: it is not there or damaged.
  """
  text = _text(tree, path, why)
  try:
    return json.loads(text, object_hook=hook)
  except ValueError as error:
    raise ValueError(f'{tree.root / path}: not JSON ({error})') from error


def read_entries(tree: tree_lib.Tree, path: str, why: str) -> dict[str, dict]:
  """Reads a JSON file that says something of each of many names.

  Raises:
    ValueError: it is not there, damaged or another one.
  """
  entries = read_json(tree, path, why)
  if not isinstance(entries, dict) or not all(
    isinstance(entry, dict) for entry in entries.values()
  ):
    raise ValueError(
      f'{tree.root / path}: another JSON than the published one, which reads'
      ' {NAME: {...}, ...}'
    )
  return entries


def _text(tree: tree_lib.Tree, path: str, why: str) -> str:
  found = tree.find(path)
  if found is None:
    raise ValueError(f'{tree.root / path}: not there; {why}')
  file = pathlib.Path(tree.root, found)
  try:
    return file.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{file}: not UTF-8 ({error})') from error


def split_counts(splits: Mapping[str, int], methods: Sequence[str]) -> Counts:
  """The same number of videos in a split for each method."""
  return {
    (split, method): count
    for split, count in splits.items()
    for method in methods
  }


def stems(paths: Iterable[str]) -> list[str]:
  """File names without folder and ending."""
  return [pathlib.PurePosixPath(path).stem for path in paths]
