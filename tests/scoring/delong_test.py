"""DeLong's variance against its definition; how often its test errs."""

import numpy as np
import pytest
from scipy import stats

from stormer_jax.scoring import bootstrap, delong, metrics


def draw(seed, num=60, levels=None):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, num)
  common = rng.normal(size=num) + labels
  scores = common + rng.normal(size=(2, num))
  return labels, np.round(scores * levels) / levels if levels else scores


@pytest.mark.parametrize('levels', [None, 1])
def test_variance_is_that_of_the_structural_components(levels):
  labels, scores = draw(0, levels=levels)
  # V10 and V01 of DeLong et al., pair by pair; a tie counts one half.
  of_fake, of_real = [], []
  for row in scores:
    fake, real = row[labels == 1], row[labels == 0]
    wins = (fake[:, None] > real) + 0.5 * (fake[:, None] == real)
    of_fake.append(wins.mean(1))
    of_real.append(wins.mean(0))
  m, n = len(of_fake[0]), len(of_real[0])
  covariance = np.cov(of_fake) / m + np.cov(of_real) / n
  want = np.sqrt([1, -1] @ covariance @ [1, -1])
  result = delong.compare(labels, *scores)
  assert result.standard_error == pytest.approx(want, rel=1e-12)
  assert result.first == pytest.approx(metrics.auc(labels, scores[0]))
  assert result.second == pytest.approx(metrics.auc(labels, scores[1]))
  assert result.difference == pytest.approx(result.first - result.second)
  normal = stats.norm(result.difference, want)
  assert result.p_value == pytest.approx(2 * min(normal.cdf(0), normal.sf(0)))
  assert (result.low, result.high) == pytest.approx(normal.interval(0.95))


def test_it_agrees_with_the_paired_bootstrap():
  labels, scores = draw(1, num=400)
  result = delong.compare(labels, *scores)
  other = bootstrap.differences(
    labels, *scores, names=['auc'], num_bootstrap=2000
  )['auc']
  assert (result.low, result.high) == pytest.approx(
    (other.low, other.high), abs=0.006
  )


def test_where_there_is_no_difference_five_in_a_hundred_are_significant():
  found = sum(
    delong.compare(*_split(*draw(seed))).p_value < 0.05 for seed in range(600)
  )
  # Three standard errors of a share of 0.05 in 600 are 0.027.
  assert 0.02 <= found / 600 <= 0.08


def _split(labels, scores):
  return labels, scores[0], scores[1]


def test_a_system_and_itself_have_no_p_value():
  labels, scores = draw(2)
  result = delong.compare(labels, scores[0], scores[0])
  assert result.difference == result.standard_error == 0.0
  assert np.isnan(result.p_value)


def test_one_video_of_a_class_is_refused():
  with pytest.raises(ValueError, match='1 real and 3 fake videos'):
    delong.compare(np.array([0, 1, 1, 1]), np.arange(4.0), np.arange(4.0))
