"""Meshes, the rule for the state, the rule for a batch."""

import jax
import numpy as np
import pytest

from stormer_jax import sharding


def test_mesh_takes_all_devices():
  mesh = sharding.make_mesh(fsdp=2)
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 2}


def test_a_mesh_of_too_few_devices_is_refused_with_the_fix():
  with pytest.raises(ValueError, match='needs 6 devices and there are 8'):
    sharding.make_mesh(data=3, fsdp=2)


@pytest.mark.parametrize(('data', 'fsdp'), [(-1, 0), (0, 8), (-2, -4)])
def test_a_mesh_without_devices_is_refused(data, fsdp):
  with pytest.raises(ValueError, match='there are 8; set train'):
    sharding.make_mesh(data, fsdp)


def test_large_leaves_are_split_on_their_largest_divisible_axis():
  mesh = sharding.make_mesh(fsdp=2)
  shapes = {'a': (12, 128, 512), 'b': (255, 128), 'c': (255, 127), 'd': (64,)}
  tree = {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
  specs = {
    name: tuple(leaf.spec)
    for name, leaf in sharding.state_shardings(tree, mesh).items()
  }
  assert specs == {
    'a': (None, None, 'fsdp'),
    'b': (None, 'fsdp'),
    'c': (None, None),
    'd': (None,),
  }


def test_a_batch_is_split_over_both_axes():
  mesh = sharding.make_mesh(fsdp=2)
  batch = {'x': np.arange(16, dtype=np.float32).reshape(16, 1)}
  put = sharding.put_batch(batch, mesh)['x']
  np.testing.assert_array_equal(put, batch['x'])
  assert {s.data.shape for s in put.addressable_shards} == {(2, 1)}


def test_a_batch_that_does_not_divide_is_refused_with_the_fix():
  with pytest.raises(ValueError, match='batch of 6 does not divide over 8'):
    sharding.put_batch({'x': np.zeros((6, 1))}, sharding.make_mesh())
