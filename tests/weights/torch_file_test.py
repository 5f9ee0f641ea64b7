"""torch_file: .pth files are read exactly, and never run."""

import argparse
import collections
import pathlib
import zipfile

import handmade_pth
import numpy as np
import pytest

from stormer_jax.weights import containers, torch_file


def weights() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    'float32': rng.standard_normal((3, 4)).astype(np.float32),
    'float64': rng.standard_normal(5),
    'float16': rng.standard_normal((2, 2)).astype(np.float16),
    'bfloat16': rng.standard_normal(4).astype(handmade_pth.BFLOAT16),
    'int64': np.array(7),
    'empty': np.zeros((0, 3), np.float32),
  }


def assert_same(read, written):
  assert list(read) == list(written)
  for name, value in written.items():
    assert read[name].dtype == value.dtype, name
    np.testing.assert_array_equal(read[name], value)


def test_every_kind_of_tensor_is_read_bit_by_bit(tmp_path):
  path = handmade_pth.write(tmp_path / 'a.pth', weights())
  assert_same(torch_file.read_torch_file(path), weights())


def test_arrays_are_read_only_views(tmp_path):
  path = handmade_pth.write(tmp_path / 'a.pth', weights())
  read = torch_file.read_torch_file(path)
  assert not any(x.flags.writeable or x.flags.owndata for x in read.values())


def test_views_into_a_shared_storage_are_read(tmp_path):
  storage = np.arange(12, dtype=np.float32)
  content = {
    'transposed': handmade_pth.View(storage, 0, (3, 4), (1, 3)),
    'tail': handmade_pth.View(storage, 10, (2,), (1,)),
    'scalar': handmade_pth.View(storage, 11, (), ()),
  }
  path = handmade_pth.write(tmp_path / 'a.pth', content)
  read = torch_file.read_torch_file(path)
  np.testing.assert_array_equal(read['transposed'], storage.reshape(4, 3).T)
  np.testing.assert_array_equal(read['tail'], [10, 11])
  assert read['scalar'].shape == () and read['scalar'] == 11


def test_what_lies_around_the_tensors_is_kept(tmp_path):
  content = {'epoch': 3, 'model': {'ema': weights()}, 'best': 0.5}
  path = handmade_pth.write(tmp_path / 'a.pth', content)
  read = torch_file.read_torch_file(path)
  assert_same(read['model']['ema'], weights())
  assert (read['epoch'], read['best']) == (3, 0.5)


def test_a_pickle_that_contains_itself_ends(tmp_path):
  # MEMOIZE (q) the dict, then store it in itself.
  tensor = handmade_pth.write(tmp_path / 'a.pth', weights())
  loop = handmade_pth.Raw(b'}q\x07(X\x05\x00\x00\x00modelh\x07u')
  path = handmade_pth.write(tensor, {'model': loop, 'x': weights()})
  read = torch_file.read_torch_file(path)
  assert read['model']['model'] is read['model']
  with pytest.raises(ValueError, match='--weights_key=x'):
    containers.find_state_dict(read)


def test_objects_beside_the_weights_are_passed_over(tmp_path):
  dtype = handmade_pth.call('numpy', 'dtype', 'f8', False, True)
  scalar = handmade_pth.call('numpy._core.multiarray', 'scalar', dtype, 'x')
  content = {
    'args': handmade_pth.instance('argparse', 'Namespace', {'lr': 0.1}),
    'config': handmade_pth.instance('their.project', 'Config', {'a': 1}),
    'path': handmade_pth.call('pathlib', 'PosixPath', 'a', 'b'),
    'best': scalar,
    'optimizer': {'state': {0: {'exp_avg': np.ones(3, np.float32)}}},
    'state_dict': weights(),
  }
  path = handmade_pth.write(tmp_path / 'a.pth', content)
  assert_same(torch_file.read_torch_file(path)['state_dict'], weights())


@pytest.mark.parametrize(
  ('module', 'name'),
  [
    ('os', 'system'),
    ('posix', 'system'),
    ('builtins', 'eval'),
    ('subprocess', 'Popen'),
    ('torch.storage', '_load_from_bytes'),
    ('numpy', 'load'),
  ],
)
def test_a_pickle_that_calls_for_code_is_refused_and_not_run(
  tmp_path, module, name
):
  trace = tmp_path / 'trace'
  argument = (
    f'touch {trace}' if name != 'eval' else f'open({str(trace)!r}, "w")'
  )
  for content in (
    handmade_pth.call(module, name, argument),
    {'state_dict': weights(), 'x': handmade_pth.call(module, name, argument)},
  ):
    path = handmade_pth.write(tmp_path / 'a.pth', content)
    with pytest.raises(ValueError, match=rf'a\.pth: .*{name}.*nothing was run'):
      torch_file.read_torch_file(path)
  assert not trace.exists()


def test_old_ways_to_call_from_a_pickle_run_nothing_either(tmp_path):
  trace = tmp_path / 'trace'
  text = f'touch {trace}'.encode()
  for opcodes in (
    b"(S'" + text + b"'\nios\nsystem\n",  # INST
    b"(cos\nsystem\nS'" + text + b"'\no",  # OBJ
  ):
    content = {'x': handmade_pth.Raw(opcodes), 'state_dict': weights()}
    path = handmade_pth.write(tmp_path / 'a.pth', content)
    with pytest.raises(ValueError, match='system'):
      torch_file.read_torch_file(path)
  assert not trace.exists()


