"""report.csv: what became of every video of a data set, under every rule.

What enters: the outcomes of one command. What leaves: one line per video and
rule, in which the lines of earlier commands live on, as do their records.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import csv
import dataclasses
import pathlib
import sys
from typing import Any

from data_pipeline import prepared_video

_FIELDS = dataclasses.fields(prepared_video.Outcome)


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
  # Of 100,000 lines most say the same.
  known: dict[str, Any] = {
    field.name: sys.intern(line[field.name])
    for field in _FIELDS
    if line.get(field.name)
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


def with_earlier(
  path: pathlib.Path,
  outcomes: Sequence[prepared_video.Outcome],
  keeps: Callable[[str], bool],
) -> list[prepared_video.Outcome]:
  """Returns outcomes, then those of earlier commands that stay.

  Args:
    path: report.csv of the earlier commands.
    outcomes: of this command.
    keeps: whether the earlier lines of a rule stay, where this command has
      none in their place.
  """
  done: dict[str, set[str]] = {}
  for outcome in outcomes:
    done.setdefault(outcome.rule, set()).add(outcome.video_id)
  earlier = (
    outcome
    for outcome in read(path)
    if outcome.video_id not in done.get(outcome.rule, ())
    and keeps(outcome.rule)
  )
  return [*outcomes, *earlier]


def write(
  path: pathlib.Path, outcomes: Iterable[prepared_video.Outcome]
) -> None:
  """Writes a line for each outcome; whole or not at all."""
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, [field.name for field in _FIELDS])
    writer.writeheader()
    for outcome in outcomes:
      notes = '; '.join(outcome.notes)
      writer.writerow({**dataclasses.asdict(outcome), 'notes': notes})
  partial.replace(path)
