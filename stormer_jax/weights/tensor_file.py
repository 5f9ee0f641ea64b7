"""Files of named tensors: .npz and .safetensors in, .safetensors and .pth out.

Names and arrays pass through unchanged. What is written appears under its name
only when it is whole. `torch_file` reads .pth.
"""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import json
import mmap
import os
import pathlib
from typing import IO
import zipfile

import ml_dtypes
import numpy as np

_DTYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'I16': np.dtype('<i2'),
  'I8': np.dtype('i1'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a NumPy archive into memory; never unpickles.

  Raises:
    ValueError: It is not whole, holds objects, or holds no tensors.
  """
  try:
    with (
      path.open('rb') as file,
      np.load(file, allow_pickle=False) as archive,
    ):
      tensors = {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
    raise ValueError(f'{path}: not a whole .npz file ({error})') from error
  if not tensors:
    raise ValueError(f'{path}: holds no tensors')
  return tensors


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a .safetensors file as read-only views of the mapped file.

  The safetensors package would copy each tensor beside its own mapping, which
  doubles the memory of a conversion.

  Raises:
    ValueError: It is not whole, holds no tensors, or one of a type that is not
      read here (float8).
  """
  tensors = {}
  strange = ''
  try:
    with path.open('rb') as file:
      data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = 8 + int.from_bytes(data[:8], 'little')
    header = json.loads(bytes(data[8:start]))
    for name, entry in header.items():
      if name == '__metadata__':
        continue
      begin, end = entry['data_offsets']
      if entry['dtype'] not in _DTYPES:
        strange = f'{name} is of type {entry["dtype"]}'
        break
      dtype = _DTYPES[entry['dtype']]
      values = np.frombuffer(data[start + begin : start + end], dtype)
      tensors[name] = values.reshape(entry['shape'])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path}: not a whole .safetensors file ({error}); fetch it again'
    ) from error
  if strange:
    raise ValueError(
      f'{path}: {strange}, which is not read here; save it in float32, float16 '
      'or bfloat16'
    )
  if not tensors:
    raise ValueError(f'{path}: holds no tensors')
  return tensors


def write_safetensors(
  path: pathlib.Path,
  tensors: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> None:
  """Writes tensors one after the other, so that views cost no copy of all.

  Raises:
    OSError: The disk is full or not writable; nothing is left behind.
  """
  names = {dtype: name for name, dtype in _DTYPES.items()}
  header: dict[str, object] = {'__metadata__': dict(metadata)}
  end = 0
  for name, x in tensors.items():
    begin, end = end, end + x.nbytes
    header[name] = {
      'dtype': names[x.dtype],
      'shape': x.shape,
      'data_offsets': (begin, end),
    }
  text = json.dumps(header).encode()
  text += b' ' * (-len(text) % 8)  # tensors start aligned
  with _whole_or_nothing(path) as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    for x in tensors.values():
      file.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)


def write_torch_file(
  path: pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a state dict with torch.save, where torch is installed.

  Raises:
    ValueError: torch is not installed.
    OSError: The disk is full or not writable; nothing is left behind.
  """
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f'{path}: writing .pth needs torch (pip install "stormer-jax[torch]"); '
      '.safetensors is written without it'
    ) from error
  state_dict = {
    name: torch.from_numpy(np.array(x, order='C'))
    for name, x in tensors.items()
  }
  with _whole_or_nothing(path) as file:
    torch.save(collections.OrderedDict(state_dict), file)


@contextlib.contextmanager
def _whole_or_nothing(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """Opens a file that takes its name only if all writes succeed."""
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    with part.open('wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)
