"""The embedded face backend: finds faces and their landmarks, on the CPU.

It is CenterFace, whose boxes follow the WIDER FACE convention as RetinaFace's
do, and the MediaPipe face mesh, of which 81 points are taken
(face_models/README.md).
"""

import dataclasses
import functools
import json
import pathlib

import cv2
from jaxtyping import Float32, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import boxes as boxes_lib
from data_pipeline.faces import onnx_model

_MODELS = pathlib.Path(__file__).parent / 'face_models'
# Mesh vertices of the outer eye corners: image left, image right.
_EYE_CORNERS = (33, 263)
_NUM_FACE_VERTICES = 468  # of 478; the last ten are the irises
_MESH_INPUT = 256  # px


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


class EmbeddedBackend(backend_lib.JoinedBackend):
  """CenterFace and the MediaPipe face mesh, run by onnxruntime on the CPU.

  Open one per process; it is safe to use from several threads.
  """

  def __init__(self, settings: EmbeddedSettings | None = None):
    """Loads the two models that lie beside this file."""
    settings = settings or EmbeddedSettings()
    super().__init__(CenterFace(settings), FaceMesh(settings))


class CenterFace:
  """The embedded half that finds boxes and five points."""

  name = 'centerface'

  def __init__(self, settings: EmbeddedSettings | None = None):
    """Loads the detector."""
    self.settings = settings or EmbeddedSettings()
    self._detector = onnx_model.open_session(
      _MODELS / 'centerface.onnx', self.settings.threads
    )

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> backend_lib.Faces:
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
    fractions = points[:, rows, columns].T.reshape(
      -1, backend_lib.NUM_KEYPOINTS, 2
    )
    keypoints = low[:, None] + fractions[..., ::-1] * (high - low)[:, None]
    boxes = np.concatenate([low, high], 1)
    kept = boxes_lib.suppress(boxes, scores, 0.3)
    to_frame = np.array([width, height], np.float32) / size
    return backend_lib.Faces(
      boxes=(boxes[kept] * np.tile(to_frame, 2)).astype(np.float32),
      keypoints=(keypoints[kept] * to_frame).astype(np.float32),
      scores=scores[kept].astype(np.float32),
    )


class FaceMesh:
  """The embedded half that places landmarks on a face that was found."""

  name = 'facemesh_v2'
  searches = False

  def __init__(self, settings: EmbeddedSettings | None = None):
    """Loads the face mesh."""
    self.settings = settings or EmbeddedSettings()
    self._mesh = onnx_model.open_session(
      _MODELS / 'facemesh_v2_478.onnx', self.settings.threads
    )
    self._blend = mesh_to_landmarks()

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
  weights = np.zeros((backend_lib.NUM_LANDMARKS, 478), np.float32)
  for point in table['points']:
    for vertex, weight in zip(point['vertices'], point['weights'], strict=True):
      weights[point['dlib'], vertex] += weight
  return weights
