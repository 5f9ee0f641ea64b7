"""The detector that ships with the package: whole, calibrated, and of use."""

import os
import pathlib

import av
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

_needs_videos = pytest.mark.skipif(
  not all((_PACKAGES / v.source).is_file() for v in demo_videos.DEMO_VIDEOS),
  reason='the demo packages are not installed; `make test` installs them',
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
  config.model.update(members=2, probes=1)
  assert shipped.detector.config.model == config.model
  assert shipped.detector.config.synthesis == config.synthesis
  # Nothing of the machine that it was trained on.
  for file in 'config.json', 'calibration.json':
    assert '"/' not in (folder / file).read_text(), file


def test_its_calibration_is_not_taken_for_logits_in_bfloat16(shipped):
  config = detector.load_config(detector.shipped_folder()).unlock()
  config.model.dtype = 'bfloat16'
  half = stormer_jax.Detector.load(config=config)
  assert half.calibration is None
  assert half.provenance['weights'].endswith('-bfloat16')
  assert shipped.provenance['weights'] in half.provenance['weights']


def test_one_can_go_on_from_it_with_videos_of_ones_own(shipped):
  config = small.get_config()
  config.init_from = 'small'
  _, init = steps.make_model(config)
  params, stats = jax.eval_shape(init)
  abstract = steps.init_state(
    params, stats, steps.make_optimizer(config, 1), 0.0
  )
  got = train._starting_weights(config, abstract, init)
  first = shipped.detector
  jax.tree.map(
    np.testing.assert_array_equal,
    got,
    (first.params['members'][0], first.stats['members'][0]),
  )


def test_a_still_picture_is_judged_and_said_to_be_one(shipped):
  golden = pathlib.Path(__file__).parent / 'golden' / 'face_carphone.png'
  said = shipped.predict(golden)
  assert said.status == 'ok' and len(said.clips) == 1
  assert 'This is a still picture, judged by itself' in said.sentence


@_needs_videos
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


def _repeat(source: pathlib.Path, out: pathlib.Path, seconds: int) -> None:
  """Writes a film that shows another one over and over."""
  with av.open(source) as container:
    pictures = [
      frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)
    ]
    rate = container.streams.video[0].average_rate
  with av.open(out, 'w') as film:
    track = film.add_stream('h264', rate, options={'crf': '18'})
    track.height, track.width, _ = pictures[0].shape
    track.pix_fmt = 'yuv420p'
    for number in range(round(seconds * rate)):
      picture = pictures[number % len(pictures)]
      film.mux(track.encode(av.VideoFrame.from_ndarray(picture)))
    film.mux(track.encode())


@pytest.mark.slow
@_needs_videos
def test_two_forged_seconds_of_sixty_are_named_to_within_one(shipped, tmp_path):
  demo_videos.lay_out(_PACKAGES, tmp_path)
  film = tmp_path / 'film.mp4'
  _repeat(tmp_path / 'WolfgangLanger_Pexels.mp4', film, 60)
  whole = shipped.predict(film)
  assert whole.answer == 'likely real' and not whole.segments
  for start in 10, 29, 50:
    forged = tmp_path / f'{start}.mp4'
    pseudo_fake_video.make_pseudo_fake_video(
      film,
      forged,
      blending.SynthesisConfig(**base.get_config().synthesis),
      embedded.EmbeddedBackend(),
      passage=(float(start), start + 2.0),
    )
    said = shipped.predict(forged)
    (segment,) = said.segments
    print(f'\n{start} to {start + 2} s: {segment.start:.2f}, {segment.end:.2f}')
    assert abs(segment.start - start) <= 1
    assert abs(segment.end - start - 2) <= 1
    assert said.answer == 'uncertain'  # as a whole it is likely real
