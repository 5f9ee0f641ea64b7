"""Pictures side by side with a few words: sheets to look at.

Images that enter are RGB, float in [0, 1] or uint8; what leaves is uint8.
"""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import cv2
from jaxtyping import UInt8
import numpy as np

GAP = 4  # px between pictures


def picture(image: Any, cell: int) -> UInt8[np.ndarray, 'cell cell 3']:
  """A grey or RGB image as a square of `cell` px; small maps keep their edges.

  Args:
    image: an array of NumPy or JAX, uint8, or float in [0, 1].
    cell: px.
  """
  levels = np.asarray(image)
  if levels.dtype != np.uint8:
    levels = np.clip(np.rint(255 * levels), 0, 255).astype(np.uint8)
  if levels.ndim == 2:
    levels = levels[..., None].repeat(3, axis=-1)
  small = levels.shape[0] < cell // 2
  return cv2.resize(
    levels,
    (cell, cell),
    interpolation=cv2.INTER_NEAREST if small else cv2.INTER_AREA,
  )


def row(pictures: Sequence[np.ndarray]) -> UInt8[np.ndarray, 'h w 3']:
  """Pictures of one size beside each other, white between."""
  padding = ((0, GAP), (0, GAP), (0, 0))
  return np.concatenate(
    [np.pad(one, padding, constant_values=255) for one in pictures], axis=1
  )


def write_text(
  image: np.ndarray,
  text: str,
  position: tuple[int, int],
  colour: tuple[int, int, int] = (0, 0, 0),
) -> None:
  """Writes into an image; `position` is the text's lower left corner, px."""
  # The font has no other letters.
  shown = text.encode('ascii', 'replace').decode()
  cv2.putText(image, shown, position, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1)


def save(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes an image, .png or .jpg, with its folder.

  Raises:
    OSError: it cannot be written.
  """
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  if not cv2.imwrite(os.fspath(path), image[..., ::-1]):
    raise OSError(f'{path} could not be written; end the name in .png or .jpg')
