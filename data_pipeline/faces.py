"""Frames -> the main face through time -> 256 x 256 crops with landmarks.

What enters: RGB uint8 frames in [0, 255] of any size. What leaves: RGB uint8
crops, 25 % wider than the detected box on every side (METHOD 1.1), and 81
landmarks in dlib's order (METHOD 1.2) in pixels of the crop.

The embedded backend is CenterFace, whose boxes follow the WIDER FACE
convention as RetinaFace's do, and the MediaPipe face mesh, of which 81 points
are taken (face_models/README.md). Another one needs the two methods of
`FaceBackend`.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools
import json
import pathlib
from typing import Protocol, runtime_checkable

import cv2
from jaxtyping import Float32, Int, UInt8
import numpy as np
import onnxruntime

CROP_SIZE = 256  # px
NUM_LANDMARKS = 81
NUM_KEYPOINTS = 5  # eyes, nose tip, mouth corners

_MODELS = pathlib.Path(__file__).parent / 'face_models'
# Mesh vertices of the outer eye corners: image left, image right.
_EYE_CORNERS = (33, 263)
_NUM_FACE_VERTICES = 468  # of 478; the last ten are the irises
_MESH_INPUT = 256  # px


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


@runtime_checkable
class FaceBackend(Protocol):
  """Finds faces, and landmarks of a face."""

  name: str

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> Faces:
    """Finds all faces of a frame."""

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float32[np.ndarray, '81 2'] | None:
    """Places 81 landmarks on a face; None where there is no face after all."""


@dataclasses.dataclass(frozen=True)
class FaceTrack:
  """One face through the frames of a video; NaN rows where it is not seen.

  Attributes:
    frame_indices: ascending frame numbers, all that were looked at.
    boxes: x0, y0, x1, y1 in pixels of the frame.
    keypoints: x, y of the five detector points.
  """

  frame_indices: Int[np.ndarray, 'n']
  boxes: Float32[np.ndarray, 'n 4']
  keypoints: Float32[np.ndarray, 'n 5 2']

  @property
  def seen(self) -> np.ndarray:
    """Which frames show the face, bool [n]."""
    return np.isfinite(self.boxes[:, 0])


@dataclasses.dataclass(frozen=True)
class EmbeddedSettings:
  """How `EmbeddedBackend` looks for faces.

  Attributes:
    long_side: px that the longer side of a frame is scaled to for detection;
      at 640 all faces of 64 px and more are found on a 1920 x 1080 frame.
    max_enlarge: small frames are scaled up by no more than this.
    min_score: of the detector.
    min_presence: of the mesh, in [0, 1].
    mesh_passes: the second finds the face better framed than the first.
    threads: of onnxruntime, per model.
  """

  long_side: int = 640
  max_enlarge: float = 2.0
  min_score: float = 0.5
  min_presence: float = 0.5
  mesh_passes: int = 2
  threads: int = 1


class EmbeddedBackend:
  """CenterFace and the MediaPipe face mesh, run by onnxruntime on the CPU.

  Open one per process; it is safe to use from several threads.
  """

  name = 'centerface+facemesh_v2'

  def __init__(self, settings: EmbeddedSettings | None = None):
    """Loads the two models that lie beside this file."""
    self.settings = settings or EmbeddedSettings()
    threads = self.settings.threads
    self._detector = _session(_MODELS / 'centerface.onnx', threads)
    self._mesh = _session(_MODELS / 'facemesh_v2_478.onnx', threads)
    self._blend = mesh_to_landmarks()

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> Faces:
    """Finds all faces of a frame, best first."""
    height, width = frame.shape[:2]
    scale = min(
      self.settings.long_side / max(height, width), self.settings.max_enlarge
    )
    # The network halves its input five times.
    size = [max(32, round(side * scale / 32) * 32) for side in (width, height)]
    resized = cv2.resize(
      frame,
      size,
      interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    image = resized.astype(np.float32).transpose(2, 0, 1)[None]
    heat, log_size, offset, points = (
      output[0] for output in self._detector.run(None, {'input.1': image})
    )
    rows, columns = np.nonzero(heat[0] > self.settings.min_score)
    scores = heat[0, rows, columns]
    # The maps are a quarter of the input; points are fractions of the box.
    half = 2 * np.exp(log_size[::-1, rows, columns].T)
    centre = 4 * np.stack(
      [columns + offset[1, rows, columns], rows + offset[0, rows, columns]], 1
    )
    centre += 2
    low, high = centre - half, centre + half
    fractions = points[:, rows, columns].T.reshape(-1, NUM_KEYPOINTS, 2)
    keypoints = low[:, None] + fractions[..., ::-1] * (high - low)[:, None]
    boxes = np.concatenate([low, high], 1)
    kept = _suppress(boxes, scores, 0.3)
    to_frame = np.array([width, height], np.float32) / size
    return Faces(
      boxes=(boxes[kept] * np.tile(to_frame, 2)).astype(np.float32),
      keypoints=(keypoints[kept] * to_frame).astype(np.float32),
      scores=scores[kept].astype(np.float32),
    )

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float32[np.ndarray, '81 2'] | None:
    """Places 81 landmarks on a face; None where the mesh sees no face."""
    eyes = keypoints[1] - keypoints[0]
    low, high = box[:2], box[2:]
    window = _Window(
      centre=(low + high) / 2,
      side=1.5 * float(np.max(high - low)),
      angle=float(np.arctan2(eyes[1], eyes[0])),
    )
    for _ in range(self.settings.mesh_passes):
      mesh, presence = self._fit_mesh(frame, window)
      window = _window_around(mesh)
    if presence < self.settings.min_presence:
      return None
    return (self._blend @ mesh).astype(np.float32)

  def _fit_mesh(
    self, frame: np.ndarray, window: '_Window'
  ) -> tuple[np.ndarray, float]:
    """Returns the 478 vertices in frame pixels and the face's presence."""
    matrix = window.to_input()
    patch = cv2.warpAffine(
      frame,
      matrix,
      (_MESH_INPUT, _MESH_INPUT),
      flags=cv2.INTER_LINEAR,
      borderMode=cv2.BORDER_REPLICATE,
    )
    vertices, logit, _ = self._mesh.run(
      None, {'in': patch[None].astype(np.float32) / 255}
    )
    points = vertices.reshape(-1, 3)[:, :2]
    rotation, shift = matrix[:, :2], matrix[:, 2]
    presence = 1 / (1 + np.exp(-float(logit.reshape(-1)[0])))
    return (points - shift) @ np.linalg.inv(rotation).T, presence


