"""Weights of a trained detector in one small file, to keep or to ship.

Enters: parameters and statistics, nested dicts of arrays. Leaves: a
.safetensors file in our own names, kernels and the like in float16, what has
one dimension (norms, biases, statistics) as it is; and the way back. A file of
the released code's names is another thing (`pretrained`).
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import numpy as np

from stormer_jax.weights import placing, tensor_file

Tree = Any
FILE = 'weights.safetensors'
_FIRST = '.members.0.'  # in the names of an ensemble's first network


def write(
  path: pathlib.Path, weights: Mapping[str, Tree], *, half: bool = True
) -> None:
  """Writes {'params': ..., 'stats': ...}, whole or not at all.

  Args:
    path: Of the file.
    weights: On the host or on a device.
    half: Whether kernels and the like become float16.

  Raises:
    ValueError: A value does not fit float16.
    OSError: The disk is full or not writable.
  """
  tensors = {}
  for name, leaf in named(weights).items():
    leaf = np.asarray(leaf)
    kept = halve(leaf) if half else leaf
    if kept is not leaf and np.isinf(kept).any():
      raise ValueError(f'{name} has values that float16 does not hold')
    tensors[name] = kept
  tensor_file.write_safetensors(path, tensors, {'format': 'np'})


def halve(leaf: np.ndarray) -> np.ndarray:
  """Makes float32 of more than one dimension float16, as it is kept."""
  if leaf.dtype != np.float32 or leaf.ndim < 2:
    return leaf
  with np.errstate(over='ignore'):
    return leaf.astype(np.float16)


def read(path: pathlib.Path, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
  """Reads what `write` wrote.

  Args:
    path: Of the file.
    abstract: {'params': ..., 'stats': ...}, the shapes and types of the model;
      of a file of several members and a model of one, the first is read.

  Returns:
    Trees like `abstract`, NumPy arrays.

  Raises:
    ValueError: The file is not whole, or is of another model; names tensors.
  """
  tensors = tensor_file.read_safetensors(path)
  wanted = named(abstract)
  if not any(_FIRST in name for name in wanted):
    tensors = _only_first(tensors)
  strangers = sorted(set(tensors) ^ set(wanted)) or [
    name for name, leaf in wanted.items() if tensors[name].shape != leaf.shape
  ]
  if strangers:
    raise ValueError(
      f'{path}: weights of another model than config.json beside it says:'
      f' {placing.some(strangers)}'
    )
  leaves = [tensors[name].astype(leaf.dtype) for name, leaf in wanted.items()]
  return jax.tree.unflatten(jax.tree.structure(dict(abstract)), leaves)


def _only_first(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  first = {
    name.replace(_FIRST, '.', 1): tensor
    for name, tensor in tensors.items()
    if _FIRST in name
  }
  return first or tensors


def named(weights: Mapping[str, Tree]) -> dict[str, Any]:
  """Returns the leaves by name, in the order of the tree."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(weights))
  }
