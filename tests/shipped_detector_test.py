"""The detector that ships with the package: whole, calibrated, and of use."""

import os
import pathlib

import jax
import numpy as np
import pytest

from configs import base, small
from data_pipeline import demo_videos, pseudo_fake_video
from data_pipeline.faces import embedded
from data_pipeline.synthesis import blending
import stormer_jax
from stormer_jax import detector, steps, train

_PACKAGES = pathlib.Path(
  os.environ.get(
    'STORMER_DEMO_PACKAGES',
    pathlib.Path(__file__).parents[1] / '.demo' / 'packages',
  )
)


@pytest.fixture(scope='module')
def shipped():
  return stormer_jax.Detector.load()


def test_weights_configuration_calibration_and_card_are_of_one_detector(
  shipped,
):
  folder = detector.shipped_folder()
  assert (folder / 'weights.safetensors').stat().st_size <= 16 * 2**20
  assert shipped.calibration is not None  # found by the weights' hash
  assert shipped.calibration.num_real >= 20
  assert shipped.provenance['weights'] in shipped.card
  config = small.get_config()
  assert shipped.detector.config.model == config.model
  assert shipped.detector.config.synthesis == config.synthesis
  # Nothing of the machine that it was trained on.
  for file in 'config.json', 'calibration.json':
    assert '"/' not in (folder / file).read_text(), file


def test_one_can_go_on_from_it_with_videos_of_ones_own(shipped):
  config = small.get_config()
  config.init_from = 'small'
  _, init = steps.make_model(config)
  params, stats = jax.eval_shape(init)
  abstract = steps.init_state(
    params, stats, steps.make_optimizer(config, 1), 0.0
  )
  got = train._starting_weights(config, abstract, init)
  jax.tree.map(
    np.testing.assert_array_equal,
    got,
    (shipped.detector.params, shipped.detector.stats),
  )


@pytest.mark.skipif(
  not all((_PACKAGES / v.source).is_file() for v in demo_videos.DEMO_VIDEOS),
  reason='the demo packages are not installed; `make test` installs them',
)
def test_a_real_video_scores_below_its_pseudo_fake(shipped, tmp_path):
  """The demo's last step: neither answer is wrong."""
  demo_videos.lay_out(_PACKAGES, tmp_path)
  real, fake = tmp_path / 'carphone_pristine.mp4', tmp_path / 'fake.mp4'
  pseudo_fake_video.make_pseudo_fake_video(
    real,
    fake,
    blending.SynthesisConfig(**base.get_config().synthesis),
    embedded.EmbeddedBackend(),
  )
  of_real, of_fake = shipped.predict(real), shipped.predict(fake)
  assert of_real.status == of_fake.status == 'ok'
  assert of_real.logit < of_fake.logit
  assert of_real.answer != 'likely fake'
  assert of_fake.answer != 'likely real'
  assert {of_real.answer, of_fake.answer} != {'uncertain'}
