"""What a face backend is, and what it finds in a frame.

A backend sees RGB uint8 frames in [0, 255] of any size. It returns boxes from
forehead to chin, five keypoints and 81 landmarks in dlib's order
(METHOD 1.2), all in pixels of the frame.
"""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Float32, UInt8
import numpy as np

NUM_LANDMARKS = 81
NUM_KEYPOINTS = 5  # eyes, nose tip, mouth corners


@dataclasses.dataclass(frozen=True)
class Faces:
  """All faces of one frame, in pixels of that frame.

  Attributes:
    boxes: x0, y0, x1, y1, from forehead to chin.
    keypoints: x, y of eye, eye, nose tip, mouth corner, mouth corner.
    scores: in [0, 1], descending.
  """

  boxes: Float32[np.ndarray, 'f 4']
  keypoints: Float32[np.ndarray, 'f 5 2']
  scores: Float32[np.ndarray, 'f']

  def weight(self, face: int) -> float:
    """Score x size (px) of a face, by which the main one is chosen."""
    area = float(np.prod(self.boxes[face][2:] - self.boxes[face][:2]))
    return float(self.scores[face]) * max(area, 0.0) ** 0.5


def on_frame(
  boxes: Float[np.ndarray, 'f 4'],
  keypoints: Float[np.ndarray, 'f 5 2'],
  scores: Float[np.ndarray, 'f'],
  to_frame: Float[np.ndarray, '2'],
) -> Faces:
  """Faces that were found on a canvas, whose pixels have a size (x, y)."""
  return Faces(
    boxes=(boxes * np.tile(to_frame, 2)).astype(np.float32),
    keypoints=(keypoints * to_frame).astype(np.float32),
    scores=scores.astype(np.float32),
  )


@runtime_checkable
class BoxFinder(Protocol):
  """Finds faces."""

  name: str

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> Faces:
    """Finds all faces of a frame."""


@runtime_checkable
class PointFinder(Protocol):
  """Places the landmarks of a face that was found.

  Attributes:
    searches: whether it looks for the face in the crop by itself, so that the
      box says no more than where to look.
  """

  name: str
  searches: bool

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float[np.ndarray, '81 2'] | None:
    """Places 81 landmarks on a face; None where there is no face after all."""


@runtime_checkable
class FaceBackend(Protocol):
  """Finds faces, and landmarks of a face.

  Attributes:
    name: what it is, down to the file of its model; two backends of one name
      find the same.
  """

  name: str

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> Faces:
    """Finds all faces of a frame."""

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float[np.ndarray, '81 2'] | None:
    """Places 81 landmarks on a face; None where there is no face after all."""


class JoinedBackend:
  """A face backend of two halves: one finds boxes, the other landmarks."""

  def __init__(self, boxes: BoxFinder, points: PointFinder):
    """Joins the two; the name is made of both."""
    self.name = f'{boxes.name}+{points.name}'
    self.searches = points.searches
    self._boxes = boxes
    self._points = points

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> Faces:
    """Finds all faces of a frame, best first."""
    return self._boxes.detect(frame)

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float[np.ndarray, '81 2'] | None:
    """Places 81 landmarks on a face; None where none is seen."""
    return self._points.landmarks(frame, box, keypoints)


@functools.cache
def file_digest(path: str) -> str:
  """The first 16 hex digits of the SHA-256 of a model's file.

  Raises:
    ValueError: it cannot be read.
  """
  try:
    with pathlib.Path(path).open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()[:16]
  except OSError as error:
    raise ValueError(
      f'--face_model={path}: cannot be read ({error.strerror}); name the file'
      ' of the model, which this project neither brings nor downloads'
    ) from error
