"""convert: weights go both ways bit by bit, or nothing is written."""

import json
import logging
import os
import sys
import types

from absl import logging as absl_logging
import handmade_pth
import jax
from ml_collections import config_dict
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from stormer_jax import detector, steps
from stormer_jax.weights import (
  convert,
  pretrained,
  tensor_file,
  weight_file,
  weight_names,
)

SIZES = {
  'width': 64,
  'depth': 2,
  'num_heads': 1,
  'mlp_ratio': 4.0,
  'image_size': 16,
  'patch_size': 8,
  'num_frames': 2,
}


@pytest.fixture
def state_dict() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    name: np.array(7, np.int64)
    if name.endswith('num_batches_tracked')
    else rng.standard_normal(shape).astype(np.float32)
    for name, shape in weight_names.official_shapes(SIZES).items()
  }


@pytest.fixture
def source(tmp_path, state_dict):
  """A checkpoint like the released one."""
  content = {
    'epoch': 3,
    'optimizer': {'state': {0: {'exp_avg': np.ones(3, np.float32)}}},
    'args': handmade_pth.instance('argparse', 'Namespace', {'lr': 0.1}),
    'state_dict': {f'module.{k}': v for k, v in state_dict.items()},
  }
  return handmade_pth.write(tmp_path / 'official.pth', content)


def assert_same(path, written):
  read = weight_file.read_state_dict(path)
  assert list(read) == list(written)
  for name, value in written.items():
    assert read[name].dtype == value.dtype and read[name].shape == value.shape
    np.testing.assert_array_equal(read[name], value)


def official() -> config_dict.ConfigDict:
  return base.get_config('official')


def test_weights_go_to_a_run_and_back_bit_by_bit(tmp_path, source, state_dict):
  said = convert.convert(source, tmp_path / 'run', None, official())
  assert 'official.pth' in said and 'run' in said
  run = detector.load_detector(tmp_path / 'run')
  assert run.step == 0
  assert run.config.model.temporal_token == 'first_clip'
  assert {name: run.config.model[name] for name in SIZES} == SIZES
  convert.convert(tmp_path / 'run', tmp_path / 'a.safetensors')
  assert_same(tmp_path / 'a.safetensors', state_dict)
  # One checkpoint of a run may be named too.
  folder = tmp_path / 'run' / 'checkpoints' / '0'
  convert.convert(folder, tmp_path / 'b.safetensors')
  assert_same(tmp_path / 'b.safetensors', state_dict)


def test_files_go_to_safetensors_that_the_package_reads(
  tmp_path, source, state_dict
):
  convert.convert(source, tmp_path / 'a.safetensors')
  assert_same(tmp_path / 'a.safetensors', state_dict)
  theirs = safetensors.numpy.load_file(tmp_path / 'a.safetensors')
  assert theirs.keys() == state_dict.keys()
  for name, value in state_dict.items():
    np.testing.assert_array_equal(theirs[name], value)
  np.savez(tmp_path / 'a.npz', **state_dict)
  convert.convert(tmp_path / 'a.npz', tmp_path / 'b.safetensors', 2)
  assert_same(tmp_path / 'b.safetensors', state_dict)


@pytest.mark.extra
def test_a_pth_loads_strictly_in_torch(tmp_path, source, state_dict):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  twin_lib = pytest.importorskip('benchmarks.torch_twin')
  convert.convert(source, tmp_path / 'a.pth')
  loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
  config = twin_lib.TwinConfig(
    **SIZES, temporal_token='first_clip', map_layout='scrambled'
  )
  twin = twin_lib.TorchTwin(config)
  twin.load_state_dict(loaded, strict=True)
  assert list(loaded) == list(twin.state_dict())
  for name, value in twin.state_dict().items():
    assert value.dtype == loaded[name].dtype
    np.testing.assert_array_equal(value.numpy(), state_dict[name])
  assert_same(tmp_path / 'a.pth', state_dict)


