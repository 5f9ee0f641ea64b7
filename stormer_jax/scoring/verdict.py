"""Scored clips of everybody in a video -> who decides, and what is said of it.

Enter: each person's clips by time, and the calibration, if there is one. Leave:
the `answer.Track`s, the passages that look forged, and the answer in words.
"""

from collections.abc import Sequence
import dataclasses
import math

from jaxtyping import Float
import numpy as np

from stormer_jax.scoring import answer, calibration, metrics, passages

# Choice: a person decides with half as many clips as a video has in an
# evaluation, or as the longest seen person has, if those are fewer; with less,
# the worst of many would be the least looked at.
_FRAMES_OF_A_VIDEO = 32
# Choice: and with a face a third as large as the main one's, for a face of the
# background is hardly more than its enlargement.
_SIZE_SHARE = 1 / 3
_RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class PersonScores:
  """One person's clips, by time.

  Attributes:
    number: of the track.
    weight: by which the main person is chosen.
    logits: of the clips.
    starts: s, first frame of each clip; NaN where the file has no times.
    ends: s, last frame.
    face_size: px.
    first_time: s.
    last_time: s.
    num_frames: looked-at frames that show the face.
  """

  number: int
  weight: float
  logits: Float[np.ndarray, 'n']
  starts: Float[np.ndarray, 'n']
  ends: Float[np.ndarray, 'n']
  face_size: float
  first_time: float
  last_time: float
  num_frames: int


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What was decided; `said` is `answer` of the `answer.Answer`."""

  tracks: tuple[answer.Track, ...]
  segments: tuple[answer.Segment, ...]
  said: answer.Verdict
  sentence: str
  notes: tuple[str, ...]

  @property
  def deciding(self) -> answer.Track:
    """The track whose answer is the video's."""
    return next(track for track in self.tracks if track.decides)


