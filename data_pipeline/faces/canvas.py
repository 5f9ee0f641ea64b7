"""A frame of any size -> the picture of one size that a detector takes.

The frame is scaled, its aspect kept, into the upper left corner; the rest is
black. RGB uint8 in and out.
"""

from collections.abc import Sequence

import cv2
from jaxtyping import Float, UInt8
import numpy as np


def side_lengths(shape: Sequence[int | str], default: int) -> tuple[int, int]:
  """Width and height of a model's input [b, 3, h, w], px; `default` if open."""
  height, width = (
    side if isinstance(side, int) else default for side in shape[2:]
  )
  return width, height


def fit(
  frame: UInt8[np.ndarray, 'h w 3'], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, 'ch cw 3'], Float[np.ndarray, '2']]:
  """Fits a frame into a canvas of width and height `size`, px.

  Returns:
    The canvas; and the pixels of the frame (x, y) to one of the canvas.
  """
  height, width = frame.shape[:2]
  scale = min(size[0] / width, size[1] / height)
  fitted = [max(1, round(side * scale)) for side in (width, height)]
  canvas = np.zeros((size[1], size[0], 3), np.uint8)
  canvas[: fitted[1], : fitted[0]] = cv2.resize(
    frame, fitted, interpolation=cv2.INTER_LINEAR
  )
  return canvas, np.array([width, height]) / fitted
