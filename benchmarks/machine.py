"""Names what a benchmark ran on: versions, machine, commit and date."""

from collections.abc import Sequence
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess

_ROOT = pathlib.Path(__file__).parent.parent
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'numpy')


def commit() -> str:
  """Returns the short name of the commit that is checked out."""
  return subprocess.run(
    ['git', 'rev-parse', '--short', 'HEAD'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  ).stdout.strip()


def describe(backend: str, packages: Sequence[str] = _PACKAGES) -> str:
  """Returns a sentence for a report.

  Args:
    backend: What JAX computes on.
    packages: Those whose versions matter.
  """
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}' for name in packages
  )
  cpu = platform.processor()
  for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
    if line.startswith('model name'):
      cpu = line.partition(':')[2].strip()
      break
  return (
    f'{datetime.date.today()}, commit {commit()}, Python '
    f'{platform.python_version()}, {versions}; {cpu}, {os.cpu_count()} cores, '
    f'JAX on {backend}.'
  )
