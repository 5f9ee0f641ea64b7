"""What a user names on a command line -> the videos that are meant.

Enter: files, folders, patterns and lists. Leave: paths as text, each once, in
the order in which they were named.
"""

from collections.abc import Sequence
import glob
import os
import pathlib

from data_pipeline.faces import image_sequence
from data_pipeline.sources import tree

_WILD = '*?['


def expand(named: Sequence[str]) -> list[str]:
  """Finds the videos.

  Args:
    named: A file; a folder, whose videos at any depth are meant, or, where it
      holds images and no video, the folder as one video; a pattern as
      'clips/**/*.mp4'; or '@FILE', a file of such entries, one a line.

  Raises:
    FileNotFoundError: No such list.
    ValueError: A folder or pattern without a video, or a list that is no text.
  """
  found: list[str] = []
  for entry in named:
    found += _read_list(entry) if entry.startswith('@') else _expand_one(entry)
  return list(dict.fromkeys(str(pathlib.Path(video)) for video in found))


def is_single(named: Sequence[str]) -> bool:
  """Whether one video is named, and nothing that may stand for many.

  A folder of images alone is one video.
  """
  if len(named) != 1:
    return False
  (entry,) = named
  path = pathlib.Path(entry)
  if os.path.isdir(entry):
    files = [each for each in path.rglob('*') if each.is_file()]
    return not any(map(_is_video, files)) and _is_of_images(path, files)
  return os.path.isfile(entry) or not (
    entry.startswith('@') or _is_pattern(entry)
  )


def _is_pattern(entry: str) -> bool:
  return any(c in entry for c in _WILD) and not os.path.exists(entry)


def _expand_one(entry: str) -> list[str]:
  # os.path, not pathlib, which raises for a name that is too long.
  if os.path.isdir(entry):
    return _below(pathlib.Path(entry))
  if not _is_pattern(entry):
    return [entry]  # also one that is not there: its row says so
  matches = sorted(glob.glob(entry, recursive=True))
  if not matches:
    raise ValueError(f'{entry}: no file is called so')
  return [match for match in matches if pathlib.Path(match).is_file()]


def _below(folder: pathlib.Path) -> list[str]:
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  if videos := [str(path) for path in files if _is_video(path)]:
    return videos
  if _is_of_images(folder, files):
    return [str(folder)]
  raise ValueError(
    f'{folder}: a folder without a video ({" ".join(tree.VIDEO_SUFFIXES)})'
  )


def _is_video(path: pathlib.Path) -> bool:
  return path.name.lower().endswith(tree.VIDEO_SUFFIXES)


def _is_of_images(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> bool:
  return any(
    path.parent == folder
    and path.name.lower().endswith(image_sequence.SUFFIXES)
    for path in files
  )


def _read_list(entry: str) -> list[str]:
  path = pathlib.Path(entry[1:])
  if not path.is_file():
    raise FileNotFoundError(f'{entry}: no such list of videos')
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(f'{entry}: not a list of names in UTF-8') from error
  return [
    video
    for line in map(str.strip, lines)
    if line
    for video in _expand_one(line)
  ]
