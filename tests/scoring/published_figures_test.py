"""The paper's figures with the intervals that METHOD 12 gives them."""

import math

import numpy as np
import pytest

from configs import base
from stormer_jax.scoring import evaluate, metrics, published_figures


@pytest.mark.parametrize(
  'dataset, auc, half',
  [
    ('celebdf_v2:test', 0.924, 0.022),
    ('dfdcp', 0.900, 0.021),
    ('dfdc:test', 0.746, 0.014),
    ('dfd', 0.985, 0.003),
    ('wilddeepfake', 0.742, 0.034),
  ],
)
def test_a_published_auc_has_the_interval_of_its_test_set(dataset, auc, half):
  found = published_figures.find(dataset, 'ffpp_c23')
  assert found.auc == auc
  assert found.auc - found.low == pytest.approx(half, abs=5e-4)


def test_training_on_uncompressed_videos_has_its_own_figures():
  assert published_figures.find('celebdf_v2', 'ffpp_c0').auc == 0.965
  found = published_figures.find('diffswap', 'ffpp_c0')
  assert found.auc == 0.977 and math.isnan(found.low)


@pytest.mark.parametrize(
  'dataset', ['demo:test', 'celebdf_v2:train', 'celebdf_v2-blur-3', '']
)
def test_other_data_have_no_published_figure(dataset):
  assert published_figures.find(dataset, 'ffpp_c23') is None


def test_the_standard_error_is_that_of_samples_of_normals():
  rng = np.random.default_rng(0)
  labels = np.repeat([0, 1], [50, 80])
  areas = [
    metrics.auc(labels, rng.normal(size=130) + labels) for _ in range(2000)
  ]
  want = published_figures.standard_error(0.76025, 50, 80)
  assert np.std(areas) == pytest.approx(want, rel=0.08)


@pytest.mark.parametrize(
  'dataset, px',
  [('dfw', 0), ('wilddeepfake', 0), ('dfdcp', 5), ('dfd-blur-3', 13)],
)
def test_the_margin_of_a_data_set_is_the_papers_by_any_name(dataset, px):
  options = evaluate.EvalConfig(**base.get_config().eval)
  assert evaluate.margin_of(options, dataset) == px
  assert evaluate.margin_of(options, 'celebdf_v2') == 15
