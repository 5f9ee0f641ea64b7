"""Which file `--config=NAME` means: configurations of the package, by name.

Enters: command-line arguments. Leaves: the same, where a name like `ffpp_c23`
or `base:official` has become the path of the file that ships with the package,
so that it is found from any folder and from an installed wheel. What is a file
already, as `configs/ffpp_c23.py`, stays as it is.
"""

from collections.abc import Sequence
import pathlib

_FOLDER = pathlib.Path(__file__).parent.parent / 'configs'


def names() -> list[str]:
  """Names of the configurations that ship with the package."""
  return sorted(
    path.stem for path in _FOLDER.glob('*.py') if path.stem != '__init__'
  )


def with_paths(arguments: Sequence[str]) -> list[str]:
  """Replaces the name in `--config=NAME[:ARGUMENT]` or `--config NAME`.

  Args:
    arguments: Of a command, its own name left out.

  Returns:
    As many arguments.
  """
  result = list(arguments)
  for i, argument in enumerate(result):
    if argument in ('--config', '-config') and i + 1 < len(result):
      result[i + 1] = _path(result[i + 1])
    elif argument.startswith(('--config=', '-config=')):
      flag, _, value = argument.partition('=')
      result[i] = f'{flag}={_path(value)}'
  return result


def _path(value: str) -> str:
  name, colon, rest = value.partition(':')
  if name in names() and not pathlib.Path(name).is_file():
    return f'{_FOLDER / name}.py{colon}{rest}'
  return value
