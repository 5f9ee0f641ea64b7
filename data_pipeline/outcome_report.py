"""report.csv: what became of every video of a data set, under every rule.

What enters: the outcomes of one command. What leaves: one line per video and
rule, in which the lines of earlier commands live on, as do their records.
"""

from collections.abc import Callable, Sequence
import csv
import dataclasses
import pathlib

from data_pipeline import prepared_video

_FIELDS = tuple(
  field.name for field in dataclasses.fields(prepared_video.Outcome)
)


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
  """Reads the lines of earlier commands; none where there is no report.

  Raises:
    ValueError: the file is no such report.
  """
  if not path.exists():
    return []
  try:
    with path.open(newline='', encoding='utf-8') as file:
      reader = csv.DictReader(file, restval='')
      rows = list(reader)
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f'{path} cannot be read ({error}); move it away'
    ) from error
  if not {'video_id', 'rule', 'status'} <= set(reader.fieldnames or ()):
    raise ValueError(f'{path} is not a report of prepare; move it away')
  return [{name: row.get(name, '') for name in _FIELDS} for row in rows]


def write(
  path: pathlib.Path,
  outcomes: Sequence[prepared_video.Outcome],
  earlier: Sequence[dict[str, str]],
  keeps: Callable[[str], bool],
) -> None:
  """Writes the outcomes, then the earlier lines that stay; whole or not at all.

  Args:
    path: report.csv.
    outcomes: of this command.
    earlier: lines from `read_rows`.
    keeps: whether the earlier lines of a rule stay, where this command has
      none in their place.
  """
  done = {(outcome.video_id, outcome.rule) for outcome in outcomes}
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, _FIELDS)
    writer.writeheader()
    for outcome in outcomes:
      notes = '; '.join(outcome.notes)
      writer.writerow({**dataclasses.asdict(outcome), 'notes': notes})
    writer.writerows(
      row
      for row in earlier
      if (row['video_id'], row['rule']) not in done and keeps(row['rule'])
    )
  partial.replace(path)
