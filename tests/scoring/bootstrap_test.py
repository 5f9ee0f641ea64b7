"""Intervals cover, keep together what belongs together, and say when not."""

import numpy as np
import pytest

from stormer_jax.scoring import bootstrap, metrics

FEW = ('auc', 'average_precision', 'eer', 'accuracy')


def draw(seed, num=200, shift=1.0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, num)
  return labels, metrics.sigmoid(rng.normal(size=num) + shift * labels)


def estimates(labels, scores, **changes):
  options = {'num_bootstrap': 300, 'names': FEW, **changes}
  return bootstrap.estimates(labels, scores, **options)


def test_interval_of_95_percent_covers_the_truth_about_95_times_in_100():
  # AUC of two unit normals one apart is Phi(1 / sqrt 2).
  truth, covered, num = 0.76025, 0, 200
  for seed in range(num):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 40)
    scores = rng.normal(size=80) + labels
    area = estimates(labels, scores, names=['auc'])['auc']
    covered += area.low <= truth <= area.high
  # Three standard errors of a share of 0.95 in 200 are 0.046.
  assert 0.90 <= covered / num <= 0.99


def test_interval_is_that_of_independent_resampling():
  labels, scores = draw(9, num=80)
  area = estimates(labels, scores, num_bootstrap=4000)['auc']
  rng = np.random.default_rng(11)
  fake, real = scores[labels == 1], scores[labels == 0]
  draws = []
  for _ in range(4000):
    f, r = rng.choice(fake, len(fake)), rng.choice(real, len(real))
    draws.append(np.mean(f[:, None] > r) + 0.5 * np.mean(f[:, None] == r))
  want = np.percentile(draws, [2.5, 97.5])
  np.testing.assert_allclose([area.low, area.high], want, atol=0.01)


def test_every_figure_has_an_interval_that_holds_it():
  labels, scores = draw(10)
  result = estimates(labels, scores, names=None)
  assert list(result) == list(metrics.figures())
  for name, figure in result.items():
    assert 0 <= figure.low < figure.high <= 1, name
    assert figure.note == ''
    assert figure.value == metrics.single(name, labels, scores)
    # The ECE of a resample is biased upwards: what it holds may lie below.
    assert name == 'ece' or figure.low <= figure.value <= figure.high


def test_interval_repeats_with_the_seed_and_for_any_choice_of_figures():
  labels, scores = draw(10)
  first = estimates(labels, scores)
  assert first == estimates(labels, scores)
  assert first['eer'] == estimates(labels, scores, names=['eer'])['eer']
  assert first != estimates(labels, scores, seed=1)


def test_interval_does_not_depend_on_the_chunk(monkeypatch):
  labels, scores = draw(10)
  whole = estimates(labels, scores)
  monkeypatch.setattr(bootstrap, '_CHUNK', 37 * len(labels))
  assert whole == estimates(labels, scores)


def test_every_resample_keeps_the_number_of_each_class():
  labels, _ = draw(1, num=50)
  for weights in bootstrap.resamples(labels, np.arange(50), 20, 0):
    np.testing.assert_array_equal(weights @ labels, labels.sum())
    np.testing.assert_array_equal(weights.sum(1), 50)
    assert len(np.unique(weights, axis=0)) == len(weights)


def test_pairs_drawn_together_know_more_than_their_halves():
  # A fake scores what its own real scores, and the videos differ by much:
  # drawn together the two classes stay alike, drawn apart they do not.
  base = np.random.default_rng(0).uniform(size=50)
  scores, labels = np.r_[base, base], np.repeat([0, 1], 50)
  clusters = np.r_[np.arange(50), np.arange(50)]
  together = estimates(labels, scores, clusters=clusters)
  apart = estimates(labels, scores)
  assert together['auc'].low == together['auc'].high == 0.5
  assert apart['auc'].high - apart['auc'].low > 0.1


def test_clusters_of_unequal_content_are_drawn_all_the_same():
  # One real video with 1 to 5 fakes each: no two are of a kind.
  clusters = np.repeat(np.arange(5), np.arange(2, 7))
  labels = np.r_[0, np.diff(clusters) == 0].astype(int)
  scores = np.random.default_rng(0).uniform(size=20)
  result = estimates(labels, scores, clusters=clusters)
  assert result['auc'].low < result['auc'].value < result['auc'].high
  for weights in bootstrap.resamples(labels, clusters, 10, 0):
    first = np.unique(clusters, return_index=True)[1]
    np.testing.assert_array_equal(weights, weights[:, first[clusters]])
    np.testing.assert_array_equal(weights[:, first].sum(1), 5)


