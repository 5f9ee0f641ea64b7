"""The answer to one video: one typed object; all output is a rendering of it.

Made by `video_detector`; JSON here, tables by `answer_table`, a page by
`answer_page`, a film by `annotated_video`. Logits are of the classification
head; scores are their sigmoid, in [0, 1], 1 for fake; a probability is what a
calibration makes of a logit. Times are seconds from the video's first frame,
boxes x0 y0 x1 y1 in pixels of the frame, upright and with square pixels. NaN,
in JSON null, stands for what is not known.

docs/answer.schema.json is the schema of the JSON (docs/predict.md).
"""

from collections.abc import Mapping
import dataclasses
import math
import os
import pathlib
from typing import Any, Literal

import cv2
from jaxtyping import Float16, UInt8
import numpy as np

from stormer_jax.scoring import plain_json

# Of the JSON: a new first number where a field goes or changes its meaning, a
# new second one where one is added. What had no version was 1.
VERSION = '2.1'
Status = Literal['ok', 'no_face', 'too_short', 'unreadable']
Verdict = Literal['', 'likely real', 'uncertain', 'likely fake']


@dataclasses.dataclass(frozen=True)
class ClipScore:
  """One clip of one person."""

  frame_indices: tuple[int, ...]  # in the video
  times: tuple[float, ...]
  logit: float
  score: float
  track: int = 1  # number of the person
  probability: float = math.nan  # of fake, were it all of a video


@dataclasses.dataclass(frozen=True)
class FrameScore:
  """One frame of a scored clip.

  `soft_label` is the temporal head's answer in [0, 1]: how strong a blending
  boundary it sees in the frame.
  """

  frame_index: int
  time: float
  soft_label: float
  box: tuple[float, float, float, float]
  track: int = 1


@dataclasses.dataclass(frozen=True)
class Segment:
  """A passage in which a person's clips look forged.

  Its ends lie halfway between its clips and those beside them, so they are
  known to half the distance of two clips.
  """

  track: int
  start: float
  end: float
  num_clips: int
  logit: float  # mean of its clips
  score: float
  probability: float


@dataclasses.dataclass(frozen=True)
class Track:
  """One person, from where their face is seen first to where it is seen last.

  Attributes:
    number: in the order of appearance, 1 for the first.
    decides: whether the video's answer is this one's.
    left_out: why this one could not have decided; '' if it could.
    first_time: s, where the face is seen first.
    last_time: s, where it is seen last.
    num_frames: looked-at frames that show the face.
    num_clips: scored ones.
    face_size: px, median of the shorter side of the box.
    logit: mean of the clips.
    score: its sigmoid.
    interval: 95 %, of the probability (of the score without a calibration),
      from resampling the clips: how much they disagree, not how often the
      detector errs. () for a single clip.
    probability: of fake.
    answer: as in `Answer`.
  """

  number: int
  decides: bool
  left_out: str
  first_time: float
  last_time: float
  num_frames: int
  num_clips: int
  face_size: float
  logit: float
  score: float
  interval: tuple[float, ...]
  probability: float
  answer: Verdict


@dataclasses.dataclass(frozen=True)
class Sampling:
  """What was looked at.

  Attributes:
    frame_rule: 'uniform' or 'dense' (docs/predict.md).
    clip_frames: of a clip.
    clips_planned: at most so many clips of a person.
    spacing: s between the starts of two clips; NaN where the file has no times.
    max_frames: the cap; `capped` says whether it made clips rarer than asked.
    capped: see there.
    frames_in_file: as far as is known.
    frames_asked: to be looked at.
    frames_decoded: of them.
    frames_with_face: of those.
  """

  frame_rule: str
  clip_frames: int
  clips_planned: int
  spacing: float
  max_frames: int
  capped: bool
  frames_in_file: int
  frames_asked: int
  frames_decoded: int
  frames_with_face: int


@dataclasses.dataclass(frozen=True)
class Quality:
  """What the detector had to work with, of the person who decides.

  Attributes:
    width: px of the frame.
    height: px of the frame.
    fps: frames a second; 0 where unknown.
    duration: s; 0 where unknown.
    face_size: px, median of the shorter side of the face box.
    sharpness: median variance of the Laplacian of the 256 px crop, 8-bit
      levels squared; lower is more blurred.
    brightness: median grey of the crop, 0 to 255.
  """

  width: int
  height: int
  fps: float
  duration: float
  face_size: float
  sharpness: float
  brightness: float


