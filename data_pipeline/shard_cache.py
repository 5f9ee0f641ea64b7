"""Copies of shards on a disk of this machine, for those that lie far away.

Enters: shards as a data set's metadata lists them, and where they lie. Leaves:
where a copy lies that has the SHA-256 of the metadata, made when it is first
asked for. All processes of a machine may share a cache: a shard is copied by
one of them while the others wait for it.

A cache never holds more than its bound. To make room, copies of other data sets
are removed, the longest unused first, but none that a process still reads.
What then does not fit is read where it lies: to copy and remove in turn would
be slower than no cache.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
from typing import Any
import weakref

from absl import logging

from data_pipeline import places
from data_pipeline import shards as shards_lib

_CHUNK = 2**22  # bytes copied at once
_LOCK = 'lock'  # who has it may count, make room and rename
_IN_USE = 'in_use'  # the file whose lock says so, in the folder of a data set


@dataclasses.dataclass(frozen=True)
class ShardCache:
  """A folder of copies.

  Attributes:
    folder: On a disk of this machine; made if need be. Nothing else lies there.
    max_bytes: Of all copies.
  """

  folder: pathlib.Path
  max_bytes: int

  def hold(self, shards: Sequence[shards_lib.Shard]) -> 'HeldShards':
    """Keeps the copies of a data set's shards from being removed.

    Raises:
      OSError: the folder cannot be written.
    """
    return HeldShards(self, shards)


class HeldShards:
  """The copies of one data set, held as long as this object lives.

  Threads may fetch at the same time. A pickled copy holds them too.
  """

  def __init__(self, cache: ShardCache, shards: Sequence[shards_lib.Shard]):
    """Takes all shards of the data set: other bytes are another data set."""
    sums = ''.join(shard.sha256 for shard in shards)
    name = hashlib.sha256(sums.encode()).hexdigest()[:16]
    self._cache = cache
    self._folder = cache.folder / name
    self._was_full = False
    self._hold()

  def _hold(self) -> None:
    path = self._folder / _IN_USE
    while True:
      self._folder.mkdir(parents=True, exist_ok=True)
      try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
      except FileNotFoundError:  # removed in this moment
        continue
      fcntl.flock(descriptor, fcntl.LOCK_SH)
      if _is_still(descriptor, path):
        break
      os.close(descriptor)
    os.utime(path)
    weakref.finalize(self, os.close, descriptor)

  def __getstate__(self) -> dict[str, Any]:
    return {'_cache': self._cache, '_folder': self._folder, '_was_full': False}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._hold()

  def fetch(
    self, source: pathlib.Path, shard: shards_lib.Shard
  ) -> pathlib.Path:
    """Returns where a shard is to be read: its copy, or `source`.

    Args:
      source: Where it lies.
      shard: What it is.

    Raises:
      ValueError: the shard is not what was written.
      OSError: it cannot be read, or the cache not written.
    """
    copy = self._folder / shard.name
    while not _is_whole(copy, shard):
      partial = copy.with_name(f'{shard.name}.partial')
      with _locked(partial) as file:
        if _is_whole(copy, shard):  # by who had the lock before
          partial.unlink(missing_ok=True)
        elif _is_still(file.fileno(), partial):
          done = False
          try:
            done = self._fill(file, source, shard)
          finally:
            if not done:
              partial.unlink(missing_ok=True)
          if not done:
            return source
          with _locked(self._cache.folder / _LOCK):  # others may be counting
            partial.rename(copy)
    return copy

  def _fill(self, file: Any, source: pathlib.Path, shard: shards_lib.Shard):
    """Copies into the locked file; False if there is no room for it."""
    try:
      with _locked(self._cache.folder / _LOCK):
        file.truncate(0)
        if not self._make_room(shard.num_bytes):
          return self._say_full(f'its bound is {self._cache.max_bytes:,} bytes')
        file.truncate(shard.num_bytes)  # what others count as taken
      found = hashlib.sha256()
      with places.naming(source), source.open('rb') as original:
        while chunk := original.read(_CHUNK):
          found.update(chunk)
          file.write(chunk)
      if found.hexdigest() != shard.sha256:
        raise ValueError(
          f'{source}: its SHA-256 is {found.hexdigest()}, {shard.sha256} was'
          ' written; copy it anew from where it was prepared, or prepare it'
          ' again'
        )
      file.flush()
      os.fsync(file.fileno())
    except OSError as error:
      if error.errno in places.NO_SPACE:
        return self._say_full('the disk is full')
      raise
    return True

  def _make_room(self, num_bytes: int) -> bool:
    """Removes what nobody reads until so much fits; False: it does not."""
    if num_bytes > self._cache.max_bytes:
      return False
    others = sorted(
      self._cache.folder.glob(f'*/{_IN_USE}'),
      key=lambda path: path.stat().st_mtime,
    )
    while _taken(self._cache.folder) + num_bytes > self._cache.max_bytes:
      if not others:
        return False
      path = others.pop(0)
      with path.open('a') as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may begin to hold it in this moment.
        shutil.rmtree(path.parent, ignore_errors=True)
    return True

  def _say_full(self, why: str) -> bool:
    if not self._was_full:
      logging.warning(
        '--data_cache=%s is full, %s: further shards are read where they lie',
        self._cache.folder,
        why,
      )
    self._was_full = True
    return False


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[Any]:
  """Opens a file, made if need be, and has it alone, thread or process."""
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  with os.fdopen(descriptor, 'r+b') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield file


def _is_still(descriptor: int, path: pathlib.Path) -> bool:
  """Whether a file that is open still has its name."""
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False


def _is_whole(path: pathlib.Path, shard: shards_lib.Shard) -> bool:
  """Whether a copy is there; it got its name after its sum was compared."""
  try:
    return path.stat().st_size == shard.num_bytes
  except FileNotFoundError:
    return False


def _taken(folder: pathlib.Path) -> int:
  """Bytes of all copies, those being made included."""
  taken = 0
  for path in folder.glob('*/*'):
    with contextlib.suppress(FileNotFoundError):  # given up in this moment
      taken += path.stat().st_size
  return taken
