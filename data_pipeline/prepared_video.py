"""One video -> its records, or the reason why there are none.

What enters: a `catalogue.Video` and frame rules (METHOD 1.1): 'consecutive',
the first frames, to train on; 'uniform', frames spread over the video, to
score. What leaves: a record and an `Outcome` for each rule. `predict` goes the
same way, so that a file scores as its record does.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from importlib import metadata
import itertools
import json
import os
import pathlib
from typing import Any

import av
import cv2
import numpy as np

from data_pipeline import (
  clip_quality,
  corruptions,
  fingerprint,
  recompression,
  records,
)
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import (
  backends,
  extraction,
  footage,
  given_landmarks,
  whole_image,
)
from data_pipeline.faces import video as video_lib
from data_pipeline.sources import catalogue

_FINGERPRINTED = (0, 15, 30)  # places among the frames that are looked at


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a prepared video depends on besides its file.

  Attributes:
    train_frames: first frames of a training video ('consecutive').
    eval_frames: the same for val and test.
    uniform_frames: frames spread over a video ('uniform'), or frames of clips
      that are spread over it ('dense').
    clip_frames: frames of such a clip, which follow each other; a clip with a
      frame without a face is left out whole.
    min_frames: fewer frames with a face than this are too few for a clip.
    margin: of the face box, added on every side of it.
    encoding: of the stored frames, 'jpeg' or 'png'.
    corruption: KIND:LEVEL done to the video first, or '' (`corruptions`).
    faces: what finds faces and places landmarks.
    track: 'track' follows the main face; 'official' takes the best of each
      frame by itself (`faces.tracks`).
    boxes_of: 'self', or 'pair': a fake is cut out where its original shows the
      face, in frames of the same numbers.
  """

  train_frames: int = 256
  eval_frames: int = 32
  uniform_frames: int = 32
  clip_frames: int = 4
  min_frames: int = 4
  margin: float = 0.25
  encoding: str = 'jpeg'
  corruption: str = ''
  faces: backends.Choice = dataclasses.field(default_factory=backends.Choice)
  track: str = 'track'
  boxes_of: str = 'self'

  def described(self) -> dict[str, Any]:
    """All that a record depends on, as JSON; the backend by its full name."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    } | {'faces': self.faces.full_name}

  def count(self, rule: str, split: str) -> int:
    """How many frames a rule asks for."""
    if rule != 'consecutive':
      return self.uniform_frames
    return self.train_frames if split == 'train' else self.eval_frames


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
  """What became of one video under one rule.

  Attributes:
    status: 'kept' or 'skipped'.
    reason: '' or one of unreadable, missing, too_short, no_face, no_original,
      crashed.
    num_frames: frames kept.
    detail: one line for people.
    notes: what is odd about the file; it may well be kept nevertheless.
    num_asked: frames that were looked at for it; 0 where nothing was.
    face_size: px of the frame (`clip_quality`); 0 where not kept.
    jitter: px of the crop (`clip_quality`); 0 where unknown.
    source_digest: first 16 digits of the file's SHA-256; '' where not kept.
    looks: `fingerprint` of three crops; '' where not kept.
  """

  video_id: str
  split: str
  label: str
  rule: str
  status: str
  reason: str = ''
  num_frames: int = 0
  detail: str = ''
  notes: tuple[str, ...] = ()
  num_asked: int = 0
  face_size: float = 0.0
  jitter: float = 0.0
  source_digest: str = ''
  looks: str = ''


def prepare_video(
  root: pathlib.Path,
  video: catalogue.Video,
  rules: Sequence[str],
  settings: Settings,
  backend: backend_lib.FaceBackend,
) -> tuple[list[records.VideoRecord], list[Outcome]]:
  """Prepares one video under each rule; a bad one is an Outcome, no error."""
  path = root / video.path
  if not settings.corruption:
    return _prepare_file(path, root, video, rules, settings, backend)
  corruption = corruptions.parse(settings.corruption)
  if not corruption.of_files:
    return _prepare_file(
      path,
      root,
      video,
      rules,
      settings,
      backend,
      lambda image, index: corruptions.corrupt_frame(
        image, corruption, video.video_id, index
      ),
    )
  try:
    with recompression.compressed_file(
      path,
      int(corruption.parameter),
      corruption.most_side,
      corruption.most_rate,
    ) as copy:
      return _prepare_file(copy, root, video, rules, settings, backend)
  except FileNotFoundError:
    return [], skip(video, rules, 'missing', 'no such file')
  except ValueError as error:
    return [], skip(video, rules, 'unreadable', _relative(str(error), root))


def _prepare_file(
  path: pathlib.Path,
  root: pathlib.Path,
  video: catalogue.Video,
  rules: Sequence[str],
  settings: Settings,
  backend: backend_lib.FaceBackend,
  change: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> tuple[list[records.VideoRecord], list[Outcome]]:
  """Prepares a file that may stand for the video's own."""
  skipped = functools.partial(skip, video, rules)
  if video.is_crop:
    # Its faces are cut out already: nothing is to be added or cut away.
    backend = whole_image.WholeImageBackend(
      backend, is_given=bool(video.landmarks)
    )
    settings = dataclasses.replace(settings, margin=0.0)
  try:
    stream = footage.probe(path)
  except FileNotFoundError:
    return [], skipped('missing', 'no such file')
  except ValueError as error:
    return [], skipped('unreadable', _relative(str(error), root))
  end = min(stream.num_frames, video.end or stream.num_frames)
  if end - video.start < settings.min_frames:
    return [], skipped(
      'too_short',
      f'{max(end - video.start, 0)} frames; a clip needs {settings.min_frames}',
    )

  def notes_of(decoding: footage.Reading) -> tuple[str, ...]:
    notes = [*stream.notes, *decoding.notes, *([remark] if remark else [])]
    return tuple(dict.fromkeys([*notes, *(given.notes if given else ())]))

  def extract(
    chosen: dict[str, np.ndarray],
  ) -> tuple[dict[str, extraction.FaceClip], footage.Reading]:
    return extraction.extract_faces(
      path,
      chosen,
      backend,
      settings.margin,
      change,
      track_rule=settings.track,
      boxes_of=original,
      known=given,
      keep=functools.partial(records.encode_frame, encoding=settings.encoding),
    )

  def choose(rule: str, num_frames: int) -> np.ndarray:
    count = settings.count(rule, video.split)
    indices = video_lib.frame_indices(
      num_frames, count, rule, settings.clip_frames
    )
    return video.start + indices

  given = None
  if video.landmarks:
    given = given_landmarks.GivenLandmarks(path, root / video.landmarks)
  original, remark = None, ''
  if settings.boxes_of == 'pair' and video.label and not video.is_crop:
    original = root / video.pair if video.pair else None
    remark = '' if original else 'no original is listed: boxes of its own'
    problem = _mismatch(original, stream) if original else ''
    if problem:
      return [], skipped('no_original', _relative(problem, root))

  length = end - video.start
  chosen = {rule: choose(rule, length) for rule in rules}
  clips, decoding = extract(chosen)
  if decoding.num_frames is not None and decoding.num_frames < end:
    # There are packets without a frame: spread over the frames.
    length = max(decoding.num_frames - video.start, 0)
    if length < settings.min_frames:
      said = ''.join(f' ({error})' for error in decoding.errors[:1])
      return [], skipped(
        'unreadable', f'{length} frames decode{said}', notes_of(decoding)
      )
    chosen = {rule: choose(rule, length) for rule in rules}
    clips, decoding = extract(chosen)
  notes = notes_of(decoding)
  asked = {int(i) for indices in chosen.values() for i in indices}
  lost = decoding.missing
  if lost and len(asked) - len(lost) < settings.min_frames:
    return [], skipped('unreadable', next(iter(lost.values())), notes)
  kept, outcomes, digest = [], [], ''
  for rule in rules:
    clip, asked_for = clips[rule], len(chosen[rule])
    if rule == 'dense':
      clip = _whole_clips(clip, chosen[rule], settings.clip_frames)
    detail = f'face in {len(clip.frames)} of {asked_for} frames'
    if len(clip.frames) < settings.min_frames:
      reason = 'too_short' if len(clip.frames) else 'no_face'
      (outcome,) = skip(video, [rule], reason, detail, notes)
      outcomes.append(dataclasses.replace(outcome, num_asked=asked_for))
      continue
    digest = digest or footage.digest(path)
    kept.append(_record(path, video, clip, stream, settings, backend, digest))
    outcomes.append(
      dataclasses.replace(
        _outcome(video, rule, 'kept', '', len(clip.frames), detail, notes),
        num_asked=asked_for,
        face_size=round(clip_quality.face_size(clip.boxes), 1),
        jitter=round(
          clip_quality.jitter(clip.landmarks, clip.frame_indices), 3
        ),
        source_digest=digest[:16],
        looks=_looks(clip, chosen[rule]),
      )
    )
  return kept, outcomes