def test_more_clips_of_the_same_videos_are_no_more_evidence():
  labels, scores = draw(2, num=60)
  alone = estimates(labels, scores)['auc']
  many = estimates(
    labels.repeat(8), scores.repeat(8), clusters=np.arange(60).repeat(8)
  )['auc']
  assert many.value == pytest.approx(alone.value)
  wide, narrow = alone.high - alone.low, many.high - many.low
  assert narrow == pytest.approx(wide, rel=0.15)
  taken_apart = estimates(labels.repeat(8), scores.repeat(8))['auc']
  assert taken_apart.high - taken_apart.low < wide / 2


@pytest.mark.parametrize('label, word', [(0, 'fake'), (1, 'real')])
def test_one_class_only_has_an_accuracy_and_reasons(label, word):
  result = estimates(np.full(3, label), np.array([0.2, 0.6, 0.9]))
  for name in ('auc', 'average_precision', 'eer'):
    assert np.isnan([result[name].value, result[name].low]).all()
    assert result[name].note == f'no {word} video has a score'
  assert result['accuracy'].value == pytest.approx((1 + label) / 3)
  assert result['accuracy'].low < result['accuracy'].high


def test_no_video_at_all_is_nan_with_a_reason():
  result = estimates(np.zeros(0, int), np.zeros(0))
  assert all(np.isnan(figure.value) for figure in result.values())
  assert result['auc'].note == 'no video has a score'


def test_one_video_of_a_class_has_a_value_but_no_interval():
  result = estimates(np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5]))
  assert result['auc'].value == 0.5
  assert np.isnan(result['auc'].low)
  assert 'only one video' in result['auc'].note


def test_a_perfect_score_warns_that_its_interval_says_too_little():
  result = estimates(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
  assert result['auc'].low == result['auc'].high == 1
  assert 'too little' in result['auc'].note


def test_a_paired_difference_is_surer_than_the_figures_it_is_of():
  labels, scores = draw(4, num=300)
  rng = np.random.default_rng(0)
  other = metrics.sigmoid(
    np.log(scores / (1 - scores)) + 0.05 * rng.normal(size=300)
  )
  result = bootstrap.differences(
    labels, scores, other, names=FEW, num_bootstrap=300
  )
  first, second = estimates(labels, scores), estimates(labels, other)
  for name in FEW:
    want = first[name].value - second[name].value
    assert result[name].value == pytest.approx(want, abs=1e-15)
  width = result['auc'].high - result['auc'].low
  assert 0 < width < (first['auc'].high - first['auc'].low) / 3


def test_a_system_does_not_differ_from_itself():
  labels, scores = draw(4)
  result = bootstrap.differences(labels, scores, scores, num_bootstrap=50)
  for name, figure in result.items():
    assert figure.value == figure.low == figure.high == 0.0, name


def test_a_mean_of_sets_has_the_interval_of_a_mean():
  # The mean of k like sets is surer by the root of k.
  samples = [bootstrap.Sample(*draw(seed, num=300)) for seed in range(9)]
  each = [estimates(s.labels, s.scores)['auc'] for s in samples]
  result = bootstrap.mean(samples, 'auc', num_bootstrap=1000)
  assert result.value == pytest.approx(np.mean([e.value for e in each]))
  width = np.mean([e.high - e.low for e in each])
  assert result.high - result.low == pytest.approx(width / 3, rel=0.2)


def test_a_mean_over_a_set_without_fakes_has_a_reason():
  labels, scores = draw(0)
  samples = [
    bootstrap.Sample(labels, scores),
    bootstrap.Sample(np.zeros(9, int), scores[:9]),
  ]
  result = bootstrap.mean(samples, 'auc')
  assert np.isnan(result.value)
  assert result.note == 'no fake video has a score in one of them'


def test_pooled_sets_are_ranked_by_one_threshold():
  # Each set is told apart without error, yet no threshold serves both.
  labels = np.repeat([0, 1], 20)
  low = bootstrap.Sample(labels, np.where(labels, 0.3, 0.1))
  high = bootstrap.Sample(labels, np.where(labels, 0.9, 0.6))
  pool, strata = bootstrap.pooled([low, high])
  result = bootstrap.estimates(*pool[:2], clusters=pool.clusters, strata=strata)
  assert bootstrap.mean([low, high], 'auc').value == 1.0
  assert result['auc'].value == pytest.approx(0.75)
  # As many of each set in every resample: nothing varies.
  assert result['auc'].low == result['auc'].high == pytest.approx(0.75)


def test_a_share_has_the_interval_of_wilson():
  # Newcombe, Statistics in Medicine 17, 1998, Table I: 81 of 263.
  result = bootstrap.share(81, 263)
  assert (result.low, result.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
  assert bootstrap.share(0, 20).low == 0.0
  assert bootstrap.share(20, 20).high == 1.0
  assert bootstrap.share(20, 20).low == pytest.approx(0.8389, abs=1e-4)
  assert np.isnan(bootstrap.share(0, 0).value)
