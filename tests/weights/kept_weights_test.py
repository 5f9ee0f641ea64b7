"""A detector is kept in one small file, and is read like a run."""

import json

import jax
import numpy as np
import pytest
import random_detector

from configs import tiny
from stormer_jax import detector
from stormer_jax.weights import convert, kept_weights


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  made = random_detector.make_detector(tiny.get_config())
  folder = tmp_path_factory.mktemp('run') / 'run'
  weights = jax.device_put({'params': made.params, 'stats': made.stats})
  detector.save_detector(folder, made.config, weights)
  return folder


def test_a_kept_detector_is_read_like_the_run_it_came_from(run, tmp_path):
  convert.convert(run, tmp_path / 'small', half=True)
  files = {path.name for path in (tmp_path / 'small').iterdir()}
  assert files == {'weights.safetensors', 'config.json'}
  before = detector.load_detector(run)
  after = detector.load_detector(tmp_path / 'small')
  assert after.config == before.config
  abstract = {'params': before.params, 'stats': before.stats}
  started = detector.read_weights(tmp_path / 'small', abstract)
  for ours, again, theirs in zip(
    *map(
      jax.tree.leaves,
      ((after.params, after.stats), (started['params'], started['stats'])),
    ),
    jax.tree.leaves((before.params, before.stats)),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, again)
    if theirs.ndim > 1:
      theirs = np.asarray(theirs).astype(np.float16)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype != np.float16


def test_a_kept_detector_knows_what_found_the_faces_of_its_run(run, tmp_path):
  convert.convert(run, tmp_path / 'unknown', half=True)
  assert detector.load_face_backend(tmp_path / 'unknown') == ''
  (tmp_path / 'unknown' / 'faces.json').write_text('{"backend": "dlib-1"}')
  convert.convert(tmp_path / 'unknown', tmp_path / 'known', half=True)
  assert detector.load_face_backend(tmp_path / 'known') == 'dlib-1'
  (tmp_path / 'known' / 'faces.json').write_text('{')
  with pytest.raises(ValueError, match=r'faces\.json: damaged'):
    detector.load_face_backend(tmp_path / 'known')


def test_weights_of_another_model_are_named(run, tmp_path):
  convert.convert(run, tmp_path / 'small', half=True)
  path = tmp_path / 'small' / 'config.json'
  config = json.loads(path.read_text())
  config['model']['depth'] += 1
  path.write_text(json.dumps(config))
  with pytest.raises(ValueError, match=r'another model .*blocks'):
    detector.load_detector(tmp_path / 'small')


def test_what_float16_does_not_hold_is_refused(tmp_path):
  weights = {'params': {'kernel': np.full((2, 2), 1e5, np.float32)}}
  with pytest.raises(ValueError, match=r'params\.kernel .* float16'):
    kept_weights.write(tmp_path / 'a.safetensors', weights)