def _looks(clip: extraction.FaceClip, chosen: np.ndarray) -> str:
  """The fingerprint of a clip, whose frames are encoded.

  Of three of the first frames that were looked at, as many as val and test
  have: so that a copy in another split has them too.
  """
  wanted = chosen[np.minimum(_FINGERPRINTED, len(chosen) - 1)]
  slots = np.abs(clip.frame_indices - wanted[:, None]).argmin(1).tolist()
  return fingerprint.of_crops(
    [records.decode_frame(clip.frames[slot]) for slot in slots],
    [clip.landmarks[slot] for slot in slots],
  )


def _mismatch(original: pathlib.Path, fake: video_lib.VideoStream) -> str:
  """Why boxes of an original say nothing of its fake; '' if they do."""
  try:
    stream = footage.probe(original)
  except FileNotFoundError:
    return f'its original {original} is missing'
  except ValueError as error:
    return f'its original: {error}'
  if (stream.width, stream.height) != (fake.width, fake.height):
    return (
      f'its original {original} is {stream.width} x {stream.height} px, it is '
      f'{fake.width} x {fake.height}'
    )
  return ''


def _whole_clips(
  clip: extraction.FaceClip, chosen: np.ndarray, clip_frames: int
) -> extraction.FaceClip:
  """Leaves out the frames of clips that do not show the face throughout."""
  of_clips = chosen.reshape(-1, min(clip_frames, len(chosen)))
  whole = of_clips[np.isin(of_clips, clip.frame_indices).all(1)]
  kept = np.isin(clip.frame_indices, whole)
  return extraction.FaceClip(
    tuple(itertools.compress(clip.frames, kept)),
    clip.landmarks[kept],
    clip.boxes[kept],
    clip.frame_indices[kept],
    clip.times[kept],
  )


