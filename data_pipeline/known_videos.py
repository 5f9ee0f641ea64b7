"""What is known of the videos of a list, under one rule: a few bytes a video.

What enters: the list, what an interrupted command left in `staging`, and what
the data set holds already. What leaves: which are to be done, and what became
of each, read anew from its file when it is asked for. Of 100,000 videos nobody
holds more than their names and these bytes.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import pathlib

from jaxtyping import Bool
import numpy as np

from data_pipeline import (
  prepared_video,
  records,
  staging,
  stored_videos,
  video_work,
)
from data_pipeline.sources import catalogue, file_names


@dataclasses.dataclass(frozen=True)
class KnownVideos:
  """The videos of a list under one rule.

  Attributes:
    videos: the list.
    rule: one of `records.RULES`.
    staged: where finished ones lie.
    places: where those lie that the data set holds.
    replace: whether it shall hold the listed ones alone.
    finished: of each, whether there is nothing to be done.
    kept: of each, whether it has a record, as far as `outcome` was asked.
  """

  videos: Sequence[catalogue.Video]
  rule: str
  staged: staging.Staging
  places: stored_videos.Places
  replace: bool
  finished: Bool[np.ndarray, 'v']
  kept: Bool[np.ndarray, 'v']

  def outcome(self, number: int) -> prepared_video.Outcome:
    """What became of a video, once all is done that is to be done."""
    video, place = self.videos[number], self.places[number]
    if not file_names.is_text(video.video_id):
      return _misnamed(video, self.rule)
    outcome = self.staged.outcome(
      video, self.rule, is_current=bool(self.finished[number])
    ) or _crashed(video, self.rule)
    if outcome.status == 'skipped' and place and not self.replace:
      outcome = _as_before(outcome, place)
    self.kept[number] = outcome.status == 'kept'
    return outcome


def look_up(
  out: pathlib.Path,
  videos: Sequence[catalogue.Video],
  rule: str,
  staged: staging.Staging,
  replace: bool,
) -> KnownVideos:
  """Looks up what is known of the videos of one data set.

  Args:
    out: data root.
    videos: of one dataset.
    rule: one of `records.RULES`.
    staged: where finished ones lie.
    replace: whether the data set shall hold these videos alone.

  Raises:
    ValueError: the data set is damaged, or a video would take the place of
      another one in it.
  """
  dataset = videos[0].dataset
  stored_videos.restore(out, dataset, rule)
  places = stored_videos.Places.none(len(videos))
  others: list[stored_videos.Other] = []
  try:
    places, others = stored_videos.find_places(out, dataset, rule, videos)
  except ValueError as error:
    if not replace:
      raise ValueError(f'{error}; --replace makes the data set anew') from error
    # A damaged one holds nothing that is to be kept.
  if not replace:
    stored_videos.refuse_overlap(others, videos)
    backend = staged.settings.faces.full_name
    stored_videos.refuse_backend([other.info for other in others], backend)
  known = KnownVideos(
    videos,
    rule,
    staged,
    places,
    replace,
    np.zeros(len(videos), bool),
    np.zeros(len(videos), bool),
  )
  for number in range(len(videos)):
    if not replace:
      _refuse_other_file(known, number)
    known.finished[number] = _is_finished(known, number)
  return known


def _refuse_other_file(known: KnownVideos, number: int) -> None:
  """Raises ValueError where a video would take the place of another."""
  video = known.videos[number]
  if known.places[number] and (
    other := known.staged.other_root(video, known.rule)
  ):
    raise ValueError(
      f'{video.video_id} is in the data set already, from {other}, and is '
      'another file there: name one of the two differently, or take '
      '--replace to make the data set anew, of the videos listed now'
    )


def _is_finished(known: KnownVideos, number: int) -> bool:
  video = known.videos[number]
  if not file_names.is_text(video.video_id):
    return True
  outcome = known.staged.outcome(video, known.rule)
  return outcome is not None and (
    outcome.status != 'kept'
    or known.places[number] is not None
    or known.staged.record_path(video, known.rule).exists()
  )


class Unfinished(Sequence[video_work.VideoTask]):
  """What is to be done; a task is made when it is asked for."""

  def __init__(self, known: Sequence[KnownVideos]):
    """Takes what is known of one list under every rule."""
    self._known = known
    finished = np.all([of_rule.finished for of_rule in known], 0)
    self._numbers = np.flatnonzero(~finished).astype(np.int32)

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index):
    number = int(self._numbers[index])
    return video_work.VideoTask(
      self._known[0].videos[number],
      tuple(of.rule for of in self._known if not of.finished[number]),
    )


def outcomes(known: Sequence[KnownVideos]) -> Iterator[prepared_video.Outcome]:
  """Yields what became of every video under every rule, video by video."""
  for number in range(len(known[0].videos)):
    for of_rule in known:
      yield of_rule.outcome(number)


def _crashed(video: catalogue.Video, rule: str) -> prepared_video.Outcome:
  """Of a video without an outcome; the next command tries it again."""
  (outcome,) = prepared_video.skip(
    video,
    [rule],
    'crashed',
    'its process died, twice (out of memory, or a fault in a decoder), or the'
    ' file was changed meanwhile',
  )
  return outcome


def _misnamed(video: catalogue.Video, rule: str) -> prepared_video.Outcome:
  return prepared_video.Outcome(
    video_id=file_names.as_text(video.video_id),
    split=video.split,
    label=records.LABELS[video.label],
    rule=rule,
    status='skipped',
    reason='unreadable',
    detail='its name is not UTF-8; rename the file',
  )


def _as_before(
  outcome: prepared_video.Outcome, place: stored_videos.Place
) -> prepared_video.Outcome:
  """The outcome of a video that is kept as an earlier run prepared it."""
  return dataclasses.replace(
    outcome,
    split=place.split,
    label=records.LABELS[place.label],
    status='kept',
    reason='',
    num_frames=place.num_frames,
    detail=f'as prepared before; now {outcome.reason}: {outcome.detail}',
  )
