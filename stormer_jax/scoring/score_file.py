"""Saved scores: anybody's file -> `SavedScores`.

Enter: CSV (also .csv.gz) or Parquet, ours (scores.csv of `evaluate`, with the
metrics.json beside it) or a plain table `video,label,score[,method]`. Leave:
one `SavedScores` for each system and data set, whose rows are videos. Nothing
here needs media, weights or jax.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import fnmatch
import functools
import gzip
import json
import math
import os
import pathlib
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

# Our name for a column -> names that it goes by.
COLUMNS: Mapping[str, tuple[str, ...]] = {
  'video': ('video', 'video_id'),
  'label': ('label',),
  'score': ('score',),
  'method': ('method',),
  'scenario': ('scenario',),
  'identity': ('identity',),
  'group': ('group',),
  'pair': ('pair',),
  'dataset': ('dataset',),
  'clip_logits': ('clip_logits',),
  'reason': ('reason',),
}
LABELS = {'0': 0, '1': 1, 'real': 0, 'fake': 1}
TEXTS = ('method', 'scenario', 'identity', 'group', 'pair')


@dataclasses.dataclass(frozen=True)
class SavedScores:
  """What one system says of the videos of one data set; rows are videos.

  Attributes:
    system: Name of what scored.
    dataset: NAME or NAME:SPLIT; '' where the file does not say.
    video: Name of each video; together with label and method it is unique.
    labels: 0 real, 1 fake.
    scores: Higher is more fake; nan where the video has none.
    reason: Why a video has no score, '' where it has one.
    method: How a fake was made; '' where unknown, as in what follows.
    scenario: What a method belongs to, as face swap.
    identity: The person shown.
    group: A part of the data with its own real videos, as a language.
    pair: What holds a real video and the fakes of it together.
    clip_logits: Of each video; () where the file has none.
    settings: How the scores were made, from the metrics.json beside the file.
  """

  system: str
  dataset: str
  video: tuple[str, ...]
  labels: Int[np.ndarray, 'n']
  scores: Float[np.ndarray, 'n']
  reason: tuple[str, ...]
  method: tuple[str, ...]
  scenario: tuple[str, ...]
  identity: tuple[str, ...]
  group: tuple[str, ...]
  pair: tuple[str, ...]
  clip_logits: tuple[tuple[float, ...], ...]
  settings: Mapping[str, Any]

  @functools.cached_property
  def scored(self) -> Bool[np.ndarray, 'n']:
    """Which videos have a score."""
    return np.isfinite(self.scores)

  @functools.cached_property
  def keys(self) -> tuple[tuple[str, int, str], ...]:
    """What tells the videos apart, in this system and in others."""
    return tuple(
      zip(self.video, self.labels.tolist(), self.method, strict=True)
    )

  def select(self, rows: np.ndarray) -> 'SavedScores':
    """Returns some rows, by index or mask, in that order."""
    index = np.arange(len(self.video))[rows].tolist()
    columns: dict[str, Any] = {
      name: tuple(getattr(self, name)[i] for i in index)
      for name in ('video', 'reason', 'clip_logits', *TEXTS)
    }
    return dataclasses.replace(
      self, labels=self.labels[index], scores=self.scores[index], **columns
    )

  def clusters(self, by: str = 'auto') -> Int[np.ndarray, 'n']:
    """Numbers what is drawn together in a resample.

    Args:
      by: 'video'; 'pair', and the video where it has none; 'identity',
        likewise; 'auto' is 'pair'. Rows of one name are one video (a real one
        and the pseudo-fake made of it) unless a method tells them apart.

    Raises:
      ValueError: No such choice, or no video has an identity.
    """
    if by not in ('auto', 'video', 'pair', 'identity'):
      raise ValueError(
        f'resample_by is {by!r}; choose auto, video, pair or identity'
      )
    if by == 'identity' and not any(self.identity):
      raise ValueError('resample_by is identity; the videos have none')
    column = {'video': None, 'identity': self.identity}.get(by, self.pair)
    names = [
      (0, column[i]) if column and column[i] else (1, self._stem(i))
      for i in range(len(self.video))
    ]
    number: dict[Any, int] = {}
    return np.array([number.setdefault(n, len(number)) for n in names], int)

  def _stem(self, i: int) -> str:
    method = self.method[i]
    if method == 'pseudo_fake':
      method = ''
    return f'{method}/{self.video[i]}'

  def of_groups(self, names: Sequence[str]) -> 'SavedScores':
    """Returns the videos of some groups.

    Raises:
      ValueError: There is no video of one of them.
    """
    absent = sorted(set(names) - set(self.group))
    if absent:
      there = ', '.join(sorted({name for name in self.group if name}))
      raise ValueError(
        f'{self.system} has no group {", ".join(absent)} in its scores of'
        f' {self.dataset or "its data"}; there are: {there or "none"}'
      )
    return self.select(np.isin(self.group, names))


def read_all(
  sources: Sequence[str], columns: Mapping[str, str] | None = None
) -> tuple[SavedScores, ...]:
  """Reads score files.

  Args:
    sources: FILE or NAME=FILE, NAME naming the system. A folder stands for
      the scores.csv files below it, as those of one run.
    columns: As in `read`.

  Raises:
    FileNotFoundError: No such file.
    ValueError: A file that cannot be read; two that say the same.
  """
  result: list[SavedScores] = []
  for source in sources:
    name, equals, file = source.partition('=')
    if not equals or pathlib.Path(source).exists():
      name, file = '', source
    path = pathlib.Path(file)
    if path.is_dir():
      paths = sorted(path.rglob('scores.csv'))
      if not paths:
        raise FileNotFoundError(f'{path}: no scores.csv in this folder')
      name = name or path.resolve().name
    else:
      paths = [path]
    for each in paths:
      result += read(each, system=name, columns=columns)
  seen: set[tuple[str, str]] = set()
  for scores in result:
    key = (scores.system, scores.dataset)
    if key in seen:
      raise ValueError(
        f'two files hold scores of {scores.system!r} on '
        f'{scores.dataset or "one unnamed data set"}; name the systems: '
        '--scores=A=FILE,B=FILE'
      )
    seen.add(key)
  return tuple(result)


def read(
  path: str | os.PathLike[str],
  *,
  system: str = '',
  columns: Mapping[str, str] | None = None,
) -> tuple[SavedScores, ...]:
  """Reads one score file.

  Args:
    path: .csv, .csv.gz or .parquet.
    system: Name of what scored; '': the file's name or its run's folder.
    columns: Our name of a column -> the file's, where it is none of `COLUMNS`.
      'score' may name several, split by |, or hold a pattern as prob_*: each
      is a system by itself.

  Returns:
    One for each system and data set, in the order of the file.

  Raises:
    FileNotFoundError: No such file.
    ValueError: A missing column, a label or score that is none, a video that
      stands there twice; the message names the line.
  """
  path = pathlib.Path(path)
  header, lines, cells = _table(path)
  if not lines:
    raise ValueError(f'{path}: no video in this file')
  places = _places(path, header, columns or {})
  settings = _settings(path)
  dataset = ':'.join(
    settings[name] for name in ('dataset', 'split') if settings.get(name)
  )
  reader = _Reader(path, lines, cells)
  fixed = {
    name: reader.texts(places[name][0]) if name in places else [''] * len(lines)
    for name in ('dataset', 'reason', *TEXTS)
  }
  datasets = [name or dataset for name in fixed.pop('dataset')]
  reasons = fixed.pop('reason')
  video = reader.texts(places['video'][0])
  labels = np.array(reader.labels(places['label'][0]))
  clip_logits = (
    reader.clip_logits(places['clip_logits'][0])
    if 'clip_logits' in places
    else [()] * len(lines)
  )
  reader.refuse_twins(
    list(zip(datasets, video, labels.tolist(), fixed['method'], strict=True))
  )
  result = []
  for place in places['score']:
    scores = np.array(reader.scores(place))
    several = len(places['score']) > 1
    name = system or _system(path, settings)
    if several:
      name = header[place] if not system else f'{system} {header[place]}'
    whole = SavedScores(
      system=name,
      dataset='',
      video=tuple(video),
      labels=labels,
      scores=scores,
      reason=tuple(
        '' if math.isfinite(score) else reason or 'no score in the file'
        for score, reason in zip(scores, reasons, strict=True)
      ),
      clip_logits=tuple(clip_logits),
      settings=settings.get('settings', {}),
      **{key: tuple(values) for key, values in fixed.items()},
    )
    for name in dict.fromkeys(datasets):
      own = whole.select(np.array([d == name for d in datasets]))
      # In a matrix of systems an empty part of a column says that the system
      # was not run there; in a column alone, that it failed.
      if own.scored.any() or not several:
        result.append(dataclasses.replace(own, dataset=name))
  return tuple(result)


class _Reader:
  """Columns of a table as values; says the line of what is none."""

  def __init__(self, path: pathlib.Path, lines: list[int], cells: list[list]):
    self._path, self._lines, self._cells = path, lines, cells

  def texts(self, place: int) -> list[str]:
    return [_text(row[place]) for row in self._cells]

  def labels(self, place: int) -> list[int]:
    result = []
    for line, row in zip(self._lines, self._cells, strict=True):
      text = _text(row[place]).lower()
      text = {'1.0': '1', '0.0': '0'}.get(text, text)
      if text not in LABELS:
        raise ValueError(
          f'{self._path}, line {line}: label {_text(row[place])!r}; expected 0'
          ' or real, 1 or fake'
        )
      result.append(LABELS[text])
    return result

  def scores(self, place: int) -> list[float]:
    return [
      self._number(line, row[place], 'score') if _text(row[place]) else math.nan
      for line, row in zip(self._lines, self._cells, strict=True)
    ]

  def clip_logits(self, place: int) -> list[tuple[float, ...]]:
    result = []
    for line, row in zip(self._lines, self._cells, strict=True):
      cell = row[place]
      parts = cell if isinstance(cell, list) else _text(cell).split()
      result.append(
        tuple(self._number(line, part, 'clip logit') for part in parts)
      )
    return result

  def refuse_twins(self, keys: list[tuple]) -> None:
    first: dict[tuple, int] = {}
    for line, key in zip(self._lines, keys, strict=True):
      if key in first:
        raise ValueError(
          f'{self._path}, line {line}: video {key[1]!r} stands in line '
          f'{first[key]} already, with the same label and method'
        )
      first[key] = line

  def _number(self, line: int, cell: Any, what: str) -> float:
    try:
      number = float(cell)
    except (TypeError, ValueError):
      number = math.nan
    if not math.isfinite(number):
      raise ValueError(
        f'{self._path}, line {line}: {what} {_text(cell)!r} is not a finite'
        ' number; leave the cell empty where a video has none'
      )
    return number


def _text(cell: Any) -> str:
  return '' if cell is None else str(cell).strip()


def _table(path: pathlib.Path) -> tuple[list[str], list[int], list[list]]:
  """Returns the names of the columns, the lines and their cells."""
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such score file')
  if path.suffix == '.parquet':
    return _parquet(path)
  try:
    opened = (
      gzip.open(path, 'rt', newline='', encoding='utf-8-sig')
      if path.suffix == '.gz'
      else path.open(newline='', encoding='utf-8-sig')
    )
    with opened as file:
      reader = csv.reader(file)
      header = [name.strip() for name in next(reader, [])]
      lines, cells = [], []
      for row in reader:
        if not row:
          continue
        if len(row) != len(header):
          raise ValueError(
            f'{path}, line {reader.line_num}: {len(row)} cells; the first line'
            f' names {len(header)} columns'
          )
        lines.append(reader.line_num)
        cells.append(list(row))
  except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
    raise ValueError(f'{path}: not a CSV file ({error})') from error
  return header, lines, cells


def _parquet(path: pathlib.Path) -> tuple[list[str], list[int], list[list]]:
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as error:
    raise ValueError(
      f'{path}: reading Parquet needs pyarrow: pip install'
      " 'stormer-jax[parquet]', or save the scores as CSV"
    ) from error
  try:
    table = parquet.read_table(path)
  except (pyarrow.ArrowInvalid, OSError) as error:
    raise ValueError(f'{path}: not a Parquet file ({error})') from error
  columns = [column.to_pylist() for column in table.columns]
  cells = [list(row) for row in zip(*columns, strict=True)]
  return list(table.column_names), list(range(1, len(cells) + 1)), cells


def _places(
  path: pathlib.Path, header: list[str], columns: Mapping[str, str]
) -> dict[str, list[int]]:
  """Finds the columns, by our names."""
  unknown = sorted(set(columns) - set(COLUMNS))
  if unknown:
    raise ValueError(
      f'--columns names {unknown[0]!r}; it is one of {", ".join(COLUMNS)}'
    )
  places = {}
  for name, usual in COLUMNS.items():
    wanted = columns.get(name, '').split('|') if name in columns else usual
    found = [
      place
      for pattern in wanted
      for place, column in enumerate(header)
      if column == pattern or fnmatch.fnmatchcase(column, pattern.strip())
    ]
    if name in columns and not found:
      raise ValueError(
        f'{path}: no column {columns[name]!r} (for {name}); there are '
        + ', '.join(header)
      )
    if found:
      places[name] = found if name == 'score' else found[:1]
  missing = [n for n in ('video', 'label', 'score') if n not in places]
  if missing and len(header) == 1 and (marks := set(header[0]) & set(';\t|')):
    raise ValueError(
      f'{path}: its columns are separated by {marks.pop()!r}; a comma is'
      ' expected'
    )
  if missing:
    raise ValueError(
      f'{path}: no column {missing[0]!r}; there are {", ".join(header)}. Name'
      f' it with --columns={missing[0]}=COLUMN'
    )
  return places


def _settings(path: pathlib.Path) -> dict[str, Any]:
  """Reads the metrics.json beside a scores.csv of ours, if there is one."""
  beside = path.with_name('metrics.json')
  if path.name != 'scores.csv' or not beside.exists():
    return {}
  try:
    return json.loads(beside.read_text())
  except ValueError as error:
    raise ValueError(f'{beside}: damaged ({error})') from error


def _system(path: pathlib.Path, settings: Mapping[str, Any]) -> str:
  """Names a system after its file; after its run, where that is ours."""
  if settings:
    of_run = path.resolve().parent.parent
    return of_run.parent.name if of_run.name == 'eval' else of_run.name
  return path.name.removesuffix('.gz').rsplit('.', 1)[0]
