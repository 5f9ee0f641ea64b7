"""Figures of a data set under damage -> tables and curves of robustness.

Enter: scores and rows of `measurement`. Leave: for each system and data set a
table of kinds by levels, one of the changes that the damage makes, a curve of
it, and the lines of robustness.csv. A damaged set
is known by its name: NAME-KIND-LEVEL, as `prepare --corrupt` writes it, whose
videos were damaged before faces were cut out; or NAME-crops-KIND-LEVEL, as
`evaluate --corrupt` names it, the crops of NAME damaged. Level 0 is NAME.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
import re

from stormer_jax.scoring import (
  bootstrap,
  measurement,
  plots,
  protocol,
  score_file,
  tables,
)

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


@dataclasses.dataclass(frozen=True)
class Change:
  """What damage did to an AUC: with it minus without, same videos.

  Attributes:
    system: What scored.
    dataset: The damaged set.
    part: As of a `Curve`.
    estimate: The difference; its interval is of the paired bootstrap.
    num_videos: That have a score both ways.
  """

  system: str
  dataset: str
  part: str
  estimate: bootstrap.Estimate
  num_videos: int


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


def changes(
  scored: Iterable[tuple[score_file.SavedScores, protocol.Protocol]],
) -> tuple[Change, ...]:
  """Measures what damage changed, over videos, of each system and set."""
  by_key = {(s.system, s.dataset): (s, p) for s, p in scored}
  made = []
  for (system, dataset), (own, own_protocol) in by_key.items():
    found = parse(dataset)
    if found and (whole := by_key.get((system, found.base))):
      for part, (estimate, num) in measurement.auc_changes(
        own, whole[0], own_protocol, whole[1]
      ).items():
        made.append(Change(system, dataset, part, estimate, num))
  return tuple(made)


def make_tables(
  rows: Sequence[measurement.Row], changed: Sequence[Change] = ()
) -> list[tables.Table]:
  """Kinds by levels, a table for each system, set and figure, and its changes.

  Args:
    rows: Of all sets.
    changed: From `changes`; where there is none, no table of them.
  """
  by_set = _by_set(changed)
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
    cells = tuple(
      (curve.kind, *(_change(curve, level, by_set) for level in _LEVELS[1:]))
      for curve in own
    )
    if any(any(row[1:]) for row in cells):
      made.append(
        tables.Table(
          f'Change by damage: {base}, {system}, damaged {of}: {_PARTS[part]}',
          ('damage', *(f'level {i}' for i in _LEVELS[1:])),
          cells,
          'With the damage minus without, in points, on the videos that have a'
          ' score both ways, with the 95 % interval of the paired bootstrap. An'
          ' interval without 0 is a change that the number of videos does not'
          ' explain.',
        )
      )
  return made


def _by_set(
  changed: Sequence[Change],
) -> dict[tuple[str, str, str], Change]:
  return {(c.system, c.dataset, c.part): c for c in changed}


def _change(
  curve: Curve, level: int, by_set: dict[tuple[str, str, str], Change]
) -> str:
  found = _find_change(curve, level, by_set)
  return tables.shown_difference('auc', found.estimate) if found else ''


def _find_change(
  curve: Curve, level: int, by_set: dict[tuple[str, str, str], Change]
) -> Change | None:
  if level not in curve.rows:
    return None
  return by_set.get((curve.system, curve.rows[level].dataset, curve.part))


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


def lines(
  rows: Sequence[measurement.Row], changed: Sequence[Change] = ()
) -> list[list]:
  """Lines of robustness.csv under `HEADER`; level 0 once for each kind."""
  by_set = _by_set(changed)
  made = []
  for curve in curves(rows):
    for level, row in sorted(curve.rows.items()):
      change = _find_change(curve, level, by_set)
      by = change.estimate if change else bootstrap.undefined('')
      made.append(
        [
          *(curve.system, curve.base, 'crops' if curve.of_crops else 'videos'),
          *(curve.part, curve.kind, level, row.figure),
          *(row.estimate.value, row.estimate.low, row.estimate.high),
          *(row.num_real, row.num_fake),
          *(by.value, by.low, by.high),
          change.num_videos if change else math.nan,
        ]
      )
  return made


HEADER = (
  *('system', 'dataset', 'damaged', 'part', 'kind', 'level', 'figure'),
  *('value', 'low', 'high', 'num_real', 'num_fake'),
  # With the damage minus without, of so many videos.
  *('change', 'change_low', 'change_high', 'num_both'),
)


def _by_table(
  made: Sequence[Curve],
) -> dict[tuple[str, str, bool, str], list[Curve]]:
  grouped: dict[tuple[str, str, bool, str], list[Curve]] = {}
  for curve in made:
    key = (curve.system, curve.base, curve.of_crops, curve.part)
    grouped.setdefault(key, []).append(curve)
  return grouped
