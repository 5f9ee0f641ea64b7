"""Figures of merit, on the host in NumPy: exact, and aware of ties.

Enter: one label (0 real, 1 fake) and one score (higher means more fake) per
video, and weights, one row for each resample. Leave: figures in [0, 1], one
for each row. All of them are functions of a `Curve`, the weight of real and of
fake at each distinct score, so that a bootstrap sorts the videos once.
docs/evaluation.md defines every figure; `bootstrap` gives them intervals.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import types

from jaxtyping import Bool, Float, Int
import numpy as np

ECE_BINS = 15  # of equal width (Guo et al., arXiv 1706.04599)
PARTIAL_AUC_FPR = 0.1  # the part of the ROC curve that `partial_auc` is of


@dataclasses.dataclass(frozen=True)
class Curve:
  """Weight of real and of fake at each distinct score, highest score first.

  Attributes:
    scores: The distinct scores, falling.
    real: Weight of the real videos at each of them, a row a resample.
    fake: Likewise.
  """

  scores: Float[np.ndarray, 'u']
  real: Float[np.ndarray, 'b u']
  fake: Float[np.ndarray, 'b u']

  @functools.cached_property
  def alarms(self) -> Float[np.ndarray, 'b u']:
    """Weight of real videos at or above each score."""
    return np.cumsum(self.real, axis=1)

  @functools.cached_property
  def hits(self) -> Float[np.ndarray, 'b u']:
    """Weight of fake videos at or above each score."""
    return np.cumsum(self.fake, axis=1)

  @functools.cached_property
  def fpr(self) -> Float[np.ndarray, 'b points']:
    """False-positive rate of the ROC curve's points, from 0 to 1."""
    return _rate(self.alarms)

  @functools.cached_property
  def tpr(self) -> Float[np.ndarray, 'b points']:
    """True-positive rate of the ROC curve's points, from 0 to 1."""
    return _rate(self.hits)


Figure = Callable[[Curve], Float[np.ndarray, 'b']]


class Ranking:
  """The order of the videos by score; weights in, `Curve` out."""

  def __init__(
    self, labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
  ):
    check(labels, scores)
    self._order = np.argsort(-scores, kind='stable')
    ordered = np.asarray(scores, np.float64)[self._order]
    self._starts = np.flatnonzero(
      np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]
    )
    self._scores = ordered[self._starts]
    self._fake: Bool[np.ndarray, 'n'] = labels[self._order] == 1

  def __call__(self, weights: Float[np.ndarray, 'b n']) -> Curve:
    """Adds up the weights at each distinct score."""
    fake = weights[:, self._order]
    real = fake * ~self._fake
    fake *= self._fake
    if len(self._starts) < len(self._order):
      fake = np.add.reduceat(fake, self._starts, axis=1)
      real = np.add.reduceat(real, self._starts, axis=1)
    return Curve(self._scores, real, fake)


def curve(
  labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
) -> Curve:
  """The one curve of all videos, each with weight 1."""
  return Ranking(labels, scores)(np.ones((1, len(labels))))


def figures(
  threshold: float = 0.5, *, strict: bool = False
) -> Mapping[str, Figure]:
  """Every figure by its name, in the order of the tables.

  Args:
    threshold: Score from which a video is called fake.
    strict: Whether a score equal to the threshold is called real, as
      DeepfakeBench does.
  """
  at = functools.partial(_confusion, threshold=threshold, strict=strict)
  return types.MappingProxyType(
    {
      'auc': _auc,
      'average_precision': _average_precision,
      'average_precision_macro': _average_precision_macro,
      'eer': _eer,
      'eer_vertex': _eer_vertex,
      'eer_threshold': _eer_threshold,
      'tpr_at_1_fpr': functools.partial(_tpr_at, fpr=0.01),
      'tpr_at_5_fpr': functools.partial(_tpr_at, fpr=0.05),
      'partial_auc': _partial_auc,
      'accuracy': lambda curve: _accuracy(*at(curve)),
      'balanced_accuracy': lambda curve: _balanced_accuracy(*at(curve)),
      'f1': lambda curve: _f1(*at(curve)),
      'fpr': lambda curve: _share(at(curve)[1], at(curve)[2]),
      'tpr': lambda curve: _share(at(curve)[3], at(curve)[0]),
      'ece': _ece,
      'brier': _brier,
    }
  )


