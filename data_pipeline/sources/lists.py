"""A list of videos -> its rows, as text.

What enters: a file as spreadsheets and editors write them, in UTF-8 or UTF-16,
with or without a byte-order mark, with any line ends, separated by commas,
semicolons or tabs; or the lines without a header that other detectors read
('path label', `read_plain`). What leaves: one `Row` a line that is not empty. A
file that can be read in two ways is an error that names the line and what is in
it.
"""

import codecs
from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import os
import pathlib
import re

_MARKS = (  # that of UTF-32 begins with that of UTF-16
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF8, 'utf-8-sig'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)
_DELIMITERS = (',', ';', '\t')
_LABEL = r'(?P<label>0|1|real|fake|REAL|FAKE)'
_PLAIN = re.compile(rf'(?P<path>\S|\S.*?\S)[ \t]+{_LABEL}')
_PLAIN_FRAMES = re.compile(
  rf'(?P<path>\S|\S.*?\S)[ \t]+(?P<first>\d+)[ \t]+(?P<last>\d+)[ \t]+{_LABEL}'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a list.

  Attributes:
    where: file and line, for errors.
    cells: text by column, stripped; every column of the file is there.
  """

  where: str
  cells: Mapping[str, str]


def read_rows(path: str | os.PathLike, needed: Sequence[str]) -> list[Row]:
  """Reads a list.

  Args:
    path: the file.
    needed: columns that it must have.

  Raises:
    ValueError: no such file, an encoding or a quote that cannot be told, a
      column missing, or more cells in a line than columns; names file and line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'no list of videos {path}')
  # A line break within quotes becomes \n, as within a file name of any sense.
  text = '\n'.join(_decode(path).splitlines())
  delimiter = _delimiter(text, needed)
  reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
  rows: list[Row] = []
  columns: list[str] = []
  try:
    for cells in reader:
      cells = [cell.strip() for cell in cells]
      where = f'{path} line {reader.line_num}'
      if not any(cells) and len(cells) <= max(len(columns), 1):
        continue
      if not columns:
        columns = _columns(path, cells, needed)
      elif len(cells) > len(columns):
        raise ValueError(
          f'{where} has {len(cells)} cells, the header names {len(columns)} '
          f'columns ({", ".join(columns)}); quote a cell that holds a '
          f'{delimiter!r}'
        )
      else:
        cells += [''] * (len(columns) - len(cells))
        rows.append(Row(where, dict(zip(columns, cells, strict=True))))
  except csv.Error as error:
    raise ValueError(f'{path} line {reader.line_num}: {error}') from error
  if not columns:
    _columns(path, [], needed)
  return rows


def read_plain(path: str | os.PathLike) -> list[Row] | None:
  """Reads 'path label' or 'path start end label', a line each, no header.

  GenD lists its videos in the first form, TALL and DeepShield in the second;
  blanks or a tab stand between. The path may hold blanks.

  Returns:
    Rows with the columns path, label ('0' or '1', or as written) and, in the
    second form, first and last (frames, both included); None where the first
    line is none of the two.

  Raises:
    ValueError: no such file, an encoding that cannot be told, or a later line
      of another form; names file and line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'no list of videos {path}')
  rows: list[Row] = []
  longer = False  # whether the lines have frames
  for number, line in enumerate(_decode(path).splitlines(), start=1):
    if not line.strip():
      continue
    match = _PLAIN.fullmatch(line.strip())
    framed = _PLAIN_FRAMES.fullmatch(line.strip())
    if not rows:
      longer = framed is not None
    match = framed if longer else match
    if match is None and not rows:
      return None
    if match is None:
      form = 'path start end label' if longer else 'path label'
      raise ValueError(
        f'{path} line {number}: {line.strip()!r} is not "{form}", as the lines '
        'before it are'
      )
    rows.append(Row(f'{path} line {number}', match.groupdict()))
  return rows or None


def _columns(
  path: pathlib.Path, cells: list[str], needed: Sequence[str]
) -> list[str]:
  """Checks the header."""
  columns = [cell.lower() for cell in cells]
  if not set(needed) <= set(columns):
    raise ValueError(
      f'{path} has the columns {sorted(columns)}; it needs '
      f'{" and ".join(needed)}'
    )
  if len(set(columns)) < len(columns):
    raise ValueError(f'{path} has a column twice: {", ".join(columns)}')
  return columns


def _delimiter(text: str, needed: Sequence[str]) -> str:
  """The separator by which the header has the needed columns."""
  header = next((line for line in text.split('\n') if line.strip()), '')
  for delimiter in _DELIMITERS:
    names = {name.strip(' "').lower() for name in header.split(delimiter)}
    if names.issuperset(needed):
      return delimiter
  return _DELIMITERS[0]


def _decode(path: pathlib.Path) -> str:
  """Decodes a text file whose encoding its bytes tell."""
  raw = path.read_bytes()
  encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), '')
  if not encoding and 0 in raw[:2]:
    # A header of ASCII letters is every other byte zero.
    encoding = 'utf-16-be' if raw[0] == 0 else 'utf-16-le'
  try:
    text = raw.decode(encoding or 'utf-8')
  except UnicodeDecodeError as error:
    line = raw.count(b'\n', 0, error.start) + 1
    if encoding:
      raise ValueError(
        f'{path}, about line {line}: not whole {encoding.upper()} '
        f'({error.reason}); save the list as UTF-8'
      ) from error
    begin = raw.rfind(b'\n', 0, error.start) + 1
    guess = raw[begin:].splitlines()[0].decode('cp1252', 'replace')
    raise ValueError(
      f'{path} line {line} is not UTF-8 (byte {raw[error.start]:#04x}; as '
      f'cp1252 it would read {guess!r}); save the list as UTF-8'
    ) from error
  if '\0' in text:
    line = text.count('\n', 0, text.index('\0')) + 1
    raise ValueError(f'{path} line {line} holds a NUL: not a text')
  return text
