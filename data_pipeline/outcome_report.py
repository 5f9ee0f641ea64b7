"""report.csv: what became of every video of a data set, under every rule.

What enters: the outcomes of one command, one by one. What leaves: one line per
video and rule, in which the lines of earlier commands live on, as do their
records; and these lines again, which nobody needs to hold.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import csv
import dataclasses
import io
import itertools
import pathlib
from typing import Any

from data_pipeline import prepared_video

_NAMES = tuple(f.name for f in dataclasses.fields(prepared_video.Outcome))


def read(path: pathlib.Path) -> Iterator[prepared_video.Outcome]:
  """Yields what a report says; nothing where there is none.

  Raises:
    ValueError: the file is no such report.
  """
  if not path.exists():
    return
  try:
    with path.open(newline='', encoding='utf-8') as file:
      reader = csv.DictReader(file, restval='')
      if not {'video_id', 'rule', 'status'} <= set(reader.fieldnames or ()):
        raise ValueError(f'{path} is not a report of prepare; move it away')
      for line in reader:
        yield _parse(path, line)
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f'{path} cannot be read ({error}); move it away'
    ) from error


def _parse(
  path: pathlib.Path, line: Mapping[str, str]
) -> prepared_video.Outcome:
  """Reads a line; what an older command did not write is as by default."""
  known: dict[str, Any] = {
    name: line[name] for name in _NAMES if line.get(name)
  }
  try:
    for name, kind in (
      ('num_frames', int),
      ('num_asked', int),
      ('face_size', float),
      ('jitter', float),
    ):
      if name in known:
        known[name] = kind(known[name])
    if len(bytes.fromhex(known.get('looks', ''))) not in (0, 24):
      raise ValueError('looks is not 48 hexadecimal digits')
  except ValueError as error:
    raise ValueError(
      f'{path}: {line["video_id"]!r}: {error}; move the file away'
    ) from error
  if 'notes' in known:
    known['notes'] = (known['notes'],)
  return prepared_video.Outcome(
    **{name: '' for name in ('split', 'label', 'status')} | known
  )


def check(path: pathlib.Path) -> None:
  """Reads a report to its end; raises as `read` does."""
  for _ in read(path):
    pass


@dataclasses.dataclass(frozen=True)
class Rows:
  """The lines of a report, read anew each time that they are asked for.

  Attributes:
    path: report.csv.
    count: so many of the first of them; None: all.
  """

  path: pathlib.Path
  count: int | None = None

  def __iter__(self) -> Iterator[prepared_video.Outcome]:
    """Yields them; raises as `read` does."""
    return itertools.islice(read(self.path), self.count)


class Draft:
  """A report that is being written."""

  def __init__(self, file: io.TextIOBase):
    """Takes a new file, which it gives its header."""
    self._file = file
    self._writer = csv.DictWriter(file, _NAMES)
    self._writer.writeheader()

  def add(self, outcomes: Iterable[prepared_video.Outcome]) -> None:
    """Writes a line for each outcome, of which one at a time is held."""
    for outcome in outcomes:
      notes = '; '.join(outcome.notes)
      fields = {name: getattr(outcome, name) for name in _NAMES}
      self._writer.writerow(fields | {'notes': notes})
    self._file.flush()  # a full disk is told here


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[Draft]:
  """Gives a report to write, which takes its place if the block ends well."""
  partial = path.with_name(f'{path.name}.partial')
  try:
    with partial.open('w', newline='', encoding='utf-8') as file:
      yield Draft(file)
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
