"""legacy_torch_file: files of torch before 1.6 are read exactly, never run."""

import handmade_pth
import numpy as np
import pytest

from stormer_jax.weights import torch_file


def weights() -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  return {
    'float32': random.standard_normal((3, 4)).astype(np.float32),
    'bfloat16': random.standard_normal(4).astype(handmade_pth.BFLOAT16),
    'int64': np.array(7),
    'empty': np.zeros((0, 3), np.float32),
  }


def read(path):
  return torch_file.read_torch_file(path)


def assert_same(tensors, written):
  assert list(tensors) == list(written)
  for name, value in written.items():
    assert tensors[name].dtype == value.dtype, name
    np.testing.assert_array_equal(tensors[name], value)


def test_every_kind_of_tensor_is_read_bit_by_bit(tmp_path):
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', weights())
  assert_same(read(path), weights())
  assert not read(path)['float32'].flags.writeable


def test_views_of_one_storage_and_what_lies_beside_them_are_read(tmp_path):
  storage = np.arange(6, dtype=np.float32)
  content = {
    'epoch': 3,
    'args': handmade_pth.instance('argparse', 'Namespace', {'lr': 0.1}),
    'state_dict': {
      'a': handmade_pth.View(storage, 0, (2, 3), (3, 1)),
      'b': handmade_pth.View(storage, 1, (2,), (3,)),
    },
  }
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', content)
  tensors = read(path)['state_dict']
  np.testing.assert_array_equal(tensors['a'], storage.reshape(2, 3))
  np.testing.assert_array_equal(tensors['b'], [1, 4])


def test_a_call_of_code_is_refused_and_not_made(tmp_path):
  made = tmp_path / 'made'
  content = {'w': np.ones(2, np.float32)}
  content['x'] = handmade_pth.call('os', 'mkdir', str(made))
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', content)
  with pytest.raises(ValueError, match=r'calls os\.mkdir'):
    read(path)
  assert not made.exists()


def test_a_truncated_file_is_an_error_wherever_it_ends(tmp_path):
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', weights())
  whole = path.read_bytes()
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'old\.pth: '):
      read(path)


def test_damage_is_an_error_or_changes_values_alone(tmp_path):
  """Such files have no checksums, so a value may change; no shape may."""
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', weights())
  whole = path.read_bytes()
  for place in range(0, len(whole), 5):
    damaged = bytearray(whole)
    damaged[place] ^= 0x55
    path.write_bytes(damaged)
    try:
      tensors = read(path)
    except ValueError:
      continue
    for value in tensors.values():
      np.array(value)  # may be read to its end


def test_a_missing_storage_is_an_error(tmp_path):
  path = handmade_pth.write_legacy(tmp_path / 'old.pth', weights(), omit=('1',))
  with pytest.raises(ValueError, match='truncated or damaged'):
    read(path)