TITLES: Mapping[str, str] = types.MappingProxyType(
  {
    'auc': 'AUC',
    'average_precision': 'AP',
    'average_precision_macro': 'AP macro',
    'eer': 'EER',
    'eer_vertex': 'EER vertex',
    'eer_threshold': 'EER least max',
    'tpr_at_1_fpr': 'TPR at 1 % FPR',
    'tpr_at_5_fpr': 'TPR at 5 % FPR',
    'partial_auc': 'partial AUC',
    'accuracy': 'accuracy',
    'balanced_accuracy': 'balanced accuracy',
    'f1': 'F1',
    'fpr': 'FPR',
    'tpr': 'TPR',
    'ece': 'ECE',
    'brier': 'Brier',
    'coverage': 'coverage',
  }
)
# Of these a lower value is the better one.
LOWER_IS_BETTER = frozenset(
  {'eer', 'eer_vertex', 'eer_threshold', 'fpr', 'ece', 'brier'}
)
# These are defined where one class is missing; these for probabilities only.
OF_ANY_CLASS = frozenset({'accuracy', 'ece', 'brier'})
OF_PROBABILITIES = frozenset({'ece', 'brier'})


def single(
  name: str,
  labels: Int[np.ndarray, 'n'],
  scores: Float[np.ndarray, 'n'],
  threshold: float = 0.5,
) -> float:
  """Computes one figure of `figures`; nan where `undefined` has a reason."""
  check(labels, scores)
  if undefined(name, labels, scores):
    return float('nan')
  return float(figures(threshold)[name](curve(labels, scores))[0])


def auc(labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']) -> float:
  """Computes the area under the ROC curve: exact, a tie counts one half."""
  return single('auc', labels, scores)


def reliability(
  labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
) -> tuple[
  Float[np.ndarray, 'bins'],
  Float[np.ndarray, 'bins'],
  Int[np.ndarray, 'bins'],
]:
  """Returns mean score, share of fakes and number in each filled bin of ECE."""
  place = _bins(scores)
  count = np.bincount(place)
  kept = count > 0
  mean = np.bincount(place, weights=scores)[kept] / count[kept]
  share = np.bincount(place, weights=labels)[kept] / count[kept]
  return mean, share, count[kept]


def sigmoid(logits: Float[np.ndarray, '*s']) -> Float[np.ndarray, '*s']:
  """Computes 1 / (1 + exp(-x)) in float64 without overflow."""
  logits = np.asarray(logits, np.float64)
  small = np.exp(-np.abs(logits))
  return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))


