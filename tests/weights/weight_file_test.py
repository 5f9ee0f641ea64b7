"""weight_file: content decides; what is no weights gets a true sentence."""

import gzip
import json
import logging
import shutil
import zipfile

from absl import logging as absl_logging
import handmade_pth
import numpy as np
import pytest

from stormer_jax.weights import tensor_file, weight_file


def weights() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal(3).astype(np.float32) for name in 'abc'}


def write(path, content=None):
  """Writes weights in the form that the suffix names."""
  content = content or weights()
  if path.suffix == '.npz':
    np.savez(path, **content)
  elif path.suffix == '.safetensors':
    tensor_file.write_safetensors(path, content, {})
  else:
    handmade_pth.write(path, content)
  return path


def assert_read(path, key=''):
  read = weight_file.read_state_dict(path, key)
  assert sorted(read) == sorted(weights())
  for name, value in weights().items():
    np.testing.assert_array_equal(read[name], value)


SUFFIXES = ['.npz', '.safetensors', '.pth']


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_broken_files_are_one_clear_error(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  with pytest.raises(FileNotFoundError, match='no such file of weights'):
    weight_file.read_state_dict(path)
  assert_read(write(path))
  whole = path.read_bytes()
  for size in (0, 4, 40, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=rf'a\{suffix}: '):
      weight_file.read_state_dict(path)
  path.write_text('hello, this is a text')
  with pytest.raises(ValueError, match=rf'a\{suffix}: '):
    weight_file.read_state_dict(path)


def test_an_npz_of_objects_is_not_unpickled(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, x=np.array([{'a': 1}], dtype=object))
  with pytest.raises(ValueError, match=r'a\.npz'):
    weight_file.read_state_dict(path)


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize(
  'name', ['A.PTH', 'A.SAFETENSORS', 'A.Npz', 'a', 'a.x']
)
def test_a_file_is_read_under_any_name(tmp_path, suffix, name):
  shutil.move(write(tmp_path / f'a{suffix}'), tmp_path / name)
  assert_read(tmp_path / name)


def test_what_was_taken_is_said(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(absl_logging.get_absl_logger(), 'propagate', True)
  absl_logging.set_verbosity(absl_logging.INFO)
  caplog.set_level(logging.INFO, logger='absl')
  content = {'ema': {f'module.{k}': v for k, v in weights().items()}}
  path = write(tmp_path / 'a.pth', content)
  assert_read(path)
  assert "a.pth: weights under 'ema'; names without 'mod" in caplog.text


def test_two_candidates_are_an_error_with_the_file_and_the_flag(tmp_path):
  path = write(tmp_path / 'a.pth', {'ema': weights(), 'model': weights()})
  with pytest.raises(ValueError, match=r'a\.pth: holds 2 .*--weights_key=ema'):
    weight_file.read_state_dict(path)
  assert_read(path, 'model')


LFS = (
  b'version https://git-lfs.github.com/spec/v1\n'
  b'oid sha256:abababababababababab\nsize 374000000\n'
)
PAGE = b'\n<!DOCTYPE html><html><title>Virus scan warning</title></html>'
INDEX = json.dumps({'weight_map': {'a': 'model-00001-of-00002.safetensors'}})


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (b'', 'an empty file'),
    (LFS, r'Git LFS pointer, .*`git lfs pull --include a\.'),
    (PAGE, 'a web page, not weights'),
    (b'<?xml version="1.0"?><Error>AccessDenied</Error>', 'a web page'),
    (INDEX.encode(), 'the index of weights in several files; .*max_shard_size'),
    (b'{"error": "not found"}', 'a JSON text, not weights'),
    (gzip.compress(b'x' * 100, mtime=0), 'compressed with gzip'),
    (b'\x89HDF\r\n\x1a\n' + bytes(99), 'HDF5'),
    (b'\x93NUMPY\x01\x00' + bytes(99), 'a single NumPy array'),
  ],
)
def test_what_lies_there_instead_of_weights_is_named(
  tmp_path, suffix, content, says
):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=rf'a\{suffix}: .*{says}'):
    weight_file.read_state_dict(path)


def test_a_zip_around_weights_is_named(tmp_path):
  write(tmp_path / 'b.pth')
  path = tmp_path / 'drive.pth'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.write(tmp_path / 'b.pth', 'weights/b.pth')
  with pytest.raises(ValueError, match=r'a zip archive around weights/b\.pth'):
    weight_file.read_state_dict(path)


def test_float8_is_named_with_its_tensor_and_not_called_damage(tmp_path):
  path = write(tmp_path / 'a.safetensors')
  raw = path.read_bytes().replace(b'"F32"', b'"F8_E4M3"', 1)
  length = int.from_bytes(raw[:8], 'little') + len('F8_E4M3') - len('F32')
  path.write_bytes(length.to_bytes(8, 'little') + raw[8:])
  with pytest.raises(ValueError, match=r'a is of type F8_E4M3, which is not'):
    weight_file.read_state_dict(path)


@pytest.mark.parametrize(
  ('names', 'says'),
  [
    (['config.json', 'model.safetensors'], r'name the file .*model\.safetens'),
    (
      ['m-00001-of-00002.safetensors', 'm.safetensors.index.json'],
      'a folder of weights in several files',
    ),
    (['data.pkl', 'version'], r'an unpacked \.pth'),
    (['readme.txt'], 'a folder without a file of weights'),
  ],
)
def test_a_folder_says_which_file_to_name(tmp_path, names, says):
  for name in names:
    (tmp_path / name).touch()
  with pytest.raises(ValueError, match=says):
    weight_file.read_state_dict(tmp_path)
