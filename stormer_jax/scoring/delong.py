"""DeLong's test: are the AUCs of two systems on the same videos different?

Enter: labels and two scores of each video. Leave: the difference of the AUCs,
its standard error, interval and two-sided p-value. DeLong, DeLong and
Clarke-Pearson, Biometrics 44, 1988; midranks after Sun and Xu, IEEE Signal
Processing Letters 21, 2014. It takes videos for independent; where they come
in pairs, `bootstrap.differences` with clusters is the one to trust.
"""

import dataclasses
import math

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import metrics

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True)
class Comparison:
  """first - second in AUC; `low` and `high` bound the 95 % interval."""

  first: float
  second: float
  difference: float
  standard_error: float
  low: float
  high: float
  p_value: float  # two-sided; nan if the standard error is zero


def compare(
  labels: Int[np.ndarray, 'n'],
  first: Float[np.ndarray, 'n'],
  second: Float[np.ndarray, 'n'],
) -> Comparison:
  """Compares the AUCs of two systems on the same videos.

  Raises:
    ValueError: If a class has fewer than two videos, a label is neither 0 nor
      1, or a score is not finite.
  """
  for scores in (first, second):
    metrics.check(labels, scores)
  num_fake = int(labels.sum())
  num_real = len(labels) - num_fake
  if min(num_fake, num_real) < 2:
    raise ValueError(
      f'{num_real} real and {num_fake} fake videos; DeLong needs two of each'
    )
  areas, covariance = _covariance(labels, np.stack([first, second]))
  difference = float(areas[0] - areas[1])
  variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
  # Equal systems leave a rounding error, of either sign.
  error = math.sqrt(variance) if variance > 1e-18 else 0.0
  return Comparison(
    first=float(areas[0]),
    second=float(areas[1]),
    difference=difference,
    standard_error=error,
    low=difference - _Z * error,
    high=difference + _Z * error,
    p_value=math.erfc(abs(difference) / error / math.sqrt(2))
    if error
    else math.nan,
  )


def _covariance(
  labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'systems n']
) -> tuple[Float[np.ndarray, 's'], Float[np.ndarray, 's s']]:
  """Returns the AUCs and their covariance matrix."""
  fake, real = scores[:, labels == 1], scores[:, labels == 0]
  m, n = fake.shape[1], real.shape[1]
  together = _midranks(np.concatenate([fake, real], axis=1))
  # How much of the other class each video beats: Eq. 5 of Sun and Xu.
  of_fake = (together[:, :m] - _midranks(fake)) / n
  of_real = 1 - (together[:, m:] - _midranks(real)) / m
  return of_fake.mean(1), np.cov(of_fake) / m + np.cov(of_real) / n


def _midranks(values: Float[np.ndarray, 's n']) -> Float[np.ndarray, 's n']:
  """Ranks from 1, those of equal values averaged."""
  ranks = np.empty(values.shape)
  for row, rank in zip(values, ranks, strict=True):
    _, place, count = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank[:] = (last - (count - 1) / 2)[place.reshape(-1)]
  return ranks