def check(labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']) -> None:
  """Raises ValueError where a label is not 0 or 1 or a score not finite."""
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


def undefined(
  name: str, labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
) -> str:
  """Says why a figure cannot be measured on these videos; '' if it can."""
  if not len(labels):
    return 'no video has a score'
  if name in OF_PROBABILITIES and (scores.min() < 0 or scores.max() > 1):
    return 'the scores are not probabilities'
  num_fake = int(np.sum(labels))
  if name not in OF_ANY_CLASS and num_fake == 0:
    return 'no fake video has a score'
  if name not in OF_ANY_CLASS and num_fake == len(labels):
    return 'no real video has a score'
  return ''


def _rate(counts: np.ndarray) -> np.ndarray:
  rate = np.zeros((len(counts), counts.shape[1] + 1))
  np.divide(counts, counts[:, -1:], out=rate[:, 1:])
  return rate


def _auc(curve: Curve) -> Float[np.ndarray, 'b']:
  wins = np.einsum('bu,bu->b', curve.real, curve.hits - 0.5 * curve.fake)
  return wins / (curve.alarms[:, -1] * curve.hits[:, -1])


def _average_precision(curve: Curve) -> Float[np.ndarray, 'b']:
  """The sum of precision times recall step; fake is positive."""
  return _precision_area(curve.hits, curve.alarms, curve.fake)


def _average_precision_macro(curve: Curve) -> Float[np.ndarray, 'b']:
  """The mean of the average precision of fake and of that of real."""
  # Real is what scores at or below: the other end of the order.
  real = curve.alarms[:, -1:] - curve.alarms + curve.real
  fake = curve.hits[:, -1:] - curve.hits + curve.fake
  of_real = _precision_area(real, fake, curve.real)
  return (_average_precision(curve) + of_real) / 2


def _precision_area(
  right: np.ndarray, wrong: np.ndarray, step: np.ndarray
) -> np.ndarray:
  # A score that the resample left out adds nothing, nor divides by zero.
  precision = right / np.maximum(right + wrong, np.finfo(np.float64).tiny)
  return np.einsum('bu,bu->b', precision, step) / step.sum(1)


def _eer(curve: Curve) -> Float[np.ndarray, 'b']:
  """The error rate where false alarms equal misses on the joined ROC curve."""
  gap = 1.0 - curve.tpr - curve.fpr  # falls from 1 to -1 along the curve
  after = np.argmax(gap <= 0, axis=1)[:, None]
  a, b = (np.take_along_axis(gap, i, 1) for i in (after - 1, after))
  x, y = (np.take_along_axis(curve.fpr, i, 1) for i in (after - 1, after))
  return (x + (y - x) * a / (a - b))[:, 0]


def _eer_vertex(curve: Curve) -> Float[np.ndarray, 'b']:
  """The false-positive rate at the vertex nearest to equal error rates.

  The vertices are those of scikit-learn's `roc_curve`, which leaves out points
  between two equal steps, as DeepfakeBench calls it.
  """
  return np.array(
    [
      _nearest_vertex(alarms, hits)
      for alarms, hits in zip(curve.alarms, curve.hits, strict=True)
    ]
  )


def _nearest_vertex(alarms: np.ndarray, hits: np.ndarray) -> float:
  new = np.diff(alarms + hits, prepend=0.0) > 0  # what the resample drew
  alarms, hits = alarms[new], hits[new]
  bend = np.ones(len(alarms), bool)
  if len(alarms) > 2:
    bend[1:-1] = (np.diff(alarms, 2) != 0) | (np.diff(hits, 2) != 0)
  fpr = np.r_[0.0, alarms[bend]] / alarms[-1]
  tpr = np.r_[0.0, hits[bend]] / hits[-1]
  return fpr[np.argmin(np.abs((1 - tpr) - fpr))]


def _eer_threshold(curve: Curve) -> Float[np.ndarray, 'b']:
  """The least of max(FPR, FNR) over the scores as thresholds."""
  worse = np.maximum(curve.fpr[:, 1:], 1.0 - curve.tpr[:, 1:])
  return worse.min(axis=1)


def _tpr_at(curve: Curve, *, fpr: float) -> Float[np.ndarray, 'b']:
  """The true-positive rate at a false-positive rate on the joined curve."""
  last = np.sum(curve.fpr <= fpr, axis=1)[:, None] - 1
  after = np.minimum(last + 1, curve.fpr.shape[1] - 1)
  x, y = (np.take_along_axis(curve.fpr, i, 1) for i in (last, after))
  low, high = (np.take_along_axis(curve.tpr, i, 1) for i in (last, after))
  share = np.divide(fpr - x, y - x, out=np.zeros_like(x), where=y > x)
  return (low + (high - low) * share)[:, 0]


def _partial_auc(curve: Curve) -> Float[np.ndarray, 'b']:
  """The area up to an FPR of 0.1, 0.5 for chance and 1 for all (McClish)."""
  most = PARTIAL_AUC_FPR
  x = np.minimum(curve.fpr, most)
  width = np.diff(x, axis=1)
  area = np.einsum('bu,bu->b', width, (curve.tpr[:, 1:] + curve.tpr[:, :-1]))
  area /= 2
  # The step that crosses the edge ends there, at the height it has there.
  last = np.sum(curve.fpr <= most, axis=1)[:, None] - 1
  after = np.minimum(last + 1, curve.fpr.shape[1] - 1)
  edge = most - np.take_along_axis(curve.fpr, last, 1)[:, 0]
  too_high = np.take_along_axis(curve.tpr, after, 1)[:, 0] - _tpr_at(
    curve, fpr=most
  )
  area -= edge * too_high / 2
  least = most**2 / 2
  return (1 + (area - least) / (most - least)) / 2


def _confusion(
  curve: Curve, *, threshold: float, strict: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Weights of fake, of false alarms, of real and of hits."""
  above = curve.scores > threshold if strict else curve.scores >= threshold
  count = int(above.sum())
  zero = np.zeros(len(curve.real))
  alarms = curve.alarms[:, count - 1] if count else zero
  hits = curve.hits[:, count - 1] if count else zero
  return curve.hits[:, -1], alarms, curve.alarms[:, -1], hits


def _accuracy(fake, alarms, real, hits) -> Float[np.ndarray, 'b']:
  return (hits + real - alarms) / (fake + real)


def _balanced_accuracy(fake, alarms, real, hits) -> Float[np.ndarray, 'b']:
  return (hits / fake + 1 - alarms / real) / 2


def _f1(fake, alarms, real, hits) -> Float[np.ndarray, 'b']:
  del real
  return 2 * hits / (fake + hits + alarms)


def _share(part, whole) -> Float[np.ndarray, 'b']:
  return part / whole


def _ece(curve: Curve) -> Float[np.ndarray, 'b']:
  """The mean over bins of |share of fakes - mean score|, by their weight."""
  bins = _bins(curve.scores)
  starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
  gap = curve.fake - (curve.real + curve.fake) * curve.scores
  gap = np.add.reduceat(gap, starts, axis=1)
  return np.abs(gap).sum(1) / (curve.alarms[:, -1] + curve.hits[:, -1])


def _brier(curve: Curve) -> Float[np.ndarray, 'b']:
  """The mean squared difference between the score and the label."""
  loss = curve.real @ curve.scores**2 + curve.fake @ (1 - curve.scores) ** 2
  return loss / (curve.alarms[:, -1] + curve.hits[:, -1])


def _bins(scores: np.ndarray) -> np.ndarray:
  """The bin (low, high] of each score in [0, 1], from 1; 0 is in the first."""
  return np.maximum(np.ceil(scores * ECE_BINS).astype(int), 1)
