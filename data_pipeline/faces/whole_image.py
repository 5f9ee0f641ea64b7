"""A face backend for images that are cut-out faces already."""

from jaxtyping import Float, Float32, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib

# Where the five points lie in the box of an upright face, as shares of it: the
# means over 31 faces of the demo's videos, made symmetric.
_KEYPOINTS = np.array(
  [[0.28, 0.38], [0.72, 0.38], [0.5, 0.57], [0.31, 0.73], [0.69, 0.73]],
  np.float32,
)


# Begins the name of such a backend.
_NAME = 'whole image, landmarks by '
_GIVEN = 'whole image, landmarks as they came'


def inner_name(name: str) -> str:
  """The name of the backend within, of a backend's name; '' without one."""
  return '' if name == _GIVEN else name.removeprefix(_NAME)


class WholeImageBackend:
  """Takes the whole image for the face; another backend places landmarks.

  For sets whose faces were cut out by their authors (WildDeepfake, DF40): to
  cut them once more would leave the middle of a face.
  """

  def __init__(self, inner: backend_lib.FaceBackend, *, is_given: bool = False):
    """Takes the backend that finds the landmarks.

    Args:
      inner: that backend.
      is_given: whether landmarks came with the images, so that it has no part.
    """
    self._inner = inner
    self._searches = (
      isinstance(inner, backend_lib.JoinedBackend) and inner.searches
    )
    self.name = _GIVEN if is_given else f'{_NAME}{inner.name}'

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> backend_lib.Faces:
    """Returns one face, as large as the image."""
    height, width = frame.shape[:2]
    size = np.array([width, height], np.float32)
    return backend_lib.Faces(
      boxes=np.array([[0, 0, width, height]], np.float32),
      keypoints=(_KEYPOINTS * size)[None],
      scores=np.ones(1, np.float32),
    )

  def landmarks(
    self,
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Float32[np.ndarray, '4'],
    keypoints: Float32[np.ndarray, '5 2'],
  ) -> Float[np.ndarray, '81 2'] | None:
    """Places landmarks on the most likely face; None where none is seen."""
    if self._searches:
      return self._inner.landmarks(frame, box, keypoints)
    found = self._inner.detect(frame)
    if not len(found.scores):
      return self._inner.landmarks(frame, box, keypoints)
    heaviest = max(range(len(found.scores)), key=found.weight)
    return self._inner.landmarks(
      frame, found.boxes[heaviest], found.keypoints[heaviest]
    )
