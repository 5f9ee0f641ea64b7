"""Reads the tensors of a torch.save file without torch and without its code.

Enters: a path to a zip archive as torch.save writes it since 1.6, or a file of
before (`legacy_torch_file`). Leaves: what was saved, as nested dicts with
read-only NumPy views of the mapped file for tensors (bfloat16 as
ml_dtypes.bfloat16) and inert things for all else (argparse.Namespace, NumPy
scalars). `containers` finds the weights in it.

A pickle is a program. This one is run by an unpickler that imports nothing
and calls nothing of the file's choosing: tensors are rebuilt by functions of
this file, objects of classes that it does not know become `inert.Inert`, and
a call of anything outside a short list of constructors is an error.
"""

import collections
from collections.abc import Callable, Mapping
import io
import math
import mmap
import pathlib
import pickle
import struct
from typing import Any, NamedTuple
import zipfile
import zlib

import ml_dtypes
import numpy as np

from stormer_jax.weights import inert, legacy_torch_file

_DTYPES = {
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}
# Constructors that harmless checkpoints call. They are not called here either:
# a call yields an `Inert`. Calling any other name is an error.
_HARMLESS_CALLS = {
  'torch': ('Size', 'device'),
  'torch.serialization': ('_get_layout',),
  'collections': ('defaultdict', 'Counter', 'deque'),
  'argparse': ('Namespace',),
  'numpy': ('dtype', 'ndarray'),
  'numpy.core.multiarray': ('_reconstruct', 'scalar'),
  'numpy._core.multiarray': ('_reconstruct', 'scalar'),
  'numpy.core.numeric': ('_frombuffer',),
  'numpy._core.numeric': ('_frombuffer',),
  'pathlib': ('Path', 'PosixPath', 'WindowsPath', 'PurePosixPath'),
  'datetime': ('datetime', 'date', 'timedelta'),
  'copyreg': ('_reconstructor',),
  'copy_reg': ('_reconstructor',),
  '_codecs': ('encode',),
  'builtins': ('set', 'frozenset', 'bytearray', 'complex', 'slice', 'range'),
  '__builtin__': ('set', 'frozenset', 'bytearray', 'complex', 'slice'),
}


def read_torch_file(path: str | pathlib.Path) -> Any:
  """Returns what a torch.save file holds, names as they stand.

  The arrays are read-only views of the mapped file: reading costs no memory of
  its own, and the file stays mapped while one of them lives.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is of neither format, truncated or damaged, or its pickle
      calls for code.
  """
  try:
    content = _Unpickler(_open_archive(pathlib.Path(path))).load()
    return _plain(content, {})
  except (
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    # What the C unpickler raises on the wrong bytes.
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    struct.error,
  ) as error:
    reason = str(error)
    if not isinstance(error, ValueError):
      reason = f'truncated or damaged ({error}); fetch it again'
    raise ValueError(f'{path}: {reason}') from error


class _Archive(NamedTuple):
  """A mapped torch zip and where its members lie."""

  data: memoryview
  members: dict[str, zipfile.ZipInfo]  # names without the root folder

  @property
  def big_endian(self) -> bool:
    """Whether the storages are."""
    return 'byteorder' in self.members and self.read('byteorder') == b'big'

  def program(self) -> io.BytesIO:
    """Returns the pickle of what was saved."""
    return io.BytesIO(self.read('data.pkl'))

  def read_storage(self, key: str) -> memoryview:
    """Returns the bytes of a storage."""
    return self.read(f'data/{key}')

  def read(self, name: str) -> memoryview:
    """Returns the bytes of a member, its checksum verified."""
    if name not in self.members:
      raise ValueError(f'has no member {name}: not whole')
    member = self.members[name]
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
      raise ValueError(
        f'member {name} is compressed or encrypted, which torch.save never '
        'does; save it with torch.save again'
      )
    start = member.header_offset
    name_size, extra_size = struct.unpack(
      '<HH', self.data[start + 26 : start + 30]
    )
    start += 30 + name_size + extra_size
    content = self.data[start : start + member.file_size]
    if zlib.crc32(content) != member.CRC:
      raise ValueError(
        f'member {name} does not match its checksum: truncated or damaged; '
        'fetch it again'
      )
    return content


