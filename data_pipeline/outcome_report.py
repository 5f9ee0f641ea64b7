"""report.csv: what became of every video of a data set, under every rule.

What enters: the outcomes of one command. What leaves: one line per video and
rule, in which the lines of earlier commands live on, as do their records.
"""

from collections.abc import Callable, Iterator, Sequence
import csv
import dataclasses
import pathlib

from data_pipeline import prepared_video

_FIELDS = tuple(
  field.name for field in dataclasses.fields(prepared_video.Outcome)
)


def read_rows(path: pathlib.Path) -> Iterator[dict[str, str]]:
  """Yields the lines of a report; none where there is none.

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
      for row in reader:
        yield {name: row.get(name, '') for name in _FIELDS}
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f'{path} cannot be read ({error}); move it away'
    ) from error


def check(path: pathlib.Path) -> None:
  """Reads a report to its end; raises as `read_rows` does."""
  for _ in read_rows(path):
    pass


def write(
  path: pathlib.Path,
  outcomes: Sequence[prepared_video.Outcome],
  keeps: Callable[[str], bool],
) -> None:
  """Writes outcomes, then the lines there that stay; whole or not at all.

  Args:
    path: report.csv.
    outcomes: of this command.
    keeps: whether the earlier lines of a rule stay, where this command has
      none in their place.
  """
  done: dict[str, set[str]] = {}
  for outcome in outcomes:
    done.setdefault(outcome.rule, set()).add(outcome.video_id)
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, _FIELDS)
    writer.writeheader()
    for outcome in outcomes:
      notes = '; '.join(outcome.notes)
      writer.writerow({**dataclasses.asdict(outcome), 'notes': notes})
    writer.writerows(
      row
      for row in read_rows(path)
      if row['video_id'] not in done.get(row['rule'], ()) and keeps(row['rule'])
    )
  partial.replace(path)