def test_a_pickle_cannot_reach_into_what_rebuilds_tensors(tmp_path):
  # BUILD with a state sets attributes of whatever lies on the stack.
  state = handmade_pth.Raw(b'}X\x03\x00\x00\x00fooK\x01s')
  path = handmade_pth.write(tmp_path / 'a.pth', {'w': np.ones(2, np.float32)})
  with zipfile.ZipFile(path) as archive:
    program = archive.read('archive/data.pkl')
  program = program.replace(b'tRu.', b'tR' + state.opcodes + b'bu.')
  path = handmade_pth.write(
    path, {'w': np.ones(2, np.float32)}, extra={'data.pkl': program}
  )
  with pytest.raises(ValueError):
    torch_file.read_torch_file(path)


def test_a_truncated_file_is_an_error_wherever_it_ends(tmp_path):
  path = handmade_pth.write(tmp_path / 'a.pth', weights())
  whole = path.read_bytes()
  for size in range(0, len(whole), 37):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'a\.pth: '):
      torch_file.read_torch_file(path)


def test_damage_is_an_error_or_without_effect(tmp_path):
  path = handmade_pth.write(tmp_path / 'a.pth', weights())
  whole = path.read_bytes()
  for place in range(0, len(whole), 11):
    damaged = bytearray(whole)
    damaged[place] ^= 0x55
    path.write_bytes(damaged)
    try:
      read = torch_file.read_torch_file(path)
    except ValueError:
      continue
    assert_same(read, weights())


@pytest.mark.parametrize(
  ('offset', 'size', 'stride'),
  [
    (0, (5,), (1,)),
    (2, (3,), (1,)),
    (0, (2, 2), (3, 1)),
    (0, (1 << 30,), (0,)),
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2, 2), (1,)),
  ],
)
def test_a_tensor_beyond_its_storage_is_an_error(
  tmp_path, offset, size, stride
):
  view = handmade_pth.View(np.zeros(4, np.float32), offset, size, stride)
  path = handmade_pth.write(tmp_path / 'a.pth', {'w': view})
  with pytest.raises(ValueError, match=r'tensor|shape'):
    torch_file.read_torch_file(path)


def test_archives_of_other_kinds_are_named(tmp_path):
  path = tmp_path / 'a.pth'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('readme.txt', 'hello')
  with pytest.raises(ValueError, match=r'no data\.pkl'):
    torch_file.read_torch_file(path)
  handmade_pth.write(path, weights(), extra={'constants.pkl': b''})
  with pytest.raises(ValueError, match='TorchScript'):
    torch_file.read_torch_file(path)
  handmade_pth.write(path, weights(), omit=('data/0',))
  with pytest.raises(ValueError, match='no member data/0'):
    torch_file.read_torch_file(path)
  handmade_pth.write(path, weights(), compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match='compressed'):
    torch_file.read_torch_file(path)
  path.write_text('a text\n')
  with pytest.raises(ValueError, match='no zip archive'):
    torch_file.read_torch_file(path)


@pytest.mark.extra
def test_what_torch_itself_writes_is_read(tmp_path):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
  tensors = collections.OrderedDict(
    plain=torch.randn(3, 5),
    parameter=torch.nn.Parameter(torch.randn(2)),
    half=torch.randn(4).half(),
    bfloat16=torch.randn(4).bfloat16(),
    strided=base[1:, ::2],
    shared=base.T,
    count=torch.tensor(5),
    boolean=torch.tensor([True, False]),
  )
  layer = torch.nn.Linear(3, 2)
  optimizer = torch.optim.Adam(layer.parameters())
  layer(torch.ones(1, 3)).sum().backward()
  optimizer.step()
  content = {
    'epoch': np.int64(3),
    'best': np.float32(0.5),
    'history': np.arange(3.0),
    'args': argparse.Namespace(lr=0.1, out=pathlib.Path('a')),
    'optimizer': optimizer.state_dict(),
    'seen': {1, 2},
    'state_dict': tensors,
  }
  path = tmp_path / 'a.pth'
  torch.save(content, path)
  read = torch_file.read_torch_file(path)['state_dict']
  assert list(read) == list(tensors)
  for name, tensor in tensors.items():
    if name == 'bfloat16':
      assert read[name].dtype == handmade_pth.BFLOAT16
    value = tensor.detach().to(torch.float64).numpy()
    np.testing.assert_array_equal(read[name].astype(np.float64), value)
  # Another file: what was read are views of the first.
  old_path = tmp_path / 'old.pth'
  torch.save(content, old_path, _use_new_zipfile_serialization=False)
  old = torch_file.read_torch_file(old_path)['state_dict']
  assert list(old) == list(read)
  for name, value in read.items():
    assert old[name].dtype == value.dtype
    np.testing.assert_array_equal(old[name], value)
  torch.save(layer, path)
  with pytest.raises(ValueError, match=r'save\s+model\.state_dict'):
    containers.find_state_dict(torch_file.read_torch_file(path))
