"""Landmarks that came with the images of a sequence.

What enters: a folder of images and one of arrays (.npy) of the same names, each
81 x 2 in dlib's order (METHOD 1.2), in pixels of the image. What leaves: the
landmarks of a frame by its number. Files without an array of that shape are as
good as none, and counted.
"""

import os
import pathlib

from jaxtyping import Float32
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import image_sequence


class GivenLandmarks:
  """Landmarks by frame number; None where there are none."""

  def __init__(self, images: str | os.PathLike, folder: str | os.PathLike):
    """Takes the sequence and the folder of its landmarks."""
    self._folder = pathlib.Path(folder)
    self._names = image_sequence.names(images)
    self._asked: set[int] = set()
    self._absent: set[int] = set()

  def __call__(self, index: int) -> Float32[np.ndarray, '81 2'] | None:
    """Reads the landmarks of a frame."""
    self._asked.add(index)
    name = f'{pathlib.PurePath(self._names[index]).stem}.npy'
    try:
      points = np.load(self._folder / name)
    except (FileNotFoundError, ValueError, EOFError):
      points = np.empty(0)
    if points.shape != (backend_lib.NUM_LANDMARKS, 2) or not np.issubdtype(
      points.dtype, np.number
    ):
      self._absent.add(index)
      return None
    return points.astype(np.float32)

  @property
  def notes(self) -> tuple[str, ...]:
    """What was odd about the frames looked at."""
    if not self._absent:
      return ()
    return (
      f'{len(self._absent)} of {len(self._asked)} frames without landmarks of '
      'their own',
    )