def test_a_pth_without_torch_says_what_to_install(
  tmp_path, source, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(ValueError, match=r'needs torch .*\[torch\].*safetensors'):
    convert.convert(source, tmp_path / 'a.pth')
  assert os.listdir(tmp_path) == ['official.pth']


def test_the_source_can_be_replaced(tmp_path, state_dict):
  path = tmp_path / 'a.safetensors'
  tensor_file.write_safetensors(path, state_dict, {})
  convert.convert(path, path)
  assert_same(path, state_dict)


@pytest.mark.parametrize('destination', ['a.safetensors', 'run'])
def test_a_disk_that_fills_up_leaves_nothing(
  tmp_path, source, monkeypatch, destination
):
  def fail(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  if destination == 'run':
    # Its names in these modules alone: Orbax uses the functions too.
    broken = types.SimpleNamespace(dumps=fail, loads=json.loads)
    monkeypatch.setattr(detector, 'json', broken)
  else:
    broken = types.SimpleNamespace(fsync=fail, getpid=os.getpid)
    monkeypatch.setattr(tensor_file, 'os', broken)
  with pytest.raises(OSError, match='No space left'):
    convert.convert(source, tmp_path / destination, None, official())
  assert os.listdir(tmp_path) == ['official.pth']


def test_a_failed_write_keeps_the_file_that_was_there(
  tmp_path, source, monkeypatch
):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(b'old')

  def fail(fd):
    raise OSError(28, 'No space left on device')

  broken = types.SimpleNamespace(fsync=fail, getpid=os.getpid)
  monkeypatch.setattr(tensor_file, 'os', broken)
  with pytest.raises(OSError, match='No space left'):
    convert.convert(source, path)
  assert path.read_bytes() == b'old'


def test_what_cannot_be_converted_is_one_clear_error(tmp_path, source):
  free = tmp_path / 'free.safetensors'
  taken = tmp_path / 'taken'
  taken.mkdir()
  (taken / 'file').touch()
  bad = handmade_pth.write(
    tmp_path / 'bad.pth', {'fc.weight': np.ones(3, np.float32)}
  )
  evil = handmade_pth.write(
    tmp_path / 'evil.pth',
    {'a': handmade_pth.call('os', 'system', f'touch {tmp_path}/trace')},
  )
  before = sorted(os.listdir(tmp_path))
  for arguments, error, named in (
    ((tmp_path / 'none.pth', free), FileNotFoundError, 'no such file'),
    ((tmp_path / 'none' / '3', free), FileNotFoundError, 'no such file'),
    ((taken, free), FileNotFoundError, 'no run here'),
    ((bad, free), ValueError, r'bad\.pth: not a checkpoint of the method'),
    ((evil, free), ValueError, r'evil\.pth: .*os\.system.*nothing was run'),
    ((source, free, 5), ValueError, r'official\.pth: 5 heads do not divide'),
    ((source, tmp_path / 'a.npz'), ValueError, r'not \.npz'),
    ((source, tmp_path / 'new'), ValueError, r'add --config=configs/base'),
    ((source, taken, None, official()), ValueError, 'not an empty folder'),
    ((source, tmp_path / 'none' / 'x.pth'), FileNotFoundError, 'no such fold'),
  ):
    with pytest.raises(error, match=named):
      convert.convert(*arguments)
  assert sorted(os.listdir(tmp_path)) == before


def test_the_reader_is_told_of_heads_and_of_semantics(
  tmp_path, source, caplog, monkeypatch
):
  monkeypatch.setattr(absl_logging.get_absl_logger(), 'propagate', True)
  absl_logging.set_verbosity(absl_logging.INFO)
  caplog.set_level(logging.INFO, logger='absl')
  paper = base.get_config('paper')
  convert.convert(source, tmp_path / 'run', None, paper)
  assert '1 heads assumed, of 64 features each' in caplog.text
  convert.convert(tmp_path / 'run', tmp_path / 'a.safetensors')
  assert 'the released code computes something else' in caplog.text


def test_training_can_start_from_official_weights(source, state_dict):
  config = official()
  config.model.update(SIZES)
  _, init = steps.make_model(config)
  abstract = dict(zip(('params', 'stats'), jax.eval_shape(init), strict=True))
  weights = detector.read_weights(source, abstract)
  back = pretrained.to_official(weights['params'], weights['stats'])
  for name, value in state_dict.items():
    np.testing.assert_array_equal(back[name], value)
  config.model.num_frames = 3
  params, stats = jax.eval_shape(steps.make_model(config)[1])
  with pytest.raises(ValueError, match=r'another model: .*wants \(3,\)'):
    detector.read_weights(source, {'params': params, 'stats': stats})


def test_converted_weights_give_the_originals_outputs(tmp_path, golden):
  arrays = np.load(golden / 'model_tiny_io.npz')
  convert.convert(
    golden / 'model_tiny_state_dict.npz', tmp_path / 'run', 4, official()
  )
  run = detector.load_detector(tmp_path / 'run')
  model = steps.merge(run.graphdef, run.params, run.stats)
  model.eval()
  clip = arrays['x'][:1].transpose(0, 2, 3, 4, 1)
  with jax.default_matmul_precision('highest'):
    outputs = jax.jit(lambda clip: model(clip))(clip)
  for ours, theirs in (
    (outputs.logits[:, None], 'out_cls'),
    (outputs.soft_label_logits, 'out_temp_loc'),
    (outputs.vulnerability_map[:, None], 'out_hm'),
  ):
    theirs = arrays[f'official/b1_0/{theirs}']
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())
