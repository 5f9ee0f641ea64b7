"""An exported detector scores as the detector does, without the project."""

import ast
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from random_detector import make_detector
import safetensors.numpy

from configs import baselines, tiny
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import clip_scorer, export, exported


@pytest.fixture(scope='module', params=['learned', 'first_clip'])
def detector(request):
  config = tiny.get_config()
  with config.unlocked():
    config.model.temporal_token = request.param
  return make_detector(config)


@pytest.fixture(scope='module')
def crops() -> np.ndarray:
  rng = np.random.default_rng(0)
  shape = (3, tiny.get_config().model.num_frames, 256, 256, 3)
  return rng.integers(0, 256, shape, np.uint8)


@pytest.fixture(scope='module')
def folder(detector, tmp_path_factory) -> pathlib.Path:
  return export.export(
    detector, tmp_path_factory.mktemp('out') / 'exported', margin=15
  )


def test_any_number_of_clips_scores_as_in_the_project(detector, folder, crops):
  scorer = clip_scorer.make_frame_scorer(detector, margin=15, flip=False)
  loaded = exported.load(folder)
  once = detector.config.model.temporal_token == 'first_clip'
  for count in (3,) if once else (1, 3):
    ours = scorer(crops[:count])
    theirs = loaded(crops[:count])
    for name, value in ours._asdict().items():
      np.testing.assert_allclose(theirs[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_detector_that_ships_scores_alike_when_exported(crops, tmp_path):
  shipped = detector_lib.load_detector(detector_lib.shipped_folder())
  folder = export.export(
    shipped, tmp_path / 'out', margin=15, platforms=['cpu']
  )
  ours = clip_scorer.make_frame_scorer(shipped, margin=15, flip=False)
  frames = crops[:, : shipped.config.model.num_frames]
  np.testing.assert_allclose(
    exported.load(folder)(frames)['logits'],
    ours(frames).logits,
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ('kind', 'members'),
  [*((kind, 1) for kind in baselines.KINDS), ('frame_cnn', 2)],
)
def test_a_baseline_can_be_exported_for_any_number_of_clips(
  kind, members, tmp_path
):
  config = baselines.get_config(kind)
  config.model.members = members
  config.model.update(
    width=24, depth=1, num_heads=2, image_size=32, num_frames=2
  )
  folder = export.export(
    make_detector(config), tmp_path / 'out', margin=15, platforms=['cpu']
  )
  function = jax.export.deserialize(
    bytearray((folder / exported.FUNCTION_FILE).read_bytes())
  )
  assert str(function.in_avals[-1].shape[0]) == 'b'
  assert str(function.out_avals[0].shape[0]) == 'b'


def test_the_function_is_there_for_every_platform(folder):
  stored = (folder / exported.FUNCTION_FILE).read_bytes()
  function = jax.export.deserialize(bytearray(stored))
  assert set(function.platforms) == {'cpu', 'cuda', 'tpu'}


def test_the_weights_are_safetensors_under_our_names(detector, folder):
  stored = safetensors.numpy.load_file(folder / exported.WEIGHTS_FILE)
  weights = {'params': detector.params, 'stats': detector.stats}
  leaves = jax.tree_util.tree_leaves_with_path(weights)
  assert len(leaves) == len(stored)
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    np.testing.assert_array_equal(stored[name], leaf)


def test_a_card_says_what_is_known_or_that_nothing_is(
  detector, folder, tmp_path
):
  nothing = (folder / export.MODEL_CARD_FILE).read_text()
  assert 'Measure it before you use it' in nothing
  assert '15 px are cut off every side' in nothing
  assert json.loads((folder / exported.CARD_FILE).read_text())['weights'] in (
    nothing
  )
  some = export.export(
    detector, tmp_path / 'known', margin=0, platforms=['cpu'], known='# Seen'
  )
  assert (some / export.MODEL_CARD_FILE).read_text().endswith('# Seen')


def test_the_loader_needs_jax_and_numpy_alone():
  tree = ast.parse(pathlib.Path(exported.__file__).read_text())
  imported = {
    alias.name.split('.')[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Import)
    for alias in node.names
  } | {
    node.module.split('.')[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.ImportFrom)
  }
  assert imported - set(sys.stdlib_module_names) == {'jax', 'numpy'}


@pytest.mark.parametrize('detector', ['learned'], indirect=True)
def test_the_loader_works_as_a_file_of_its_own(folder, crops, tmp_path):
  shutil.copy(exported.__file__, tmp_path / 'exported.py')
  np.save(tmp_path / 'crops.npy', crops)
  code = (
    'import exported, numpy, sys\n'
    f'scores = exported.load({str(folder)!r})(numpy.load("crops.npy"))\n'
    'assert "stormer_jax" not in sys.modules\n'
    'print(*scores["logits"].tolist())\n'
  )
  ended = subprocess.run(
    [sys.executable, '-I', '-c', f'import sys; sys.path[:0] = ["."]\n{code}'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  want = exported.load(folder)(crops)['logits']
  np.testing.assert_allclose(
    [float(word) for word in ended.stdout.split()], want, rtol=1e-6
  )


@pytest.mark.parametrize('detector', ['learned'], indirect=True)
def test_crops_of_another_kind_are_refused(folder, crops):
  loaded = exported.load(folder)
  with pytest.raises(ValueError, match='float32'):
    loaded(crops.astype(np.float32))
  with pytest.raises(ValueError, match='expected uint8'):
    loaded(crops[:, :1])


def test_a_folder_that_is_in_use_is_not_written_over(detector, tmp_path):
  (tmp_path / 'mine').write_text('keep')
  with pytest.raises(ValueError, match='not empty'):
    export.export(detector, tmp_path, margin=15)
  assert (tmp_path / 'mine').read_text() == 'keep'


def test_a_folder_without_a_detector_is_one_sentence(tmp_path):
  with pytest.raises(ValueError, match='no exported detector'):
    exported.load(tmp_path)
