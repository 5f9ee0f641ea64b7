"""Puts named tensors into nested dicts, or names those that do not fit.

Enters: named tensors, and a `Place` for each. Leaves: nested dicts of NumPy
arrays, blocks stacked on a leading axis.
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from stormer_jax.weights import weight_names

Tree = dict[str, Any]  # nested, arrays at the leaves
StateDict = Mapping[str, np.ndarray]


def check_tensors(
  tensors: StateDict, shapes: Mapping[str, tuple[int, ...]]
) -> None:
  """Raises ValueError unless the tensors are those, of those shapes."""
  problems = []
  if missing := [name for name in shapes if name not in tensors]:
    problems.append(f'missing: {some(missing)}')
  if unknown := [name for name in tensors if name not in shapes]:
    problems.append(f'unknown: {some(unknown)}')
  if wrong := [
    f'{name} has {np.shape(tensors[name])}, expected {shape}'
    for name, shape in shapes.items()
    if name in tensors and np.shape(tensors[name]) != shape
  ]:
    problems.append(f'wrong shape: {some(wrong)}')
  if not_float := [
    f'{name} is {tensors[name].dtype}'
    for name in shapes
    if name in tensors
    and not name.endswith('num_batches_tracked')
    and not _is_float(tensors[name])
  ]:
    problems.append(f'not floating point: {some(not_float)}')
  if not_finite := [
    name
    for name in shapes
    if name in tensors
    and _is_float(tensors[name])
    and not np.isfinite(tensors[name]).all()
  ]:
    problems.append(f'not finite (damaged): {some(not_finite)}')
  if problems:
    raise ValueError(f'these weights do not fit: {"; ".join(problems)}')


def _is_float(x: np.ndarray) -> bool:
  return x.dtype.kind == 'f' or x.dtype == ml_dtypes.bfloat16


def some(names: list[str]) -> str:
  """Names the first few, and says how many more there are."""
  more = f' and {len(names) - 4} more' if len(names) > 4 else ''
  return ', '.join(names[:4]) + more


def place(
  tree: Tree, place: weight_names.Place, value: np.ndarray, depth: int
) -> None:
  """Writes one tensor, turned, into its copy in a nested dict."""
  value = place.layout.ours(np.asarray(value))
  dtype = np.int32 if place.is_count else np.float32
  for key in place.ours[:-1]:
    tree = tree.setdefault(key, {})
  leaf = place.ours[-1]
  if place.block is None:
    tree[leaf] = np.array(value, dtype, order='C')
    return
  if place.block == 0:
    tree[leaf] = np.empty((depth, *value.shape), dtype)
  tree[leaf][place.block] = value


def flatten(
  tree: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> dict[tuple[str, ...], np.ndarray]:
  """Lists the arrays of a nested dict by their paths."""
  leaves: dict[tuple[str, ...], np.ndarray] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flatten(value, (*path, str(key)))
    else:
      leaves[(*path, str(key))] = np.asarray(value)
  return leaves