def _record(
  path: pathlib.Path,
  video: catalogue.Video,
  clip: extraction.FaceClip,
  stream: video_lib.VideoStream,
  settings: Settings,
  backend: backend_lib.FaceBackend,
  digest: str,
) -> records.VideoRecord:
  provenance = {
    'source': {
      'sha256': digest,
      'stream': dataclasses.asdict(stream),
      'start': video.start,
      'end': video.end,
    },
    'settings': settings.described(),
    'backend': backend.name,
    'versions': {
      'av': av.__version__,
      'opencv': cv2.__version__,
      'onnxruntime': metadata.version('onnxruntime'),
    },
  }
  return records.VideoRecord(
    video_id=video.video_id,
    frames=clip.frames,
    landmarks=clip.landmarks,
    boxes=clip.boxes,
    frame_indices=clip.frame_indices,
    times=clip.times,
    fps=stream.fps,
    label=video.label,
    dataset=video.dataset,
    identity=video.identity,
    method=video.method,
    group=video.group,
    pair=video.pair,
    source_path=video.path,
    provenance=json.dumps(provenance, sort_keys=True),
  )


def _outcome(
  video: catalogue.Video,
  rule: str,
  status: str,
  reason: str,
  num_frames: int,
  detail: str,
  notes: tuple[str, ...],
) -> Outcome:
  return Outcome(
    video_id=video.video_id,
    split=video.split,
    label=records.LABELS[video.label],
    rule=rule,
    status=status,
    reason=reason,
    num_frames=num_frames,
    detail=detail,
    notes=notes,
  )


def skip(
  video: catalogue.Video,
  rules: Sequence[str],
  reason: str,
  detail: str,
  notes: tuple[str, ...] = (),
) -> list[Outcome]:
  """The outcomes of a video that is left out."""
  return [
    _outcome(video, rule, 'skipped', reason, 0, detail, notes) for rule in rules
  ]


def _relative(message: str, root: pathlib.Path) -> str:
  return message.replace(f'{root}{os.sep}', '')