def _open_archive(
  path: pathlib.Path,
) -> _Archive | legacy_torch_file.LegacyTorchFile:
  with path.open('rb') as file:
    start = file.read(len(legacy_torch_file.MAGIC))
    if start == legacy_torch_file.MAGIC:
      return legacy_torch_file.LegacyTorchFile(
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
        {name: dtype.itemsize for name, dtype in _DTYPES.items()},
      )
    if not start.startswith(b'PK'):
      raise ValueError(
        'not a torch.save file: it is no zip archive, its first bytes are '
        f'{start[:8]!r}'
      )
    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with zipfile.ZipFile(file) as archive:
      members = {m.filename: m for m in archive.infolist()}
  roots = [n for n in members if n == 'data.pkl' or n.endswith('/data.pkl')]
  if len(roots) != 1:
    raise ValueError('a zip archive, but not one of torch.save (no data.pkl)')
  root = roots[0].removesuffix('data.pkl')
  members = {n.removeprefix(root): m for n, m in members.items()}
  if 'constants.pkl' in members:
    raise ValueError('a TorchScript program; save model.state_dict() instead')
  return _Archive(data, members)


class _StorageType(NamedTuple):
  dtype: np.dtype


class _Storage(NamedTuple):
  values: np.ndarray


class _Tensor(NamedTuple):
  """Wraps a view, so that the pickle cannot reach into the array's state."""

  values: np.ndarray


class _NotCallable(type):
  """The type of stand-ins that a pickle may build with a state, not call."""

  def __call__(cls, *args, **kwargs):
    raise ValueError(
      f'its pickle calls {cls.__module__}.{cls.__qualname__}, which no '
      'checkpoint needs; nothing was run. Save model.state_dict() alone'
    )


class _Unpickler(pickle.Unpickler):
  """Builds tensors and plain containers, and runs nothing."""

  def __init__(self, archive: _Archive | legacy_torch_file.LegacyTorchFile):
    # latin1 reads the byte strings of Python 2 pickles too.
    super().__init__(archive.program(), encoding='latin1')
    self._archive = archive
    self._storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if module in ('torch', 'torch.storage') and name in _DTYPES:
      return _StorageType(_DTYPES[name])
    if module == 'torch._utils' and name in _REBUILD:
      return _REBUILD[name]
    harmless = name in _HARMLESS_CALLS.get(module, ())
    kind = type if harmless else _NotCallable
    return kind(
      name, (inert.Inert,), {'__module__': module, '__qualname__': name}
    )

  def persistent_load(self, pid: Any) -> _Storage:
    """Returns the flat storage that tensors are views of."""
    match pid:
      case ('storage', _StorageType(dtype), str(key), _, int(count), *_):
        pass
      case _:
        raise ValueError(
          'holds a tensor of a kind that is not read here (complex, quantized, '
          'float8); save it in float32'
        )
    if key not in self._storages:
      content = self._archive.read_storage(key)
      if not 0 <= count * dtype.itemsize <= len(content):
        raise ValueError(
          f'storage {key} has {len(content)} bytes, too few for {count} values '
          f'of {dtype}'
        )
      values = np.frombuffer(content, dtype, count)
      if self._archive.big_endian:
        values = values.byteswap()
      self._storages[key] = _Storage(values)
    return self._storages[key]


def _rebuild_tensor(
  storage: Any, offset: int, size: Any, stride: Any, *_: Any
) -> _Tensor:
  if not isinstance(storage, _Storage) or len(size) != len(stride):
    raise ValueError('a tensor without storage or with an impossible shape')
  values = storage.values
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if (
    min((offset, *size, *stride)) < 0
    or math.prod(size) > values.size
    or last >= max(values.size, 1)
  ):
    raise ValueError(f'a tensor of size {tuple(size)} exceeds its storage')
  strides = [s * values.itemsize for s in stride]
  return _Tensor(
    np.lib.stride_tricks.as_strided(
      values[offset:], tuple(size), strides, writeable=False
    )
  )


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  return tensor


_REBUILD: dict[str, Callable[..., Any]] = {
  '_rebuild_tensor': _rebuild_tensor,
  '_rebuild_tensor_v2': _rebuild_tensor,
  '_rebuild_parameter': _rebuild_parameter,
  '_rebuild_parameter_with_state': _rebuild_parameter,
}


def _plain(content: Any, done: dict[int, Any]) -> Any:
  """Turns tensors into arrays, in mappings within mappings too.

  Args:
    content: As unpickled.
    done: What each mapping became, by its id: a pickle may hold one often, or
      one that contains itself.
  """
  if isinstance(content, _Tensor):
    return content.values
  if not isinstance(content, Mapping):
    return content
  if id(content) not in done:
    plain = done[id(content)] = {}
    for name, value in content.items():
      plain[name] = _plain(value, done)
  return done[id(content)]