@dataclasses.dataclass(frozen=True)
class _Window:
  """A turned square of a frame that the mesh model looks at."""

  centre: np.ndarray  # x, y, px
  side: float  # px
  angle: float  # radians, of the line between the eyes

  def to_input(self) -> np.ndarray:
    """Affine matrix (2, 3) from frame pixels to pixels of the model input."""
    scale = _MESH_INPUT / self.side
    cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
    rotation = np.array([[cos, sin], [-sin, cos]])
    shift = _MESH_INPUT / 2 - rotation @ self.centre
    return np.column_stack([rotation, shift])


def _window_around(mesh: np.ndarray) -> _Window:
  """The window that frames a fitted mesh as the model was trained to see it."""
  left, right = mesh[list(_EYE_CORNERS)]
  angle = float(np.arctan2(*(right - left)[::-1]))
  cos, sin = np.cos(angle), np.sin(angle)
  rotation = np.array([[cos, sin], [-sin, cos]])
  upright = mesh[:_NUM_FACE_VERTICES] @ rotation.T
  low, high = upright.min(0), upright.max(0)
  return _Window(
    centre=rotation.T @ ((low + high) / 2),
    side=1.5 * float(np.max(high - low)),
    angle=angle,
  )


@functools.cache
def mesh_to_landmarks() -> Float32[np.ndarray, '81 478']:
  """Weights of the mesh vertices in each of the 81 landmarks."""
  table = json.loads((_MODELS / 'mesh478_to_dlib81.json').read_text())
  weights = np.zeros((NUM_LANDMARKS, 478), np.float32)
  for point in table['points']:
    for vertex, weight in zip(point['vertices'], point['weights'], strict=True):
      weights[point['dlib'], vertex] += weight
  return weights


def _session(path: pathlib.Path, threads: int) -> onnxruntime.InferenceSession:
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  options.log_severity_level = 3  # errors
  return onnxruntime.InferenceSession(
    str(path), options, providers=['CPUExecutionProvider']
  )


def _suppress(
  boxes: np.ndarray, scores: np.ndarray, max_overlap: float
) -> list[int]:
  """Indices of the boxes that overlap no better one, best first."""
  kept: list[int] = []
  for index in np.argsort(-scores, kind='stable'):
    if not kept or np.max(_iou(boxes[kept], boxes[index])) < max_overlap:
      kept.append(int(index))
  return kept


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [f, 4] with one box [4]."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  shared = np.prod(np.maximum(high - low, 0), axis=1)
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  return shared / (areas + np.prod(box[2:] - box[:2]) - shared + 1e-9)


def main_track(
  detections: Sequence[Faces],
  frame_indices: Int[np.ndarray, 'n'],
  *,
  min_likeness: float = 0.2,
  max_missed: int = 8,
) -> FaceTrack:
  """Follows every face and returns the one that a video is about.

  Boxes are linked from frame to frame, best fit first; the main face is the
  track with the largest sum of score x face size. Choosing the largest face
  frame by frame (D26) jumps between people.

  Args:
    detections: the faces of each frame.
    frame_indices: their frame numbers, ascending.
    min_likeness: least overlap (or closeness, after a gap) of a link, [0, 1].
    max_missed: looked-at frames a face may be missing before its track ends.
  """
  tracks: list[_OpenTrack] = []
  for slot, faces in enumerate(detections):
    open_tracks = [t for t in tracks if slot - t.last <= max_missed + 1]
    free = set(range(len(faces.scores)))
    links = sorted(
      (
        (-likeness, number, face)
        for number, track in enumerate(open_tracks)
        for face, likeness in enumerate(track.likeness(faces.boxes, slot))
        if likeness >= min_likeness
      ),
    )
    for _, number, face in links:
      if face in free and open_tracks[number].last < slot:
        free.remove(face)
        open_tracks[number].add(slot, face, faces)
    for face in sorted(free):
      tracks.append(_OpenTrack())
      tracks[-1].add(slot, face, faces)
  boxes = np.full((len(detections), 4), np.nan, np.float32)
  keypoints = np.full((len(detections), NUM_KEYPOINTS, 2), np.nan, np.float32)
  if tracks:
    main = max(tracks, key=lambda track: track.weight)
    for slot, face in main.faces.items():
      boxes[slot] = detections[slot].boxes[face]
      keypoints[slot] = detections[slot].keypoints[face]
  return FaceTrack(np.asarray(frame_indices), boxes, keypoints)


