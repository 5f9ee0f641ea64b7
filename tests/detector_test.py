"""What a detector is read from, and what is said when it is not there."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_detector

from configs import tiny
from stormer_jax import detector, steps
from stormer_jax.runs import checkpoint


@pytest.fixture
def workdir(tiny_config, tmp_path):
  """A run that has not saved anything yet."""
  (tmp_path / 'config.json').write_text(tiny_config.to_json_best_effort())
  return tmp_path


def test_a_configuration_comes_back_as_it_was(workdir, tiny_config):
  config = detector.load_config(workdir)
  assert config.to_dict() == tiny_config.to_dict()
  assert config.is_locked


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('{"model": ', 'damaged'),
    ('[1]', 'not the configuration of a run'),
    ('{"seed": 1}', 'not the configuration of a run'),
  ],
)
def test_a_configuration_that_is_none_is_named(workdir, text, says):
  (workdir / 'config.json').write_text(text)
  with pytest.raises(ValueError, match=rf'config\.json: {says}'):
    detector.load_config(workdir)


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='no run here; train one first'):
    detector.load_detector(tmp_path)


def test_a_run_without_a_checkpoint_says_so(workdir):
  with pytest.raises(FileNotFoundError, match='no checkpoint best; there are'):
    detector.load_detector(workdir)
  (workdir / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match='no checkpoint 3; there are'):
    detector.load_detector(workdir, 3)
  with pytest.raises(ValueError, match="'best', 'last' or a step"):
    detector.load_detector(workdir, 'newest')


def test_averaged_weights_are_read_where_a_run_kept_them(workdir, tiny_config):
  _, init = steps.make_model(tiny_config)
  abstract = dict(zip(('params', 'stats'), jax.eval_shape(init), strict=True))

  def filled(tree, value):
    return jax.tree.map(lambda x: np.full(x.shape, value, x.dtype), tree)

  checkpointer = checkpoint.Checkpointer(
    workdir / 'checkpoints', save_steps=lambda step: True
  )
  with contextlib.closing(checkpointer):
    for step, average in ((1, {}), (2, {'ema': filled(abstract['params'], 2)})):
      state = filled(abstract, 1) | average
      checkpointer.save(step, state, {}, {}, selection=float(step))
  for step in (1, 2):
    read = detector.load_detector(workdir, step)
    assert read.params['class_token'].max() == step
    assert read.stats['map_head']['norm1']['mean'].max() == 1
  weights = detector.read_weights(workdir, abstract)
  assert weights['params']['class_token'].max() == 2


def test_a_trained_model_computes_in_the_type_that_is_asked_for(tmp_path):
  made = random_detector.make_detector(tiny.get_config())
  weights = {'params': made.params, 'stats': made.stats}
  folder = tmp_path / 'run'
  detector.save_kept(folder, made.config, weights)
  asked = tiny.get_config()
  asked.model.dtype = 'bfloat16'
  asked.model.drop_path = 0.0  # of training
  half = detector.load_detector(folder, asked=asked)
  assert half.config.model.dtype == 'bfloat16'
  whole = detector.load_detector(folder, asked=tiny.get_config())
  size, time = made.config.model.image_size, made.config.model.num_frames
  rng = np.random.default_rng(0)
  clip = jnp.asarray(rng.normal(size=(2, time, size, size, 3)), jnp.float32)
  logits = [
    steps.score_clips(run.graphdef, run.params, run.stats, clip, alone=False)[
      'logits'
    ]
    for run in (whole, half)
  ]
  assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1
  asked.model.scan_layers = not asked.model.scan_layers  # another program
  assert detector.load_detector(folder, asked=asked).config.model.scan_layers
  asked.model.map_layout = 'scrambled'
  with pytest.raises(
    ValueError, match=r'map_layout=thw, and scrambled is asked .* dtype, att'
  ):
    detector.load_detector(folder, asked=asked)
