"""`stormer_jax.Detector`: load it once, ask it about videos.

  import stormer_jax
  detector = stormer_jax.Detector.load()       # the one that is shipped
  said = detector.predict('film.mp4')          # an `answer.Answer`
  said.status, said.answer, said.probability, said.segments

Enters: any file that `faces/video` reads, or a folder of images. Leaves: an
`answer.Answer`. Frames, crops and their encoding are those of
`data_pipeline.prepare` under the same frame rule, so that a file with one
person scores the same here as in `evaluate` (METHOD section 9).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import heapq
import itertools
import math
import os
import pathlib
from typing import Any

import cv2
import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import prepared_video
from data_pipeline import records as records_lib
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import backends, footage, people
from data_pipeline.faces import video as video_lib
from data_pipeline.sources import file_names
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import (
  answer,
  calibration,
  clip_scorer,
  credentials,
  evaluate,
  metrics,
  verdict,
)

_BATCH = 8  # clips; a larger eval.batch_size would only take more memory
_WORST = 4  # clips of a person whose crops are kept for the page
_THUMBNAIL = 96  # px
_OF_A_STILL = (
  ' This is a still picture, judged by itself: what the detector knows of its'
  ' errors comes from films, in which many frames are looked at.'
)
NOT_LOOKED_AT = (
  'sound, and whether it fits the lips',
  'a picture made whole by a generator: the detector looks for the traces of a'
  ' face blended into a frame, and a whole head or frame made at once has none',
  'everything outside of the faces',
  'who made or changed the file, and why',
)


@dataclasses.dataclass(frozen=True)
class Look:
  """How much of a video to look at.

  Attributes:
    every: s between the starts of two clips under the rule 'dense', at most.
    max_frames: looked at in all; a longer video has its clips further apart.
    max_people: faces cut out of a frame.

  Raises:
    ValueError: If a field is out of range.
  """

  every: float = 0.5
  # Choice: 5 minutes at two clips of four frames a second.
  max_frames: int = 2400
  max_people: int = 4

  def __post_init__(self):
    if not 0 < self.every < math.inf:
      raise ValueError(f'every is {self.every} s; above 0')
    for name, least in (('max_frames', 4), ('max_people', 1)):
      if getattr(self, name) < least:
        raise ValueError(f'{name} is {getattr(self, name)}; at least {least}')


class Detector:
  """A detector that answers for video files; safe to use from many threads.

  Attributes:
    detector: Model and weights.
    options: Margin, flip, batch size and frame rule.
    calibration: What its logits mean under that rule; None: nobody knows.
    card: What is known of it, Markdown; '' where there is no card.md.
    provenance: Weights, libraries and settings.
  """

  def __init__(
    self,
    detector: detector_lib.Detector,
    options: evaluate.EvalConfig,
    calibrated: calibration.Calibration | None = None,
    backend: backend_lib.FaceBackend | None = None,
    card: str = '',
  ):
    """Puts weights on the devices of this process; see `load`."""
    self.detector = detector
    self.options = options
    self.calibration = calibrated
    self.card = card
    self._backend = backend or backends.open_backend(backends.Choice())
    self._scorer = clip_scorer.make_frame_scorer(
      detector, margin=options.margin, flip=options.flip
    )
    self.provenance = {
      **clip_scorer.provenance(detector),
      'margin': options.margin,
      'flip': options.flip,
      'frame_rule': options.frame_rule,
      'face_backend': self._backend.name,
      # What a head says that was not trained means nothing.
      'trained_heads': {
        'vulnerability_map': detector.config.loss.spatial_weight > 0,
        'soft_labels': detector.config.loss.temporal_weight > 0,
      },
    }

  @classmethod
  def load(
    cls,
    path: str | os.PathLike[str] | None = None,
    *,
    options: evaluate.EvalConfig | None = None,
    config: config_dict.ConfigDict | None = None,
    backend: backend_lib.FaceBackend | str | None = None,
    face_models: Sequence[str | os.PathLike[str]] = (),
  ) -> 'Detector':
    """Loads a detector with its calibration.

    Args:
      path: A run, or a folder that `detector.save_kept` wrote; None: the
        detector that ships with the package.
      options: How to score; None: `eval` of the detector's configuration.
      config: How to compute, as `asked` of `detector.load_detector`.
      backend: Finds faces, or the name of one (`faces.backends`); None: what
        found those of the run's records, or the embedded one where nobody
        wrote it down.
      face_models: Files of that backend, where it needs some of the user's.

    Raises:
      FileNotFoundError: No run there; or none is shipped.
      ValueError: It is damaged, learned from faces that another backend had
        found, or `config` is of another model.
    """
    folder = (
      detector_lib.shipped_folder() if path is None else pathlib.Path(path)
    )
    found_by = detector_lib.load_face_backend(folder)
    if backend is None or isinstance(backend, str):
      try:
        choice = backends.choose_again(found_by, face_models, backend or '')
      except ValueError as error:
        raise ValueError(f'{folder}: {error}') from error
      backend = backends.open_backend(choice)
    elif found_by and backend.name != found_by:
      raise ValueError(
        f'{folder}: trained on faces found by {found_by}; {backend.name} would'
        ' cut them out otherwise, and the scores would mean nothing'
      )
    if options is None:
      own = evaluate.complete(detector_lib.load_config(folder))
      options = evaluate.EvalConfig(**own.eval)
    loaded = detector_lib.load_detector(folder, options.checkpoint, config)
    weights = clip_scorer.weights_digest(loaded)
    card = folder / 'card.md'
    return cls(
      loaded,
      options,
      calibration.load(folder, weights, options.frame_rule),
      backend,
      card.read_text(encoding='utf-8') if card.is_file() else '',
    )

  def predict(
    self,
    video: str | os.PathLike[str],
    look: Look | None = None,
    watch: Callable[[float], None] = lambda share: None,
  ) -> answer.Answer:
    """Answers for one video.

    Args:
      video: A file, or a folder of images in the order of their names.
      look: How much of it to look at.
      watch: Called with the share that is done, in [0, 1], after every frame
        that was looked at; what it raises ends the answering.

    Returns:
      The answer; what is wrong with the file stands in its `status`.

    Raises:
      FileNotFoundError: No such file.
      ValueError: Its name is not text; or a logit is not finite, which means
        damaged weights.
    """
    path = pathlib.Path(video)
    if not path.exists():
      raise FileNotFoundError(f'{path}: no such video file')
    if not file_names.is_text(str(path)):
      raise ValueError(f'{path}: its name is not UTF-8; rename the file')
    reading = _Reading(self, path, look or Look(), watch)
    return reading.run()

  def refuse(
    self, video: str | os.PathLike[str], message: str
  ) -> answer.Answer:
    """The answer where a file cannot be opened at all: 'unreadable'."""
    return _Reading(self, pathlib.Path(video), Look(), lambda share: None).none(
      'unreadable', message
    )

  @property
  def num_frames(self) -> int:
    """Frames of a clip."""
    return self.detector.config.model.num_frames

  def _score(self, clips: Iterator[people.PersonClip]) -> Iterator['_Scored']:
    """Scores clips as they come, a batch at a time.

    While one is scored, and the first one's program compiled, the next is read.
    """
    size = min(self.options.batch_size, _BATCH)
    with futures.ThreadPoolExecutor(1) as device:
      waiting: Iterator[_Scored] = iter(())
      while batch := list(itertools.islice(clips, size)):
        encoded = [
          [records_lib.encode_frame(frame) for frame in clip.frames]
          for clip in batch
        ]
        frames = np.zeros((size, *batch[0].frames.shape), np.uint8)
        for row, of_clip in enumerate(encoded):
          frames[row] = [records_lib.decode_frame(frame) for frame in of_clip]
        # One shape, compiled once.
        outputs = device.submit(self._score_frames, frames)
        yield from waiting
        waiting = _scored(batch, encoded, frames, outputs)
      yield from waiting

  def _score_frames(self, frames: np.ndarray) -> clip_scorer.ClipOutputs:
    return jax.device_get(self._scorer(frames))


@dataclasses.dataclass
class _Scored:
  """A clip without its pixels."""

  person: int
  frame_indices: np.ndarray
  times: np.ndarray
  boxes: np.ndarray
  logit: float
  soft_labels: np.ndarray
  maps: np.ndarray
  sharpness: float
  brightness: float
  thumbnail: bytes
  crops: tuple[bytes, ...]  # emptied where others are worse


def _scored(
  batch: Sequence[people.PersonClip],
  encoded: Sequence[Sequence[bytes]],
  frames: np.ndarray,
  coming: futures.Future[clip_scorer.ClipOutputs],
) -> Iterator[_Scored]:
  """Puts the clips of a batch together with what comes of them."""
  outputs = coming.result()
  for row, (clip, of_clip) in enumerate(zip(batch, encoded, strict=True)):
    yield _Scored(
      person=clip.person,
      frame_indices=clip.frame_indices,
      times=clip.times,
      boxes=clip.boxes,
      logit=float(outputs.logits[row]),
      soft_labels=metrics.sigmoid(np.asarray(outputs.soft_label_logits[row])),
      maps=np.asarray(outputs.vulnerability_map[row], np.float16),
      **_looks(frames[row]),
      crops=tuple(of_clip),
    )


def _looks(frames: np.ndarray) -> dict[str, Any]:
  """Sharpness, brightness and thumbnail of a clip, by its middle frame."""
  middle = frames[len(frames) // 2]
  grey = cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY)
  small = cv2.resize(
    middle, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA
  )
  return {
    'sharpness': float(cv2.Laplacian(grey, cv2.CV_64F).var()),
    'brightness': float(grey.mean()),
    'thumbnail': answer.jpeg(small),
  }


class _Reading:
  """One video being answered for."""

  def __init__(
    self,
    ready: Detector,
    path: pathlib.Path,
    look: Look,
    watch: Callable[[float], None],
  ):
    self._ready = ready
    self._watch = watch
    self._path = path
    self._look = look
    self._provenance = {
      **ready.provenance,
      'look': dataclasses.asdict(look),
    }
    self._credentials: answer.Credentials | None = None
    self._hashes = {
      'weights': self._provenance['weights'],
      'config': self._provenance['config_hash'],
    }

  def run(self) -> answer.Answer:
    # 12:30.mp4 by itself is a protocol to FFmpeg.
    path = self._path.absolute()
    if not (path.is_file() or path.is_dir()):
      # To read one may never end.
      return self.none('unreadable', 'no file, but a pipe, socket or device')
    try:
      self._hashes['video'] = footage.digest(path)
      self._credentials = credentials.read(path)
      stream = footage.probe(path)
    except (ValueError, OSError) as error:
      return self.none('unreadable', self._relative(str(error)))
    self._provenance['video'] = {
      'source': {
        'sha256': self._hashes['video'],
        'stream': dataclasses.asdict(stream),
      }
    }
    clip_frames = self._ready.num_frames
    length = stream.num_frames
    while True:
      if length < clip_frames:
        return self.none('too_short', _too_short(length, clip_frames))
      plan = _plan(
        self._look, self._ready.options.frame_rule, stream, length, clip_frames
      )
      walk = people.Walk(
        path,
        plan.indices,
        self._ready._backend,
        clip_frames=clip_frames,
        whole=plan.frame_rule == 'dense',
        max_people=self._look.max_people,
        watch=self._watch,
      )
      scored = _kept(self._ready._score(walk))
      decoded = walk.reading.num_frames
      if decoded is None or decoded >= length:
        break
      # There are packets without a frame: spread over the frames.
      length = decoded
      if length < clip_frames:
        said = ''.join(f' ({error})' for error in walk.reading.errors[:1])
        return self.none(
          'unreadable',
          f'{length} frames decode{said}',
          (*stream.notes, *walk.reading.notes),
        )
    return self._of_walk(stream, plan, walk, scored, length)

  def _of_walk(
    self,
    stream: video_lib.VideoStream,
    plan: '_Plan',
    walk: people.Walk,
    scored: list[_Scored],
    length: int,
  ) -> answer.Answer:
    notes = tuple(dict.fromkeys([*stream.notes, *walk.reading.notes]))
    asked = len(plan.indices)
    missing = walk.reading.missing
    if missing and asked - len(missing) < self._ready.num_frames:
      return self.none('unreadable', next(iter(missing.values())), notes)
    sampling = answer.Sampling(
      frame_rule=plan.frame_rule,
      clip_frames=self._ready.num_frames,
      clips_planned=asked // self._ready.num_frames,
      spacing=plan.spacing,
      max_frames=self._look.max_frames,
      capped=plan.capped,
      frames_in_file=length,
      frames_asked=asked,
      frames_decoded=walk.num_looked_at,
      frames_with_face=walk.num_with_face,
    )
    if plan.capped:
      notes += (
        f'looked at a clip every {plan.spacing:.2g} s, for max_frames is'
        f' {self._look.max_frames}: shorter passages may lie between',
      )
    if walk.most_faces > self._look.max_people:
      notes += (
        f'{walk.most_faces} faces in one frame, of which the'
        f' {self._look.max_people} main ones were looked at (--faces=all)',
      )
    if not scored:
      with_face = max((p.num_frames for p in walk.people.values()), default=0)
      detail = f'face in {with_face} of {asked} frames'
      return dataclasses.replace(
        self.none('too_short' if with_face else 'no_face', detail, notes),
        sampling=sampling,
      )
    logits = np.array([clip.logit for clip in scored])
    if not np.isfinite(logits).all():
      raise ValueError(
        f'the detector answers {logits} to the clips of {self._path}: the '
        'weights are damaged'
      )
    return self._scored(stream, sampling, walk, scored, notes)

  def _scored(
    self,
    stream: video_lib.VideoStream,
    sampling: answer.Sampling,
    walk: people.Walk,
    scored: list[_Scored],
    notes: tuple[str, ...],
  ) -> answer.Answer:
    scored = sorted(
      scored,
      key=lambda c: (c.frame_indices[0], c.boxes[0, 0]),  # left to right
    )
    order = dict.fromkeys(clip.person for clip in scored)
    numbers = {person: number for number, person in enumerate(order, start=1)}
    calibrated = self._ready.calibration
    decided = verdict.decide(
      [
        _person(
          number,
          walk.people[person],
          [clip for clip in scored if clip.person == person],
        )
        for person, number in numbers.items()
      ],
      calibrated,
      self._ready.num_frames,
    )
    deciding = decided.deciding
    own = [clip for clip in scored if numbers[clip.person] == deciding.number]
    quality = answer.Quality(
      width=stream.width,
      height=stream.height,
      fps=stream.fps,
      duration=stream.duration,
      face_size=deciding.face_size,
      sharpness=float(np.median([clip.sharpness for clip in own])),
      brightness=float(np.median([clip.brightness for clip in own])),
    )
    return dataclasses.replace(
      self.none(
        'ok',
        '',
        (*notes, *decided.notes, *_remarks(quality)),
      ),
      sentence=decided.sentence
      + (_OF_A_STILL if sampling.frames_in_file == 1 else ''),
      answer=decided.said,
      logit=deciding.logit,
      score=deciding.score,
      probability=deciding.probability,
      interval=deciding.interval,
      segments=decided.segments,
      tracks=decided.tracks,
      clips=tuple(
        _clip(clip, numbers[clip.person], calibrated) for clip in scored
      ),
      frames=tuple(
        frame
        for clip in scored
        for frame in _frames(clip, numbers[clip.person])
      ),
      sampling=sampling,
      quality=quality,
      snapshots=tuple(
        answer.Snapshot(
          track=numbers[clip.person],
          clip=position,
          thumbnail=clip.thumbnail,
          maps=clip.maps,
          crops=clip.crops,
        )
        for position, clip in enumerate(scored)
      ),
    )

  def none(
    self, status: answer.Status, message: str, notes: tuple[str, ...] = ()
  ) -> answer.Answer:
    """An answer without a score."""
    calibrated = self._ready.calibration
    rule = self._ready.options.frame_rule
    return answer.Answer(
      video=str(self._path),
      status=status,
      sentence=f'No answer: {_said(status, message)}.',
      message=message,
      notes=tuple(dict.fromkeys(notes)),
      provenance=self._provenance,
      calibration=(
        calibrated.said() if calibrated else calibration.not_calibrated(rule)
      ),
      uncertain=calibrated.uncertain if calibrated else (),
      credentials=self._credentials,
      not_looked_at=NOT_LOOKED_AT,
      hashes=self._hashes,
    )

  def _relative(self, message: str) -> str:
    return message.replace(f'{self._path.absolute().parent}{os.sep}', '')


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Which frames to look at."""

  indices: np.ndarray
  frame_rule: str
  spacing: float  # s
  capped: bool


