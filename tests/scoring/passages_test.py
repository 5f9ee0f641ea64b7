"""Passages are found where they are, and nowhere else."""

import itertools

import numpy as np
import pytest

from stormer_jax.scoring import passages


def _find(logits, spacing=0.5, level=0.0):
  starts = np.arange(len(logits)) * spacing
  return passages.find(np.array(logits, float), starts, starts + 0.12, level)


@pytest.mark.parametrize('start', [0.0, 29.3, 58.0])
@pytest.mark.parametrize('seed', range(5))
def test_two_seconds_of_sixty_are_named_to_within_one(start, seed):
  rng = np.random.default_rng(seed)
  times = np.arange(120) * 0.5
  forged = (times + 0.12 > start) & (times < start + 2)
  logits = np.where(forged, 3.0, -3.0) + rng.normal(0, 1, 120)
  (found,) = passages.find(logits, times, times + 0.12, 0.0)
  assert abs(found.start - start) <= 1 and abs(found.end - start - 2) <= 1


def test_a_video_without_a_forged_passage_has_none():
  rng = np.random.default_rng(0)
  for _ in range(20):
    assert _find(-3 + rng.normal(0, 1, 120)) == []


def test_clips_that_drift_are_seldom_a_passage():
  """Neighbours are alike, so that noise is taken for less than it is."""
  rng = np.random.default_rng(0)
  found = 0
  for _ in range(200):
    drift = [rng.normal()]
    for step in rng.normal(0, 0.6, 31):
      drift.append(0.8 * drift[-1] + step)
    found += bool(_find(-1.2 + 0.8 * np.array(drift)))
  assert found <= 10


def test_a_video_that_is_forged_throughout_is_one_passage():
  logits = 3 + np.random.default_rng(0).normal(0, 1.5, 60)
  (found,) = _find(logits)
  assert (found.first, found.last) == (0, 59)
  assert found.logit == pytest.approx(logits.mean())


def test_clips_that_only_stray_above_the_level_are_no_passage():
  logits = [-1.0, 1.2] * 30  # as much noise as there is signal
  assert _find(logits) == []


def test_one_clip_is_enough_where_it_is_all_there_is():
  (found,) = _find([2.0])
  assert (found.start, found.end) == (0.0, 0.12)
  assert _find([-2.0]) == []


def test_two_passages_stay_two():
  logits = np.full(60, -3.0)
  logits[10:14] = logits[40:44] = 3
  first, second = _find(logits)
  assert (first.first, first.last) == (10, 13)
  assert (second.first, second.last) == (40, 43)


def test_runs_are_those_of_the_definition():
  """Against a search of all runs, best first, without overlap."""
  rng = np.random.default_rng(1)

  def search(values, offset=0):
    best = max(
      (
        (sum(values[i : j + 1]), -(j - i), -i)
        for i, j in itertools.combinations_with_replacement(
          range(len(values)), 2
        )
      ),
      default=(0,),
    )
    if best[0] <= 0:
      return []
    i = -best[2]
    j = i - best[1]
    return [
      *search(values[:i], offset),
      (offset + i, offset + j),
      *search(values[j + 1 :], offset + j + 1),
    ]

  for _ in range(50):
    values = rng.normal(size=rng.integers(0, 12))
    assert passages.maximal_runs(values) == search(values.tolist())
