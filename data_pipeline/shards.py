"""The files of a data set: which there are, and the records in them.

Enters: a folder and `Shard`s, as the data set's metadata lists them. Leaves:
the bytes of records, by shard and place, read in one call however many they
are.
"""

import collections
from collections.abc import Sequence
import dataclasses
import hashlib
import os
import pathlib
import threading
from typing import Any, Protocol

from array_record.python import array_record_module

from data_pipeline import places

# Choice: a system gives a process 1,024 files or more. To open a shard again
# takes 0.1 ms.
_MAX_OPEN = 256
_BUFFER = 2**15  # bytes read at once where a record is not larger


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
  """One file.

  Attributes:
    name: file name.
    num_records: records in it.
    num_bytes: its size.
    sha256: of all its bytes, hexadecimal, as `sha256sum` prints it.
  """

  name: str
  num_records: int
  num_bytes: int
  sha256: str

  @classmethod
  def of_file(cls, path: pathlib.Path, num_records: int) -> 'Shard':
    """Describes a file that has just been written."""
    return cls(path.name, num_records, path.stat().st_size, sha256(path))


def sha256(path: pathlib.Path) -> str:
  """The SHA-256 of a file, hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


class Copies(Protocol):
  """Copies of shards that lie nearer."""

  def fetch(self, source: pathlib.Path, shard: Shard) -> pathlib.Path:
    """Returns where a shard is to be read."""


class ShardReader:
  """Random access to records. Threads may read at the same time.

  A shard is opened when it is read: a damaged one does not hide the others. A
  pickled copy opens its own files.
  """

  _PICKLED = ('_folder', '_shards', '_copies')

  def __init__(
    self,
    folder: str | os.PathLike,
    shards: Sequence[Shard],
    copies: Copies | None = None,
  ):
    """Takes the folder that the shards lie in, and their copies."""
    self._folder = places.path(folder)
    self._shards = tuple(shards)
    self._copies = copies
    self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    return {name: getattr(self, name) for name in self._PICKLED}

  def __setstate__(self, state: dict[str, Any]) -> None:
    # mypy warns of subclasses with another __init__; there are none.
    self.__init__(*(state[name] for name in self._PICKLED))  # type: ignore[misc]

  def path(self, shard: int) -> pathlib.Path:
    """Where a shard lies."""
    return self._folder / self._shards[shard].name

  def read(self, shard: int, places: Sequence[int]) -> list[bytes]:
    """Returns the records at places of a shard.

    Raises:
      ValueError: there is no such file, it has another size than was written,
        or a record is damaged.
    """
    try:
      return self._reader(shard).read(places)
    except RuntimeError as error:  # array_record's word for all that goes wrong
      raise ValueError(str(error)) from error

  def _reader(self, shard: int) -> Any:
    with self._lock:
      reader = self._open.get(shard)
      if reader is not None:
        self._open.move_to_end(shard)
        return reader
    path, expected = self.path(shard), self._shards[shard].num_bytes
    try:
      if self._copies is not None:
        path = self._copies.fetch(path, self._shards[shard])
      found = places.size(path)
    except FileNotFoundError:
      raise ValueError('there is no such file') from None
    if found != expected:
      raise ValueError(f'the file has {found} bytes, {expected} were written')
    reader = array_record_module.ArrayRecordReader(
      os.fspath(path),
      'readahead_buffer_size:0',
      file_reader_buffer_size=_BUFFER,
    )
    with self._lock:
      self._open[shard] = reader
      # One that another thread still reads is closed when that is done.
      while len(self._open) > _MAX_OPEN:
        self._open.popitem(last=False)
    return reader