@dataclasses.dataclass(frozen=True)
class Credentials:
  """What the file's C2PA manifest says of its origin; no proof either way.

  Attributes:
    state: 'none': the file carries no manifest; 'valid': its signature fits the
      file, whoever signed; 'invalid': it does not, or is damaged; 'remote': the
      file names one elsewhere, which was not fetched; 'not_checked': the
      package that reads them is not installed.
    generator: program that wrote it, as it says.
    signer: whom the certificate names; nobody vouches for it.
    time: of the signature, as it says.
    actions: what was done to the file, as c2pa.created, as it says.
    problems: codes of what does not fit.
  """

  state: Literal['none', 'valid', 'invalid', 'remote', 'not_checked']
  generator: str = ''
  signer: str = ''
  time: str = ''
  actions: tuple[str, ...] = ()
  problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """Pictures of a clip, for the page; they are no part of the JSON.

  Attributes:
    track: person.
    clip: position among the answer's clips.
    thumbnail: JPEG of one crop, 96 px.
    maps: vulnerability map of each frame, standardised; higher is more
      suspicious.
    crops: JPEG of each crop, 256 px, where the clip is among the worst of its
      person; else ().
  """

  track: int
  clip: int
  thumbnail: bytes
  maps: Float16[np.ndarray, 't gh gw']
  crops: tuple[bytes, ...] = ()


@dataclasses.dataclass(frozen=True)
class Answer:
  """All that is said of one video.

  Attributes:
    schema_version: `VERSION`.
    video: path, as it was given.
    status: whether there is a score, or what stands in its way.
    answer: of the worst person's clips, by a calibration; '' without one.
    sentence: the answer in words, for people.
    message: what is wrong; '' when ok.
    notes: what is odd about the file or the answer, also when ok.
    logit: of the track that decides.
    score: likewise.
    probability: likewise.
    interval: likewise.
    uncertain: band of probabilities in which the answer is 'uncertain'; ()
      without a calibration.
    calibration: where the probability comes from, or that there is none.
    segments: passages that look forged, by their start.
    tracks: every person whose clips were scored.
    clips: by time.
    frames: of the clips.
    sampling: what was looked at; None where nothing could be.
    quality: likewise.
    credentials: what the file says of its origin; None where it could not be
      opened.
    not_looked_at: what no score here says anything of.
    hashes: SHA-256 of the 'video'; of 'weights' and 'config', ours.
    provenance: weights, libraries, settings.
    snapshots: pictures, by clip.
  """

  video: str
  status: Status
  sentence: str
  message: str
  notes: tuple[str, ...]
  provenance: Mapping[str, Any]
  calibration: str
  answer: Verdict = ''
  logit: float = math.nan
  score: float = math.nan
  probability: float = math.nan
  interval: tuple[float, ...] = ()
  uncertain: tuple[float, ...] = ()
  segments: tuple[Segment, ...] = ()
  tracks: tuple[Track, ...] = ()
  clips: tuple[ClipScore, ...] = ()
  frames: tuple[FrameScore, ...] = ()
  sampling: Sampling | None = None
  quality: Quality | None = None
  credentials: Credentials | None = None
  not_looked_at: tuple[str, ...] = ()
  hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
  schema_version: str = VERSION
  snapshots: tuple[Snapshot, ...] = dataclasses.field(
    default=(), compare=False, repr=False
  )

  def to_dict(self) -> dict[str, Any]:
    """The content of the JSON."""
    names = [field.name for field in dataclasses.fields(self)]
    names.remove('snapshots')
    names.insert(0, names.pop(names.index('schema_version')))
    return {name: plain_json.plain(getattr(self, name)) for name in names}

  def to_json(self) -> str:
    """Returns the answer as JSON; null stands for what is not known."""
    return plain_json.text(self.to_dict())

  def write(self, out: str | os.PathLike[str]) -> None:
    """Writes the JSON file, whole or not at all."""
    write_whole(pathlib.Path(out), self.to_json().encode())


def jpeg(image: UInt8[np.ndarray, 'h w 3'], quality: int = 85) -> bytes:
  """Returns an RGB picture as a JPEG for a page."""
  encoded, buffer = cv2.imencode(
    '.jpg',
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
    [cv2.IMWRITE_JPEG_QUALITY, quality],
  )
  assert encoded, f'OpenCV could not encode a picture of shape {image.shape}'
  return buffer.tobytes()


def write_whole(path: pathlib.Path, content: bytes) -> None:
  """Writes a file that takes its name only when it is whole."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_bytes(content)
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
