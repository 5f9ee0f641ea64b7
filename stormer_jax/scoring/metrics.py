"""Figures of merit over videos, on the host in NumPy.

Enter: one label (0 real, 1 fake) and one score (higher means more fake) per
video. Leave: AUC, average precision, equal error rate and accuracy, all in
[0, 1], each with a 95 % interval. What cannot be measured is nan with a reason,
never a number. METHOD section 9 scores a video, section 12 says how wide an
interval to expect.
"""

from collections.abc import Callable
import dataclasses

from jaxtyping import Bool, Float, Int
import numpy as np

# A resample is a row of weights; so many weights are handled at a time.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A figure and its 95 % interval; nan where undefined, `note` says why."""

  value: float
  low: float
  high: float
  note: str = ''


def video_scores(
  clip_logits: Float[np.ndarray, 'clips'],
  video_index: Int[np.ndarray, 'clips'],
  num_videos: int,
) -> tuple[Float[np.ndarray, 'v'], Float[np.ndarray, 'v']]:
  """Averages clip logits per video; the order of the clips is of no effect.

  Returns:
    The mean logit of each video and its sigmoid, the probability of fake;
    both nan for a video without clips. METHOD section 9.
  """
  if clip_logits.size and not 0 <= video_index.min() <= video_index.max() < (
    num_videos
  ):
    raise ValueError(
      f'video_index runs from {video_index.min()} to {video_index.max()}; '
      f'expected 0 to {num_videos - 1}'
    )
  # Sorted within a video, so that a sum does not depend on the clip order.
  order = np.lexsort((clip_logits, video_index))
  total = np.bincount(
    video_index[order],
    weights=clip_logits[order].astype(np.float64),
    minlength=num_videos,
  )
  count = np.bincount(video_index, minlength=num_videos)
  logits = np.full(num_videos, np.nan)
  np.divide(total, count, out=logits, where=count > 0)
  return logits, sigmoid(logits)


