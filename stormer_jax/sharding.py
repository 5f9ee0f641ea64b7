"""Where arrays live: one mesh, one rule for the state, one for the batch.

The mesh has two axes. `data` holds copies of the model; `fsdp` splits one copy
over its devices. A batch is split over both, so every device works on its own
clips. The model file knows nothing of this: XLA inserts the collectives from
the shardings of inputs and outputs of `jax.jit` (what used to be `pjit`).
"""

from collections.abc import Mapping
import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ('data', 'fsdp')
_MIN_SHARDED_SIZE = 2**14  # smaller leaves cost more to gather than to keep


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
  """Arranges all devices of all processes in a (data, fsdp) mesh.

  Args:
    data: Devices along `data`; -1 takes all that `fsdp` leaves.
    fsdp: Devices that share one copy of the parameters.

  Raises:
    ValueError: If the product is not the number of devices.
  """
  num_devices = jax.device_count()
  if data == -1:
    data = num_devices // max(fsdp, 1)
  if data < 1 or data * fsdp != num_devices:
    raise ValueError(
      f'mesh of data={data} x fsdp={fsdp} needs {data * fsdp} devices and'
      f' there are {num_devices}; set train.mesh_data=-1 and a'
      ' train.mesh_fsdp that divides the number of devices'
    )
  # Auto said aloud: the default of jax.make_mesh is Explicit, under which
  # ordinary layers do not trace.
  return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def state_shardings(abstract_state, mesh: Mesh):
  """Gives every leaf of a state its sharding, optimizer moments included.

  `fsdp` goes to the largest axis that it divides; leaves under 16,384 elements
  stay whole. The one tree serves init, the step's output and restore.

  Args:
    abstract_state: Tree of `jax.ShapeDtypeStruct`, from `jax.eval_shape`.
    mesh: From `make_mesh`.

  Returns:
    Tree of `NamedSharding` of the same structure.
  """
  fsdp = mesh.shape['fsdp']

  def leaf_sharding(leaf) -> NamedSharding:
    spec: list[str | None] = [None] * len(leaf.shape)
    if fsdp > 1 and math.prod(leaf.shape) >= _MIN_SHARDED_SIZE:
      divisible = [a for a, n in enumerate(leaf.shape) if n % fsdp == 0]
      if divisible:
        spec[max(divisible, key=lambda a: leaf.shape[a])] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(leaf_sharding, abstract_state)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of a value that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: its first axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


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
  if size % mesh.size:
    raise ValueError(
      f'batch of {size} does not divide over {mesh.size} devices; choose a'
      f' data.batch_size (or eval.batch_size) that is a multiple of {mesh.size}'
    )
  # Of several processes, JAX counts this transfer among those that nobody asked
  # for, which the training loop's guard refuses.
  with jax.transfer_guard('allow'):
    return {
      name: jax.make_array_from_process_local_data(sharding, array)
      for name, array in batch.items()
    }
