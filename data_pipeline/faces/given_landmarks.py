"""Landmarks that came with the images of a sequence.

What enters: a folder of images, and what holds their landmarks, 81 x 2 in
dlib's order (METHOD 1.2), in pixels of the image: a folder of arrays (.npy)
named like the images, as DeepfakeBench has it, or a JSON file of FakeSTormer,
{"data": [{"image_path": ".../TYPE/VIDEO/000.png", "orig_lms": [[x, y], ...]}]}.
What leaves: the landmarks of a frame by its number. What is not of that shape
is as good as none, and counted.
"""

import functools
import json
import os
import pathlib
from typing import Any

from jaxtyping import Float32
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import image_sequence

_SHAPE = (backend_lib.NUM_LANDMARKS, 2)


class GivenLandmarks:
  """Landmarks by frame number; None where there are none."""

  def __init__(self, images: str | os.PathLike, place: str | os.PathLike):
    """Takes the sequence, and the folder or JSON file of its landmarks."""
    self._images = pathlib.Path(images)
    self._place = pathlib.Path(place)
    self._names = image_sequence.names(images)
    self._asked: set[int] = set()
    self._absent: set[int] = set()

  def __call__(self, index: int) -> Float32[np.ndarray, '81 2'] | None:
    """Reads the landmarks of a frame."""
    self._asked.add(index)
    points = self._read(self._names[index])
    if points.shape != _SHAPE or not np.issubdtype(points.dtype, np.number):
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

  def _read(self, name: str) -> np.ndarray:
    if self._place.suffix.lower() == '.json':
      key = '/'.join((*self._images.parts[-2:], name))
      return _of_json(self._place).get(key, np.empty(0))
    try:
      return np.load(self._place / f'{pathlib.PurePath(name).stem}.npy')
    except (FileNotFoundError, ValueError, EOFError):
      return np.empty(0)


@functools.lru_cache(maxsize=4)
def _of_json(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Landmarks by TYPE/VIDEO/image; as arrays, since such a file has 400 MB."""

  def slim(item: dict[str, Any]) -> Any:
    if 'image_path' not in item:
      return item
    parts = str(item['image_path']).replace('\\', '/').split('/')
    try:
      points = np.array(item.get('orig_lms') or [], np.float32)
    except (TypeError, ValueError):  # not a table of numbers
      points = np.empty(0, np.float32)
    return '/'.join(parts[-3:]), points

  content = json.loads(path.read_text('utf-8-sig'), object_hook=slim)
  return dict(e for e in content['data'] if isinstance(e, tuple))
