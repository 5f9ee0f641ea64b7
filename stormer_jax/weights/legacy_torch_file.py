"""The layout of torch.save files before torch 1.6, which torch still writes.

Enters: a mapped file of that kind. Leaves: where in it the pickle of what was
saved begins, and the bytes of each storage. `torch_file` does the rest. Five
pickles stand one after the other: a magic number, a version, facts about the
machine, what was saved, and the keys of the storages; after them the storages,
each as a count of 8 bytes and its values. Such files carry no checksums.
"""

from collections.abc import Mapping
import mmap
import pickle
from typing import Any

from stormer_jax.weights import inert

# The first pickle, as torch writes it.
MAGIC = bytes.fromhex('80028a0a6cfc9c46f9206aa850192e')


class LegacyTorchFile:
  """A mapped file and where its storages lie.

  Attributes:
    big_endian: Whether its storages are; torch writes none that is.
  """

  big_endian = False

  def __init__(self, data: mmap.mmap, item_sizes: Mapping[str, int]):
    """Finds the storages.

    Args:
      data: The whole file.
      item_sizes: Bytes of one value, by the name of torch's storage class.

    Raises:
      ValueError: It ends too early, or contradicts itself.
      Exception: Of any kind that `pickle` raises on damaged bytes.
    """
    self._data = data
    data.seek(0)
    for _ in range(3):
      _Skimmer(data).load()
    self._start = data.tell()
    skimmer = _Skimmer(data)
    skimmer.load()
    keys: Any = _Skimmer(data).load()
    view, place = memoryview(data), data.tell()
    self._storages: dict[str, memoryview] = {}
    for key in keys:
      if key not in skimmer.storages:
        raise ValueError(f'lists a storage {key} that no tensor has')
      kind, count = skimmer.storages[key]
      if kind not in item_sizes:
        raise ValueError(
          f'holds a tensor of a kind that is not read here ({kind}); save it in'
          ' float32'
        )
      size = count * item_sizes[kind]
      stated = int.from_bytes(view[place : place + 8], 'little')
      if stated != count or place + 8 + size > len(view):
        raise ValueError('truncated or damaged; fetch it again')
      self._storages[str(key)] = view[place + 8 : place + 8 + size]
      place += 8 + size

  def program(self) -> mmap.mmap:
    """Returns the file, to be read from the pickle of what was saved."""
    self._data.seek(self._start)
    return self._data

  def read_storage(self, key: str) -> memoryview:
    """Returns the bytes of a storage."""
    if key not in self._storages:
      raise ValueError(f'has no storage {key}: not whole')
    return self._storages[key]


class _Skimmer(pickle.Unpickler):
  """Goes over a pickle, makes nothing of it, and notes its storages."""

  def __init__(self, file: mmap.mmap):
    super().__init__(file, encoding='latin1')
    self.storages: dict[Any, tuple[str, int]] = {}

  def find_class(self, module: str, name: str) -> Any:
    # A storage's class is told by its name; all else is nothing.
    return name if name.endswith('Storage') else inert.Inert

  def persistent_load(self, pid: Any) -> None:
    match pid:
      case ('storage', str(kind), key, _, int(count), None) if count >= 0:
        self.storages[key] = (kind, count)
      case ('module', *_):
        raise ValueError(
          'a whole model, not its weights; save model.state_dict()'
        )
      case _:
        raise ValueError(
          'holds a tensor that is part of another (torch before 0.4); save it'
          ' again with a newer torch'
        )
