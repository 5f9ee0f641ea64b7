"""Scores and a protocol -> every figure, in rows.

Enter: `SavedScores` of systems on data sets, a `Protocol` for each. Leave:
`Row`s, one a figure with its interval: overall, by the conventions of others,
by level, per method, scenario, identity and group, over several sets; and
`Difference`s of two systems on the same videos. Everything that `evaluate`
prints and `report` tabulates comes from here.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import itertools
import math

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import (
  aggregation,
  bootstrap,
  delong,
  metrics,
  score_file,
)
from stormer_jax.scoring import protocol as protocol_lib

# What a part of the fakes is measured by, against all real videos, and what
# two systems are compared by.
PART_FIGURES = ('auc', 'eer', 'tpr')
COMPARED = ('auc', 'average_precision', 'eer', 'accuracy', 'tpr_at_5_fpr')
_BRIEF = ('auc',)
_MOST_PAIRED = 4  # more systems are compared with the first alone


@dataclasses.dataclass(frozen=True)
class Row:
  """One figure.

  Attributes:
    system: What scored.
    dataset: NAME:SPLIT; 'mean' or 'pooled' over several.
    convention: Whose rules: 'ours' is the protocol, others are names of
      `protocol.CONVENTIONS`.
    level: What is ranked: 'video', 'clip' or 'frame'.
    part: What the figure is of: 'all', 'method', 'scenario', 'identity',
      'group', or 'mean' of the groups.
    name: Which method, scenario, identity or group.
    figure: Name in `metrics.figures`, or 'coverage'.
    estimate: Value and interval.
    num_real: Real videos (or clips) that it is of.
    num_fake: Fake ones.
  """

  system: str
  dataset: str
  convention: str
  level: str
  part: str
  name: str
  figure: str
  estimate: bootstrap.Estimate
  num_real: int
  num_fake: int


@dataclasses.dataclass(frozen=True)
class Difference:
  """A figure of one system minus that of another, on the videos of both."""

  first: str
  second: str
  dataset: str
  figure: str
  estimate: bootstrap.Estimate
  num_videos: int
  p_value: float  # DeLong's, for the AUC; else nan


@dataclasses.dataclass(frozen=True)
class _Units:
  """What is ranked: rows of a data set, or clips of them."""

  rows: Int[np.ndarray, 'n']  # of the saved scores
  sample: bootstrap.Sample

  def select(self, keep: np.ndarray) -> '_Units':
    labels, scores, clusters = self.sample
    assert clusters is not None
    return _Units(
      self.rows[keep],
      bootstrap.Sample(labels[keep], scores[keep], clusters[keep]),
    )


def measure(
  scores: score_file.SavedScores,
  protocol: protocol_lib.Protocol,
  *,
  brief: bool = False,
) -> tuple[Row, ...]:
  """Measures one system on one data set.

  Args:
    scores: Of the system.
    protocol: How figures are made of them.
    brief: The AUC and the coverage alone, and nothing by the conventions of
      others, by other levels or by identity.

  Raises:
    ValueError: If the level asks for clip logits and there are none.
  """
  units = _units(scores, protocol)
  num_failed = int(np.sum(~scores.scored))
  rows = [
    *_rows(scores, protocol, units, _BRIEF if brief else None),
    Row(
      system=scores.system,
      dataset=scores.dataset,
      convention='ours',
      level='video',
      part='all',
      name='',
      figure='coverage',
      estimate=bootstrap.share(
        len(scores.video) - num_failed, len(scores.video)
      ),
      num_real=int(np.sum(scores.labels == 0)),
      num_fake=int(np.sum(scores.labels == 1)),
    ),
  ]
  for part, name, own in _parts(scores, units):
    if brief and part == 'identity':
      continue
    figures = _BRIEF if brief else PART_FIGURES
    rows += _rows(scores, protocol, own, figures, part=part, name=name)
  groups = _groups(scores, units)
  if groups:
    mean = bootstrap.mean(
      [own.sample for own in groups.values()],
      'auc',
      num_bootstrap=protocol.num_bootstrap,
    )
    (overall,) = [row for row in rows if row.figure == 'auc'][:1]
    rows.append(
      dataclasses.replace(
        overall, part='mean', name='of the groups', estimate=mean
      )
    )
  if brief:
    return tuple(rows)
  return (*rows, *_of_others(scores, protocol), *_levels(scores, protocol))


def over_sets(
  scores: Sequence[score_file.SavedScores],
  protocols: Sequence[protocol_lib.Protocol],
) -> tuple[Row, ...]:
  """Measures one system over several data sets: their mean, and all pooled.

  One threshold has to serve a mixture of sources, which the mean does not ask:
  arXiv 2606.19184.
  """
  if len(scores) < 2:
    return ()
  units = [_units(s, p) for s, p in zip(scores, protocols, strict=True)]
  samples = [own.sample for own in units]
  protocol = protocols[0]
  pool, strata = bootstrap.pooled(samples)
  together = bootstrap.estimates(
    pool.labels,
    pool.scores,
    clusters=pool.clusters,
    strata=strata,
    names=('auc', 'eer'),
    num_bootstrap=protocol.num_bootstrap,
  )
  means = {
    name: bootstrap.mean(samples, name, num_bootstrap=protocol.num_bootstrap)
    for name in together
  }
  return tuple(
    Row(
      system=scores[0].system,
      dataset=over,
      convention='ours',
      level=protocol.level,
      part='all',
      name='',
      figure=name,
      estimate=estimate,
      num_real=int(np.sum(pool.labels == 0)),
      num_fake=int(np.sum(pool.labels == 1)),
    )
    for over, figures in (('mean', means), ('pooled', together))
    for name, estimate in figures.items()
  )


def compare(
  first: score_file.SavedScores,
  second: score_file.SavedScores,
  protocol: protocol_lib.Protocol,
  second_protocol: protocol_lib.Protocol,
) -> tuple[Difference, ...]:
  """Compares two systems on the videos that both have scored.

  Returns:
    first - second by figure, with the interval of the paired bootstrap; for
    the AUC DeLong's p-value too, where no videos belong together.
  """
  units, others = _of_both(first, second, protocol, second_protocol)
  mine, other = units.sample, others.sample
  estimates = bootstrap.differences(
    mine.labels,
    mine.scores,
    other.scores,
    threshold=protocol.threshold,
    second_threshold=second_protocol.threshold,
    names=COMPARED,
    num_bootstrap=protocol.num_bootstrap,
    clusters=mine.clusters,
  )
  p_value = math.nan
  assert mine.clusters is not None
  alone = len(np.unique(mine.clusters)) == len(mine.labels)
  if alone and min(np.bincount(mine.labels, minlength=2)) > 1:
    p_value = delong.compare(mine.labels, mine.scores, other.scores).p_value
  return tuple(
    Difference(
      first=first.system,
      second=second.system,
      dataset=first.dataset,
      figure=name,
      estimate=estimate,
      num_videos=len(mine.labels),
      p_value=p_value if name == 'auc' else math.nan,
    )
    for name, estimate in estimates.items()
  )


def auc_changes(
  first: score_file.SavedScores,
  second: score_file.SavedScores,
  protocol: protocol_lib.Protocol,
  second_protocol: protocol_lib.Protocol,
) -> dict[str, tuple[bootstrap.Estimate, int]]:
  """Compares the AUCs of one system on the same videos, otherwise kept.

  Returns:
    By part, 'all' and where there are groups 'mean' (of them): first - second
    over the videos that have a score both times, with the interval of the
    paired bootstrap, and their number.
  """
  units, others = _of_both(first, second, protocol, second_protocol)
  found = {'all': [(units.sample, others.sample)]}
  names = np.array(first.group, object)[units.rows]
  if groups := _groups(first, units):
    found['mean'] = [
      (own.sample, others.select(names == name).sample)
      for name, own in groups.items()
    ]
  return {
    part: (
      bootstrap.mean_difference(
        samples, 'auc', num_bootstrap=protocol.num_bootstrap
      ),
      sum(len(one.labels) for one, _ in samples),
    )
    for part, samples in found.items()
  }


def _of_both(
  first: score_file.SavedScores,
  second: score_file.SavedScores,
  protocol: protocol_lib.Protocol,
  second_protocol: protocol_lib.Protocol,
) -> tuple[_Units, _Units]:
  """The videos that both have scored, in one order."""
  units = _units(first, dataclasses.replace(protocol, level='video'))
  others = _units(second, dataclasses.replace(second_protocol, level='video'))
  place = {second.keys[row]: i for i, row in enumerate(others.rows.tolist())}
  shared = [
    (i, place[first.keys[row]])
    for i, row in enumerate(units.rows.tolist())
    if first.keys[row] in place
  ]
  ours, theirs = np.array(shared, int).reshape(-1, 2).T
  return units.select(ours), others.select(theirs)


def pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
  """Names who is compared: each two of few; of many, each with the first."""
  if len(systems) <= _MOST_PAIRED:
    return list(itertools.combinations(systems, 2))
  return [(systems[0], other) for other in systems[1:]]


def worst(rows: Iterable[Row], part: str = 'method') -> Row | None:
  """The part of the fakes with the lowest AUC; None where there is no part.

  Of many parts one is the lowest by chance as well: its interval is that of
  itself, not that of a minimum.
  """
  found = [
    row
    for row in rows
    if (row.part, row.figure) == (part, 'auc')
    and not math.isnan(row.estimate.value)
  ]
  return min(found, key=lambda row: row.estimate.value, default=None)


def video_scores(
  scores: score_file.SavedScores, protocol: protocol_lib.Protocol
) -> np.ndarray:
  """Aggregates each video as the protocol says: [n], nan without a score."""
  if protocol.aggregation == 'as given':
    result = scores.scores.copy()
  else:
    result = np.array(
      [
        _aggregate(np.array(logits), protocol) if logits else given
        for logits, given in zip(scores.clip_logits, scores.scores, strict=True)
      ],
      float,
    )
  if protocol.failed_videos == 'half':
    result[np.isnan(result)] = 0.5
  return result


def _aggregate(
  logits: Float[np.ndarray, 'clips'], protocol: protocol_lib.Protocol
) -> float:
  if protocol.calibration and protocol.aggregation == 'mean_logit':
    slope, intercept = protocol.calibration
    mean = slope * np.mean(np.sort(logits)) + intercept
    return float(metrics.sigmoid(np.array(mean)))
  return aggregation.aggregate(
    logits, protocol.aggregation, frames_per_clip=protocol.clip_length or 1
  )


def _units(
  scores: score_file.SavedScores, protocol: protocol_lib.Protocol
) -> _Units:
  clusters = scores.clusters(protocol.resample_by)
  if protocol.level == 'video':
    values = video_scores(scores, protocol)
    rows = np.flatnonzero(np.isfinite(values))
    return _Units(
      rows,
      bootstrap.Sample(scores.labels[rows], values[rows], clusters[rows]),
    )
  if not any(scores.clip_logits):
    raise ValueError(
      f'{scores.system}: no clip logits; eval.level={protocol.level} needs'
      ' them, eval.level=video does not'
    )
  # A frame has the score of its clip, and all clips are of one length: both
  # levels rank the same, and no resample tells them apart.
  rows = np.repeat(
    np.arange(len(scores.video)), [len(c) for c in scores.clip_logits]
  )
  values = metrics.sigmoid(
    np.array(list(itertools.chain(*scores.clip_logits)), float)
  )
  return _Units(
    rows, bootstrap.Sample(scores.labels[rows], values, clusters[rows])
  )


def _rows(
  scores: score_file.SavedScores,
  protocol: protocol_lib.Protocol,
  units: _Units,
  figures: Sequence[str] | None = None,
  *,
  part: str = 'all',
  name: str = '',
  convention: str = 'ours',
  strict: bool = False,
) -> list[Row]:
  """Measures units by some figures, or by all."""
  labels, values, clusters = units.sample
  num_fake = int(labels.sum())
  return [
    Row(
      system=scores.system,
      dataset=scores.dataset,
      convention=convention,
      level=protocol.level,
      part=part,
      name=name,
      figure=figure,
      estimate=estimate,
      num_real=len(labels) - num_fake,
      num_fake=num_fake,
    )
    for figure, estimate in bootstrap.estimates(
      labels,
      values,
      threshold=protocol.threshold,
      strict=strict,
      names=figures,
      num_bootstrap=protocol.num_bootstrap,
      clusters=clusters,
    ).items()
  ]


def _parts(
  scores: score_file.SavedScores, units: _Units
) -> list[tuple[str, str, _Units]]:
  """Splits the units by method and scenario of the fakes, and by identity."""
  result = []
  labels = units.sample.labels
  groups = np.array(scores.group, str)[units.rows]
  for part in ('method', 'scenario'):
    names = np.array(getattr(scores, part), object)[units.rows]
    kinds = sorted({n for n in names[labels == 1] if n})
    if len(kinds) > 1 or (kinds and part == 'scenario'):
      for name in kinds:
        fakes = (labels == 1) & (names == name)
        # Groups differ in more than who is fake: their own real videos count.
        own_reals = (labels == 0) & np.isin(groups, groups[fakes])
        reals = own_reals if own_reals.any() else labels == 0
        result.append((part, name, units.select(fakes | reals)))
  names = np.array(scores.identity, object)[units.rows]
  for name in sorted({n for n in names if n}):
    own = units.select(names == name)
    # Of one class there is nothing to tell apart.
    if 0 < own.sample.labels.sum() < len(own.sample.labels):
      result.append(('identity', name, own))
  result += [
    ('group', name, own) for name, own in _groups(scores, units).items()
  ]
  return result


def _groups(
  scores: score_file.SavedScores, units: _Units
) -> Mapping[str, _Units]:
  """Each group with its own real videos."""
  names = np.array(scores.group, object)[units.rows]
  kinds = sorted({n for n in names if n})
  if len(kinds) < 2:
    return {}
  return {name: units.select(names == name) for name in kinds}


def _of_others(
  scores: score_file.SavedScores, protocol: protocol_lib.Protocol
) -> list[Row]:
  """The figures by the conventions of others."""
  rows = []
  has_clips = any(scores.clip_logits)
  for name in protocol.conventions:
    convention = protocol_lib.CONVENTIONS[name]
    theirs = dataclasses.replace(
      protocol,
      level='video',
      aggregation=convention.aggregation if has_clips else 'as given',
      failed_videos=convention.failed_videos,
      threshold=0.5,
      calibration=(),
    )
    rows += _rows(
      scores,
      theirs,
      _units(scores, theirs),
      convention.figures,
      convention=name,
      strict=convention.strict,
    )
  return rows


def _levels(
  scores: score_file.SavedScores, protocol: protocol_lib.Protocol
) -> list[Row]:
  """The AUC and EER at the levels that the protocol is not of."""
  if not any(scores.clip_logits):
    return []
  rows = []
  for level in protocol_lib.LEVELS:
    if level != protocol.level:
      other = dataclasses.replace(protocol, level=level)
      rows += _rows(scores, other, _units(scores, other), ('auc', 'eer'))
  return rows
