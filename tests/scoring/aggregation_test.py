"""From clips to a video: each rule against its own words."""

import numpy as np
import pytest

from stormer_jax.scoring import aggregation, metrics


def logit(*scores):
  scores = np.array(scores)
  return np.log(scores / (1 - scores))


def test_each_aggregation_is_what_its_name_says():
  logits = logit(0.1, 0.6, 0.9)
  got = {
    how: aggregation.aggregate(logits, how) for how in aggregation.AGGREGATIONS
  }
  assert got == pytest.approx(
    {
      'mean_logit': float(metrics.sigmoid(np.array(logits.mean()))),
      'mean_probability': 1.6 / 3,
      'median_probability': 0.6,
      'max_probability': 0.9,
      'confident': 1.6 / 3,
    }
  )


def test_confident_takes_the_sure_fakes_where_they_are_many():
  # 12 of 24 frames above 0.8: more than 11, and more than 40 %.
  logits = logit(0.9, 0.9, 0.9, 0.3, 0.3, 0.3)
  sure = aggregation.aggregate(logits, 'confident', frames_per_clip=4)
  assert sure == pytest.approx(0.9)
  # 11 frames are not more than 11.
  few = logit(*11 * [0.9], *11 * [0.3])
  assert aggregation.aggregate(few, 'confident') == pytest.approx(0.6)
  # 12 of 30 are 40 %, not more.
  share = logit(*12 * [0.9], *18 * [0.4])
  assert aggregation.aggregate(share, 'confident') == pytest.approx(0.6)


def test_confident_takes_the_sure_reals_where_they_are_nearly_all():
  nearly = logit(*19 * [0.1], 0.5)
  assert aggregation.aggregate(nearly, 'confident') == pytest.approx(0.1)
  # 9 of 10 are 90 %, not more.
  share = logit(*9 * [0.1], 0.5)
  assert aggregation.aggregate(share, 'confident') == pytest.approx(0.14)


def test_an_unknown_aggregation_is_named_with_the_choices():
  with pytest.raises(ValueError, match=r"'mean'.*choose one of .*confident"):
    aggregation.aggregate(np.zeros(1), 'mean')


def test_video_score_is_the_sigmoid_of_the_mean_logit_in_any_order():
  logits = np.array([1.0, 3.0, -2.0, 0.1], np.float32)
  index = np.array([0, 0, 2, 2])
  means, scores = aggregation.video_scores(logits, index, 4)
  np.testing.assert_allclose(means[[0, 2]], [2.0, -0.95], rtol=1e-7)
  np.testing.assert_allclose(scores[0], 1 / (1 + np.exp(-2.0)))
  assert np.isnan(means[[1, 3]]).all() and np.isnan(scores[[1, 3]]).all()
  rng = np.random.default_rng(0)
  logits = rng.normal(size=1000).astype(np.float32)
  index = rng.integers(0, 7, 1000)
  order = rng.permutation(1000)
  for how in aggregation.AGGREGATIONS:
    np.testing.assert_array_equal(
      aggregation.video_scores(logits, index, 7, how),
      aggregation.video_scores(logits[order], index[order], 7, how),
    )


def test_a_clip_of_no_video_is_refused():
  with pytest.raises(ValueError, match='runs from 0 to 3; expected 0 to 2'):
    aggregation.video_scores(np.zeros(2), np.array([0, 3]), 3)
