"""Faces of single frames -> one face through time.

What enters: the faces that a backend found in each frame. What leaves: the
track of the main one, short gaps filled on a straight line.
"""

from collections.abc import Sequence
import dataclasses
import itertools

from jaxtyping import Float32, Int
import numpy as np

from data_pipeline.faces import backend as backend_lib


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


def main_track(
  detections: Sequence[backend_lib.Faces],
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
  keypoints = np.full(
    (len(detections), backend_lib.NUM_KEYPOINTS, 2), np.nan, np.float32
  )
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

  def add(self, slot: int, face: int, faces: backend_lib.Faces) -> None:
    self.faces[slot] = face
    self.last = slot
    self.box = faces.boxes[face]
    self.weight += faces.weight(face)

  def likeness(self, boxes: np.ndarray, slot: int) -> np.ndarray:
    """How well boxes continue this track, in [0, 1]."""
    overlap = iou(boxes, self.box)
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


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [f, 4] with one box [4]."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  shared = np.prod(np.maximum(high - low, 0), axis=1)
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  return shared / (areas + np.prod(box[2:] - box[:2]) - shared + 1e-9)
