"""Intervals of figures: by resampling the videos, or what holds them together.

Enter: labels and scores of videos and, where videos belong together, a cluster
of each. Leave: `Estimate`s, a figure with its 95 % interval, and draws of
figures, one for each resample. Resamples keep the number of each class (they
are stratified) and the videos of one cluster together: a real video and the
fakes made of it are no independent witnesses. Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapters 13 and 16.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import math
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import metrics

# So many weights are handled at a time: what a core keeps in its cache.
_CHUNK = 250_000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A figure and its 95 % interval; nan where undefined, `note` says why."""

  value: float
  low: float
  high: float
  note: str = ''


class Sample(NamedTuple):
  """Videos that were scored: 0 real or 1 fake, score, cluster."""

  labels: Int[np.ndarray, 'n']
  scores: Float[np.ndarray, 'n']
  clusters: Int[np.ndarray, 'n'] | None = None


def estimates(
  labels: Int[np.ndarray, 'n'],
  scores: Float[np.ndarray, 'n'],
  *,
  threshold: float = 0.5,
  strict: bool = False,
  names: Sequence[str] | None = None,
  num_bootstrap: int = 1000,
  seed: int = 0,
  clusters: Int[np.ndarray, 'n'] | None = None,
  strata: Int[np.ndarray, 'n'] | None = None,
) -> dict[str, Estimate]:
  """Computes figures with their intervals.

  An interval is the range between the 2.5th and 97.5th percentile over
  resamples.

  Args:
    labels: 0 real, 1 fake, of the videos that have a score.
    scores: Finite, higher is more fake.
    threshold: Score from which a video is called fake.
    strict: Whether a score equal to the threshold is called real.
    names: Figures of `metrics.figures`; None: all of them.
    num_bootstrap: Number of resamples; 0 for no intervals.
    seed: The same seed gives the same interval.
    clusters: Equal numbers mark videos drawn together; None: each on its own.
    strata: Number of the part each video is of, of which a resample draws as
      many as there are (as the sets of `pooled`); None: all are of one.

  Returns:
    An estimate for each name, in their order.

  Raises:
    ValueError: If a label is neither 0 nor 1, or a score is not finite.
  """
  metrics.check(labels, scores)
  figures = metrics.figures(threshold, strict=strict)
  names = list(figures) if names is None else list(names)
  reasons = {name: metrics.undefined(name, labels, scores) for name in names}
  defined = [name for name in names if not reasons[name]]
  sample = Sample(labels, scores, clusters)
  values: dict[str, float] = {}
  draws: dict[str, np.ndarray] = {}
  if defined:
    curve = metrics.curve(labels, scores)
    values = {name: float(figures[name](curve)[0]) for name in defined}
    draws = draw(
      sample,
      threshold=threshold,
      strict=strict,
      names=defined,
      num_bootstrap=num_bootstrap,
      seed=seed,
      strata=strata,
    )
  why_none = (
    too_few(labels, clusters, strata) if num_bootstrap and defined else ''
  )
  return {
    name: undefined(reasons[name])
    if reasons[name]
    else summary(values[name], draws.get(name), why_none)
    for name in names
  }


def differences(
  labels: Int[np.ndarray, 'n'],
  first: Float[np.ndarray, 'n'],
  second: Float[np.ndarray, 'n'],
  *,
  threshold: float = 0.5,
  second_threshold: float | None = None,
  names: Sequence[str] | None = None,
  num_bootstrap: int = 1000,
  seed: int = 0,
  clusters: Int[np.ndarray, 'n'] | None = None,
) -> dict[str, Estimate]:
  """Computes figures of one system minus those of another, same videos.

  Both are measured on the same resamples, so that what makes a resample easy
  for both cancels.

  Args:
    labels: 0 real, 1 fake, of the videos that both have scored.
    first: Scores of the one system, in the order of the labels.
    second: Scores of the other.
    threshold: Score from which the first calls a video fake.
    second_threshold: Likewise the second; None: the same.
    names: Figures of `metrics.figures`; None: all of them.
    num_bootstrap: Number of resamples; 0 for no intervals.
    seed: The same seed gives the same interval.
    clusters: As in `estimates`.

  Returns:
    first - second for each name; the interval is that of the difference.
  """
  thresholds = (
    threshold,
    threshold if second_threshold is None else second_threshold,
  )
  names = list(metrics.figures()) if names is None else list(names)
  reasons = {
    name: metrics.undefined(name, labels, first)
    or metrics.undefined(name, labels, second)
    for name in names
  }
  defined = [name for name in names if not reasons[name]]
  both = [
    (
      estimates(labels, scores, threshold=at, names=defined, num_bootstrap=0),
      draw(
        Sample(labels, scores, clusters),
        threshold=at,
        names=defined,
        num_bootstrap=num_bootstrap,
        seed=seed,
      ),
    )
    for scores, at in zip((first, second), thresholds, strict=True)
  ]
  (values, draws), (other_values, other_draws) = both
  why_none = too_few(labels, clusters) if num_bootstrap and defined else ''
  return {
    name: undefined(reasons[name])
    if reasons[name]
    else summary(
      values[name].value - other_values[name].value,
      draws[name] - other_draws[name] if name in draws else None,
      why_none,
    )
    for name in names
  }


