"""Compiled programs, kept from one call of a command to the next.

Enters: what the user said of it, and the mode of `main`. Leaves: the folder
that JAX reads compiled programs from and writes them to. `predict` and `app`
are called over and over for the same model, and compiling it takes as long as
answering for a short video; they keep it in the user's cache folder. A program
holds nothing of weights and videos, and the folder may be deleted at any time.
"""

from collections.abc import Mapping
import hashlib
import os
import pathlib
import platform

import jax

_MODES = ('predict', 'app')
# s; what compiles sooner is not worth a file.
_LEAST_SECONDS = 0.1


def choose(named: str | None, mode: str) -> None:
  """Tells JAX where compiled programs are kept, if anywhere.

  Args:
    named: Folder; '' for nowhere; None: the one that JAX was told of in the
      environment, else the user's cache in the modes that keep programs there.
    mode: Of `main`.
  """
  if named is not None:
    jax.config.update('jax_compilation_cache_dir', named or None)
  elif mode in _MODES and not jax.config.values['jax_compilation_cache_dir']:
    try:
      folder = users_folder(os.environ)
      folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
      return  # a home that cannot be written to, or none
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update(
      'jax_persistent_cache_min_compile_time_secs', _LEAST_SECONDS
    )


def users_folder(environment: Mapping[str, str]) -> pathlib.Path:
  """The folder of this machine's programs in the user's cache.

  A program is of one processor, and a home may be that of several machines.
  """
  home = environment.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  digest = hashlib.blake2b(_processor().encode(), digest_size=6).hexdigest()
  return pathlib.Path(home) / 'stormer-jax' / f'programs-{digest}'


def _processor() -> str:
  """What tells processors apart that a program may not be moved between."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:  # not Linux
    return f'{platform.machine()} {platform.processor()}'
  said = {line for line in lines if line.startswith(('flags', 'Features'))}
  return ' '.join([platform.machine(), *sorted(said)])
