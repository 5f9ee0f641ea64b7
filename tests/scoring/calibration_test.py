"""Probabilities that hold, thresholds that keep their rate, honest doubt."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import calibration as sklearn_calibration
from sklearn import linear_model

from stormer_jax.scoring import calibration, metrics, protocol, report


def draw(seed=0, num=400, slope=0.4, intercept=-1.0):
  """Logits whose probability of fake is known."""
  rng = np.random.default_rng(seed)
  logits = 3 * rng.normal(size=num)
  truth = metrics.sigmoid(slope * logits + intercept)
  return logits, (rng.uniform(size=num) < truth).astype(int)


def calibrate(logits, labels, **changes):
  options = {
    'method': 'platt',
    'clusters': np.arange(len(labels)),
    'frame_rule': 'uniform',
    'weights': 'abc',
    'fitted_on': 'faces:val',
  }
  return calibration.calibrate(logits, labels, **options | changes)


def test_platt_without_smoothing_is_logistic_regression():
  logits, labels = draw()
  got = calibration.fit(logits, labels, smooth=False)
  want = linear_model.LogisticRegression(C=np.inf, tol=1e-10)
  want.fit(logits[:, None], labels)
  assert got[0] == pytest.approx(want.coef_[0, 0], rel=1e-5)
  assert got[1] == pytest.approx(want.intercept_[0], rel=1e-5)


def test_platt_with_his_targets_is_that_of_scikit_learn():
  logits, labels = draw(1)
  a, b = sklearn_calibration._sigmoid_calibration(logits, labels)
  got = calibration.fit(logits, labels)
  assert got == pytest.approx((-a, -b), abs=1e-4)


def test_a_temperature_is_logistic_regression_without_intercept():
  logits, labels = draw(2, intercept=0.0)
  got = calibration.fit(logits, labels, 'temperature', smooth=False)
  want = linear_model.LogisticRegression(
    C=np.inf, fit_intercept=False, tol=1e-10
  )
  want.fit(logits[:, None], labels)
  assert got == (pytest.approx(want.coef_[0, 0], rel=1e-5), 0.0)


def test_two_logits_alone_are_fitted_in_closed_form():
  # 3 of 10 are fake at -1, 9 of 10 at +1: the fit goes through both.
  logits = np.repeat([-1.0, 1.0], 10)
  labels = np.r_[np.arange(10) < 3, np.arange(10) < 9].astype(int)
  slope, intercept = calibration.fit(logits, labels, smooth=False)
  low, high = np.log(3 / 7), np.log(9)
  assert slope == pytest.approx((high - low) / 2)
  assert intercept == pytest.approx((high + low) / 2)


@pytest.mark.parametrize('method', calibration.METHODS)
@pytest.mark.parametrize('size', [1e-3, 1.0, 1e4])
def test_classes_apart_and_logits_of_any_size_have_a_finite_fit(method, size):
  logits = size * np.r_[np.linspace(-3, -1, 20), np.linspace(1, 3, 20)]
  labels = np.repeat([0, 1], 20)
  slope, intercept = calibration.fit(logits, labels, method)
  assert np.isfinite([slope, intercept]).all() and slope > 0
  scores = metrics.sigmoid(slope * logits + intercept)
  assert 0 < scores.min() < 0.1 and 0.9 < scores.max() < 1
  other = calibration.fit(logits / size, labels, method)
  assert slope * size == pytest.approx(other[0], rel=1e-6)


def test_calibrated_probabilities_hold_on_videos_not_seen():
  made = calibrate(*draw(3, num=2000))
  logits, labels = draw(4, num=2000)
  before = metrics.single('ece', labels, metrics.sigmoid(logits))
  after = metrics.single('ece', labels, made.probability(logits))
  assert before > 0.15 and after < 0.05
  assert made.ece_before > 0.15 and made.ece_after < 0.05
  assert made.brier_after < made.brier_before
  # The order stays: no rank figure changes.
  assert metrics.auc(labels, made.probability(logits)) == pytest.approx(
    metrics.auc(labels, logits)
  )


def test_a_threshold_keeps_its_false_positive_rate_and_no_lower_one_does():
  real = np.random.default_rng(0).uniform(size=200)
  for fpr in (0.01, 0.05, 0.1):
    threshold = calibration.threshold_at(real, fpr)
    assert np.mean(real >= threshold) <= fpr
    lower = real[real < threshold].max()
    assert np.mean(real >= lower) > fpr
  assert calibration.threshold_at(real[:50], 0.01) is None
  assert calibration.threshold_at(np.full(50, 0.5), 0.1) > 0.5  # ties


def test_the_best_threshold_has_the_best_balanced_accuracy():
  logits, labels = draw(5)
  best = calibration.best_threshold(labels, metrics.sigmoid(logits))
  got = metrics.single(
    'balanced_accuracy', labels, metrics.sigmoid(logits), best
  )
  for other in np.linspace(0.01, 0.99, 99):
    assert got >= metrics.single(
      'balanced_accuracy', labels, metrics.sigmoid(logits), other
    )


def test_outside_of_the_band_one_in_twenty_is_called_the_other():
  logits, labels = draw(6, num=2000, slope=1.5, intercept=0.0)
  made = calibrate(logits, labels)
  answers = np.array([made.answer(x) for x in logits.tolist()])
  assert np.mean(answers[labels == 0] == 'likely fake') <= 0.051
  assert np.mean(answers[labels == 1] == 'likely real') <= 0.051
  assert np.mean(answers == 'uncertain') > 0.1
  low, high = made.uncertain
  assert low < made.threshold < high


@pytest.mark.parametrize('num_real', [20, 45, 62])
def test_of_few_real_videos_at_most_one_in_twenty_lies_above_the_band(num_real):
  rng = np.random.default_rng(num_real)
  logits = np.r_[rng.normal(-1, 1, num_real), rng.normal(1, 1, 50)]
  made = calibrate(logits, np.repeat([0, 1], [num_real, 50]))
  called = [made.answer(x) for x in logits[:num_real].tolist()]
  assert called.count('likely fake') <= num_real // 20


def test_between_classes_far_apart_nothing_is_known():
  logits = np.r_[np.linspace(-6, -4, 50), np.linspace(4, 6, 50)]
  made = calibrate(logits, np.repeat([0, 1], 50))
  assert made.answer(-5.0) == 'likely real'
  assert made.answer(0.0) == 'uncertain'
  assert made.answer(5.0) == 'likely fake'


def test_a_detector_that_is_no_better_than_chance_is_refused():
  logits, labels = draw(7)
  with pytest.raises(ValueError, match='a higher logit does not mean fake'):
    calibration.fit(-logits, labels)
  with pytest.raises(ValueError, match='no fake video has a score'):
    calibration.fit(logits, 0 * labels)
  with pytest.raises(ValueError, match='needs 10 of each'):
    calibrate(logits[:12], labels[:12])


def save_scores(folder, *, split='val', rule='uniform', weights='abc', seed=0):
  logits, labels = draw(seed, num=60)
  rows = [
    report.VideoScore(
      f'v{i}',
      label,
      '',
      '',
      '',
      8,
      (logit - 1, logit + 1),
      logit,
      float(metrics.sigmoid(np.array(logit))),
    )
    for i, (logit, label) in enumerate(
      zip(logits.tolist(), labels.tolist(), strict=True)
    )
  ]
  own = protocol.Protocol(
    dataset='faces',
    split=split,
    frame_rule=rule,
    weights=weights,
    num_bootstrap=0,
  )
  report.write_scores(report.measured(rows, own, {}), folder)
  return str(folder / 'scores.csv'), logits, labels


@pytest.fixture
def run(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  return tmp_path


def test_a_run_keeps_a_calibration_for_each_rule_and_set_of_weights(run):
  uniform, logits, labels = save_scores(run / 'eval/a')
  dense, *_ = save_scores(run / 'eval/b', rule='consecutive', seed=1)
  made = calibration.calibrate_run(run, [f'a={uniform}', f'b={dense}'])
  assert [c.frame_rule for c in made] == ['uniform', 'consecutive']
  assert (made[0].slope, made[0].intercept) == pytest.approx(
    calibration.fit(logits, labels)
  )
  assert calibration.load(run, 'abc', 'uniform') == made[0]
  assert calibration.load(run, 'abc', 'consecutive') == made[1]
  assert calibration.load(run, 'other', 'uniform') is None
  assert calibration.load(run / 'nowhere', 'abc', 'uniform') is None
  assert (run / 'calibration-uniform.svg').exists()
  # Again, by the other method: the new one takes the place of the old.
  (again,) = calibration.calibrate_run(run, [uniform], 'temperature')
  assert again.intercept == 0.0 and again.fitted_on == 'faces:val'
  assert calibration.load(run, 'abc', 'uniform') == again
  assert len(json.loads((run / 'calibration.json').read_text())) == 2
  assert 'uncertain from' in calibration.text(again)
  assert '60 real' not in calibration.text(again)


def test_a_test_set_and_mixed_weights_are_refused(run):
  other, *_ = save_scores(run / 'eval/test', split='test')
  with pytest.raises(ValueError, match='calibrate on validation alone'):
    calibration.calibrate_run(run, [other])
  one, *_ = save_scores(run / 'eval/one')
  two, *_ = save_scores(run / 'eval/two', weights='def')
  with pytest.raises(ValueError, match='scores of several detectors'):
    calibration.calibrate_run(run, [f'a={one}', f'b={two}'])
  plain = run / 'plain.csv'
  plain.write_text('video,label,score\na,0,0.1\n')
  with pytest.raises(ValueError, match='no clip logits with their protocol'):
    calibration.calibrate_run(run, [str(plain)])
  with pytest.raises(FileNotFoundError, match='no run here'):
    calibration.calibrate_run(run / 'none', [one])


def test_a_damaged_file_is_named_with_the_way_out(run):
  (run / 'calibration.json').write_text('[{"slope": 1}]')
  with pytest.raises(ValueError, match='remove it and calibrate again'):
    calibration.load(run, 'abc', 'uniform')


def test_what_is_said_of_a_detector_without_one_names_the_way_to_get_one():
  assert '--mode=calibrate' in calibration.not_calibrated('uniform')


def test_measured_scores_are_probabilities_and_conventions_stay_as_they_are(
  run,
):
  logits, labels = draw(8, num=80)
  made = calibrate(logits, labels)
  rows = [
    report.VideoScore(f'v{i}', y, '', '', '', 8, (x,), x, 0.5)
    for i, (x, y) in enumerate(
      zip(logits.tolist(), labels.tolist(), strict=True)
    )
  ]
  plain = protocol.Protocol(num_bootstrap=0)
  own = dataclasses.replace(
    plain, calibration=(made.slope, made.intercept), threshold=made.threshold
  )
  calibrated = report.measured(rows, own, {})
  raw = report.measured(rows, plain, {})
  want = metrics.single('brier', labels, made.probability(logits))
  assert calibrated.figures['brier'].value == pytest.approx(want)
  assert calibrated.figures['auc'].value == raw.figures['auc'].value
  by_paper = [
    [r.estimate for r in scores.measured if r.convention == 'paper']
    for scores in (calibrated, raw)
  ]
  assert str(by_paper[0]) == str(by_paper[1])
