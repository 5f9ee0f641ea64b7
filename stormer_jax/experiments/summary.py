"""Many runs in one table: Markdown for people, CSV for programs.

Enter: `Measure`s, one a data set, with a row for each entry: what its seeds
reached, and how far that is from the base. Figures are shares in [0, 1]; the
Markdown shows them in %, differences in points.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import math
from typing import Any

# A table with more columns than this for fields cannot be read on a page.
_MOST_FIELDS = 6


@dataclasses.dataclass(frozen=True)
class Row:
  """One entry, over its seeds. nan where there is nothing to say.

  Attributes:
    name: Of the entry.
    fields: What differs among the entries, 'section.field' -> value.
    seeds: Seed of each run.
    values: What each run reached.
    interval: 95 % interval of the mean, over resampled videos.
    difference: Mean minus that of the base; nan for the base itself.
    difference_interval: Its interval; both on the same videos, resampled alike.
    note: What is missing.
  """

  name: str
  fields: Mapping[str, Any]
  seeds: tuple[int, ...]
  values: tuple[float, ...]
  interval: tuple[float, float]
  difference: float
  difference_interval: tuple[float, float]
  note: str = ''

  @property
  def mean(self) -> float:
    """Over the seeds; nan if there is none."""
    return sum(self.values) / len(self.values) if self.values else math.nan

  @property
  def deviation(self) -> float:
    """Standard deviation over the seeds; nan for fewer than two."""
    n, mean = len(self.values), self.mean
    if n < 2:
      return math.nan
    return math.sqrt(
      sum((value - mean) ** 2 for value in self.values) / (n - 1)
    )


@dataclasses.dataclass(frozen=True)
class Measure:
  """A figure of all entries on one data set."""

  name: str
  base: str  # entry that the others are compared with
  num_videos: int  # 0 where the videos are not known one by one
  rows: tuple[Row, ...]


def markdown(measures: Sequence[Measure]) -> str:
  """Returns a table for each measure, with how to read it."""
  return '\n'.join(map(_markdown, measures))


def to_csv(measures: Sequence[Measure]) -> str:
  """Returns one line a measure and entry, every differing field a column."""
  fields = list(
    dict.fromkeys(f for m in measures for r in m.rows for f in r.fields)
  )
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(
    [
      *('measure', 'run', 'seeds', 'values', 'mean', 'deviation'),
      *('low', 'high', 'base'),
      *('difference', 'difference_low', 'difference_high', 'note'),
      *fields,
    ]
  )
  for measure in measures:
    for row in measure.rows:
      numbers = (row.mean, row.deviation, *row.interval)
      differences = (row.difference, *row.difference_interval)
      writer.writerow(
        [
          measure.name,
          row.name,
          ' '.join(map(str, row.seeds)),
          ' '.join(map(repr, row.values)),
          *map(_number, numbers),
          measure.base,
          *map(_number, differences),
          row.note,
          *(row.fields.get(field, '') for field in fields),
        ]
      )
  return text.getvalue()


def _markdown(measure: Measure) -> str:
  base = next(row for row in measure.rows if row.name == measure.base)
  fields = list(base.fields)
  few = len(fields) <= _MOST_FIELDS
  header = [
    'run',
    *(fields if few else ['differs from base']),
    *('seeds', 'mean %', 'sd', '95 % interval'),
    *(f'minus {measure.base}', '95 % interval'),
  ]
  noted = any(row.note for row in measure.rows)
  header += ['note'] * noted
  lines = [f'### {measure.name}', '']
  if measure.num_videos:
    lines += [
      f'{measure.num_videos} videos. Intervals: 1,000 resamples of the videos,'
      ' the same for all runs, so that differences are paired; sd: over seeds,'
      ' which the intervals do not cover.',
      '',
    ]
  lines += [_line(header), _line(['---'] * len(header))]
  for row in measure.rows:
    changed = {
      field: value
      for field, value in row.fields.items()
      if row is base or value != base.fields[field]
    }
    if few:
      settings = [_shown(changed.get(field, '')) for field in fields]
    else:
      settings = [
        ', '.join(
          f'{field}={_shown(value)}' for field, value in changed.items()
        )
        if row is not base
        else ''
      ]
    lines.append(
      _line(
        [
          row.name,
          *settings,
          str(len(row.values)),
          _percent(row.mean),
          _percent(row.deviation),
          _interval(row.interval),
          _percent(row.difference, '+'),
          _interval(row.difference_interval, '+'),
          *([row.note] * noted),
        ]
      )
    )
  return '\n'.join([*lines, ''])


def _line(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def _shown(value: Any) -> str:
  return ', '.join(map(str, value)) if isinstance(value, list) else str(value)


def _percent(share: float, sign: str = '') -> str:
  return '' if math.isnan(share) else f'{100 * share:{sign}.2f}'


def _interval(ends: tuple[float, float], sign: str = '') -> str:
  if math.isnan(ends[0]):
    return ''
  return ' to '.join(f'{100 * end:{sign}.1f}' for end in ends)


def _number(value: float) -> str:
  return '' if math.isnan(value) else repr(value)
