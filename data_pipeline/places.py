"""Where prepared data lie: a folder of this machine, or one of a bucket.

Enters: what a user gave, a path or `gs://BUCKET/FOLDER`. Leaves: a path, of
pathlib or, for a bucket, of etils.epath, which reads through gcsfs (extra
`gcs`). Only to read: see docs/launch.md for what is written.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
from typing import Any, cast

# What an operating system says of a full disk, and of a user's part of one.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_ADDRESS = re.compile(r'([a-z][a-z0-9+.-]*)://')


def is_address(place: str | os.PathLike) -> bool:
  """Whether it is an address, as gs://BUCKET, and not a path."""
  return bool(_ADDRESS.match(os.fspath(place)))


def path(place: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a folder or file.

  A bucket's only looks like one of pathlib: what is the same of both is to
  join, to read, and to ask whether it is there.

  Raises:
    ValueError: an address that is not of Cloud Storage, or nothing is installed
      that reads it; with the way to mount it.
  """
  found = _ADDRESS.match(os.fspath(place))
  if not found:
    return pathlib.Path(place)
  mount = (
    'mount the bucket on every machine of the job (gcsfuse for gs://; mount-s3'
    ' for s3://) and give the folder: docs/launch.md, "Data and workdir in a'
    ' bucket"'
  )
  if found[1] != 'gs':
    raise ValueError(
      f'{place}: of addresses only gs:// is read directly; {mount}'
    )
  import fsspec  # here and below: of those alone who read a bucket

  try:
    fsspec.get_filesystem_class('gs')
  except ImportError as error:
    raise ValueError(
      f'{place}: to read a bucket install the extra: pip install'
      f" 'stormer-jax[gcs]'; or {mount}"
    ) from error
  from etils import epath

  return cast(pathlib.Path, epath.Path(place))


def size(place: pathlib.Path) -> int:
  """Bytes of a file.

  Raises:
    FileNotFoundError: there is none.
    OSError: the bucket cannot be read.
  """
  with naming(place):
    stat: Any = place.stat()
  return stat.length if is_address(place) else stat.st_size


@contextlib.contextmanager
def naming(place: pathlib.Path) -> Iterator[None]:
  """Turns what a bucket's library raises into OSError, with the place."""
  try:
    yield
  except _errors(place) as error:
    raise OSError(
      f'{place} cannot be read: {error}. Who may read it is known by'
      ' `gcloud auth application-default login`, or by the machine'
    ) from error


def _errors(place):
  """What gcsfs raises that is neither OSError nor ValueError."""
  if not is_address(place):
    return ()
  try:
    from gcsfs import retry
    from google.auth import exceptions
  except ImportError:  # another library reads it
    return ()
  return (retry.HttpError, exceptions.GoogleAuthError)
