"""Figures of a data set under damage -> tables and curves of robustness.

Enter: rows of `measurement`. Leave: for each system and data set a table of
kinds by levels, a curve of it, and the lines of robustness.csv. A damaged set
is known by its name: NAME-KIND-LEVEL, as `prepare --corrupt` writes it, whose
videos were damaged before faces were cut out; or NAME-crops-KIND-LEVEL, as
`evaluate --corrupt` names it, the crops of NAME damaged. Level 0 is NAME.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import re

from stormer_jax.scoring import bootstrap, measurement, plots, tables

_LEVELS = range(6)
_CROPS = '-crops'
_NAME = re.compile(
  r'(?P<name>[^:]+)-(?P<kind>[a-z0-9]+)-(?P<level>[1-5])(?P<split>:.*)?'
)
# What is tabulated, where there is such a row: figure of a part.
_PARTS = {'all': 'AUC of all videos', 'mean': 'AUC, mean of the groups'}


@dataclasses.dataclass(frozen=True)
class Damaged:
  """A damaged data set.

  Attributes:
    base: NAME:SPLIT of the same videos as they were.
    kind: Of damage.
    level: 1 to 5.
    of_crops: Whether crops were damaged; else whole videos.
  """

  base: str
  kind: str
  level: int
  of_crops: bool


@dataclasses.dataclass(frozen=True)
class Curve:
  """One figure of one system on one set under one kind of damage, by level."""

  system: str
  base: str
  of_crops: bool
  part: str
  kind: str
  rows: Mapping[int, measurement.Row]


def set_name(dataset: str, kind: str, level: int) -> str:
  """Names a data set whose crops are damaged."""
  return f'{dataset}{_CROPS}-{kind}-{level}'


def parse(dataset: str) -> Damaged | None:
  """Reads the name of a damaged set; None where it is none."""
  found = _NAME.fullmatch(dataset)
  if not found:
    return None
  name = found['name'].removesuffix(_CROPS)
  return Damaged(
    base=name + (found['split'] or ''),
    kind=found['kind'],
    level=int(found['level']),
    of_crops=name != found['name'],
  )


def is_of_crops(dataset: str) -> bool:
  """Whether a name is that of a set whose crops are damaged."""
  found = parse(dataset)
  return found is not None and found.of_crops


def damaged(datasets: Iterable[str]) -> dict[str, Damaged]:
  """Those of the sets that stand beside what they were made of."""
  known = list(dict.fromkeys(datasets))
  return {
    dataset: found
    for dataset in known
    if (found := parse(dataset)) and found.base in known
  }


def curves(rows: Sequence[measurement.Row]) -> list[Curve]:
  """Gathers the AUCs of damaged sets and of what they were made of."""
  sets = damaged(row.dataset for row in rows)
  areas: dict[tuple[str, str, str], measurement.Row] = {}
  for row in rows:
    if (row.convention, row.figure) == ('ours', 'auc') and row.part in _PARTS:
      # The protocol's level comes before the others.
      areas.setdefault((row.system, row.dataset, row.part), row)
  found: dict[tuple[str, str, bool, str, str], dict[int, measurement.Row]] = {}
  for (system, dataset, part), row in areas.items():
    if of := sets.get(dataset):
      key = (system, of.base, of.of_crops, part, of.kind)
      found.setdefault(key, {})[of.level] = row
  for (system, base, _, part, _), by_level in found.items():
    if (system, base, part) in areas:
      by_level[0] = areas[system, base, part]
  return [Curve(*key, by_level) for key, by_level in found.items()]


def make_tables(rows: Sequence[measurement.Row]) -> list[tables.Table]:
  """Kinds by levels, a table for each system, set and figure."""
  made = []
  for (system, base, of_crops, part), own in _by_table(curves(rows)).items():
    of = 'crops' if of_crops else 'videos'
    made.append(
      tables.Table(
        f'Robustness: {base}, {system}, damaged {of}: {_PARTS[part]}',
        ('damage', 'none', *(f'level {i}' for i in _LEVELS[1:])),
        tuple(
          (curve.kind, *(_shown(curve, level) for level in _LEVELS))
          for curve in own
        ),
        'In %, with 95 % intervals. Kinds and levels are those of'
        ' DeeperForensics-1.0 (docs/evaluation.md).'
        + (
          ' The crops of the faces were damaged, so faces were found in the'
          ' videos as they were.'
          if of_crops
          else ' The videos were damaged, and faces found in what was left.'
        ),
      )
    )
  return made


def _shown(curve: Curve, level: int) -> str:
  """A cell; with the number of videos where damage hid some faces."""
  if level not in curve.rows:
    return ''
  row = curve.rows[level]
  text = tables.shown('auc', row.estimate)
  whole = curve.rows.get(0, row)
  num, before = row.num_real + row.num_fake, whole.num_real + whole.num_fake
  return text if num == before else f'{text}, {num} of {before} videos'


def make_plots(rows: Sequence[measurement.Row]) -> list[tuple[str, str]]:
  """(Title, SVG) of each table's curves."""
  return [
    (
      f'{base}, {system}, damaged {"crops" if of_crops else "videos"}:'
      f' {_PARTS[part]}',
      plots.by_level({c.kind: _estimates(c) for c in own}, 'AUC, %'),
    )
    for (system, base, of_crops, part), own in _by_table(curves(rows)).items()
  ]


def _estimates(curve: Curve) -> list[tuple[int, bootstrap.Estimate]]:
  return [(level, row.estimate) for level, row in sorted(curve.rows.items())]


def lines(rows: Sequence[measurement.Row]) -> list[list]:
  """Lines of robustness.csv under `HEADER`; level 0 once for each kind."""
  return [
    [
      *(curve.system, curve.base, 'crops' if curve.of_crops else 'videos'),
      *(curve.part, curve.kind, level, row.figure),
      *(row.estimate.value, row.estimate.low, row.estimate.high),
      *(row.num_real, row.num_fake),
    ]
    for curve in curves(rows)
    for level, row in sorted(curve.rows.items())
  ]


HEADER = (
  *('system', 'dataset', 'damaged', 'part', 'kind', 'level', 'figure'),
  *('value', 'low', 'high', 'num_real', 'num_fake'),
)


def _by_table(
  made: Sequence[Curve],
) -> dict[tuple[str, str, bool, str], list[Curve]]:
  grouped: dict[tuple[str, str, bool, str], list[Curve]] = {}
  for curve in made:
    key = (curve.system, curve.base, curve.of_crops, curve.part)
    grouped.setdefault(key, []).append(curve)
  return grouped
