"""Faces of single frames -> one face through time.

What enters: the faces that a backend found in each frame. What leaves: the
track of the main one, short gaps filled on a straight line.
"""

from collections.abc import Sequence
import dataclasses
import itertools

from jaxtyping import Float, Float32, Int
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import boxes as boxes_lib

RULES = ('track', 'official')


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

  The main face is the track with the largest sum of score x face size.
  Choosing the largest face frame by frame (D26) jumps between people.

  Args:
    detections: the faces of each frame.
    frame_indices: their frame numbers, ascending.
    min_likeness: as in `Follower`.
    max_missed: likewise.
  """
  follower = Follower(min_likeness=min_likeness, max_missed=max_missed)
  numbers = [follower.follow(faces) for faces in detections]
  boxes = np.full((len(detections), 4), np.nan, np.float32)
  keypoints = np.full(
    (len(detections), backend_lib.NUM_KEYPOINTS, 2), np.nan, np.float32
  )
  if follower.weights:
    main = max(range(len(follower.weights)), key=follower.weights.__getitem__)
    for slot, of_faces in enumerate(numbers):
      if main in of_faces:
        face = of_faces.index(main)
        boxes[slot] = detections[slot].boxes[face]
        keypoints[slot] = detections[slot].keypoints[face]
  return FaceTrack(np.asarray(frame_indices), boxes, keypoints)


def official_track(
  detections: Sequence[backend_lib.Faces], frame_indices: Int[np.ndarray, 'n']
) -> FaceTrack:
  """Takes a face of every frame by itself, as the released code does.

  A face takes the place of the one before it if it is both larger and has a
  higher score (METHOD 1.1, D26). Faces come best first, so it is the one with
  the highest score, whoever that is in this frame.
  """
  boxes = np.full((len(detections), 4), np.nan, np.float32)
  keypoints = np.full(
    (len(detections), backend_lib.NUM_KEYPOINTS, 2), np.nan, np.float32
  )
  for slot, faces in enumerate(detections):
    best, best_area, best_score = -1, 0.0, 0.0
    for face, score in enumerate(faces.scores.tolist()):
      area = float(np.prod(faces.boxes[face][2:] - faces.boxes[face][:2]))
      if area > best_area and score > best_score:
        best, best_area, best_score = face, area, score
    if best >= 0:
      boxes[slot], keypoints[slot] = faces.boxes[best], faces.keypoints[best]
  return FaceTrack(np.asarray(frame_indices), boxes, keypoints)


class Follower:
  """Links faces from frame to frame, best fit first, as the frames come.

  Attributes:
    weights: of each track so far, its sum of score x face size.
  """

  def __init__(self, *, min_likeness: float = 0.2, max_missed: int = 8):
    """Begins without a face.

    Args:
      min_likeness: least overlap (or closeness, after a gap) of a link, [0, 1].
      max_missed: looked-at frames a face may be missing before its track ends.
    """
    self.weights: list[float] = []
    self._min_likeness = min_likeness
    self._max_missed = max_missed
    self._open: list[_OpenTrack] = []
    self._slot = -1  # of the last frame

  def follow(self, faces: backend_lib.Faces) -> list[int]:
    """Takes the next frame's faces; returns the number of each one's track."""
    self._slot += 1
    slot = self._slot
    self._open = [
      track for track in self._open if slot - track.last <= self._max_missed + 1
    ]
    numbers = [-1] * len(faces.scores)
    links = sorted(
      (
        (-likeness, place, face)
        for place, track in enumerate(self._open)
        for face, likeness in enumerate(track.likeness(faces.boxes, slot))
        if likeness >= self._min_likeness
      ),
    )
    for _, place, face in links:
      track = self._open[place]
      if numbers[face] < 0 and track.last < slot:
        numbers[face] = track.number
        track.see(slot, faces.boxes[face])
    for face, number in enumerate(numbers):
      if number < 0:
        numbers[face] = len(self.weights)
        self.weights.append(0.0)
        self._open.append(_OpenTrack(numbers[face], slot, faces.boxes[face]))
      self.weights[numbers[face]] += faces.weight(face)
    return numbers


class _OpenTrack:
  """A face being followed."""

  def __init__(self, number: int, slot: int, box: np.ndarray) -> None:
    self.number = number
    self.last = slot
    self.box = box

  def see(self, slot: int, box: np.ndarray) -> None:
    self.last, self.box = slot, box

  def likeness(self, boxes: np.ndarray, slot: int) -> np.ndarray:
    """How well boxes continue this track, in [0, 1]."""
    overlap = boxes_lib.iou(boxes, self.box)
    if slot - self.last <= 2:
      return overlap
    # After a gap a face may have moved off its old place, if not far.
    moved = np.linalg.norm(
      (boxes[:, :2] + boxes[:, 2:] - self.box[:2] - self.box[2:]) / 2, axis=1
    )
    widths = np.maximum(boxes[:, 2] - boxes[:, 0], 1)
    return np.maximum(overlap, 0.5 - 0.5 * moved / widths)


def interpolate_landmarks(
  points: Float[np.ndarray, 'n *d'],
  frame_indices: Int[np.ndarray, 'n'],
  max_gap: int = 2,
) -> Float[np.ndarray, 'n *d']:
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
