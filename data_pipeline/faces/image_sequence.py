"""A folder of images -> frames, as of a video.

What enters: a folder, or ARCHIVE.tar.gz/FOLDER inside of one. What leaves: the
same `Frame`s as of a video file, in the natural order of the images' names (2
before 10), RGB uint8 in [0, 255]. They have no times and no rate. Transparent
parts of an image are black.
"""

from collections.abc import Iterable, Iterator
import contextlib
import hashlib
import math
import os
import pathlib
import re
import tarfile

import cv2
import numpy as np

from data_pipeline.faces import video as video_lib

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')
_ARCHIVES = ('.tar.gz', '.tgz', '.tar')


def is_sequence(path: str | os.PathLike) -> bool:
  """Whether a path is a folder, or goes through an archive."""
  return pathlib.Path(path).is_dir() or archive_of(path) is not None


def probe(path: str | os.PathLike) -> video_lib.VideoStream:
  """Lists the images and reads the first.

  Raises:
    FileNotFoundError: there is no such folder or archive.
    ValueError: no image in it, or the first cannot be read.
  """
  with _Images(path) as images:
    if not images.names:
      raise ValueError(f'{path} holds no image ({" ".join(SUFFIXES)})')
    first = images.read(0)
    height, width = first.shape[:2]
    return video_lib.VideoStream(
      codec='images',
      width=width,
      height=height,
      fps=0.0,
      num_frames=len(images.names),
      duration=0.0,
      notes=(),
    )


def names(path: str | os.PathLike) -> list[str]:
  """File names of the images, in the order of their frame numbers."""
  with _Images(path) as images:
    return images.names


def digest(path: str | os.PathLike) -> str:
  """SHA-256 over the images' names and bytes, in their order."""
  digest = hashlib.sha256()
  with _Images(path) as images:
    for index, name in enumerate(images.names):
      content = images.content(index)
      digest.update(
        f'{name}\0{len(content)}\0'.encode(errors='surrogateescape')
      )
      digest.update(content)
  return digest.hexdigest()


class Reading(Iterator[video_lib.Frame]):
  """A pass over a sequence; knows what it could not read.

  Attributes:
    missing: by frame number, why an asked image is not there.
    errors: what was said of images that could not be read.
    notes: what was odd, for people.
    num_frames: images of the sequence; None before the first is asked for.
  """

  def __init__(self, path: str | os.PathLike, indices: Iterable[int]):
    """Takes ascending positions in the sequence."""
    self.missing: dict[int, str] = {}
    self.num_frames: int | None = None
    self._num_asked = 0
    self._frames = self._read(path, list(indices))

  def __next__(self) -> video_lib.Frame:
    return next(self._frames)

  @property
  def errors(self) -> tuple[str, ...]:
    """What was said of images that could not be read."""
    return tuple(self.missing.values())

  @property
  def notes(self) -> tuple[str, ...]:
    """What was odd about the images looked at."""
    if not self.missing:
      return ()
    return (f'{len(self.missing)} of {self._num_asked} images damaged',)

  def _read(
    self, path: str | os.PathLike, indices: list[int]
  ) -> Iterator[video_lib.Frame]:
    with _Images(path) as images:
      self.num_frames = len(images.names)
      for index in indices:
        if index >= len(images.names):
          return
        self._num_asked += 1
        try:
          image = images.read(index)
        except ValueError as error:
          self.missing[index] = str(error)
          continue
        yield video_lib.Frame(index, math.nan, image)


class _Images(contextlib.AbstractContextManager):
  """Names and contents of the images of a sequence."""

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._tar: tarfile.TarFile | None = None
    archive = archive_of(path)
    if archive is None:
      if not self._path.is_dir():
        raise FileNotFoundError(f'no folder {path}')
      names = [file.name for file in self._path.iterdir() if file.is_file()]
    else:
      inside = self._path.relative_to(archive).as_posix()
      try:
        self._tar = tarfile.open(archive)
        self._members = {
          member.name.rpartition('/')[2]: member
          for member in self._tar
          if member.isfile()
          and member.name.removeprefix('./').rpartition('/')[0] == inside
        }
      except (tarfile.TarError, EOFError) as error:
        raise ValueError(f'{archive}: damaged ({error})') from error
      names = list(self._members)
    self.names = sorted(
      (n for n in names if n.lower().endswith(SUFFIXES)), key=_natural
    )

  def read(self, index: int) -> np.ndarray:
    """Reads one image as RGB."""
    content = self.content(index)
    image = (
      cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
      if content
      else None
    )
    if image is None:
      raise ValueError(
        f'{self._path / self.names[index]} is not an image that can be read'
      )
    return _to_rgb(image)

  def content(self, index: int) -> bytes:
    """The bytes of one image file."""
    name = self.names[index]
    if self._tar is None:
      return (self._path / name).read_bytes()
    file = self._tar.extractfile(self._members[name])
    assert file is not None  # a regular file
    return file.read()

  def __exit__(self, *error: object) -> None:
    if self._tar is not None:
      self._tar.close()


def _to_rgb(image: np.ndarray) -> np.ndarray:
  """Grey, BGR or BGRA of 8 or 16 bits -> RGB of 8."""
  if image.dtype == np.uint16:
    image = (image // 257).astype(np.uint8)
  if image.ndim == 2:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
  if image.shape[2] == 4:
    alpha = image[..., 3:].astype(np.float32) / 255
    image = np.rint(image[..., :3] * alpha).astype(np.uint8)
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def archive_of(path: str | os.PathLike) -> pathlib.Path | None:
  """The archive that a path goes into, if any."""
  for parent in pathlib.Path(path).parents:
    if parent.name.lower().endswith(_ARCHIVES) and parent.is_file():
      return parent
  return None


def _natural(name: str) -> list[tuple[int, int, str]]:
  """Sorts numbers inside of names by their value."""
  return [
    (0, int(part), '') if part.isdecimal() else (1, 0, part)
    for part in re.split(r'(\d+)', name)
    if part
  ]