def mean(
  samples: Sequence[Sample],
  name: str,
  *,
  threshold: float = 0.5,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Estimate:
  """Computes the mean of a figure over samples, each resampled by itself.

  Args:
    samples: Of data sets or of groups, with no video in two of them.
    name: Of `metrics.figures`.
    threshold: As in `estimates`.
    num_bootstrap: As in `estimates`.
    seed: As in `estimates`.

  Returns:
    nan with the reason of the first sample that has not the figure.
  """
  for sample in samples:
    reason = metrics.undefined(name, sample.labels, sample.scores)
    if reason:
      return undefined(f'{reason} in one of them')
  if not samples:
    return undefined('there is none to take the mean of')
  values, draws, why_none = [], [], ''
  for index, sample in enumerate(samples):
    values.append(metrics.single(name, sample.labels, sample.scores, threshold))
    why_none = why_none or too_few(sample.labels, sample.clusters)
    # Seeds apart: resamples of one sample say nothing of another.
    drawn = draw(
      sample,
      threshold=threshold,
      names=[name],
      num_bootstrap=num_bootstrap,
      seed=(seed, index),
    )
    draws += list(drawn.values())
  value = float(np.mean(values))
  if len(draws) < len(samples):
    return summary(value, None, why_none)
  return summary(value, np.mean(draws, axis=0), why_none)


def mean_difference(
  samples: Sequence[tuple[Sample, Sample]],
  name: str,
  *,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Estimate:
  """Computes the mean of a figure over some samples minus that over others.

  Args:
    samples: The same videos twice, otherwise scored; both are measured on the
      same resamples. Of several pairs, each is resampled by itself.
    name: Of `metrics.figures`; one without a threshold.
    num_bootstrap: As in `estimates`.
    seed: As in `estimates`.

  Returns:
    first - second; nan with the reason of the first that has not the figure.
  """
  for sample in itertools.chain(*samples):
    reason = metrics.undefined(name, sample.labels, sample.scores)
    if reason:
      several = ' in one of them' if len(samples) > 1 else ''
      return undefined(f'{reason}{several}')
  values, draws, why_none = [], [], ''
  for index, (first, second) in enumerate(samples):
    why_none = why_none or too_few(first.labels, first.clusters)
    values.append(
      metrics.single(name, first.labels, first.scores)
      - metrics.single(name, second.labels, second.scores)
    )
    if num_bootstrap and not why_none:
      one, other = (
        draw(
          # The clusters of both are those of the first.
          Sample(first.labels, sample.scores, first.clusters),
          names=[name],
          num_bootstrap=num_bootstrap,
          seed=(seed, index),
        )[name]
        for sample in (first, second)
      )
      draws.append(one - other)
  whole = np.mean(draws, axis=0) if len(draws) == len(samples) else None
  return summary(float(np.mean(values)), whole, why_none)


def pooled(samples: Sequence[Sample]) -> tuple[Sample, Int[np.ndarray, 'n']]:
  """Joins samples into one, and says which one each video is of."""
  labels = np.concatenate([sample.labels for sample in samples])
  scores = np.concatenate([sample.scores for sample in samples])
  clusters, strata, used = [], [], 0
  for index, sample in enumerate(samples):
    own = _clusters(sample)
    clusters.append(own + used)
    used += own.max(initial=-1) + 1
    strata.append(np.full(len(own), index))
  return (
    Sample(labels, scores, np.concatenate(clusters)),
    np.concatenate(strata),
  )


def draw(
  sample: Sample,
  *,
  threshold: float = 0.5,
  strict: bool = False,
  names: Sequence[str],
  num_bootstrap: int,
  seed: int | Sequence[int] = 0,
  strata: Int[np.ndarray, 'n'] | None = None,
) -> dict[str, Float[np.ndarray, 'b']]:
  """Computes figures on resamples of the videos.

  Args:
    sample: The videos; both classes, where a figure needs both.
    threshold: As in `estimates`.
    strict: As in `estimates`.
    names: Figures of `metrics.figures`.
    num_bootstrap: Number of resamples.
    seed: Any seed of NumPy's.
    strata: As in `estimates`.

  Returns:
    num_bootstrap values by name; nothing where `too_few` has a reason.
  """
  labels, _, clusters = sample
  if not num_bootstrap or not names or too_few(labels, clusters, strata):
    return {}
  figures = metrics.figures(threshold, strict=strict)
  ranking = metrics.Ranking(sample.labels, sample.scores)
  parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
  for weights in resamples(
    sample.labels, _clusters(sample), num_bootstrap, seed, strata
  ):
    curve = ranking(weights)
    for name in names:
      parts[name].append(figures[name](curve))
  return {name: np.concatenate(part) for name, part in parts.items()}


def resamples(
  labels: Int[np.ndarray, 'n'],
  clusters: Int[np.ndarray, 'n'],
  num_bootstrap: int,
  seed: int | Sequence[int],
  strata: Int[np.ndarray, 'n'] | None = None,
) -> Iterator[Float[np.ndarray, 'b n']]:
  """Yields how often each video was drawn, a row a resample, some at a time."""
  ids, position = np.unique(clusters, return_inverse=True)
  position = position.reshape(-1)
  kinds = _kinds(labels, clusters, strata)
  generators = np.random.default_rng(seed).spawn(len(kinds))
  step = max(1, _CHUNK // max(1, len(labels)))
  for start in range(0, num_bootstrap, step):
    rows = min(step, num_bootstrap - start)
    counts = np.empty((rows, len(ids)))
    for rng, members in zip(generators, kinds, strict=True):
      size = len(members)
      drawn = rng.integers(0, size, (rows, size))
      drawn += size * np.arange(rows)[:, None]
      counts[:, members] = np.bincount(
        drawn.reshape(-1), minlength=rows * size
      ).reshape(rows, size)
    yield counts[:, position]


def too_few(
  labels: Int[np.ndarray, 'n'],
  clusters: Int[np.ndarray, 'n'] | None,
  strata: Int[np.ndarray, 'n'] | None = None,
) -> str:
  """Says where there is nothing to resample, '' if nowhere."""
  own = np.arange(len(labels)) if clusters is None else clusters
  if any(len(kind) < 2 for kind in _kinds(labels, own, strata)):
    return 'no interval: only one video of its kind to draw from'
  return ''


def summary(
  value: float, draws: Float[np.ndarray, 'b'] | None, why_none: str = ''
) -> Estimate:
  """Makes an estimate of a value and its draws, if there are any."""
  if draws is None:
    return Estimate(value, math.nan, math.nan, why_none)
  low, high = np.percentile(draws, [2.5, 97.5])
  note = ''
  if low == high:
    note = 'every resample gives the same: the interval says too little'
  return Estimate(value, float(low), float(high), note)


def undefined(reason: str) -> Estimate:
  """An estimate of what cannot be measured."""
  return Estimate(math.nan, math.nan, math.nan, reason)


def share(count: int, total: int) -> Estimate:
  """A share of a count, with Wilson's interval.

  Wilson, J. Am. Stat. Assoc. 22, 1927: it is right near 0 and 1 too.
  """
  if not total:
    return undefined('there is no video')
  z = 1.959963984540054
  p = count / total
  centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
  half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
  half /= 1 + z**2 / total
  # At the ends rounding may leave the value just outside.
  return Estimate(p, min(centre - half, p), max(centre + half, p))


def _clusters(sample: Sample) -> Int[np.ndarray, 'n']:
  if sample.clusters is None:
    return np.arange(len(sample.labels))
  return sample.clusters


def _kinds(
  labels: np.ndarray, clusters: np.ndarray, strata: np.ndarray | None
) -> list[np.ndarray]:
  """Splits the clusters into those that stand for each other.

  They are those with equal numbers of real and of fake videos; where one has
  no equal, those that hold the same classes.
  """
  ids, first, position = np.unique(
    clusters, return_index=True, return_inverse=True
  )
  position = position.reshape(-1)
  fake = np.bincount(position, weights=labels, minlength=len(ids))
  real = np.bincount(position, minlength=len(ids)) - fake
  part = np.zeros(len(ids)) if strata is None else strata[first]
  exact = _split(np.stack([real, fake, part]))
  if all(len(kind) > 1 for kind in exact):
    return exact
  return _split(np.stack([real > 0, fake > 0, part]))


def _split(content: np.ndarray) -> list[np.ndarray]:
  _, kind = np.unique(content, axis=1, return_inverse=True)
  kind = kind.reshape(-1)
  return [np.flatnonzero(kind == k) for k in range(kind.max(initial=-1) + 1)]
