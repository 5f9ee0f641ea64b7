"""One video file -> the crops of its main face.

What enters: a path and the frame numbers to look at. What leaves: a
`FaceClip` for each set of frames, and what was met on the way to them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import os
from typing import Any

from jaxtyping import Float32, Int32, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import crops as crops_lib
from data_pipeline.faces import footage
from data_pipeline.faces import tracks as tracks_lib
from data_pipeline.faces import video as video_lib


@dataclasses.dataclass(frozen=True)
class FaceClip:
  """The frames of a video that show its main face.

  Attributes:
    frames: of each, what was kept of its RGB crop: uint8 [256, 256, 3] if
      nobody said otherwise.
    landmarks: 81 points in pixels of the crop.
    boxes: x0, y0, x1, y1 of the face in pixels of the frame, upright and with
      square pixels.
    frame_indices: positions in the video.
    times: seconds from the video's first frame; NaN where there is none.
  """

  frames: tuple[Any, ...]
  landmarks: Float32[np.ndarray, 'n 81 2']
  boxes: Float32[np.ndarray, 'n 4']
  frame_indices: Int32[np.ndarray, 'n']
  times: Float32[np.ndarray, 'n']


def extract_faces(
  path: str | os.PathLike,
  rules: Mapping[str, Sequence[int] | np.ndarray],
  backend: backend_lib.FaceBackend,
  margin: float = 0.25,
  change: Callable[[np.ndarray, int], np.ndarray] | None = None,
  *,
  track_rule: str = 'track',
  boxes_of: str | os.PathLike | None = None,
  known: Callable[[int], np.ndarray | None] | None = None,
  keep: Callable[[UInt8[np.ndarray, '256 256 3']], Any] = lambda crop: crop,
) -> tuple[dict[str, FaceClip], footage.Reading]:
  """Crops the main face out of chosen frames of a video.

  Which face that is, is known after the last frame only. No more than one
  whole frame is held, so the heaviest face of every frame is cut out while the
  frame is at hand; those of the followed face that it was not are cut out in a
  second reading of the file.

  Args:
    path: a video file or a sequence of images.
    rules: ascending frame numbers by name. The face is followed through each
      set of frames by itself, so one set's result does not depend on another.
    backend: finds faces.
    margin: of the face box, added on every side of it.
    change: done to a frame, given its number, before a face is looked for.
    track_rule: one of `tracks.RULES`; 'official' follows no face.
    boxes_of: another video, in whose frames of the same numbers the face is
      looked for; None: this one. Landmarks are always those of this one.
    known: landmarks by frame number, in pixels of the frame, where somebody
      else has placed them; a frame without any is left out.
    keep: what is to be kept of a crop, called as it is cut out. 256 crops are
      50 MB as pixels, and a tenth of that as JPEG.

  Returns:
    By name, the frames that show the face (possibly none); and the pass over
    the file, which knows what is missing, and why.
  """
  asked = sorted({int(i) for indices in rules.values() for i in indices})
  detections: dict[int, backend_lib.Faces] = {}
  times: dict[int, float] = {}
  crops: dict[_Face, _Cut | None] = {}

  def cut(image: np.ndarray, face: _Face) -> None:
    placed = None
    if known is not None:
      placed = known(face.index)
      if placed is None:
        placed = np.full((backend_lib.NUM_LANDMARKS, 2), np.nan, np.float32)
    crop = crops_lib.crop_face(
      image, face.box, face.keypoints, backend, margin, placed
    )
    crops[face] = None
    if crop is not None:
      crops[face] = _Cut(keep(crop.image), crop.corners, crop.landmarks)

  def seen(frame: video_lib.Frame) -> np.ndarray:
    return change(frame.image, frame.index) if change else frame.image

  decoding = footage.decode_frames(boxes_of or path, asked)
  for frame in decoding:
    image = frame.image if boxes_of else seen(frame)
    times[frame.index] = frame.time
    found = detections[frame.index] = backend.detect(image)
    if len(found.scores) and not boxes_of:
      heaviest = max(range(len(found.scores)), key=found.weight)
      cut(image, _Face.at(frame.index, found, heaviest))
  follow = {
    'track': tracks_lib.main_track,
    'official': tracks_lib.official_track,
  }[track_rule]
  tracks = {}
  missing: dict[int, set[_Face]] = {}
  for rule, indices in rules.items():
    decoded = np.array([i for i in indices if i in detections], np.int64)
    track = follow([detections[i] for i in decoded], decoded)
    tracks[rule] = dataclasses.replace(
      track,
      boxes=tracks_lib.interpolate_landmarks(track.boxes, decoded),
      keypoints=tracks_lib.interpolate_landmarks(track.keypoints, decoded),
    )
    for _, face in _faces_of(tracks[rule]):
      if face not in crops:
        missing.setdefault(face.index, set()).add(face)
  again = footage.decode_frames(path, asked if boxes_of else sorted(missing))
  for frame in again:
    times[frame.index] = frame.time
    if frame.index in missing:
      image = seen(frame)
      for face in missing[frame.index]:
        cut(image, face)
  clips = {
    rule: _face_clip(crops, track, times) for rule, track in tracks.items()
  }
  return clips, again if boxes_of else decoding


@dataclasses.dataclass(frozen=True)
class _Face:
  """All that a crop depends on; float32 as bytes, so that it is a key."""

  index: int  # frame number
  box_bytes: bytes
  keypoint_bytes: bytes

  @classmethod
  def at(
    cls, index: int, place: backend_lib.Faces | tracks_lib.FaceTrack, row: int
  ) -> '_Face':
    """The face in one row of the faces of a frame, or of a track."""
    return cls(
      index, place.boxes[row].tobytes(), place.keypoints[row].tobytes()
    )

  @property
  def box(self) -> Float32[np.ndarray, '4']:
    return np.frombuffer(self.box_bytes, np.float32)

  @property
  def keypoints(self) -> Float32[np.ndarray, '5 2']:
    return np.frombuffer(self.keypoint_bytes, np.float32).reshape(-1, 2)


@dataclasses.dataclass(frozen=True)
class _Cut:
  """A `crops.FaceCrop`, of whose pixels something is kept."""

  kept: Any
  corners: tuple[int, int, int, int]
  landmarks: np.ndarray


def _faces_of(track: tracks_lib.FaceTrack) -> Iterator[tuple[int, _Face]]:
  """Yields the slots of a track that show its face, and the face."""
  for slot in np.flatnonzero(track.seen).tolist():
    yield slot, _Face.at(int(track.frame_indices[slot]), track, slot)


def _face_clip(
  crops: Mapping[_Face, _Cut | None],
  track: tracks_lib.FaceTrack,
  times: Mapping[int, float],
) -> FaceClip:
  """Gathers crops, leaving out those that no landmarks can be given to."""
  of_track = [
    (slot, crop)
    for slot, face in _faces_of(track)
    if (crop := crops.get(face)) is not None
  ]
  slots = np.array([slot for slot, _ in of_track], np.int64)
  indices = track.frame_indices[slots]
  in_frame = np.array([crop.landmarks for _, crop in of_track])
  in_frame = tracks_lib.interpolate_landmarks(
    in_frame.reshape(-1, 81, 2), indices
  )
  kept = np.flatnonzero(np.isfinite(in_frame).all((1, 2))).tolist()
  landmarks = [
    crops_lib.to_crop_pixels(in_frame[i], of_track[i][1].corners) for i in kept
  ]
  return FaceClip(
    frames=tuple(of_track[i][1].kept for i in kept),
    landmarks=np.array(landmarks, np.float32).reshape(-1, 81, 2),
    boxes=track.boxes[slots[kept]],
    frame_indices=indices[kept].astype(np.int32),
    times=np.array([times[i] for i in indices[kept].tolist()], np.float32),
  )
