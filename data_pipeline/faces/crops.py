"""A face in a frame -> its 256 x 256 crop, with landmarks.

The crop is 25 % wider than the detected box on every side (METHOD 1.1), RGB
uint8 in [0, 255], resized without keeping its aspect.
"""

import dataclasses

import cv2
from jaxtyping import Float, Float32, Float64, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib

CROP_SIZE = 256  # px


def enlarge_box(
  box: Float32[np.ndarray, '4'], height: int, width: int, margin: float
) -> tuple[int, int, int, int] | None:
  """Widens a box on every side and clips it to the frame (METHOD 1.1).

  Returns:
    Integer x0, y0, x1, y1 of the crop, or None where nothing is left of it.
  """
  x0, y0, x1, y1 = (round(float(value)) for value in box)
  pad_x, pad_y = int(margin * (x1 - x0)), int(margin * (y1 - y0))
  x0, y0 = max(x0 - pad_x, 0), max(y0 - pad_y, 0)
  x1, y1 = min(x1 + pad_x, width), min(y1 + pad_y, height)
  return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None


def cut(
  frame: UInt8[np.ndarray, 'h w 3'], corners: tuple[int, int, int, int]
) -> UInt8[np.ndarray, '256 256 3']:
  """Cuts x0, y0, x1, y1 out of a frame and resizes it to 256 x 256."""
  x0, y0, x1, y1 = corners
  return cv2.resize(
    frame[y0:y1, x0:x1],
    (CROP_SIZE, CROP_SIZE),
    interpolation=cv2.INTER_LINEAR,
  )


@dataclasses.dataclass(frozen=True)
class FaceCrop:
  """A face cut out of one frame.

  Attributes:
    image: RGB.
    corners: x0, y0, x1, y1 of the crop in pixels of the frame.
    landmarks: in pixels of the frame; NaN where the backend saw no face.
  """

  image: UInt8[np.ndarray, '256 256 3']
  corners: tuple[int, int, int, int]
  landmarks: Float[np.ndarray, '81 2']


def crop_face(
  frame: UInt8[np.ndarray, 'h w 3'],
  box: Float32[np.ndarray, '4'],
  keypoints: Float32[np.ndarray, '5 2'],
  backend: backend_lib.FaceBackend,
  margin: float = 0.25,
  known: Float[np.ndarray, '81 2'] | None = None,
) -> FaceCrop | None:
  """Cuts a face out of a frame (METHOD 1.1).

  Args:
    frame: RGB.
    box: x0, y0, x1, y1 of the face, px.
    keypoints: x, y of the five detector points, px.
    backend: places the landmarks.
    margin: of the box's width and height, added on every side.
    known: landmarks in pixels of the frame, which then need not be placed.

  Returns:
    A 256 x 256 crop, resized without keeping its aspect; None where the box
    lies outside the frame.
  """
  height, width = frame.shape[:2]
  corners = enlarge_box(box, height, width, margin)
  if corners is None:
    return None
  image = cut(frame, corners)
  landmarks = known
  if landmarks is None:
    landmarks = backend.landmarks(frame, box, keypoints)
  if landmarks is None:
    landmarks = np.full((backend_lib.NUM_LANDMARKS, 2), np.nan, np.float32)
  return FaceCrop(image, corners, landmarks)


def to_crop_pixels(
  landmarks: Float[np.ndarray, '81 2'], corners: tuple[int, int, int, int]
) -> Float32[np.ndarray, '81 2']:
  """Maps landmarks from pixels of the frame to pixels of its 256 crop."""
  low, scale = _place(corners)
  # Pixel centres are at whole numbers, as cv2.resize has them.
  moved = (landmarks - low + 0.5) * scale - 0.5
  return moved.astype(np.float32)


def to_frame_pixels(
  landmarks: Float[np.ndarray, '81 2'], corners: tuple[int, int, int, int]
) -> Float64[np.ndarray, '81 2']:
  """Does the reverse; whole numbers come back as they were.

  In float64, because landmarks are cut off to whole pixels later: 127.99999 in
  place of 128 would be another pixel.
  """
  low, scale = _place(corners)
  return (landmarks.astype(np.float64) + 0.5) / scale - 0.5 + low


def _place(corners: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
  """Upper left corner of a crop, and pixels of the crop to one of the frame."""
  x0, y0, x1, y1 = corners
  scale = CROP_SIZE / np.array([x1 - x0, y1 - y0], np.float32)
  return np.array([x0, y0]), scale