def decide(
  people: Sequence[PersonScores],
  calibrated: calibration.Calibration | None,
  clip_frames: int,
) -> Verdict:
  """Decides a video: the worst person's, among those seen well enough.

  Args:
    people: At least one, each with at least one clip.
    calibrated: What logits mean; None: no answer but a score.
    clip_frames: Of a clip.
  """
  left_out = _left_out(people, _FRAMES_OF_A_VIDEO // clip_frames)
  able = [p for p in people if not left_out[p.number]]
  decides = max(able, key=lambda p: float(p.logits.mean())).number
  tracks = tuple(
    _track(person, person.number == decides, left_out, calibrated)
    for person in sorted(people, key=lambda p: p.number)
  )
  segments = tuple(
    sorted(
      (
        segment
        for person in people
        if 'px' not in left_out[person.number]
        for segment in _segments(person, calibrated)
      ),
      key=lambda segment: (segment.start, segment.track),
    )
  )
  deciding = next(track for track in tracks if track.decides)
  said, notes = deciding.answer, []
  if said == 'likely real' and segments:
    said = 'uncertain'
    notes.append('uncertain because of a passage, real as a whole')
  return Verdict(
    tracks=tracks,
    segments=segments,
    said=said,
    sentence=_sentence(deciding, said, segments, calibrated, len(tracks)),
    notes=tuple(notes),
  )


def level(calibrated: calibration.Calibration | None) -> float:
  """Logit above which a clip speaks for a forgery: the upper end of the band.

  0, a score of a half, where nobody found out.
  """
  if calibrated is None:
    return 0.0
  high = min(max(calibrated.uncertain[1], 1e-9), 1 - 1e-9)
  return (math.log(high / (1 - high)) - calibrated.intercept) / calibrated.slope


def _left_out(
  people: Sequence[PersonScores], clips_of_a_video: int
) -> dict[int, str]:
  """Why a person cannot decide, by number."""
  main = max(people, key=lambda p: p.weight)
  longest = max(len(p.logits) for p in people)
  enough = max(1, min(clips_of_a_video, longest) // 2)
  reasons = {}
  for person in people:
    reason = ''
    if person.face_size < _SIZE_SHARE * main.face_size:
      reason = (
        f'face of {person.face_size:.0f} px beside one of'
        f' {main.face_size:.0f} px'
      )
    elif len(person.logits) < enough:
      reason = f'in {len(person.logits)} clips only, of {enough} needed'
    reasons[person.number] = reason
  if all(reasons.values()):
    reasons[main.number] = ''
  return reasons


def _track(
  person: PersonScores,
  decides: bool,
  left_out: dict[int, str],
  calibrated: calibration.Calibration | None,
) -> answer.Track:
  logit = float(np.mean(np.sort(person.logits.astype(np.float64))))
  return answer.Track(
    number=person.number,
    decides=decides,
    left_out=left_out[person.number],
    first_time=person.first_time,
    last_time=person.last_time,
    num_frames=person.num_frames,
    num_clips=len(person.logits),
    face_size=person.face_size,
    logit=logit,
    score=_score(logit),
    interval=_interval(person.logits, calibrated),
    probability=probability(logit, calibrated),
    answer=_verdict_of(logit, calibrated),
  )


def _score(logit: float) -> float:
  return float(metrics.sigmoid(np.array(logit)))


def probability(
  logit: float, calibrated: calibration.Calibration | None
) -> float:
  """Of fake, of a mean logit; NaN where nobody found out what logits mean."""
  if calibrated is None:
    return math.nan
  return float(calibrated.probability(np.array([logit]))[0])


def _verdict_of(
  logit: float, calibrated: calibration.Calibration | None
) -> answer.Verdict:
  if calibrated is None:
    return ''
  said = calibrated.answer(logit)
  if said == 'likely real':
    return 'likely real'
  return 'likely fake' if said == 'likely fake' else 'uncertain'


def _interval(
  logits: Float[np.ndarray, 'n'],
  calibrated: calibration.Calibration | None,
) -> tuple[float, ...]:
  """Percentiles 2.5 and 97.5 over resampled clips."""
  if len(logits) < 2:
    return ()
  rng = np.random.default_rng(0)
  drawn = rng.integers(0, len(logits), (_RESAMPLES, len(logits)))
  ends = np.percentile(np.asarray(logits, float)[drawn].mean(1), [2.5, 97.5])
  if calibrated is None:
    return tuple(metrics.sigmoid(ends).tolist())
  return tuple(calibrated.probability(ends).tolist())


def _segments(
  person: PersonScores, calibrated: calibration.Calibration | None
) -> list[answer.Segment]:
  if not np.isfinite(person.starts).all():
    return []
  order = np.argsort(person.starts, kind='stable')
  return [
    answer.Segment(
      track=person.number,
      start=passage.start,
      end=passage.end,
      num_clips=passage.last - passage.first + 1,
      logit=passage.logit,
      score=_score(passage.logit),
      probability=probability(passage.logit, calibrated),
    )
    for passage in passages.find(
      person.logits[order].astype(np.float64),
      person.starts[order].astype(np.float64),
      person.ends[order].astype(np.float64),
      level(calibrated),
    )
  ]


def _sentence(
  deciding: answer.Track,
  said: answer.Verdict,
  segments: Sequence[answer.Segment],
  calibrated: calibration.Calibration | None,
  num_people: int,
) -> str:
  who = (
    'the face' if num_people == 1 else f'the face of person {deciding.number}'
  )
  spread = ''
  if deciding.interval:
    low, high = deciding.interval
    spread = (
      f' ({low:.2f} to {high:.2f} by resampling its {deciding.num_clips} clips)'
    )
  where = _where(segments, num_people)
  if calibrated is None:
    return (
      f'No verdict: {who} has a score of {deciding.score:.2f}{spread}, 0 real'
      ' and 1 fake, but nobody has found out what the scores of this detector'
      f' mean: they order videos.{where}'
    )
  low, high = calibrated.uncertain
  band = (
    f' Between {low:.2f} and {high:.2f} the detector does not know.'
    if low < high
    else ''
  )
  chance = f'probability of fake {deciding.probability:.2f}{spread}'
  if said == 'likely fake':
    return f'Likely fake: {who} looks forged, {chance}.{band}{where}'
  if said == 'likely real':
    return f'Likely real: {who} shows no trace of forgery, {chance}.{band}'
  if deciding.answer == 'likely real':
    return (
      f'Uncertain: as a whole {who} looks real, {chance}, but a passage does'
      f' not.{band}{where}'
    )
  return f'Uncertain: {who} gives no clear answer, {chance}.{band}{where}'


def _where(segments: Sequence[answer.Segment], num_people: int) -> str:
  if not segments:
    return ''
  said = [
    f'{segment.start:.1f} to {segment.end:.1f} s'
    + (f' (person {segment.track})' if num_people > 1 else '')
    for segment in segments[:5]
  ]
  more = f' and {len(segments) - 5} more' if len(segments) > 5 else ''
  return f' What looks most forged: {", ".join(said)}{more}.'
