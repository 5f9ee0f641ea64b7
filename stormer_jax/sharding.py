"""Where arrays live: one mesh, one rule for the state, one for the batch.

The mesh has three axes. `data` holds copies of the model; `fsdp` splits the
arrays of one copy over its devices, which gather them for use; `tensor` splits
the work of one clip's blocks, heads and hidden units apart (Megatron-LM,
arXiv 1909.08053, section 3). A batch is split over `data` and `fsdp`, and is
the same along `tensor`. The model file knows nothing of this: XLA inserts the
collectives from the shardings of inputs and outputs of `jax.jit` (what used to
be `pjit`).
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
_MIN_SHARDED_SIZE = 2**14  # smaller leaves cost more to gather than to keep
# Axis that `tensor` splits of the arrays of a block, by the end of their path:
# outputs of the first layer of a pair, inputs of the second.
_TENSOR_AXES: dict[tuple[str, ...], int] = {
  ('attn', 'qkv', 'kernel'): -1,
  ('attn', 'qkv', 'bias'): -1,
  ('attn', 'proj', 'kernel'): -2,
  ('temporal_attn', 'qkv', 'kernel'): -1,
  ('temporal_attn', 'qkv', 'bias'): -1,
  ('temporal_attn', 'proj', 'kernel'): -2,
  ('mlp', 'fc1', 'kernel'): -1,
  ('mlp', 'fc1', 'bias'): -1,
  ('mlp', 'fc2', 'kernel'): -2,
}


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Arranges devices in a (data, fsdp, tensor) mesh.

  Args:
    data: Devices along `data`; -1 takes all that the others leave.
    fsdp: Devices that share one copy of the parameters.
    tensor: Devices that share the work of one clip; of one process, and best
      a divisor of model.num_heads.
    devices: Which; None: all of all processes.

  Raises:
    ValueError: If the product is not the number of devices, or `tensor` goes
      across processes.
  """
  devices = jax.devices() if devices is None else devices
  if data == -1:
    data = len(devices) // max(fsdp * tensor, 1)
  needed = data * fsdp * tensor
  if min(data, fsdp, tensor) < 1 or needed != len(devices):
    raise ValueError(
      f'mesh of data={data} x fsdp={fsdp} x tensor={tensor} needs {needed}'
      f' devices and there are {len(devices)}; set train.mesh_data=-1, and a'
      ' train.mesh_fsdp and train.mesh_tensor whose product divides the number'
      ' of devices'
    )
  # Auto said aloud: the default of jax.make_mesh is Explicit, under which
  # ordinary layers do not trace.
  mesh = jax.make_mesh(
    (data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )
  for group in mesh.devices.reshape(-1, tensor):
    if len({device.process_index for device in group}) > 1:
      raise ValueError(
        f'train.mesh_tensor is {tensor}, so devices of several processes would'
        ' share a clip, which only one of them reads; choose a divisor of the'
        f' {jax.local_device_count()} devices of a process'
      )
  return mesh


def state_shardings(abstract_state, mesh: Mesh):
  """Gives every leaf of a state its sharding, optimizer moments included.

  `tensor` goes to the arrays of `_TENSOR_AXES` where it divides them. `fsdp`
  goes to the largest axis left that it divides; leaves under 16,384 elements
  stay whole. The one tree serves init, the step's output and restore.

  Args:
    abstract_state: Tree of `jax.ShapeDtypeStruct`, from `jax.eval_shape`.
    mesh: From `make_mesh`.

  Returns:
    Tree of `NamedSharding` of the same structure.
  """
  fsdp, tensor = mesh.shape['fsdp'], mesh.shape['tensor']

  def leaf_sharding(path, leaf) -> NamedSharding:
    spec: list[str | None] = [None] * len(leaf.shape)
    # Moments lie under the names of their parameters.
    axis = _TENSOR_AXES.get(tuple(map(_name, path[-3:])))
    if tensor > 1 and axis is not None and leaf.shape[axis] % tensor == 0:
      spec[axis] = 'tensor'
    if fsdp > 1 and math.prod(leaf.shape) >= _MIN_SHARDED_SIZE:
      divisible = [
        a for a, n in enumerate(leaf.shape) if n % fsdp == 0 and spec[a] is None
      ]
      if divisible:
        spec[max(divisible, key=lambda a: leaf.shape[a])] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(leaf_sharding, abstract_state)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of a value that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: its first axis over `data` and `fsdp`."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Checks that every device gets as many pairs of every micro-batch.

  Args:
    batch_size: Pairs a step, `data.batch_size`.
    accumulate: Micro-batches a step, `train.accumulate`.
    mesh: From `make_mesh`.

  Raises:
    ValueError: If not; names the fields.
  """
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if accumulate < 1 or batch_size % (parts * accumulate):
    raise ValueError(
      f'data.batch_size is {batch_size} and train.accumulate is {accumulate}:'
      f' over {parts} devices the batch must be a multiple of'
      f' {parts * max(accumulate, 1)} pairs, and accumulate at least 1'
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh):
  """Puts this process's share of a batch on its devices.

  Args:
    batch: Host arrays, [local_b, ...] each.
    mesh: From `make_mesh`.

  Returns:
    The same dict of global arrays, [local_b * process_count, ...].

  Raises:
    ValueError: If the global batch does not divide over the devices.
  """
  sharding = batch_sharding(mesh)
  size = len(next(iter(batch.values()))) * jax.process_count()
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  if size % parts:
    raise ValueError(
      f'batch of {size} does not divide over {parts} devices; choose a'
      f' data.batch_size (or eval.batch_size) that is a multiple of {parts}'
    )
  # Of several processes, JAX counts this transfer among those that nobody asked
  # for, which the training loop's guard refuses.
  with jax.transfer_guard('allow'):
    return {
      name: jax.make_array_from_process_local_data(sharding, array)
      for name, array in batch.items()
    }


def _name(key: Any) -> str:
  """Name of one step of a path: of a dict's entry or of a field."""
  return str(getattr(key, 'key', getattr(key, 'name', key)))
