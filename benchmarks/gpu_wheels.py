"""Fills a folder with the wheels that a bare GPU machine lacks.

  python -m benchmarks.gpu_wheels --out=DIR [--python=3.12]

For benchmarks/gpu_report.py: run it where there is a network and the project
is installed, then take DIR along with the repository. It gathers the versions
installed here of all runtime packages and of what they need in turn, for
Linux on x86-64 and the Python of the other machine. Left out is what such a
machine has and what is large (--present). Fails if wheels and repository
together are more than --limit.
"""

import argparse
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tempfile

# Of the JAX that drives the card, or tens of megabytes each. pyarrow is named
# by TFDS, and not imported by what is used of it; no part decodes a video (av).
_PRESENT = (
  *('jax', 'jaxlib', 'numpy', 'scipy', 'ml-dtypes', 'opencv-python'),
  *('av', 'onnxruntime', 'pyarrow', 'tensorstore', 'uvloop', 'pygments'),
)
_PLATFORMS = (
  *(f'manylinux_2_{minor}_x86_64' for minor in range(39, 16, -1)),
  'manylinux2014_x86_64',
)
_MIB = 2**20
_ROOT = pathlib.Path(__file__).parent.parent


def main() -> int:
  """Downloads the wheels; returns 1 if one is missing or all are too large."""
  arguments = _parse()
  arguments.out.mkdir(parents=True, exist_ok=True)
  needed = required(_runtime(), arguments.present)
  missing = [
    f'{name}=={version}'
    for name, version in needed.items()
    if not _fetch(f'{name}=={version}', arguments)
  ]
  sizes = {path.name: path.stat().st_size for path in arguments.out.iterdir()}
  for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
    print(f'{size / _MIB:7.2f} MiB  {name}')
  listed = subprocess.run(
    ['git', '-C', str(_ROOT), 'ls-files', '-z'],
    capture_output=True,
    check=True,
    text=True,
  ).stdout
  tracked = sum(
    (_ROOT / name).stat().st_size for name in listed.split('\0') if name
  )
  wheels = sum(sizes.values())
  print(
    f'{wheels / _MIB:7.2f} MiB  {len(sizes)} wheels\n'
    f'{tracked / _MIB:7.2f} MiB  the repository beside them'
  )
  if missing:
    print('error: no wheel of', ', '.join(missing), file=sys.stderr)
  too_large = wheels + tracked > arguments.limit * _MIB
  if too_large:
    print(f'error: more than {arguments.limit} MiB together', file=sys.stderr)
  return int(bool(missing) or too_large)


def required(
  requirements: list[str], present: list[str] | tuple[str, ...]
) -> dict[str, str]:
  """Installed versions of packages and of all that they need.

  Args:
    requirements: Names, with bounds and markers that are not read.
    present: Names that are left out, with what only they need.

  Returns:
    Version by name, sorted.
  """
  versions: dict[str, str] = {}
  left = list(requirements)
  while left:
    requirement = left.pop()
    named = re.match(r'[\w.-]+', requirement)
    assert named, f'no name in the requirement {requirement!r}'
    name = named[0].replace('_', '-').lower()
    # What is for an extra or another system; 'python_version' here holds.
    if re.search(r'extra\s*==|platform|implementation', requirement):
      continue
    if name in versions or name in present:
      continue
    try:
      distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
      continue  # a marker said that it is not needed here
    versions[name] = distribution.version
    left += distribution.requires or []
  return dict(sorted(versions.items()))


def _runtime():
  text = (_ROOT / 'requirements.txt').read_text()
  return [x for x in text.splitlines() if x and not x.startswith('#')]


def _fetch(pinned, arguments):
  """Downloads a wheel, or builds one that any machine can use."""
  pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
  command = [*pip, 'download', '--no-deps', '--only-binary=:all:']
  command += [f'--python-version={arguments.python}', '--implementation=cp']
  command += [f'--platform={platform}' for platform in _PLATFORMS]
  command += [f'--dest={arguments.out}', pinned]
  if not subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
    return True
  with tempfile.TemporaryDirectory() as folder:
    command = [*pip, 'wheel', '--no-deps', f'--wheel-dir={folder}', pinned]
    subprocess.run(command, check=False)
    built = list(pathlib.Path(folder).glob('*-none-any.whl'))
    for path in built:
      (arguments.out / path.name).write_bytes(path.read_bytes())
  return bool(built)


def _parse():
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--python', default='3.12', help='of the other machine')
  parser.add_argument('--present', nargs='*', default=_PRESENT)
  parser.add_argument('--limit', type=float, default=64.0, help='MiB')
  return parser.parse_args()


if __name__ == '__main__':
  sys.exit(main())
