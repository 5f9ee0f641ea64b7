"""A path -> its frames, whether it is a video file or a folder of images.

What leaves is the same for both: what the footage holds, and RGB uint8 frames
by their numbers.
"""

from collections.abc import Iterable
import hashlib
import os
import pathlib
from typing import TypeAlias

from data_pipeline.faces import image_sequence
from data_pipeline.faces import video as video_lib

# A pass over frames: an iterator of them with `missing`, `errors`, `notes` and
# `num_frames`.
Reading: TypeAlias = video_lib.Decoding | image_sequence.Reading


def probe(path: str | os.PathLike) -> video_lib.VideoStream:
  """Says what a path holds.

  Raises:
    FileNotFoundError: there is nothing.
    ValueError: it is neither a video nor a sequence of images.
  """
  if image_sequence.is_sequence(path):
    return image_sequence.probe(path)
  return video_lib.probe(path)


def decode_frames(path: str | os.PathLike, indices: Iterable[int]) -> Reading:
  """Reads chosen frames; raises as `video.decode_frames` does."""
  if image_sequence.is_sequence(path):
    return image_sequence.Reading(path, indices)
  return video_lib.decode_frames(path, indices)


def on_disk(path: str | os.PathLike) -> pathlib.Path:
  """The file or folder that a path lies in: an archive, or itself."""
  return image_sequence.archive_of(path) or pathlib.Path(path)


def digest(path: str | os.PathLike) -> str:
  """SHA-256 of a video file, or of the images of a sequence in their order."""
  if image_sequence.is_sequence(path):
    return image_sequence.digest(path)
  with pathlib.Path(path).open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
