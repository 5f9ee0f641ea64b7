"""Tables of a report, in Markdown, HTML and for a terminal.

Enter: a `Table` of texts. Leaves: the same table as text of one of the three.
"""

from collections.abc import Sequence
import dataclasses
import html
import math
import re

from stormer_jax.scoring import bootstrap

_AS_FRACTION = ('brier', 'ece')  # the others are shown in %
_ESTIMATE = re.compile(r'[-+.\d]+ \([-+.\d]+ to [-+.\d]+\)')


@dataclasses.dataclass(frozen=True)
class Table:
  """A title, names of columns, rows of as many texts, and what to know."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  note: str = ''


def shown(figure: str, estimate: bootstrap.Estimate) -> str:
  """Shows an estimate: 92.41 (90.2 to 94.3), or why there is none."""
  scale, digits = (1, 4) if figure in _AS_FRACTION else (100, 2)
  if math.isnan(estimate.value):
    return f'- ({estimate.note})'
  value = f'{scale * estimate.value:.{digits}f}'
  if math.isnan(estimate.low):
    return value
  low, high = scale * estimate.low, scale * estimate.high
  return f'{value} ({low:.{digits - 1}f} to {high:.{digits - 1}f})'


def shown_difference(figure: str, estimate: bootstrap.Estimate) -> str:
  """Likewise with a sign, in points."""
  del figure
  if math.isnan(estimate.value):
    return f'- ({estimate.note})'
  value = f'{100 * estimate.value:+.2f}'
  if math.isnan(estimate.low):
    return value
  return f'{value} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})'


def markdown(table: Table) -> str:
  """Returns a Markdown table under its title."""
  lines = [f'## {table.title}', '']
  if table.note:
    lines += [table.note, '']
  lines += [
    _markdown_row(table.header),
    _markdown_row(['---'] * len(table.header)),
    *map(_markdown_row, table.rows),
    '',
  ]
  return '\n'.join(lines)


def to_html(table: Table) -> str:
  """Returns an HTML section with the table in it."""
  header = ''.join(f'<th>{html.escape(cell)}</th>' for cell in table.header)
  rows = ''.join(
    '<tr>' + ''.join(map(_html_cell, row)) + '</tr>' for row in table.rows
  )
  note = f'<p>{html.escape(table.note)}</p>' if table.note else ''
  return (
    f'<section><h2>{html.escape(table.title)}</h2>{note}'
    f'<div class="wide"><table><thead><tr>{header}</tr></thead>'
    f'<tbody>{rows}</tbody></table></div></section>'
  )


def _html_cell(cell: str) -> str:
  # A figure and its interval stay in one line, however narrow the window.
  kind = ' class="estimate"' if _ESTIMATE.fullmatch(cell) else ''
  return f'<td{kind}>{html.escape(cell)}</td>'


def text(table: Table) -> str:
  """Returns the table in columns of equal width, indented."""
  lines = [table.header, *table.rows]
  widths = [
    max(len(line[i]) for line in lines) for i in range(len(table.header))
  ]
  return '\n'.join(
    [
      table.title,
      *(
        '  '
        + '  '.join(
          cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
      ),
    ]
  )


def _markdown_row(cells: Sequence[str]) -> str:
  escaped = (cell.replace('|', '\\|').replace('\n', ' ') for cell in cells)
  return f'| {" | ".join(escaped)} |'
