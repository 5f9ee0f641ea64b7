"""The arithmetic of a run is the same on any devices and any mesh.

Clips -> pairs -> SAM steps -> validation, the programs of `train`, on the same
clips from the same weights. Bit for bit: the pairs, and every clip counted
once. To rounding: all else, for a batch's sums are added in another order, and
matrix products of other sizes are blocked otherwise.
"""

import functools

import jax
import numpy as np
import pytest
import quick_compile
from random_detector import make_detector

from configs import tiny
from data_pipeline import clips, records
from data_pipeline.synthesis import blending
from stormer_jax import sharding, steps, train, validation
from stormer_jax.scoring import evaluate

NUM_STEPS = 3
DEVICES = jax.devices()


@pytest.fixture(scope='module')
def config():
  config = tiny.get_config()
  config.model.update(
    width=64, num_heads=4, num_frames=3, image_size=32, scan_layers=True
  )
  config.optimizer.freeze_epochs = 0
  config.train.log_every = 100
  return config


@pytest.fixture(scope='module')
def history(config, data_root):
  """Function of a mesh -> what a run on it computes, on the host."""
  open_split = functools.partial(
    records.open_records, data_root, 'demo', 'consecutive'
  )
  stream = clips.train_dataset(
    open_split('train'),
    num_frames=config.model.num_frames,
    batch_size=config.data.batch_size,
    max_offset=config.data.max_offset,
    seed=0,
    num_threads=1,
    prefetch=1,
  )
  batches = [next(stream) for _ in range(NUM_STEPS)]
  val_records = open_split('val')
  detector = make_detector(config)
  tx = steps.make_optimizer(config, steps_per_epoch=1)
  # On the host: steps are donated what they start from.
  start = jax.device_get(
    steps.init_state(detector.params, detector.stats, tx, ema_decay=0.0)
  )

  def run(mesh):
    shardings = sharding.state_shardings(start, mesh)
    state = jax.device_put(start, shardings)
    make_pairs, make_val_pairs = train._pair_makers(config, mesh)
    train_step = jax.jit(
      steps.make_train_step(config, detector.graphdef, tx, steps_per_epoch=1),
      donate_argnums=0,
      out_shardings=(shardings, sharding.replicated(mesh)),
      compiler_options=quick_compile.OPTIONS,
    )
    all_pairs, all_terms = [], []
    for batch in batches:
      batch = sharding.put_batch(batch, mesh)
      pairs = make_pairs(batch['frames'], batch['landmarks'], batch['seed'])
      all_pairs.append(jax.device_get(pairs))
      state, terms = train_step(state, pairs)
      all_terms.append(jax.device_get(terms))
    assert train_step._cache_size() == 1
    validate = validation.Validation(
      config, val_records, detector.graphdef, mesh, make_val_pairs
    )
    figures = validate(state, lambda: None)
    return all_pairs, all_terms, jax.device_get(state), figures

  return run


@pytest.fixture(scope='module')
def alone(history):
  return history(sharding.make_mesh(devices=DEVICES[:1]))


def slow(*shape):
  return pytest.param(shape, marks=pytest.mark.slow)


def assert_same_statistic(path, ours, theirs):
  # A running mean follows the bias of the convolution before it, whose true
  # gradient is zero: Adam moves it by rounding alone, at most 1e-3 a step in
  # either direction, of which a twentieth enters the mean.
  atol = 5e-4 if path[-1].key == 'mean' else 1e-5
  np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(
  'shape',
  [
    (2, 2, 2),
    slow(2, 1, 1),
    slow(4, 1, 1),
    slow(8, 1, 1),
    slow(1, 8, 1),
    slow(4, 2, 1),
    slow(1, 1, 2),
    slow(1, 1, 4),
  ],
  ids=str,
)
def test_any_mesh_computes_what_one_device_does(history, alone, shape):
  """Terms to 2e-5 of themselves; weights to 0.02 of a step of 1e-3.

  Adam magnifies rounding where it divides.
  """
  mesh = sharding.make_mesh(*shape, devices=DEVICES[: np.prod(shape)])
  pairs, terms, state, figures = history(mesh)
  expected_pairs, expected_terms, expected_state, expected_figures = alone
  for ours, theirs in zip(pairs, expected_pairs, strict=True):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  for ours, theirs in zip(terms, expected_terms, strict=True):
    np.testing.assert_allclose(ours['total'], theirs['total'], rtol=2e-5)
    np.testing.assert_allclose(
      ours['gradient_norm'], theirs['gradient_norm'], rtol=1e-3
    )
  blocks, expected_blocks = (
    s.params['blocks'] for s in (state, expected_state)
  )
  for layer, kernel in (('attn', 'proj'), ('temporal_attn', 'proj')):
    np.testing.assert_allclose(
      blocks[layer][kernel]['kernel'],
      expected_blocks[layer][kernel]['kernel'],
      atol=2e-5,
    )
  np.testing.assert_allclose(
    blocks['mlp']['fc2']['kernel'],
    expected_blocks['mlp']['fc2']['kernel'],
    atol=2e-5,
  )
  jax.tree_util.tree_map_with_path(
    assert_same_statistic,
    state.stats,
    expected_state.stats,
  )
  # 2 + 3 + 4 windows of T = 3 in videos of 8, 10 and 12 frames, a pair each,
  # in batches of 8: seven of the last batch are filling.
  assert figures['val/clips'] == expected_figures['val/clips'] == 18
  for name, value in expected_figures.items():
    np.testing.assert_allclose(figures[name], value, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize('batch_size', [5, 32])
def test_scores_do_not_depend_on_devices_or_batches(
  config, data_root, monkeypatch, batch_size
):
  """13 clips in batches that neither they nor the devices divide."""
  detector = make_detector(config)
  uniform = records.open_records(data_root, 'demo', 'uniform', 'test')
  config = config.copy_and_resolve_references()
  config.eval.batch_size = batch_size
  options = evaluate.EvalConfig(**config.eval)
  logits = []
  for devices in (DEVICES[:1], DEVICES):
    monkeypatch.setattr(jax, 'local_devices', lambda d=devices: d)
    scores = evaluate.score_dataset(
      detector,
      uniform,
      options,
      dataset='demo',
      split='test',
      synthesis=blending.SynthesisConfig(**config.synthesis),
    )
    logits.append([row.clip_logits for row in scores.rows])
  assert [len(row) for row in logits[0]] == [2, 3, 4, 2, 2]
  for one, eight in zip(*logits, strict=True):
    np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-5)