class _OpenTrack:
  """A face being followed."""

  def __init__(self) -> None:
    self.faces: dict[int, int] = {}  # slot -> number of the face there
    self.weight = 0.0
    self.last = -1  # slot
    self.box = np.zeros(4, np.float32)

  def add(self, slot: int, face: int, faces: Faces) -> None:
    self.faces[slot] = face
    self.last = slot
    self.box = faces.boxes[face]
    self.weight += faces.weight(face)

  def likeness(self, boxes: np.ndarray, slot: int) -> np.ndarray:
    """How well boxes continue this track, in [0, 1]."""
    overlap = _iou(boxes, self.box)
    if slot - self.last <= 2:
      return overlap
    # After a gap a face may have moved off its old place, if not far.
    moved = np.linalg.norm(
      (boxes[:, :2] + boxes[:, 2:] - self.box[:2] - self.box[2:]) / 2, axis=1
    )
    widths = np.maximum(boxes[:, 2] - boxes[:, 0], 1)
    return np.maximum(overlap, 0.5 - 0.5 * moved / widths)


def interpolate_landmarks(
  points: Float32[np.ndarray, 'n *d'],
  frame_indices: Int[np.ndarray, 'n'],
  max_gap: int = 2,
) -> Float32[np.ndarray, 'n *d']:
  """Fills short gaps on a straight line between the frames around them.

  Choice: a frame without a face is left out (METHOD 1.1), but a detector that
  blinks for a frame or two must not cut a run of consecutive frames in two.

  Args:
    points: landmarks, boxes or keypoints by frame; NaN where missing.
    frame_indices: ascending frame numbers.
    max_gap: frames of the video that may be filled in a row, so that nothing
      is made up between frames that lie far apart.
  """
  filled = np.array(points)
  missing = np.isnan(points).any(axis=tuple(range(1, points.ndim)))
  known = np.flatnonzero(~missing)
  for before, after in itertools.pairwise(known):
    span = int(frame_indices[after] - frame_indices[before])
    if after - before == 1 or span > max_gap + 1:
      continue
    for slot in range(before + 1, after):
      share = (frame_indices[slot] - frame_indices[before]) / span
      filled[slot] = (1 - share) * points[before] + share * points[after]
  return filled


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
  landmarks: Float32[np.ndarray, '81 2']


def crop_face(
  frame: UInt8[np.ndarray, 'h w 3'],
  box: Float32[np.ndarray, '4'],
  keypoints: Float32[np.ndarray, '5 2'],
  backend: FaceBackend,
  margin: float = 0.25,
) -> FaceCrop | None:
  """Cuts a face out of a frame (METHOD 1.1).

  Args:
    frame: RGB.
    box: x0, y0, x1, y1 of the face, px.
    keypoints: x, y of the five detector points, px.
    backend: places the landmarks.
    margin: of the box's width and height, added on every side.

  Returns:
    A 256 x 256 crop, resized without keeping its aspect; None where the box
    lies outside the frame.
  """
  height, width = frame.shape[:2]
  corners = enlarge_box(box, height, width, margin)
  if corners is None:
    return None
  x0, y0, x1, y1 = corners
  image = cv2.resize(
    frame[y0:y1, x0:x1],
    (CROP_SIZE, CROP_SIZE),
    interpolation=cv2.INTER_LINEAR,
  )
  landmarks = backend.landmarks(frame, box, keypoints)
  if landmarks is None:
    landmarks = np.full((NUM_LANDMARKS, 2), np.nan, np.float32)
  return FaceCrop(image, corners, landmarks)


def to_crop_pixels(
  landmarks: Float32[np.ndarray, '81 2'], corners: tuple[int, int, int, int]
) -> Float32[np.ndarray, '81 2']:
  """Maps landmarks from pixels of the frame to pixels of its 256 crop."""
  x0, y0, x1, y1 = corners
  scale = CROP_SIZE / np.array([x1 - x0, y1 - y0], np.float32)
  # Pixel centres are at whole numbers, as cv2.resize has them.
  moved = (landmarks - np.array([x0, y0]) + 0.5) * scale - 0.5
  return moved.astype(np.float32)