def sigmoid(logits: Float[np.ndarray, '*s']) -> Float[np.ndarray, '*s']:
  """Computes 1 / (1 + exp(-x)) in float64 without overflow."""
  logits = np.asarray(logits, np.float64)
  small = np.exp(-np.abs(logits))
  return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def auc(labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']) -> float:
  """Computes the area under the ROC curve: exact, a tie counts one half.

  nan if a class is missing, as in `average_precision` and `eer`.
  """
  return _single(_auc, labels, scores)


def average_precision(
  labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
) -> float:
  """Computes the sum of precision times recall step; fake is positive."""
  return _single(_average_precision, labels, scores)


def eer(labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']) -> float:
  """Computes the error rate where false alarms equal misses.

  The ROC curve is linear between its points, so such a place exists.
  """
  return _single(_eer, labels, scores)


def accuracy(
  labels: Int[np.ndarray, 'n'],
  scores: Float[np.ndarray, 'n'],
  threshold: float = 0.5,
) -> float:
  """Computes the share of right answers when score >= threshold says fake."""
  if not len(labels):
    return float('nan')
  return float(np.mean((scores >= threshold) == (labels == 1)))


def estimates(
  labels: Int[np.ndarray, 'n'],
  scores: Float[np.ndarray, 'n'],
  *,
  threshold: float,
  num_bootstrap: int,
  seed: int = 0,
  groups: Int[np.ndarray, 'n'] | None = None,
) -> dict[str, Estimate]:
  """Computes every figure with its interval.

  The interval is the range between the 2.5th and 97.5th percentile over
  resamples of the videos. Resampling keeps the number of each class, and keeps
  videos of one group together (a real video and its pseudo-fake are no
  independent witnesses).

  Args:
    labels: 0 real, 1 fake, of the videos that have a score.
    scores: Finite, higher is more fake; a probability for the accuracy.
    threshold: Score from which a video is called fake.
    num_bootstrap: Number of resamples; 0 for no intervals.
    seed: The same seed gives the same interval.
    groups: Equal numbers mark videos drawn together; None: each on its own.

  Returns:
    'auc', 'average_precision', 'eer' and 'accuracy', in this order.

  Raises:
    ValueError: If a label is neither 0 nor 1, or a score is not finite.
  """
  _check(labels, scores)
  groups = np.arange(len(labels)) if groups is None else groups
  reason = _undefined(labels)
  correct = (scores >= threshold) == (labels == 1)
  mass = _Mass(labels, scores)
  figures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'auc': lambda w: _auc(*mass(w)),
    'average_precision': lambda w: _average_precision(*mass(w)),
    'eer': lambda w: _eer(*mass(w)),
    'accuracy': lambda w: w @ correct.astype(np.float64) / w.sum(1),
  }
  ones = np.ones((1, len(labels)))
  if reason:
    values = {name: np.full(1, np.nan) for name in figures}
    if len(labels):
      values['accuracy'] = figures['accuracy'](ones)
  else:
    values = {name: figure(ones) for name, figure in figures.items()}

  narrow = _too_few(labels, groups)
  if num_bootstrap and len(labels) and not narrow:
    names = ['accuracy'] if reason else list(figures)
    draws = _bootstrap(figures, names, labels, groups, num_bootstrap, seed)
  else:
    draws = {}

  result = {}
  for name in figures:
    value, low, high, note = float(values[name][0]), np.nan, np.nan, ''
    if np.isnan(value):
      note = reason
    elif name in draws:
      low, high = np.percentile(draws[name], [2.5, 97.5])
      if low == high:
        note = 'every resample gives the same: the interval says too little'
    elif narrow:
      note = narrow
    result[name] = Estimate(value, float(low), float(high), note)
  return result


def _check(labels: np.ndarray, scores: np.ndarray) -> None:
  if not np.isin(labels, (0, 1)).all():
    raise ValueError(
      f'labels hold {sorted(set(labels.tolist()))}; expected 0 (real) and '
      '1 (fake)'
    )
  if not np.isfinite(scores).all():
    raise ValueError(
      f'{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not '
      'finite; leave out the videos that have none'
    )


def _undefined(labels: np.ndarray) -> str:
  """Says which class is missing, '' if none."""
  num_fake = int(labels.sum())
  if not len(labels):
    return 'no video has a score'
  if num_fake == 0:
    return 'no fake video has a score'
  if num_fake == len(labels):
    return 'no real video has a score'
  return ''


def _too_few(labels: np.ndarray, groups: np.ndarray) -> str:
  """Says where there is nothing to resample, '' if nowhere."""
  for kind in _strata(labels, groups):
    if len(kind) < 2:
      return 'no interval: only one video of its kind to draw from'
  return ''


def _strata(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
  """Splits the groups by what they hold: (number real, number fake)."""
  ids, position = np.unique(groups, return_inverse=True)
  fake = np.bincount(position, weights=labels, minlength=len(ids))
  real = np.bincount(position, minlength=len(ids)) - fake
  _, kind = np.unique(np.stack([real, fake]), axis=1, return_inverse=True)
  kind = kind.reshape(-1)
  return [np.flatnonzero(kind == k) for k in range(kind.max(initial=-1) + 1)]


def _bootstrap(
  figures: dict[str, Callable[[np.ndarray], np.ndarray]],
  names: list[str],
  labels: np.ndarray,
  groups: np.ndarray,
  num_bootstrap: int,
  seed: int,
) -> dict[str, np.ndarray]:
  """Computes the named figures on resamples: [num_bootstrap] each."""
  ids, position = np.unique(groups, return_inverse=True)
  strata = _strata(labels, groups)
  generators = np.random.default_rng(seed).spawn(len(strata))
  draws: dict[str, list[np.ndarray]] = {name: [] for name in names}
  step = max(1, _CHUNK // len(labels))
  for start in range(0, num_bootstrap, step):
    rows = min(step, num_bootstrap - start)
    counts = np.zeros((rows, len(ids)))
    for rng, members in zip(generators, strata, strict=True):
      m = len(members)
      counts[:, members] = rng.multinomial(m, np.full(m, 1 / m), size=rows)
    weights = counts[:, position.reshape(-1)]
    for name in names:
      draws[name].append(figures[name](weights))
  return {name: np.concatenate(parts) for name, parts in draws.items()}


class _Mass:
  """Weight of real and of fake at each distinct score, highest score first."""

  def __init__(
    self, labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
  ):
    self._order = np.argsort(-scores, kind='stable')
    ordered = scores[self._order]
    self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    self._fake: Bool[np.ndarray, 'n'] = labels[self._order] == 1

  def __call__(
    self, weights: Float[np.ndarray, 'b n']
  ) -> tuple[Float[np.ndarray, 'b u'], Float[np.ndarray, 'b u']]:
    ordered = weights[:, self._order]
    fake = np.add.reduceat(ordered * self._fake, self._starts, axis=1)
    real = np.add.reduceat(ordered * ~self._fake, self._starts, axis=1)
    return real, fake


def _single(
  figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
  labels: np.ndarray,
  scores: np.ndarray,
) -> float:
  _check(labels, scores)
  if _undefined(labels):
    return float('nan')
  return float(figure(*_Mass(labels, scores)(np.ones((1, len(labels)))))[0])


def _auc(
  real: Float[np.ndarray, 'b u'], fake: Float[np.ndarray, 'b u']
) -> Float[np.ndarray, 'b']:
  num_fake_above = np.cumsum(fake, axis=1) - fake
  wins = np.sum(real * (num_fake_above + 0.5 * fake), axis=1)
  return wins / (real.sum(1) * fake.sum(1))


def _average_precision(
  real: Float[np.ndarray, 'b u'], fake: Float[np.ndarray, 'b u']
) -> Float[np.ndarray, 'b']:
  hits = np.cumsum(fake, axis=1)
  named = hits + np.cumsum(real, axis=1)
  # A score that the resample left out adds nothing, nor divides by zero.
  precision = hits / np.maximum(named, np.finfo(np.float64).tiny)
  return np.sum(precision * fake, axis=1) / hits[:, -1]


def _eer(
  real: Float[np.ndarray, 'b u'], fake: Float[np.ndarray, 'b u']
) -> Float[np.ndarray, 'b']:
  start = np.zeros((len(real), 1))
  alarms = np.hstack([start, np.cumsum(real, 1) / real.sum(1, keepdims=True)])
  misses = np.hstack([start, np.cumsum(fake, 1) / fake.sum(1, keepdims=True)])
  misses = 1.0 - misses
  gap = misses - alarms  # falls from 1 to -1 along the curve
  after = np.argmax(gap <= 0, axis=1)[:, None]
  a, b = (np.take_along_axis(gap, i, 1) for i in (after - 1, after))
  x, y = (np.take_along_axis(alarms, i, 1) for i in (after - 1, after))
  return (x + (y - x) * a / (a - b))[:, 0]
