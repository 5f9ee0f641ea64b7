"""Networks that were trained alone score together, as one detector."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_detector

from configs import baselines, tiny
from stormer_jax import detector, flops, model, steps, train
from stormer_jax.weights import convert, ensemble, kept_weights


def small_config(frozen_stride: int = 4):
  config = baselines.get_config('frame_cnn')
  config.model.update(
    image_size=32, num_frames=2, stem_frozen_stride=frozen_stride
  )
  return config


@functools.cache
def member(seed: int, frozen_stride: int = 4) -> detector.Detector:
  """Random numbers, but for what training leaves as it was."""
  config = small_config(frozen_stride)
  made = random_detector.make_detector(config, seed)
  start = random_detector.make_detector(config, 0)
  made.stats['stem']['conv'] = start.stats['stem']['conv']
  for i in range(3):
    made.stats['stem']['blocks'][i] = start.stats['stem']['blocks'][i]
  return made


def probe() -> detector.Detector:
  config = small_config()
  config.model.kind = 'frame_probe'
  made = random_detector.make_detector(config, 7)
  start = random_detector.make_detector(small_config(), 0)
  made.stats['stem']['conv'] = start.stats['stem']['conv']
  for i in range(3):
    made.stats['stem']['blocks'][i] = start.stats['stem']['blocks'][i]
  return made


def keep(made: detector.Detector, folder, backend: str = 'embedded-1'):
  weights = {'params': made.params, 'stats': made.stats}
  detector.save_kept(folder, made.config, weights, backend)
  return folder


@pytest.fixture
def two(tmp_path):
  return [keep(member(seed), tmp_path / str(seed)) for seed in (1, 2)]


@pytest.fixture
def clip():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(3, 2, 32, 32, 3)), jnp.float32)


def score(run: detector.Detector, clip):
  weights = jax.tree.map(jnp.asarray, (run.params, run.stats))
  return steps.score_clips(run.graphdef, *weights, clip, alone=False)


def test_the_logit_is_the_mean_of_the_members(two, clip, tmp_path):
  said = ensemble.join(two, tmp_path / 'both')
  assert '2 members' in said
  both = detector.load_detector(tmp_path / 'both')
  assert detector.load_face_backend(tmp_path / 'both') == 'embedded-1'
  got = score(both, clip)
  alone = [score(detector.load_detector(folder), clip) for folder in two]
  assert np.abs(alone[0]['logits'] - alone[1]['logits']).min() > 1e-3
  for name in ('logits', 'soft_label_logits'):
    mean = (alone[0][name] + alone[1][name]) / 2
    np.testing.assert_allclose(got[name], mean, rtol=1e-5, atol=1e-5)


def test_what_all_have_in_common_is_counted_once():
  config = small_config()
  alone = flops.forward_flops(model.StormerConfig(**config.model), 1)
  config.model.members = 3
  three = flops.forward_flops(model.StormerConfig(**config.model), 1)
  assert alone < three < 3 * alone
  config.model.stem_frozen_stride = 0
  three = flops.forward_flops(model.StormerConfig(**config.model), 1)
  assert three == 3 * alone


def test_members_that_share_nothing_score_together_too(clip, tmp_path):
  folders = [
    keep(random_detector.make_detector(small_config(0), seed), tmp_path / name)
    for seed, name in ((1, 'a'), (2, 'b'))
  ]
  ensemble.join(folders, tmp_path / 'both')
  got = score(detector.load_detector(tmp_path / 'both'), clip)['logits']
  alone = [
    score(detector.load_detector(folder), clip)['logits'] for folder in folders
  ]
  np.testing.assert_allclose(got, sum(alone) / 2, rtol=1e-5, atol=1e-5)


def test_a_linear_probe_is_one_of_the_members(two, clip, tmp_path):
  ensemble.join([*two, keep(probe(), tmp_path / 'probe')], tmp_path / 'all')
  joined = detector.load_detector(tmp_path / 'all')
  assert (joined.config.model.members, joined.config.model.probes) == (3, 1)
  got = score(joined, clip)['logits']
  alone = [
    score(detector.load_detector(folder), clip)['logits']
    for folder in [*two, tmp_path / 'probe']
  ]
  np.testing.assert_allclose(got, sum(alone) / 3, rtol=1e-4, atol=1e-4)


def test_an_ensemble_counts_the_arithmetic_of_its_probe():
  config = small_config()
  config.model.members = 2
  two = flops.forward_flops(model.StormerConfig(**config.model), 1)
  config.model.update(members=3, probes=1)
  three = flops.forward_flops(model.StormerConfig(**config.model), 1)
  config.model.update(kind='frame_probe', members=1, probes=0)
  assert three - two == flops.forward_flops(
    model.StormerConfig(**config.model), 1
  )


def test_a_run_of_an_older_version_is_joined_with_one_of_today(tmp_path):
  older = member(1)
  config = older.config.copy_and_resolve_references().unlock()
  del config.model.members, config.eval.frame_rule
  config.model.drop_path = 0.1  # of training
  folders = [
    keep(dataclasses.replace(older, config=config), tmp_path / 'older'),
    keep(member(2), tmp_path / 'today'),
  ]
  assert '2 members' in ensemble.join(folders, tmp_path / 'both')


def test_one_in_float16_is_joined_with_one_that_is_not(two, tmp_path):
  whole = member(2)
  folder = keep(whole, tmp_path / 'whole')
  kept_weights.write(
    folder / kept_weights.FILE,
    {'params': whole.params, 'stats': whole.stats},
    half=False,
  )
  assert '2 members' in ensemble.join([two[0], folder], tmp_path / 'both')


def test_one_network_starts_from_the_first_of_them(two, tmp_path):
  ensemble.join(two, tmp_path / 'both')
  first = detector.load_detector(two[0])
  abstract = {'params': first.params, 'stats': first.stats}
  got = detector.read_weights(tmp_path / 'both', abstract)
  jax.tree.map(
    np.testing.assert_array_equal,
    (got['params'], got['stats']),
    (first.params, first.stats),
  )


def test_what_cannot_be_joined_is_one_clear_error(two, tmp_path):
  out = tmp_path / 'both'
  other = keep(
    random_detector.make_detector(small_config(), 3), tmp_path / 'other'
  )
  larger = small_config()
  larger.model.num_frames = 3
  frames = keep(random_detector.make_detector(larger), tmp_path / 'frames')
  dlib = keep(member(1), tmp_path / 'dlib', 'dlib-1')
  vit = keep(random_detector.make_detector(tiny.get_config()), tmp_path / 'vit')
  linear = keep(probe(), tmp_path / 'linear')
  joined = tmp_path / 'joined'
  ensemble.join(two, joined)
  for sources, message in (
    ([two[0], other], 'other: started from another stem than .*1'),
    ([two[0], frames], r'model\.num_frames is 3, that of .*1 2'),
    ([two[0], dlib], 'faces of dlib-1, .* from those of embedded-1'),
    ([two[0], vit], 'vit: joined are runs of model.kind=frame_cnn or'),
    ([linear, two[0]], 'are frame_probe, frame_cnn; .*frame_cnn come first'),
    ([linear, linear], 'frame_cnn come first, and there is at least one'),
    ([two[0], joined], 'joined: is an ensemble'),
  ):
    with pytest.raises(ValueError, match=message):
      ensemble.join(sources, out)
  with pytest.raises(ValueError, match='an empty name in a list'):
    ensemble.join([two[0], ''], out)
  with pytest.raises(FileNotFoundError, match='nothing: no such folder'):
    ensemble.join([two[0], tmp_path / 'nothing'], out)
  with pytest.raises(ValueError, match='exists and is not an empty folder'):
    ensemble.join(two, two[0])
  assert not out.exists()


def test_several_members_are_not_trained_at_once():
  config = small_config()
  config.model.members = 2
  with pytest.raises(ValueError, match='trained one by one and joined'):
    train._check(config, train._choose_task(config))
  config = tiny.get_config()
  config.model.members = 2
  with pytest.raises(ValueError, match=r'kind=frame_cnn alone can'):
    steps.make_model(config)
  config = small_config()
  config.model.probes = 1
  with pytest.raises(
    ValueError, match=r'model\.probes is 1; of model\.members'
  ):
    steps.make_model(config)


def test_an_ensemble_becomes_no_file_of_the_released_code(two, tmp_path):
  ensemble.join(two, tmp_path / 'both')
  with pytest.raises(ValueError, match='a baseline'):
    convert.convert(tmp_path / 'both', tmp_path / 'official.safetensors')