def _plan(
  look: Look,
  frame_rule: str,
  stream: video_lib.VideoStream,
  length: int,
  clip_frames: int,
) -> _Plan:
  """Chooses frames: as for an evaluation, or more of a long video."""
  count = prepared_video.Settings().uniform_frames
  most = max(look.max_frames, clip_frames)
  capped = count > most
  if frame_rule == 'dense':
    wanted = math.ceil(stream.duration / look.every) * clip_frames
    wanted = min(max(count, wanted), length)
    capped = wanted > most
    count = wanted
  indices = video_lib.frame_indices(
    length, min(count, most), frame_rule, clip_frames
  )
  starts = indices[::clip_frames]
  spacing = math.nan
  if stream.fps > 0 and len(starts) > 1:
    spacing = float(np.diff(starts).mean() / stream.fps)
  return _Plan(indices, frame_rule, spacing, capped)


def _kept(clips: Iterator[_Scored]) -> list[_Scored]:
  """Gathers clips; keeps the crops of each person's worst alone."""
  kept: list[_Scored] = []
  worst: dict[int, list[tuple[float, int]]] = {}
  for position, clip in enumerate(clips):
    kept.append(clip)
    heap = worst.setdefault(clip.person, [])
    heapq.heappush(heap, (clip.logit, position))
    if len(heap) > _WORST:
      _, better = heapq.heappop(heap)
      kept[better].crops = ()
  return kept


