"""Writes files as torch.save does, opcode by opcode, without torch."""

from collections.abc import Mapping
import io
import pathlib
import struct
from typing import Any, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

_STORAGES = {
  'float32': 'FloatStorage',
  'float64': 'DoubleStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
  'uint8': 'ByteStorage',
}


class Raw(NamedTuple):
  """Opcodes that push one object."""

  opcodes: bytes


class View(NamedTuple):
  """A tensor that is part of a storage."""

  storage: np.ndarray
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]


def instance(module: str, name: str, state: Any) -> Raw:
  """An object of any class, the way pickle stores ordinary objects."""
  new = f'c{module}\n{name}\n'.encode() + b')\x81'
  return Raw(new + _Pickle().push(state) + b'b')


def call(module: str, name: str, *args: Any) -> Raw:
  """The result of calling anything."""
  function = f'c{module}\n{name}\n'.encode()
  return Raw(function + _Pickle().push(args) + b'R')


def write(
  path: pathlib.Path,
  content: Any,
  *,
  compression: int = zipfile.ZIP_STORED,
  omit: tuple[str, ...] = (),
  extra: Mapping[str, bytes] | None = None,
) -> pathlib.Path:
  """Writes `content`: nested dicts, numbers, arrays, Raw and View."""
  pickled = _Pickle()
  program = b'\x80\x02' + pickled.push(content) + b'.'
  members = {'data.pkl': program, 'byteorder': b'little', 'version': b'3\n'}
  for key, storage in pickled.storages.items():
    members[f'data/{key}'] = storage.tobytes()
  members |= dict(extra or {})
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as archive:
    for name, data in members.items():
      if name not in omit:
        archive.writestr(f'archive/{name}', data)
  path.write_bytes(buffer.getvalue())
  return path


def write_legacy(
  path: pathlib.Path, content: Any, *, omit: tuple[str, ...] = ()
) -> pathlib.Path:
  """Writes the same as torch did before 1.6: pickles, then the storages."""
  pickled = _Pickle(view=(None,))
  program = pickled.push(content)
  keys = b']' + b''.join(pickled.push(k) + b'a' for k in pickled.storages)
  facts = pickled.push({'protocol_version': 1001, 'little_endian': True})
  data = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.' + b''.join(
    b'\x80\x02' + part + b'.' for part in (b'M\xe9\x03', facts, program, keys)
  )
  for key, storage in pickled.storages.items():
    if key not in omit:
      data += struct.pack('<q', storage.size) + storage.tobytes()
  path.write_bytes(data)
  return path


class _Pickle:
  def __init__(self, view: tuple[None, ...] = ()):
    self.view = view  # what old files say of storages within storages
    self.storages: dict[str, np.ndarray] = {}

  def push(self, value: Any) -> bytes:
    match value:
      case Raw(opcodes):
        return opcodes
      case View(storage, offset, size, stride):
        return self._tensor(storage, offset, size, stride)
      case np.ndarray():
        stride = [x // value.itemsize for x in value.strides]
        value = np.ascontiguousarray(value).reshape(value.shape)
        stride = [x // value.itemsize for x in value.strides]
        return self._tensor(value, 0, value.shape, stride)
      case dict():
        items = [self.push(x) for item in value.items() for x in item]
        return b'}(' + b''.join(items) + b'u'
      case tuple() | list():
        return b'(' + b''.join(map(self.push, value)) + b't'
      case str():
        text = value.encode()
        return b'X' + struct.pack('<I', len(text)) + text
      case bool() | None:
        return {True: b'\x88', False: b'\x89', None: b'N'}[value]
      case int():
        return b'J' + struct.pack('<i', value)
      case float():
        return b'G' + struct.pack('>d', value)
    raise TypeError(type(value))

  def _tensor(self, storage, offset, size, stride) -> bytes:
    known = [k for k, v in self.storages.items() if v is storage]
    key = known[0] if known else str(len(self.storages))
    self.storages[key] = storage
    kind = _STORAGES[storage.dtype.name]
    pid = (
      b'('
      + self.push('storage')
      + f'ctorch\n{kind}\n'.encode()
      + b''.join(map(self.push, (key, 'cpu', storage.size, *self.view)))
      + b'tQ'
    )
    hooks = b'ccollections\nOrderedDict\n)R'
    arguments = map(self.push, (offset, tuple(size), tuple(stride), False))
    return (
      b'ctorch._utils\n_rebuild_tensor_v2\n('
      + pid
      + b''.join(arguments)
      + hooks
      + b'tR'
    )


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
