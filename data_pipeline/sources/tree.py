"""A folder, read once: every file below it with its size.

What enters: the root of a data set. What leaves: a `Tree`, which answers what
is where without going to the disk again, so that a set of 100,000 files is
listed and checked in seconds. Linked folders are followed, each real folder
once, so that a loop of links ends.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import os
import pathlib
import stat

VIDEO_SUFFIXES = (
  '.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.3gp',
  '.3g2', '.asf', '.f4v', '.flv', '.m2ts', '.mts', '.mxf', '.ogv', '.qt', '.ts',
  '.vob', '.wmv',
)  # fmt: skip
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')


@dataclasses.dataclass(frozen=True)
class Tree:
  """All files below a folder.

  Attributes:
    root: the folder.
    sizes: bytes of every file, by its path relative to the root with forward
      slashes, in the order of the paths.
    unreadable: folders that could not be opened, relative to the root.
    no_files: links to nothing, pipes and devices, relative to the root.
  """

  root: pathlib.Path
  sizes: dict[str, int]
  unreadable: tuple[str, ...] = ()
  no_files: tuple[str, ...] = ()

  def below(self, folder: str, suffixes: Sequence[str]) -> list[str]:
    """Files anywhere below a folder ('' for the root) by their endings."""
    endings = tuple(suffixes)
    return [
      path
      for path in self._by_folder.get(folder, ())
      if path.lower().endswith(endings)
    ]

  def videos(self, folder: str) -> list[str]:
    """Video files below a folder; '' for the root."""
    return self.below(folder, VIDEO_SUFFIXES)

  def sequences(self, folder: str) -> list[str]:
    """Folders below a folder that hold images, in the order of their paths."""
    images = self.below(folder, IMAGE_SUFFIXES)
    return list(dict.fromkeys(path.rpartition('/')[0] for path in images))

  def folders(self, folder: str) -> list[str]:
    """Names of the folders directly in a folder."""
    depth = len(folder) + 1 if folder else 0
    names = (path[depth:].partition('/') for path in self.below(folder, ('',)))
    return list(dict.fromkeys(name for name, slash, _ in names if slash))

  def has(self, folder: str) -> bool:
    """Whether there is such a folder, with a file somewhere in it."""
    return folder in self._by_folder

  def find(self, path: str) -> str | None:
    """The path of a file as it is on disk, whatever its letters' case.

    Lists name `a.mp4` where a copy on disk is `a.MP4`, or lies in the folder
    `videos` beside it, as some tools unpack it.
    """
    if path in self.sizes:
      return path
    folder, _, name = path.rpartition('/')
    for place in (path, f'{folder}/videos/{name}'):
      found = self._folded.get(place.casefold())
      if found is not None:
        return found
    return None

  def bases(self, marker: str) -> list[str]:
    """Folders that hold `marker`, the root first, then the least deep.

    A set unpacked from an archive often lies one or two folders down.
    """
    ending = f'/{marker}'
    found = [
      folder[: -len(ending)] if folder != marker else ''
      for folder in self._by_folder
      if folder == marker or folder.endswith(ending)
    ]
    return sorted(found, key=lambda base: (base.count('/') + bool(base), base))

  @functools.cached_property
  def _folded(self) -> dict[str, str]:
    return {path.casefold(): path for path in self.sizes}

  @functools.cached_property
  def _by_folder(self) -> dict[str, list[str]]:
    """Files below each folder, however deep."""
    files: dict[str, list[str]] = {}
    for path in self.sizes:
      folder = path
      while folder:
        folder = folder.rpartition('/')[0]
        files.setdefault(folder, []).append(path)
    return files


def read_tree(root: str | os.PathLike) -> Tree:
  """Reads the names and sizes of all files below a folder.

  Hidden files and folders are left out.

  Raises:
    ValueError: there is no such folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise ValueError(f'{root}: no such folder; --root names the data set')
  unreadable: list[str] = []
  no_files: list[str] = []
  sizes = dict(
    sorted(_files(root, '', {_identity(root)}, unreadable, no_files))
  )
  return Tree(root, sizes, tuple(sorted(unreadable)), tuple(sorted(no_files)))


def _files(
  folder: pathlib.Path,
  place: str,
  open_folders: set[tuple[int, int]],
  unreadable: list[str],
  no_files: list[str],
) -> Iterator[tuple[str, int]]:
  """Yields (relative path, size); `open_folders` are those we are inside of."""
  try:
    entries = list(os.scandir(folder))
  except OSError:
    unreadable.append(place or '.')
    return
  for entry in entries:
    if entry.name.startswith('.'):
      continue
    path = f'{place}/{entry.name}' if place else entry.name
    try:
      status = entry.stat()
    except OSError:  # a link to nothing
      no_files.append(path)
      continue
    if stat.S_ISREG(status.st_mode):
      yield path, status.st_size
      continue
    if not stat.S_ISDIR(status.st_mode):
      no_files.append(path)  # whoever opened a pipe would wait for ever
      continue
    identity = (status.st_dev, status.st_ino)
    if identity not in open_folders:
      yield from _files(
        pathlib.Path(entry.path),
        path,
        open_folders | {identity},
        unreadable,
        no_files,
      )


def _identity(folder: pathlib.Path) -> tuple[int, int]:
  status = folder.stat()
  return status.st_dev, status.st_ino
