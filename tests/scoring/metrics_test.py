"""Every figure against scikit-learn or a closed form; what is undefined."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from stormer_jax.scoring import metrics


def draw(seed, num=200, levels=None, shift=1.0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, num)
  scores = rng.normal(size=num) + shift * labels
  if levels:
    scores = np.round(scores * levels) / levels
  return labels, metrics.sigmoid(scores)


def vertex_eer(labels, scores, weights=None):
  """As DeepfakeBench computes it."""
  alarms, hits, _ = sklearn_metrics.roc_curve(
    labels, scores, sample_weight=weights
  )
  misses = 1 - hits
  return alarms[np.nanargmin(np.absolute(misses - alarms))]


def least_max_eer(labels, scores):
  """As deepsafe-bench defines it: over every score as a threshold."""
  return min(
    max(
      np.mean(scores[labels == 0] >= threshold),
      np.mean(scores[labels == 1] < threshold),
    )
    for threshold in scores
  )


def interpolated_tpr(labels, scores, fpr):
  """As GenD interpolates it."""
  alarms, hits, _ = sklearn_metrics.roc_curve(labels, scores)
  return np.interp(fpr, alarms, hits)


def binned_ece(labels, scores):
  edges = np.arange(metrics.ECE_BINS + 1) / metrics.ECE_BINS
  total = 0.0
  for low, high in itertools.pairwise(edges):
    own = (scores > low) & (scores <= high)
    if own.any():
      total += own.mean() * abs(labels[own].mean() - scores[own].mean())
  return total


OTHERS = {
  'auc': sklearn_metrics.roc_auc_score,
  'average_precision': sklearn_metrics.average_precision_score,
  'average_precision_macro': lambda labels, scores: np.mean(
    [
      sklearn_metrics.average_precision_score(labels, scores),
      sklearn_metrics.average_precision_score(1 - labels, -scores),
    ]
  ),
  'eer_vertex': vertex_eer,
  'eer_threshold': least_max_eer,
  'tpr_at_1_fpr': lambda *both: interpolated_tpr(*both, 0.01),
  'tpr_at_5_fpr': lambda *both: interpolated_tpr(*both, 0.05),
  'partial_auc': lambda *both: sklearn_metrics.roc_auc_score(
    *both, max_fpr=metrics.PARTIAL_AUC_FPR
  ),
  'accuracy': lambda labels, scores: sklearn_metrics.accuracy_score(
    labels, scores >= 0.5
  ),
  'balanced_accuracy': lambda labels, scores: (
    sklearn_metrics.balanced_accuracy_score(labels, scores >= 0.5)
  ),
  'f1': lambda labels, scores: sklearn_metrics.f1_score(labels, scores >= 0.5),
  'fpr': lambda labels, scores: np.mean(scores[labels == 0] >= 0.5),
  'tpr': lambda labels, scores: sklearn_metrics.recall_score(
    labels, scores >= 0.5
  ),
  'ece': binned_ece,
  'brier': sklearn_metrics.brier_score_loss,
}


@pytest.mark.parametrize('levels', [None, 2, 1])
@pytest.mark.parametrize('name', OTHERS)
def test_a_figure_equals_that_of_others_ties_too(name, levels):
  for seed in range(8):
    labels, scores = draw(seed, levels=levels)
    want = OTHERS[name](labels, scores)
    got = metrics.single(name, labels, scores)
    assert got == pytest.approx(want, abs=1e-12), seed


def test_every_figure_has_another_to_be_held_against_and_a_title():
  assert set(OTHERS) | {'eer'} == set(metrics.figures())
  assert set(metrics.figures()) < set(metrics.TITLES)


@pytest.mark.parametrize('levels', [None, 2])
def test_eer_lies_where_the_roc_curve_crosses_the_diagonal(levels):
  labels, scores = draw(3, levels=levels)
  alarms, hits, _ = sklearn_metrics.roc_curve(
    labels, scores, drop_intermediate=False
  )
  grid = np.linspace(0, 1, 200_001)
  misses = 1 - np.interp(grid, alarms, hits)
  want = grid[np.argmin(np.abs(misses - grid))]
  got = metrics.single('eer', labels, scores)
  assert got == pytest.approx(want, abs=1e-5)


def test_on_ties_the_three_equal_error_rates_of_the_field_differ():
  labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
  scores = np.array([0.5, 0.5, 0.1, 0.1, 0.1, 0.5, 0.5, 0.1])
  assert metrics.single('eer', labels, scores) == pytest.approx(0.375)
  assert metrics.single('eer_vertex', labels, scores) == pytest.approx(0.4)
  assert metrics.single('eer_threshold', labels, scores) == pytest.approx(0.4)
  half = np.full(8, 0.4)
  assert metrics.single('eer', labels, half) == pytest.approx(0.5)
  assert metrics.single('eer_vertex', labels, half) == 0.0
  assert metrics.single('eer_threshold', labels, half) == 1.0


def test_eer_is_zero_when_apart_one_when_swapped_half_when_constant():
  labels = np.array([0, 0, 0, 1, 1])
  scores = np.array([0.1, 0.2, 0.3, 0.6, 0.7])
  assert metrics.single('eer', labels, scores) == 0.0
  assert metrics.single('eer', labels, 1 - scores) == 1.0
  same = np.full(5, 0.4)
  assert metrics.single('eer', labels, same) == pytest.approx(0.5)
  assert metrics.auc(labels, same) == 0.5


def test_rank_figures_do_not_change_under_a_monotone_map():
  labels, scores = draw(7)
  for name in ('auc', 'average_precision', 'eer', 'partial_auc'):
    assert metrics.single(name, labels, scores) == metrics.single(
      name, labels, scores**3
    )


def test_swapping_the_classes_mirrors_auc_and_keeps_eer():
  labels, scores = draw(8)
  mirrored = metrics.auc(1 - labels, scores)
  assert mirrored == pytest.approx(1 - metrics.auc(labels, scores))
  kept = metrics.single('eer', 1 - labels, 1 - scores)
  assert kept == pytest.approx(metrics.single('eer', labels, scores))


def test_accuracy_counts_a_score_at_the_threshold_as_fake_unless_strict():
  labels = np.array([0, 0, 1, 1])
  scores = np.array([0.1, 0.5, 0.5, 0.4])
  assert metrics.single('accuracy', labels, scores, 0.5) == 0.5
  assert metrics.single('accuracy', labels, scores, 0.4) == 0.75
  curve = metrics.curve(labels, scores)
  strict = metrics.figures(0.5, strict=True)
  assert strict['tpr'](curve)[0] == 0.0 and strict['fpr'](curve)[0] == 0.0
  assert metrics.figures(2.0)['tpr'](curve)[0] == 0.0  # above every score


def test_resampled_figures_equal_scikit_learn_with_weights():
  labels, scores = draw(4, num=60, levels=2)
  weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
  curve = metrics.Ranking(labels, scores)(weights)
  figures = metrics.figures()
  for name, other in (
    ('auc', sklearn_metrics.roc_auc_score),
    ('average_precision', sklearn_metrics.average_precision_score),
  ):
    for row, got in zip(weights, figures[name](curve), strict=True):
      want = other(labels, scores, sample_weight=row)
      assert got == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('name', list(metrics.figures()))
def test_weights_are_counts_of_copies_for_every_figure(name):
  labels, scores = draw(5, num=40, levels=3)
  for seed in range(10):
    counts = np.random.default_rng(seed).integers(0, 3, 40)
    copies = np.repeat(np.arange(40), counts)
    curve = metrics.Ranking(labels, scores)(counts[None].astype(float))
    want = metrics.single(name, labels[copies], scores[copies])
    got = metrics.figures()[name](curve)[0]
    assert got == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('label, word', [(0, 'fake'), (1, 'real')])
def test_one_class_only_is_nan_with_a_reason_but_has_an_accuracy(label, word):
  labels, scores = np.full(3, label), np.array([0.2, 0.6, 0.9])
  for name in set(metrics.figures()) - metrics.OF_ANY_CLASS:
    assert np.isnan(metrics.single(name, labels, scores))
    reason = metrics.undefined(name, labels, scores)
    assert reason == f'no {word} video has a score'
  accuracy = metrics.single('accuracy', labels, scores)
  assert accuracy == pytest.approx((1 + label) / 3)


def test_scores_that_are_no_probabilities_have_no_calibration_error():
  labels, scores = np.array([0, 1, 1]), np.array([-0.1, 0.4, 3.0])
  assert metrics.auc(labels, scores) == 1.0
  for name in ('ece', 'brier'):
    reason = metrics.undefined(name, labels, scores)
    assert reason == 'the scores are not probabilities'
    assert np.isnan(metrics.single(name, labels, scores))


def test_ece_is_the_gap_between_what_is_said_and_what_is_so():
  labels = np.array([0, 0, 0, 1] * 5)
  assert metrics.single('ece', labels, np.full(20, 0.25)) == 0.0
  got = metrics.single('ece', labels, np.full(20, 0.85))
  assert got == pytest.approx(0.6)
  # 0 and 1 have bins too.
  assert metrics.single('ece', labels, labels.astype(float)) == 0.0


def test_bad_labels_and_scores_are_named():
  with pytest.raises(ValueError, match=r'labels hold \[0, 2\]'):
    metrics.auc(np.array([0, 2]), np.array([0.1, 0.2]))
  with pytest.raises(ValueError, match='1 of 2 scores are not finite'):
    metrics.auc(np.array([0, 1]), np.array([0.1, np.nan]))


def test_sigmoid_of_a_huge_logit_does_not_overflow():
  got = metrics.sigmoid(np.array([-1000.0, 0.0, 1000.0]))
  np.testing.assert_array_equal(got, [0, 0.5, 1])
