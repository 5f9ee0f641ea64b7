"""Reads a saved training state as NumPy arrays, whatever devices saved it."""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def read_state(workdir: pathlib.Path, step: int) -> dict[str, Any]:
  """The whole state of `<workdir>/checkpoints/<step>`."""
  folder = workdir / f'checkpoints/{step}/state'
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.metadata(folder).item_metadata.tree
    as_numpy = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
    )
    return reader.restore(
      folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy)
    )
