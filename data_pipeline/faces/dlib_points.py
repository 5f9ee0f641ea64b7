"""Landmarks by dlib, as FakeSTormer's preprocessing places them (METHOD 1.2).

dlib's frontal detector looks at the grey 256 x 256 crop, enlarged twice, and
its first face gets the points of the user's predictor, in whole pixels of the
crop. A predictor of 81 points gives the original's landmarks. One of 68 lacks
the forehead, which the embedded face mesh then places.

Needs the package dlib (extra `dlib`), which is imported here and nowhere else.
"""

import threading
from typing import Any

import cv2
from jaxtyping import Float32, Float64, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import crops, embedded

_NUM_POINTS = (68, backend_lib.NUM_LANDMARKS)


class DlibPoints:
  """Places landmarks with a predictor of dlib; safe to use from threads."""

  searches = True

  def __init__(self, model_file: str, margin: float = 0.25):
    """Loads the predictor.

    Args:
      model_file: shape_predictor_68_face_landmarks.dat, or one of 81 points.
      margin: of the crops, of the box's width and height on every side.

    Raises:
      ValueError: dlib is not installed, or the file is no such predictor.
    """
    self.name = f'dlib-{backend_lib.file_digest(model_file)}'
    dlib = _import_dlib()
    try:
      self._predict = dlib.shape_predictor(model_file)
    except RuntimeError as error:
      raise ValueError(
        f'--face_model={model_file}: not a shape predictor of dlib ({error}); '
        'name a .dat file of 68 or 81 points'
      ) from error
    blank = np.zeros((64, 64), np.uint8)
    count = self._predict(blank, dlib.rectangle(8, 8, 56, 56)).num_parts
    if count not in _NUM_POINTS:
      raise ValueError(
        f'--face_model={model_file}: a predictor of {count} points; it takes '
        'one of 68 or 81'
      )
    self._find = dlib.get_frontal_face_detector()
    self._mesh = embedded.FaceMesh() if count == 68 else None
    self._margin = margin
    self._lock = threading.Lock()  # the detector keeps its pyramid in itself

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float64[np.ndarray, '81 2'] | None:
    """Places landmarks on the first face that dlib finds in the crop.

    Args:
      frame: RGB.
      box: of the face; the crop around it is looked at.
      keypoints: for the forehead of a predictor of 68 points.

    Returns:
      Pixels of the frame, whole ones in the crop; None where dlib, or for the
      forehead the mesh, sees no face.
    """
    height, width = frame.shape[:2]
    corners = crops.enlarge_box(box, height, width, self._margin)
    if corners is None:
      return None
    grey = cv2.cvtColor(crops.cut(frame, corners), cv2.COLOR_RGB2GRAY)
    with self._lock:
      faces = self._find(grey, 1)
      if not len(faces):
        return None
      shape = self._predict(grey, faces[0])
    in_crop = np.array([[point.x, point.y] for point in shape.parts()], float)
    if self._mesh is None:
      return crops.to_frame_pixels(in_crop, corners)
    of_mesh = self._mesh.landmarks(frame, box, keypoints)
    if of_mesh is None:
      return None
    points = crops.to_crop_pixels(of_mesh, corners).astype(np.float64)
    points[: len(in_crop)] = in_crop
    return crops.to_frame_pixels(points, corners)


def _import_dlib() -> Any:
  try:
    import dlib
  except ImportError as error:
    raise ValueError(
      '--backend=dlib needs the package dlib: pip install dlib-bin, or '
      "'stormer-jax[dlib]'"
    ) from error
  return dlib
