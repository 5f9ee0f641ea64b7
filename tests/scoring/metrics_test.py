"""AUC and its kin against scikit-learn; intervals; what is undefined."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from stormer_jax.scoring import metrics


def _draw(seed, num=200, levels=None, shift=1.0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, num)
  scores = rng.normal(size=num) + shift * labels
  if levels:
    scores = np.round(scores * levels) / levels
  return labels, metrics.sigmoid(scores)


@pytest.mark.parametrize('levels', [None, 2, 1])
@pytest.mark.parametrize('seed', range(5))
def test_auc_and_ap_equal_scikit_learn_ties_too(seed, levels):
  labels, scores = _draw(seed, levels=levels)
  want = sklearn_metrics.roc_auc_score(labels, scores)
  assert metrics.auc(labels, scores) == pytest.approx(want, abs=1e-12)
  want = sklearn_metrics.average_precision_score(labels, scores)
  got = metrics.average_precision(labels, scores)
  assert got == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('levels', [None, 2])
def test_eer_lies_where_the_roc_curve_crosses_the_diagonal(levels):
  labels, scores = _draw(3, levels=levels)
  alarms, hits, _ = sklearn_metrics.roc_curve(
    labels, scores, drop_intermediate=False
  )
  grid = np.linspace(0, 1, 200_001)
  misses = 1 - np.interp(grid, alarms, hits)
  want = grid[np.argmin(np.abs(misses - grid))]
  assert metrics.eer(labels, scores) == pytest.approx(want, abs=1e-5)


def test_eer_is_zero_when_apart_one_when_swapped_half_when_constant():
  labels = np.array([0, 0, 0, 1, 1])
  scores = np.array([0.1, 0.2, 0.3, 0.6, 0.7])
  assert metrics.eer(labels, scores) == 0.0
  assert metrics.eer(labels, 1 - scores) == 1.0
  assert metrics.eer(labels, np.full(5, 0.4)) == pytest.approx(0.5)
  assert metrics.auc(labels, np.full(5, 0.4)) == 0.5


def test_rank_figures_do_not_change_under_a_monotone_map():
  labels, scores = _draw(7)
  for figure in (metrics.auc, metrics.average_precision, metrics.eer):
    assert figure(labels, scores) == figure(labels, scores**3)


def test_swapping_the_classes_mirrors_auc_and_keeps_eer():
  labels, scores = _draw(8)
  mirrored = metrics.auc(1 - labels, scores)
  assert mirrored == pytest.approx(1 - metrics.auc(labels, scores))
  kept = metrics.eer(1 - labels, 1 - scores)
  assert kept == pytest.approx(metrics.eer(labels, scores))


def test_accuracy_counts_a_score_at_the_threshold_as_fake():
  labels = np.array([0, 0, 1, 1])
  scores = np.array([0.1, 0.5, 0.5, 0.4])
  assert metrics.accuracy(labels, scores, 0.5) == 0.5
  assert metrics.accuracy(labels, scores, 0.45) == 0.5
  assert metrics.accuracy(labels, scores, 0.4) == 0.75


def test_resampled_figures_equal_scikit_learn_with_weights():
  labels, scores = _draw(4, num=60, levels=2)
  weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
  real, fake = metrics._Mass(labels, scores)(weights)
  for row, area, precision in zip(
    weights,
    metrics._auc(real, fake),
    metrics._average_precision(real, fake),
    strict=True,
  ):
    want = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=row)
    assert area == pytest.approx(want, abs=1e-12)
    want = sklearn_metrics.average_precision_score(
      labels, scores, sample_weight=row
    )
    assert precision == pytest.approx(want, abs=1e-12)


def test_weights_are_counts_of_copies_for_every_figure():
  labels, scores = _draw(5, num=40, levels=3)
  counts = np.random.default_rng(2).integers(0, 3, 40)
  copies = np.repeat(np.arange(40), counts)
  real, fake = metrics._Mass(labels, scores)(counts[None].astype(float))
  for weighted, figure in (
    (metrics._auc, metrics.auc),
    (metrics._average_precision, metrics.average_precision),
    (metrics._eer, metrics.eer),
  ):
    want = figure(labels[copies], scores[copies])
    assert weighted(real, fake)[0] == pytest.approx(want, abs=1e-12)


def _estimates(labels, scores, **changes):
  options = {'threshold': 0.5, 'num_bootstrap': 300, 'seed': 0, **changes}
  return metrics.estimates(labels, scores, **options)


def test_interval_of_95_percent_covers_the_truth_about_95_times_in_100():
  # AUC of two unit normals one apart is Phi(1 / sqrt 2).
  truth, covered, num = 0.76025, 0, 200
  for seed in range(num):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 40)
    scores = rng.normal(size=80) + labels
    area = _estimates(labels, scores)['auc']
    covered += area.low <= truth <= area.high
  # Three standard errors of a share of 0.95 in 200 are 0.046.
  assert 0.90 <= covered / num <= 0.99


def test_interval_is_that_of_independent_resampling():
  labels, scores = _draw(9, num=80)
  area = _estimates(labels, scores, num_bootstrap=4000)['auc']
  rng = np.random.default_rng(11)
  fake, real = scores[labels == 1], scores[labels == 0]
  draws = []
  for _ in range(4000):
    f, r = rng.choice(fake, len(fake)), rng.choice(real, len(real))
    draws.append(np.mean(f[:, None] > r) + 0.5 * np.mean(f[:, None] == r))
  want = np.percentile(draws, [2.5, 97.5])
  np.testing.assert_allclose([area.low, area.high], want, atol=0.01)


def test_interval_repeats_with_the_seed_and_holds_the_value():
  labels, scores = _draw(10)
  first, second = _estimates(labels, scores), _estimates(labels, scores)
  assert first == second
  assert first != _estimates(labels, scores, seed=1)
  for figure in first.values():
    assert 0 <= figure.low < figure.value < figure.high <= 1
    assert figure.note == ''


def test_interval_does_not_depend_on_the_chunk(monkeypatch):
  labels, scores = _draw(10)
  whole = _estimates(labels, scores)
  monkeypatch.setattr(metrics, '_CHUNK', 37 * len(labels))
  parts = _estimates(labels, scores)
  assert whole == parts


def test_pairs_drawn_together_know_more_than_their_halves():
  # A fake scores what its own real scores, and the videos differ by much:
  # drawn together the two classes stay alike, drawn apart they do not.
  rng = np.random.default_rng(0)
  base = rng.uniform(size=50)
  scores = np.r_[base, base]
  labels = np.repeat([0, 1], 50)
  groups = np.r_[np.arange(50), np.arange(50)]
  together = _estimates(labels, scores, groups=groups)
  apart = _estimates(labels, scores)
  assert together['auc'].low == together['auc'].high == 0.5
  assert apart['auc'].high - apart['auc'].low > 0.1


@pytest.mark.parametrize('label, word', [(0, 'fake'), (1, 'real')])
def test_one_class_only_is_nan_with_a_reason_but_has_an_accuracy(label, word):
  scores = np.array([0.2, 0.6, 0.9])
  result = _estimates(np.full(3, label), scores)
  for name in ('auc', 'average_precision', 'eer'):
    assert np.isnan(result[name].value)
    assert np.isnan(result[name].low)
    assert result[name].note == f'no {word} video has a score'
  assert result['accuracy'].value == pytest.approx((1 + label) / 3)
  assert np.isnan(metrics.auc(np.full(3, label), scores))


def test_no_video_at_all_is_nan_with_a_reason():
  result = _estimates(np.zeros(0, int), np.zeros(0))
  assert all(np.isnan(figure.value) for figure in result.values())
  assert result['auc'].note == 'no video has a score'


def test_one_video_of_a_class_has_a_value_but_no_interval():
  result = _estimates(np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5]))
  assert result['auc'].value == 0.5
  assert np.isnan(result['auc'].low)
  assert 'only one video' in result['auc'].note


def test_a_perfect_score_warns_that_its_interval_says_too_little():
  result = _estimates(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
  assert result['auc'].low == result['auc'].high == 1
  assert 'too little' in result['auc'].note


def test_bad_labels_and_scores_are_named():
  with pytest.raises(ValueError, match=r'labels hold \[0, 2\]'):
    metrics.auc(np.array([0, 2]), np.array([0.1, 0.2]))
  with pytest.raises(ValueError, match='1 of 2 scores are not finite'):
    metrics.auc(np.array([0, 1]), np.array([0.1, np.nan]))


def test_video_score_is_the_sigmoid_of_the_mean_logit_in_any_order():
  logits = np.array([1.0, 3.0, -2.0, 0.1], np.float32)
  index = np.array([0, 0, 2, 2])
  means, scores = metrics.video_scores(logits, index, 4)
  np.testing.assert_allclose(means[[0, 2]], [2.0, -0.95], rtol=1e-7)
  np.testing.assert_allclose(scores[0], 1 / (1 + np.exp(-2.0)))
  assert np.isnan(means[[1, 3]]).all() and np.isnan(scores[[1, 3]]).all()
  rng = np.random.default_rng(0)
  logits = rng.normal(size=1000).astype(np.float32)
  index = rng.integers(0, 7, 1000)
  order = rng.permutation(1000)
  np.testing.assert_array_equal(
    metrics.video_scores(logits, index, 7),
    metrics.video_scores(logits[order], index[order], 7),
  )


def test_sigmoid_of_a_huge_logit_does_not_overflow():
  got = metrics.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
  np.testing.assert_array_equal(got, [0, 0.5, 1])
