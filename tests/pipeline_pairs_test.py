"""Batches of pairs: shapes, independence, modes, devices, statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data_pipeline import pipeline
from data_pipeline.synthesis import blending
from tests.conftest import draw_landmarks

SIZE, PATCH, FRAMES = 96, 16, 3  # of the small pairs here
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture(scope='module')
def config():
  return blending.SynthesisConfig(**base.get_config().synthesis)


def inputs(num_pairs, num_frames=FRAMES, size=(128, 112)):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (num_pairs, num_frames, 8, 7, 3), np.uint8)
  frames = coarse.repeat(size[0] // 8, 2).repeat(size[1] // 7, 3)
  points = np.stack(
    [
      np.stack([draw_landmarks(rng) for _ in range(num_frames)])
      for _ in range(num_pairs)
    ]
  )
  scale = np.float32([size[1] / 256, size[0] / 256])
  return frames, points * scale, np.arange(10, 10 + num_pairs, dtype=np.uint32)


def maker(config, mode, mesh=None):
  return jax.jit(
    functools.partial(
      pipeline.make_pairs,
      synthesis=dataclasses.replace(config, mode=mode),
      image_size=SIZE,
      patch_size=PATCH,
      mesh=mesh,
    )
  )


@pytest.fixture(scope='module')
def make(config):
  return maker(config, 'map')


@pytest.fixture(scope='module')
def batch(make):
  return make(*inputs(8))


def assert_same(ours, theirs):
  for name in theirs:
    # A level of 8 bits is 0.017 here; a flipped rounding may not spread.
    difference = np.abs(np.asarray(ours[name]) - np.asarray(theirs[name]))
    assert difference.mean() < 1e-4, name
    assert np.quantile(difference, 0.999) < 1e-3, name


def test_batch_has_the_promised_shapes_and_values(batch):
  grid = SIZE // PATCH
  shapes = {name: array.shape for name, array in batch.items()}
  assert shapes == {
    'clip': (16, FRAMES, SIZE, SIZE, 3),
    'label': (16,),
    'vulnerability_map': (16, FRAMES, grid, grid),
    'soft_label': (16, FRAMES),
    'kept': (16, FRAMES, grid, grid),
  }
  assert all(array.dtype == jnp.float32 for array in batch.values())
  assert all(np.isfinite(array).all() for array in batch.values())
  pixels = np.asarray(batch['clip']) * DEVIATION + MEAN
  assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5


def test_each_pair_has_one_real_and_one_pseudo_fake_in_either_order(batch):
  label = np.asarray(batch['label']).reshape(-1, 2)
  np.testing.assert_array_equal(label.sum(1), 1)
  assert 0 < label[:, 0].sum() < 8
  soft = np.asarray(batch['soft_label'])
  flat = label.reshape(-1)
  assert (soft[flat == 0] == 0).all() and (soft[flat == 1] > 0).all()
  kept = np.asarray(batch['kept']).reshape(8, 2, FRAMES, -1)
  np.testing.assert_array_equal(kept[:, 0], kept[:, 1])


def test_a_cut_patch_is_black_in_both_versions(batch):
  kept = np.asarray(batch['kept'])
  assert (kept == 0).any()
  pixels = np.asarray(batch['clip']) * DEVIATION + MEAN
  cut = kept.repeat(PATCH, 2).repeat(PATCH, 3) == 0
  assert np.abs(pixels[cut]).max() < 1e-6


def test_map_and_vmap_make_the_same_pairs(config, batch):
  assert_same(maker(config, 'vmap')(*inputs(8)), batch)


def test_a_pair_does_not_depend_on_its_batch_mates(make, batch):
  # Pair 5 in every place of a batch, once beside pair 2.
  order = np.array([5, 5, 5, 2, 5, 5, 5, 5])
  other = make(*(array[order] for array in inputs(8)))
  rows = np.stack([2 * order, 2 * order + 1], axis=1).reshape(-1)
  for name, array in other.items():
    np.testing.assert_array_equal(array, np.asarray(batch[name])[rows])


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['map', 'vmap'])
def test_a_pair_is_the_same_alone_and_among_sixty_four(config, mode):
  frames, points, seeds = (array.repeat(8, axis=0) for array in inputs(8))
  seeds = seeds + 1000 * np.arange(64, dtype=np.uint32)
  make = maker(config, mode)
  many = make(frames, points, seeds)
  for index in (0, 41, 63):
    chosen = slice(index, index + 1)
    alone = make(frames[chosen], points[chosen], seeds[chosen])
    rows = slice(2 * index, 2 * index + 2)
    assert_same(alone, {name: array[rows] for name, array in many.items()})


@pytest.mark.parametrize(
  ('mode', 'by_hand'), [('map', True), ('vmap', True), ('vmap', False)]
)
def test_eight_devices_make_the_same_pairs_without_talking(
  config, batch, mode, by_hand
):
  mesh = jax.make_mesh(
    (4, 2), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  spec = jax.sharding.PartitionSpec(('data', 'fsdp'))
  sharding = jax.sharding.NamedSharding(mesh, spec)
  placed = jax.device_put(inputs(8), sharding)
  make = maker(config, mode, mesh if by_hand else None)
  compiled = make.lower(*placed).compile()
  text = compiled.as_text()
  for word in ('all-gather', 'all-reduce', 'all-to-all', 'permute'):
    assert f'{word}(' not in text and f'{word}-start(' not in text
  assert_same(compiled(*placed), batch)


def test_flip_probabilities_serve_training_and_validation(make, batch):
  # One program for both: with the configured probability it is the batch.
  flips = np.full(8, 0.5, np.float32)
  assert_same(make(*inputs(8), flip_probs=flips), batch)
  unflipped = make(*inputs(8), flip_probs=0 * flips)
  mirrored = [
    np.abs(unflipped['clip'][2 * i] - batch['clip'][2 * i]).max() > 0
    for i in range(8)
  ]
  assert 0 < sum(mirrored) < 8


def test_another_seed_makes_another_pair(make, batch):
  frames, points, seeds = inputs(8)
  other = make(frames, points, seeds + np.uint32(2**31))
  assert np.abs(other['clip'] - batch['clip']).mean() > 0.05


def test_ablations_make_other_pairs_of_the_same_shape(config, batch):
  other = dataclasses.replace(
    config,
    temporal_jitter=0.7,
    target_grid='area',
    scale_target_by_ratio=True,
    target_kind='max_normalized',
    boundary_change='uint8_wrap',
  )
  for name, array in maker(other, 'map')(*inputs(8)).items():
    assert array.shape == batch[name].shape
    assert np.isfinite(array).all()
    if name in ('clip', 'vulnerability_map'):
      assert np.abs(array - batch[name]).max() > 0.1


def test_constant_soft_labels_are_the_label_of_the_clip(config, batch):
  constant = maker(dataclasses.replace(config, soft_label='constant'), 'map')
  labels = constant(*inputs(8))
  np.testing.assert_array_equal(
    labels['soft_label'], np.repeat(batch['label'][:, None], FRAMES, 1)
  )
  for name in batch.keys() - {'soft_label'}:
    np.testing.assert_array_equal(labels[name], batch[name])
  visible = np.asarray(batch['soft_label'])
  assert np.any((0 < visible) & (visible < 1))


@pytest.fixture(scope='module')
def statistics(config, golden):
  """Boundary, targets and cutout of 300 pairs, the released semantics.

  Two motions of the face that the original's statistics were made with.
  """
  clips = np.load(golden / 'clips.npz')
  config = dataclasses.replace(
    config, mode='map', flip_prob=0.0, boundary_change='uint8_wrap'
  )
  points = jnp.stack([clips[f'clip{i % 2}/landmarks_all'] for i in range(300)])

  def one(element):
    # Nothing asked for here depends on pixels, so XLA leaves them out.
    frames = jnp.zeros((4, 256, 256, 3), jnp.uint8)
    pair = pipeline.make_pair(frames, *element, config, 224, 16)
    cells = 255 * pair.cells
    change = jnp.round(cells[1:] - cells[:-1])
    wrapped = jnp.where(change < 0, change + 256, change)
    return {
      'target_max': cells.max(),
      'changed': (change != 0).mean(),
      'wrapped_mean': wrapped.mean(),
      'wrapped_deviation': wrapped.std(),
      'falling': (change < 0).sum() / jnp.maximum((change != 0).sum(), 1),
      'change_mean': jnp.abs(change).mean(),
      'change_deviation': jnp.abs(change).std(),
      'real_map': pair.real_vulnerability_map.mean(),
      'map_max': pair.vulnerability_map.max(),
      'cut': (pair.kept == 0).sum(),
      'soft_label': pair.soft_label.mean(),
    }

  seeds = jnp.arange(300, dtype=jnp.uint32)
  make = jax.jit(lambda *batch: jax.lax.map(one, batch))
  return jax.tree.map(np.asarray, make(points, seeds))


# Means over 150 clips of the original loader. Ours lie within three standard
# errors of the two samples together.
@pytest.mark.parametrize(
  ('name', 'theirs'),
  [
    ('target_max', 252.96),
    ('changed', 0.17262),
    ('wrapped_mean', 22.185),
    ('wrapped_deviation', 64.095),
    ('falling', 0.50319),
    ('real_map', -0.33210),
    ('map_max', 3.8642),
  ],
)
def test_pairs_have_the_statistics_of_the_original_loader(
  statistics, name, theirs
):
  ours = statistics[name]
  error = ours.std() * np.sqrt(1 / 150 + 1 / len(ours))
  assert abs(ours.mean() - theirs) < 3 * error


def test_cutouts_have_the_statistics_of_the_original_loader(statistics):
  cut = statistics['cut'] > 0
  assert abs(cut.mean() - 0.4867) < 3 * 0.5 * np.sqrt(1 / 150 + 1 / 300)
  for name, theirs in (('cut', 13.397), ('soft_label', 0.79312)):
    ours = statistics[name][cut]
    error = ours.std() * np.sqrt(1 / 73 + 1 / len(ours))
    assert abs(ours.mean() - theirs) < 3 * error
  assert statistics['cut'][cut].min() == 2
  assert (statistics['soft_label'][~cut] == 1).all()


@pytest.mark.parametrize(
  ('name', 'theirs'), [('change_mean', 3.9845), ('change_deviation', 13.022)]
)
def test_boundaries_change_as_much_as_in_the_original_loader(
  statistics, name, theirs
):
  # The size of a change follows the motion, which the original drew for every
  # clip; two of its motions are known, so their spread is the error.
  ours = statistics[name]
  spread = abs(ours[::2].mean() - ours[1::2].mean())
  assert abs(ours.mean() - theirs) < 1.5 * spread


def test_sizes_that_do_not_fit_are_refused(config):
  frames, points, seeds = map(jnp.asarray, inputs(1))
  with pytest.raises(ValueError, match='multiple of patch_size'):
    pipeline.make_pairs(frames, points, seeds, config, 100, 16)
  with pytest.raises(ValueError, match='margin'):
    pipeline.make_pairs(
      frames[:, :, :48, :48], points, seeds, config, SIZE, PATCH
    )


def test_scoring_clips_are_cropped_and_normalised_frames():
  frames = np.random.default_rng(0).integers(
    0, 256, (2, 3, 94, 94, 3), np.uint8
  )
  # A margin of 15 leaves 64 px, which a size of 64 does not resample.
  clips = pipeline.eval_clips(jnp.asarray(frames), 15, 64)
  expected = (frames[:, :, 15:-15, 15:-15] / 255 - MEAN) / DEVIATION
  np.testing.assert_allclose(clips, expected, atol=1e-5)
