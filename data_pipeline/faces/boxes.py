"""Boxes of faces: how much two overlap, and which of many stay.

Boxes are x0, y0, x1, y1 in pixels of the frame, float.
"""

import numpy as np


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [f, 4] with one box [4]."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  shared = np.prod(np.maximum(high - low, 0), axis=1)
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  return shared / (areas + np.prod(box[2:] - box[:2]) - shared + 1e-9)


def suppress(
  boxes: np.ndarray, scores: np.ndarray, max_overlap: float
) -> list[int]:
  """Indices of the boxes that overlap no better one, best first."""
  kept: list[int] = []
  for index in np.argsort(-scores, kind='stable'):
    if not kept or np.max(iou(boxes[kept], boxes[index])) < max_overlap:
      kept.append(int(index))
  return kept
