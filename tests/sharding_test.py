"""Meshes, the rule for the state, the rule for a batch."""

import types

import jax
import numpy as np
import pytest

from stormer_jax import sharding


def test_mesh_takes_all_devices():
  mesh = sharding.make_mesh(fsdp=2)
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 2, 'tensor': 1}
  mesh = sharding.make_mesh(fsdp=2, tensor=2)
  assert dict(mesh.shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}


def test_a_mesh_may_be_of_some_devices():
  mesh = sharding.make_mesh(tensor=2, devices=jax.devices()[2:6])
  assert dict(mesh.shape) == {'data': 2, 'fsdp': 1, 'tensor': 2}
  assert set(mesh.devices.flat) == set(jax.devices()[2:6])


def test_a_mesh_of_too_few_devices_is_refused_with_the_fix():
  with pytest.raises(ValueError, match='needs 6 devices and there are 8'):
    sharding.make_mesh(data=3, fsdp=2)
  with pytest.raises(ValueError, match='data=2 x fsdp=1 x tensor=3 needs 6'):
    sharding.make_mesh(tensor=3)


@pytest.mark.parametrize(
  ('data', 'fsdp', 'tensor'),
  [(-1, 0, 1), (0, 8, 1), (-2, -4, 1), (-1, 1, 0), (-1, -2, -4)],
)
def test_a_mesh_without_devices_is_refused(data, fsdp, tensor):
  with pytest.raises(ValueError, match='there are 8; set train'):
    sharding.make_mesh(data, fsdp, tensor)


def test_a_clip_is_shared_within_a_process_alone(monkeypatch):
  class TwoProcesses:
    devices = np.array(
      [types.SimpleNamespace(process_index=i // 4) for i in range(8)]
    )

  monkeypatch.setattr(jax, 'make_mesh', lambda *_, **__: TwoProcesses())
  with pytest.raises(ValueError, match=r'mesh_tensor is 8, .* process'):
    sharding.make_mesh(tensor=8)


def _specs(tree, mesh):
  return {
    name: tuple(leaf.spec)
    for name, leaf in sharding.state_shardings(tree, mesh).items()
  }


def test_large_leaves_are_split_on_their_largest_divisible_axis():
  mesh = sharding.make_mesh(fsdp=2)
  shapes = {'a': (12, 128, 512), 'b': (255, 128), 'c': (255, 127), 'd': (64,)}
  tree = {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
  assert _specs(tree, mesh) == {
    'a': (None, None, 'fsdp'),
    'b': (None, 'fsdp'),
    'c': (None, None),
    'd': (None,),
  }


def test_a_block_splits_its_heads_and_hidden_units_over_tensor():
  def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)

  block = {
    'attn': {
      'qkv': {'kernel': leaf(2, 128, 384), 'bias': leaf(2, 384)},
      'proj': {'kernel': leaf(2, 128, 128), 'bias': leaf(2, 128)},
    },
    'mlp': {
      'fc1': {'kernel': leaf(2, 128, 512), 'bias': leaf(2, 512)},
      'fc2': {'kernel': leaf(2, 512, 128), 'bias': leaf(2, 128)},
    },
  }
  tree = {
    'params': {'blocks': block, 'soft_label_head': {'fc1': block['mlp']}},
    'opt_state': [{'mu': {'blocks': block}}],
  }
  mesh = sharding.make_mesh(fsdp=2, tensor=2)
  shardings = sharding.state_shardings(tree, mesh)
  specs = jax.tree.map(lambda s: tuple(s.spec), shardings['params']['blocks'])
  assert specs == {
    'attn': {
      'qkv': {'kernel': (None, 'fsdp', 'tensor'), 'bias': (None, 'tensor')},
      'proj': {'kernel': (None, 'tensor', 'fsdp'), 'bias': (None, None)},
    },
    'mlp': {
      'fc1': {'kernel': (None, 'fsdp', 'tensor'), 'bias': (None, 'tensor')},
      'fc2': {'kernel': (None, 'tensor', 'fsdp'), 'bias': (None, None)},
    },
  }
  moments = shardings['opt_state'][0]['mu']['blocks']
  assert jax.tree.map(lambda s: tuple(s.spec), moments) == specs


def test_what_tensor_does_not_divide_stays_whole():
  tree = {'mlp': {'fc1': {'kernel': jax.ShapeDtypeStruct((8, 9), np.float32)}}}
  mesh = sharding.make_mesh(tensor=2)
  (leaf,) = jax.tree.leaves(sharding.state_shardings(tree, mesh))
  assert tuple(leaf.spec) == (None, None)


def test_a_batch_is_split_over_data_and_fsdp():
  mesh = sharding.make_mesh(fsdp=2, tensor=2)
  batch = {'x': np.arange(16, dtype=np.float32).reshape(16, 1)}
  put = sharding.put_batch(batch, mesh)['x']
  np.testing.assert_array_equal(put, batch['x'])
  assert {s.data.shape for s in put.addressable_shards} == {(4, 1)}


def test_a_batch_that_does_not_divide_is_refused_with_the_fix():
  with pytest.raises(ValueError, match='batch of 6 does not divide over 8'):
    sharding.put_batch({'x': np.zeros((6, 1))}, sharding.make_mesh())
  four = sharding.make_mesh(tensor=2)
  with pytest.raises(ValueError, match='batch of 6 does not divide over 4'):
    sharding.put_batch({'x': np.zeros((6, 1))}, four)


def test_every_device_needs_whole_pairs_of_every_micro_batch():
  mesh = sharding.make_mesh(tensor=2)
  sharding.check_batch(16, 4, mesh)
  for batch_size, accumulate in ((16, 8), (6, 1), (8, 0)):
    with pytest.raises(ValueError, match=f'{batch_size} and train.accumulate'):
      sharding.check_batch(batch_size, accumulate, mesh)
