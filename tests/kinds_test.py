"""A baseline is a run like any other: trains, resumes, scores, answers."""

import functools

import bright_faces
import jax
import numpy as np
import pytest
import saved_state

from configs import base, baselines
from stormer_jax import detector as detector_lib
from stormer_jax import kinds, model, steps, train
from stormer_jax.runs import checkpoint
from stormer_jax.scoring import evaluate, video_detector
from stormer_jax.weights import convert

pytestmark = pytest.mark.usefixtures('quickly')

NUM_STEPS = 2


def small(kind):
  """Its own file of configuration, at the size of a test."""
  config = baselines.get_config(kind)
  config.data.train_dataset = config.data.val_dataset = 'demo'
  config.data.batch_size = 8
  config.model.update(
    width=24, depth=2, num_heads=2, image_size=32, num_frames=4
  )
  config.train.update(
    num_epochs=NUM_STEPS,
    eval_every_epochs=NUM_STEPS,
    checkpoint_every=NUM_STEPS,
    log_every=1,
  )
  config.eval.datasets = ('demo:test',)
  config.eval.num_bootstrap = 20
  return config


@pytest.fixture(scope='module', params=baselines.KINDS)
def run(request, data_root, tmp_path_factory, quickly):
  """(config, workdir) of a run that nothing interrupted."""
  config = small(request.param)
  workdir = tmp_path_factory.mktemp(request.param) / 'run'
  train.train_and_evaluate(config, workdir, data_root)
  return config, workdir


# The process would have ended, and its files with it.
@pytest.mark.filterwarnings('ignore:.*metrics.jsonl')
@pytest.mark.slow
def test_a_baseline_that_was_stopped_ends_as_one_that_was_not(
  run, data_root, tmp_path, monkeypatch
):
  config, workdir = run
  config = config.copy_and_resolve_references()
  config.train.checkpoint_every = 1
  with monkeypatch.context() as patch:
    patch.setattr(
      checkpoint.Checkpointer,
      'reached_preemption',
      lambda self, step: step == 1,
    )
    with pytest.raises(SystemExit, match='stopped at step 1 of 2, saved'):
      train.train_and_evaluate(config, tmp_path / 'run', data_root)
  assert not (tmp_path / 'run/finished.json').exists()
  train.train_and_evaluate(config, tmp_path / 'run', data_root)
  ours, theirs = (
    saved_state.read_state(folder, NUM_STEPS)
    for folder in (tmp_path / 'run', workdir)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_a_baseline_scores_a_data_set_and_a_video(run, data_root, tmp_path):
  config, workdir = run
  options = config.copy_and_resolve_references()
  evaluate.evaluate(options, workdir, data_root, tmp_path / 'reports')
  assert list((tmp_path / 'reports').rglob('scores.csv'))

  path = tmp_path / 'video.mp4'
  bright_faces.write_video(path, 9)
  ready = video_detector.Detector.load(
    workdir,
    options=evaluate.EvalConfig(**options.eval),
    backend=bright_faces.BrightFaces(),
  )
  said = ready.predict(path)
  assert said.status == 'ok' and 0 < said.score < 1
  assert not any(ready.provenance['trained_heads'].values())


@pytest.mark.slow
def test_a_baseline_is_not_the_released_model(run, tmp_path):
  config, workdir = run
  with pytest.raises(ValueError, match='a baseline'):
    convert.convert(workdir, tmp_path / 'weights.safetensors')
  said = convert.convert(workdir, tmp_path / 'copy')
  assert 'parameters' in said
  abstract = dict(
    zip(
      ('params', 'stats'),
      jax.eval_shape(steps.make_model(config)[1]),
      strict=True,
    )
  )
  (tmp_path / 'weights.npz').touch()
  with pytest.raises(ValueError, match=r'those of model\.kind=stormer'):
    detector_lib.read_weights(tmp_path / 'weights.npz', abstract)


def random_pairs(config):
  """Two pairs of noise whose second halves are a little lighter."""
  rng = np.random.default_rng(0)
  frames, size = config.model.num_frames, config.model.image_size
  grid = size // config.model.patch_size
  label = np.float32([0, 1, 1, 0])
  clip = rng.normal(size=(4, frames, size, size, 3)).astype(np.float32)
  return {
    'clip': clip + 0.3 * label[:, None, None, None, None],
    'label': label,
    'soft_label': np.tile(label[:, None], frames),
    'vulnerability_map': np.zeros((4, frames, grid, grid), np.float32),
    'kept': np.ones((4, frames, grid, grid), np.float32),
  }


@pytest.fixture(scope='module', params=baselines.KINDS)
def trained(request, quickly):
  """A baseline after some steps on one batch: (config, state, losses)."""
  config = small(request.param)
  config.data.batch_size = 2
  config.optimizer.update(init_lr=1e-3, peak_lr=1e-3, freeze_epochs=0)
  config.loss.temperature = 1.0  # a probe's hides what eight steps do
  graphdef, init = steps.make_model(config)
  tx = steps.make_optimizer(config, steps_per_epoch=1)
  state = steps.init_state(*jax.jit(init)(), tx, ema_decay=0.0)
  step = jax.jit(steps.make_train_step(config, graphdef, tx, 1))
  losses = []
  for _ in range(8):
    state, terms = step(state, random_pairs(config))
    losses.append(float(terms['total']))
  assert step._cache_size() == 1
  return config, graphdef, state, losses


def test_training_lowers_the_loss_of_a_baseline(trained):
  *_, losses = trained
  assert np.all(np.isfinite(losses))
  assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])


def test_a_baselines_scores_do_not_depend_on_batch_mates(trained):
  config, graphdef, state, _ = trained
  clip = random_pairs(config)['clip']
  score = jax.jit(
    functools.partial(
      steps.score_clips, graphdef, state.params, state.stats, alone=False
    )
  )
  together = score(clip)
  assert np.ptp(together['logits']) > 1e-3
  for i in range(len(clip)):
    for name, x in score(clip[i : i + 1]).items():
      np.testing.assert_allclose(x[0], together[name][i], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', baselines.KINDS)
def test_a_loss_without_its_head_is_refused(kind):
  config = small(kind)
  config.loss.temporal_weight = 0.2
  with pytest.raises(ValueError, match=r'loss\.temporal_weight=0\.2 is for'):
    steps.make_model(config)
  config.loss.spatial_weight = 100.0
  with pytest.raises(ValueError, match=r'spatial_weight=100 and loss\.temp'):
    steps.make_model(config)


def test_what_is_no_kind_is_refused_with_those_that_are():
  config = base.get_config()
  config.model.kind = 'cnn'
  with pytest.raises(ValueError, match=r"model\.kind is 'cnn'.*frame_cnn"):
    steps.make_model(config)
  with pytest.raises(ValueError, match=r'baselines\.py:cnn: it is one of'):
    baselines.get_config('cnn')


def test_every_baseline_has_a_configuration_and_the_detector_is_the_default():
  assert baselines.KINDS == tuple(kinds.BASELINES)
  assert base.get_config().model.kind == kinds.DETECTOR
  assert model.StormerConfig.kind == kinds.DETECTOR
