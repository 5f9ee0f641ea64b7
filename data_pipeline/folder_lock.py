"""One process at a time writes a data set.

The lock is the operating system's, on a file in the folder, so it ends with the
process that holds it, however that ends; the file says to others who it is.
"""

from collections.abc import Iterator
import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import socket

_NAME = '.lock'
# Of file systems that know no locks, as those of buckets.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def hold(folder: pathlib.Path) -> Iterator[None]:
  """Holds a folder, which is made if need be, while the block runs.

  Raises:
    ValueError: another process holds it; says which, where, and since when.
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / _NAME
  file = _acquire(path)
  try:
    now = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {now}')
    file.flush()
    yield
  finally:
    path.unlink(missing_ok=True)  # before it is given up: see _acquire
    file.close()


def _acquire(path: pathlib.Path):
  """Opens and locks the file; not one that its last holder has taken away."""
  while True:
    file = path.open('a+', encoding='utf-8')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read().strip() or 'a process that has just begun'
      file.close()
      raise ValueError(
        f'{path.parent} is being written by {holder}; wait until it is done, '
        'or stop it first'
      ) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        file.close()
        raise
    try:
      if os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    except FileNotFoundError:
      pass
    file.close()
