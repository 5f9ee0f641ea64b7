"""How well the faces of one video were cut out, in figures.

What enters: boxes and landmarks of the frames that were kept. What leaves:
numbers that `prepare` keeps beside the video, for `quality_page`.
"""

from jaxtyping import Float32, Int32
import numpy as np


def face_size(boxes: Float32[np.ndarray, 'n 4']) -> float:
  """Median of the shorter side of the face, px of the frame; 0 without any."""
  if not len(boxes):
    return 0.0
  sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
  return float(np.median(sides))


def jitter(
  landmarks: Float32[np.ndarray, 'n 81 2'],
  frame_indices: Int32[np.ndarray, 'n'],
) -> float:
  """How far landmarks stand off the line between the frames around them.

  A face that moves steadily has none, one whose landmarks tremble has much.
  What trembles may be the box: in the crop it is the same.

  Args:
    landmarks: in pixels of the crop.
    frame_indices: positions in the video.

  Returns:
    Median over all frames between two that follow each other directly, of the
    mean distance of the 81 points, px of the 256 crop; 0 where there are none.
  """
  steps = np.diff(frame_indices)
  between = np.flatnonzero((steps[:-1] == 1) & (steps[1:] == 1)) + 1
  if not len(between):
    return 0.0
  off = (
    landmarks[between] - (landmarks[between - 1] + landmarks[between + 1]) / 2
  )
  return float(np.median(np.linalg.norm(off, axis=-1).mean(-1)))
