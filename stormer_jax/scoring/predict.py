"""`--mode=predict`: videos on a command line -> answers, written as asked.

Enters: what `video_list` takes. Leaves: JSON of one video, or a table of many
that the same command goes on with; and of each video, where asked, a page and
an annotated film.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

from data_pipeline import video_work
from data_pipeline.engines import engine as engine_lib
from data_pipeline.sources import file_names
from stormer_jax.scoring import (
  annotated_video,
  answer,
  answer_page,
  answer_table,
  archive,
  reading_ahead,
  video_detector,
  video_list,
)

_DISTINCT = 12  # hexadecimal digits of what tells two settings apart


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Where answers go.

  Attributes:
    out: File of the answer (JSON), or of many (.jsonl or .csv); None: standard
      output, as JSON or JSON Lines.
    html: File of the page; of many videos a folder of them; None: no page.
    mp4: Likewise of the annotated film.
  """

  out: str | os.PathLike[str] | None = None
  html: str | os.PathLike[str] | None = None
  mp4: str | os.PathLike[str] | None = None

  def check(self, *, of_many: bool) -> None:
    """Raises ValueError for a place that cannot be one; before any work."""
    for place, suffix in ((self.html, '.html'), (self.mp4, '.mp4')):
      if place is None:
        continue
      if of_many and pathlib.Path(place).is_file():
        raise ValueError(f'{place}: a file; name a folder of {suffix} files')
      if not of_many and pathlib.Path(place).is_dir():
        raise ValueError(f'{place}: a folder; name the {suffix} file')

  def render(
    self, said: answer.Answer, card: str, *, of_many: bool
  ) -> list[str]:
    """Writes page and film of a video; returns where they are."""
    written = []
    if self.html is not None:
      place = _place(self.html, said.video, '.html', of_many)
      answer_page.write(said, place, card)
      written.append(str(place))
    if self.mp4 is not None and said.status == 'ok':
      place = _place(self.mp4, said.video, '.mp4', of_many)
      annotated_video.write(said, said.video, place)
      written.append(str(place))
    return written


class Elsewhere(NamedTuple):
  """Workers of an engine, each with a detector of its own."""

  engine: engine_lib.Engine
  load: Callable[[], video_detector.Detector]  # the same one; can be pickled


def _place(
  named: str | os.PathLike[str], video: str, suffix: str, of_many: bool
) -> pathlib.Path:
  """The file itself, or one in the folder named after the video's path."""
  place = pathlib.Path(named)
  if of_many:
    digest = hashlib.sha256(os.fsencode(video)).hexdigest()[:8]
    stem = file_names.printable(pathlib.PurePath(video).stem)[:80]
    return place / f'{stem}-{digest}{suffix}'
  return place


def predict(
  detector: video_detector.Detector,
  named: Sequence[str],
  outputs: Outputs | None = None,
  look: video_detector.Look | None = None,
  elsewhere: Elsewhere | None = None,
) -> list[str]:
  """Answers for videos and writes the answers.

  Args:
    detector: From `Detector.load`.
    named: As in `video_list.expand`.
    outputs: Where to.
    look: How much of a video to look at.
    elsewhere: Who answers in place of this process.

  Returns:
    Of each video that has no score, a line that says why.

  Raises:
    FileNotFoundError: The one file is not there.
    ValueError: No video is named, or an output cannot be one.
    OSError: No space left, or an engine could not do its work.
  """
  video_work.silence_decoder()  # the status says what matters
  outputs, look = outputs or Outputs(), look or video_detector.Look()
  of_many = not video_list.is_single(named)
  outputs.check(of_many=of_many)
  out = None if outputs.out is None else pathlib.Path(outputs.out)
  as_table = out is not None and out.suffix.lower() in answer_table.SUFFIXES
  if elsewhere and not as_table:
    raise ValueError(
      '--engine=beam gathers rows: --out names a file of the form'
      f' {" or ".join(answer_table.SUFFIXES)}, where all workers see it'
    )
  if not of_many and not as_table:
    said = detector.predict(named[0], look)
    written = outputs.render(said, detector.card, of_many=False)
    _write_one(said, out, written)
    return _failures([said])
  videos = video_list.expand(named)
  if out is not None and not as_table:
    raise ValueError(
      f'--out={out}: the answers to {len(videos)} videos go to a file of the'
      f' form {" or ".join(answer_table.SUFFIXES)}'
    )
  return _answer_many(detector, videos, out, look, outputs, of_many, elsewhere)


def _answer_many(
  detector: video_detector.Detector,
  videos: Sequence[str],
  out: pathlib.Path | None,
  look: video_detector.Look,
  outputs: Outputs,
  of_many: bool,
  elsewhere: Elsewhere | None,
) -> list[str]:

  def answer_one(video: str, watch: reading_ahead.Watch) -> answer.Answer:
    return archive.answer_one(detector, video, look, watch)

  failures = []
  if out is None:
    for said in reading_ahead.answer_in_order(answer_one, videos):
      outputs.render(said, detector.card, of_many=of_many)
      print(answer_table.json_line(said), end='', flush=True)
      failures += _failures([said])
    return failures
  made = made_with(detector, look)
  with answer_table.AnswerTable(out, made) as table:
    if elsewhere:
      work = archive.AnswerWork(
        elsewhere.load,
        look,
        functools.partial(outputs.render, of_many=of_many),
        out.absolute().with_name(f'.{out.name}.{made}'),
        out.suffix,
        made,
      )
      archive.fill(table, elsewhere.engine, work, videos, detector.refuse)
    by_row = {archive.row_name(video): video for video in videos}
    todo = [x for row, x in by_row.items() if row not in table.finished]
    number = len(videos) - len(todo)
    for said in reading_ahead.answer_in_order(answer_one, todo):
      outputs.render(said, detector.card, of_many=of_many)
      table.add(said)
      number += 1
      print(f'{number}/{len(videos)} {_line(said)}', flush=True)
    statuses = {
      name: table.finished[name] for name in map(archive.row_name, videos)
    }
  bad = [name for name, status in statuses.items() if status != 'ok']
  print(f'{len(videos)} videos, {len(bad)} without a score; written to {out}')
  return [f'{name}: {statuses[name]}' for name in bad]


def made_with(
  detector: video_detector.Detector, look: video_detector.Look
) -> str:
  """Hashes all that an answer depends on besides the video."""
  parts = {**detector.provenance, 'look': dataclasses.asdict(look)}
  # The same weights in another folder answer the same.
  del parts['checkpoint'], parts['versions']
  if detector.calibration:
    parts['calibration'] = dataclasses.asdict(detector.calibration)
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:_DISTINCT]


def _write_one(
  said: answer.Answer, out: pathlib.Path | None, written: list[str]
) -> None:
  if out is not None:
    said.write(out)
    written = [str(out), *written]
  elif not written:
    print(said.to_json(), end='', flush=True)
    return
  if said.status == 'ok':
    print(f'{_line(said)}; written to {", ".join(written)}', flush=True)


def _line(said: answer.Answer) -> str:
  """An answer in one line, for a terminal."""
  if said.status != 'ok':
    return f'{said.video}: {said.status}: {said.message}'
  notes = ''.join(f'; {note}' for note in (*said.notes, said.calibration))
  if said.answer:
    notes = f'; {said.answer} ({said.probability:.3f}){notes}'
  return (
    f'{said.video}: score {said.score:.3f} (0 real, 1 fake) from'
    f' {len(said.clips)} clips{notes}'
  )


def _failures(answers: Sequence[answer.Answer]) -> list[str]:
  return [_line(said) for said in answers if said.status != 'ok']