def _person(
  number: int, person: people.Person, clips: list[_Scored]
) -> verdict.PersonScores:
  boxes = np.concatenate([clip.boxes for clip in clips])
  sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
  return verdict.PersonScores(
    number=number,
    weight=person.weight,
    logits=np.array([clip.logit for clip in clips]),
    starts=np.array([float(clip.times[0]) for clip in clips]),
    ends=np.array([float(clip.times[-1]) for clip in clips]),
    face_size=float(np.median(sides)),
    first_time=person.first_time,
    last_time=person.last_time,
    num_frames=person.num_frames,
  )


def _clip(
  clip: _Scored, number: int, calibrated: calibration.Calibration | None
) -> answer.ClipScore:
  return answer.ClipScore(
    frame_indices=tuple(clip.frame_indices.tolist()),
    times=tuple(clip.times.tolist()),
    logit=clip.logit,
    score=float(metrics.sigmoid(np.array(clip.logit))),
    track=number,
    probability=verdict.probability(clip.logit, calibrated),
  )


def _frames(clip: _Scored, number: int) -> Iterator[answer.FrameScore]:
  for index, time, soft_label, box in zip(
    clip.frame_indices.tolist(),
    clip.times.tolist(),
    clip.soft_labels.tolist(),
    clip.boxes.tolist(),
    strict=True,
  ):
    yield answer.FrameScore(index, time, soft_label, tuple(box), number)


def _remarks(quality: answer.Quality) -> Iterator[str]:
  """What in the pictures makes an answer less sure."""
  # Choice: the crop is 256 px, so a smaller face is mostly enlargement.
  if quality.face_size < 64:
    yield f'the face is small, {quality.face_size:.0f} px'
  if quality.brightness < 40:
    yield 'the face is dark'
  if quality.brightness > 220:
    yield 'the face is very bright'


def _too_short(length: int, clip_frames: int) -> str:
  if length == 1:
    return f'a still picture; a clip needs {clip_frames} frames'
  return f'{length} frames; a clip needs {clip_frames}'


def _said(status: answer.Status, message: str) -> str:
  """Says a status in words."""
  if status == 'no_face':
    return f'no face was found ({message})'
  if status == 'too_short' and message.startswith('a still picture'):
    return (
      'this is a still picture, and the detector looks at how a face changes'
      ' from frame to frame; it says nothing of a single picture'
    )
  if status == 'too_short':
    return f'there is too little to look at ({message})'
  return f'this cannot be read as a video: {message}'
