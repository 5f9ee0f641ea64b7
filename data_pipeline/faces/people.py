"""One video file -> clips of every person in it, as the file is read.

What enters: a path, and the frames to look at. What leaves: 256 x 256 crops of
one person at a time, as many frames as a clip has. Only the frames that a gap
could still be filled in are held, so memory does not grow with the video. The
clips of a single person are those that `extract_faces` cuts out of it.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import math
import os

from jaxtyping import Float32, Int32, Int64, UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import crops as crops_lib
from data_pipeline.faces import footage
from data_pipeline.faces import tracks as tracks_lib
from data_pipeline.faces import video as video_lib

# Frames of the video that `tracks.interpolate_landmarks` fills in a row.
_MAX_GAP = 2
# Choice: whole frames held at once; 32 of 1920 x 1080 are 200 MB.
_MOST_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class PersonClip:
  """Some frames of one person.

  Attributes:
    person: number of the person's track, in the order of appearance.
    frames: RGB crops.
    boxes: x0, y0, x1, y1 of the face in pixels of the frame, upright and with
      square pixels.
    frame_indices: positions in the video.
    times: seconds from the video's first frame; NaN where there is none.
  """

  person: int
  frames: UInt8[np.ndarray, 't 256 256 3']
  boxes: Float32[np.ndarray, 't 4']
  frame_indices: Int32[np.ndarray, 't']
  times: Float32[np.ndarray, 't']


@dataclasses.dataclass
class Person:
  """What is known of one track at the end.

  Attributes:
    weight: sum of face score x face size, by which the main one is chosen.
    num_frames: looked-at frames that show the face.
    first_time: s; NaN where the frame has none.
    last_time: likewise.
  """

  weight: float
  num_frames: int = 0
  first_time: float = math.nan
  last_time: float = math.nan


class Walk(Iterator[PersonClip]):
  """A pass over a file; what it has met is known at its end.

  Attributes:
    reading: the pass over the frames, which knows what is missing, and why.
    people: by number, those whose face was cut out.
    num_looked_at: frames that were decoded.
    num_with_face: of them, those with any face.
    most_faces: in one frame.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    indices: Int64[np.ndarray, 'n'],
    backend: backend_lib.FaceBackend,
    *,
    clip_frames: int,
    whole: bool,
    margin: float = 0.25,
    max_people: int = 4,
    watch: Callable[[float], None] = lambda share: None,
  ):
    """Begins at the start of the file.

    Args:
      path: a video file or a sequence of images.
      indices: ascending frame numbers, of `video.frame_indices`.
      backend: finds faces.
      clip_frames: of a clip.
      whole: True: each `clip_frames` of the indices are a clip, and one that
        does not show a person throughout is none of theirs ('dense'). False:
        frames that show a person, one after the other, are cut into clips
        ('uniform').
      margin: of the face box, added on every side of it.
      max_people: faces cut out of a frame, those of the heaviest tracks.
      watch: called with the share of the frames that were looked at.
    """
    self.reading = footage.decode_frames(path, indices.tolist())
    self.people: dict[int, Person] = {}
    self.num_looked_at = self.num_with_face = self.most_faces = 0
    self._indices = indices
    self._backend = backend
    self._clip_frames = clip_frames
    self._whole = whole
    self._margin = margin
    self._max_people = max_people
    self._watch = watch
    self._follower = tracks_lib.Follower()
    self._rest: dict[int, list[_Cut]] = {}  # cut, and no whole clip yet
    self._clips = self._walk()

  def __next__(self) -> PersonClip:
    return next(self._clips)

  def _walk(self) -> Iterator[PersonClip]:
    ends = self._clip_ends()
    run: list[_Seen] = []
    held = 0
    for frame in self.reading:
      if run:
        gap = frame.index - run[-1].frame.index - 1
        full = held > _MOST_BYTES and run[-1].frame.index in ends
        if gap > _MAX_GAP or full:
          yield from self._clips_of(run)
          run, held = [], 0
      run.append(self._look(frame))
      held += frame.image.nbytes
    yield from self._clips_of(run)

  def _clip_ends(self) -> set[int]:
    return set(
      self._indices[self._clip_frames - 1 :: self._clip_frames].tolist()
    )

  def _look(self, frame: video_lib.Frame) -> '_Seen':
    faces = self._backend.detect(frame.image)
    self.num_looked_at += 1
    self._watch(self.num_looked_at / len(self._indices))
    self.num_with_face += bool(len(faces.scores))
    self.most_faces = max(self.most_faces, len(faces.scores))
    numbers = self._follower.follow(faces)
    # By the track, not by the frame: who was looked at stays looked at.
    heaviest = sorted(numbers, key=lambda n: -self._follower.weights[n])
    return _Seen(
      frame,
      {
        number: (faces.boxes[face], faces.keypoints[face])
        for face, number in enumerate(numbers)
        if number in heaviest[: self._max_people]
      },
    )

  def _clips_of(self, run: list['_Seen']) -> Iterator[PersonClip]:
    """Cuts everybody out of frames that lie close together."""
    numbers = sorted({number for seen in run for number in seen.faces})
    for number in numbers:
      cuts = self._cut(run, number)
      person = self.people.setdefault(number, Person(0.0))
      person.weight = self._follower.weights[number]
      person.num_frames += len(cuts)
      if cuts:
        if not math.isfinite(person.first_time):
          person.first_time = cuts[0].time
        person.last_time = cuts[-1].time
      yield from self._join(number, cuts)

  def _cut(self, run: list['_Seen'], number: int) -> list['_Cut']:
    """Cuts one person out, gaps of a frame or two filled."""
    indices = np.array([seen.frame.index for seen in run])
    boxes = np.full((len(run), 4), np.nan, np.float32)
    keypoints = np.full(
      (len(run), backend_lib.NUM_KEYPOINTS, 2), np.nan, np.float32
    )
    for slot, seen in enumerate(run):
      if number in seen.faces:
        boxes[slot], keypoints[slot] = seen.faces[number]
    boxes = tracks_lib.interpolate_landmarks(boxes, indices, _MAX_GAP)
    keypoints = tracks_lib.interpolate_landmarks(keypoints, indices, _MAX_GAP)
    cut = []
    for slot in np.flatnonzero(np.isfinite(boxes[:, 0])).tolist():
      crop = crops_lib.crop_face(
        run[slot].frame.image,
        boxes[slot],
        keypoints[slot],
        self._backend,
        self._margin,
      )
      if crop is not None:
        cut.append((slot, crop))
    if not cut:
      return []
    # A face without landmarks is none, unless those around it have them.
    slots = np.array([slot for slot, _ in cut])
    landmarks = tracks_lib.interpolate_landmarks(
      np.array([crop.landmarks for _, crop in cut], np.float32),
      indices[slots],
      _MAX_GAP,
    )
    placed = np.isfinite(landmarks).all((1, 2))
    return [
      _Cut(int(indices[slot]), run[slot].frame.time, crop.image, boxes[slot])
      for (slot, crop), known in zip(cut, placed, strict=True)
      if known
    ]

  def _join(self, number: int, cuts: list['_Cut']) -> Iterator[PersonClip]:
    size = self._clip_frames
    if self._whole:
      by_index = {cut.index: cut for cut in cuts}
      starts = np.unique(
        np.searchsorted(self._indices, sorted(by_index)) // size * size
      )
      for start in starts.tolist():
        of_clip = self._indices[start : start + size].tolist()
        if len(of_clip) == size and by_index.keys() >= set(of_clip):
          yield _clip(number, [by_index[index] for index in of_clip])
      return
    rest = self._rest.setdefault(number, [])
    rest += cuts
    while len(rest) >= size:
      yield _clip(number, rest[:size])
      del rest[:size]


@dataclasses.dataclass(frozen=True)
class _Seen:
  """A frame, and by track number the box and keypoints of its faces."""

  frame: video_lib.Frame
  faces: dict[int, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Cut:
  """One face cut out of one frame."""

  index: int
  time: float
  image: np.ndarray
  box: np.ndarray


def _clip(number: int, cuts: Sequence[_Cut]) -> PersonClip:
  return PersonClip(
    person=number,
    frames=np.stack([cut.image for cut in cuts]),
    boxes=np.stack([cut.box for cut in cuts]),
    frame_indices=np.array([cut.index for cut in cuts], np.int32),
    times=np.array([cut.time for cut in cuts], np.float32),
  )
