"""Answers to many videos, a row each, in a file that can be gone on with.

Enter: `answer.Answer`s as they come. Leaves: JSON Lines (each line the JSON of
one video) or CSV (its main figures). A row stands in the file as soon as its
video is done; the same call again leaves out what has a row.
"""

import csv
import io
import json
import math
import os
import pathlib
from typing import IO, Any

from stormer_jax.scoring import answer

SUFFIXES = ('.jsonl', '.csv')
COLUMNS = (
  *('video', 'status', 'answer', 'probability', 'score', 'logit'),
  *('interval_low', 'interval_high', 'people', 'segments', 'sentence'),
  *('message', 'notes', 'face_size', 'frames_with_face', 'frames_asked'),
  *('frame_rule', 'sha256', 'weights', 'made_with'),
)


class AnswerTable:
  """Rows of answers; those that were there already stay.

  Attributes:
    finished: Status by video.
  """

  def __init__(self, path: pathlib.Path, made_with: str):
    """Opens a file, new or of an earlier call.

    Args:
      path: Its suffix, one of `SUFFIXES`, is the form.
      made_with: Hash of weights and settings; the rows of one file have one.

    Raises:
      ValueError: It holds something else, or answers made otherwise.
    """
    self.finished: dict[str, str] = {}
    self._path = path
    self._made_with = made_with
    self._is_csv = path.suffix.lower() == '.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = self._read() if path.exists() else 0
    self._file: IO[str] = path.open(
      'r+' if path.exists() else 'w', encoding='utf-8', newline=''
    )
    self._file.seek(whole)
    self._file.truncate()  # what a kill left of a row
    if self._is_csv and not whole:
      self._write(_line(COLUMNS))

  def add(self, said: answer.Answer) -> None:
    """Writes a row."""
    content = text(said, self._made_with, self._path.suffix)
    self.add_text(said.video, said.status, content)

  def add_text(self, video: str, status: str, content: str) -> None:
    """Writes a row that `text` has made."""
    self.finished[video] = status
    self._write(content)

  def __enter__(self) -> 'AnswerTable':
    return self

  def __exit__(self, *error: object) -> None:
    self._file.close()

  def _write(self, content: str) -> None:
    self._file.write(content)
    self._file.flush()
    os.fsync(self._file.fileno())

  def _read(self) -> int:
    """Reads the rows that are whole; returns where they end, in bytes."""
    content = self._path.read_bytes()
    try:
      rows, whole = (
        self._csv_rows(content) if self._is_csv else self._json_rows(content)
      )
      for video, status, made_with in rows:
        if made_with != self._made_with:
          raise ValueError(
            f'{self._path}: holds answers of other weights or settings; name'
            ' another file'
          )
        self.finished[video] = status
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
      raise self._strange() from error
    return whole

  def _json_rows(
    self, content: bytes
  ) -> tuple[list[tuple[str, str, str]], int]:
    rows, whole = [], content.rfind(b'\n') + 1
    for line in content[:whole].splitlines():
      try:
        entry = json.loads(line)
      except ValueError as error:
        raise self._strange() from error
      rows.append((entry['video'], entry['status'], entry['made_with']))
    return rows, whole

  def _csv_rows(self, content: bytes) -> tuple[list[tuple[str, str, str]], int]:
    # A quoted field may hold line breaks, but `row` writes none.
    whole = content.rfind(b'\n') + 1
    lines = list(csv.DictReader(io.StringIO(content[:whole].decode())))
    if whole and content.split(b'\n')[0].decode() != _line(COLUMNS).strip():
      raise self._strange()
    return [(x['video'], x['status'], x['made_with']) for x in lines], whole

  def _strange(self) -> ValueError:
    return ValueError(f'{self._path}: no table of answers; name another file')


def text(said: answer.Answer, made_with: str, suffix: str) -> str:
  """Returns the row of an answer as it stands in a file."""
  if suffix.lower() == '.csv':
    return _line(tuple(row(said, made_with).values()))
  return json_line(said, made_with)


def json_line(said: answer.Answer, made_with: str = '') -> str:
  """Returns the JSON of an answer in one line."""
  content = said.to_dict()
  if made_with:
    content['made_with'] = made_with
  return json.dumps(content, allow_nan=False) + '\n'


def row(said: answer.Answer, made_with: str) -> dict[str, Any]:
  """The columns of an answer; '' for what it has not."""
  low, high = said.interval or (math.nan, math.nan)
  sampling = said.sampling
  cells: dict[str, Any] = {
    'video': said.video,
    'status': said.status,
    'answer': said.answer,
    'probability': said.probability,
    'score': said.score,
    'logit': said.logit,
    'interval_low': low,
    'interval_high': high,
    'people': len(said.tracks),
    'segments': ' '.join(f'{x.start:.2f}-{x.end:.2f}' for x in said.segments),
    'sentence': said.sentence,
    'message': said.message,
    'notes': '; '.join(said.notes),
    'face_size': said.quality.face_size if said.quality else math.nan,
    'frames_with_face': sampling.frames_with_face if sampling else '',
    'frames_asked': sampling.frames_asked if sampling else '',
    'frame_rule': said.provenance.get('frame_rule', ''),
    'sha256': said.hashes.get('video', ''),
    'weights': said.hashes.get('weights', ''),
    'made_with': made_with,
  }
  return {name: _cell(value) for name, value in cells.items()}


def _cell(value: Any) -> Any:
  if isinstance(value, float) and math.isnan(value):
    return ''
  return ' '.join(value.splitlines()) if isinstance(value, str) else value


def _line(cells: tuple[Any, ...]) -> str:
  written = io.StringIO()
  csv.writer(written, lineterminator='\n').writerow(cells)
  return written.getvalue()
