"""Which file `--config=NAME` means: configurations of the package, by name.

Enters: command-line arguments. Leaves: the same, where a name like `ffpp_c23`
or `base:official` has become the path of the file that ships with the package,
so that it is found from any folder and from an installed wheel. What is a file
already, as `configs/ffpp_c23.py`, stays as it is. And what is wrong in a file
of the user's own, in one line.
"""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import traceback

from absl import flags

_FOLDER = pathlib.Path(__file__).parent.parent / 'configs'
_HOW = 'configs/base.py shows how a configuration is written'
# What a line of Python raises that its writer did not mean to.
_MISTAKES = (
  *(SyntaxError, ImportError, NameError, AttributeError, TypeError),
  *(LookupError, ArithmeticError, AssertionError, RuntimeError, OSError),
)


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


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
  """Says where in a configuration file it went wrong, in one line.

  Args:
    file: As `--config` has it, with its argument after a colon if it takes one.

  Raises:
    ValueError: In place of what the file raised as it was carried out. What
      comes from elsewhere is raised as it is.
  """
  path = file.partition(':')[0]
  try:
    yield
  except (*_MISTAKES, ValueError, flags.Error) as error:
    found = _in_file(error, path)
    if found is None:
      if isinstance(error, AttributeError) and error.name == 'get_config':
        raise ValueError(f'{path} has no get_config(); {_HOW}') from error
      raise
    origin, line = found
    said = (
      f'{path}, line {line}: {type(origin).__name__}: {_said(origin, path)}'
    )
    if isinstance(origin, _MISTAKES):
      said += f'; mend that line: {_HOW}'
    raise ValueError(said) from error


def _in_file(
  error: BaseException | None, path: str
) -> tuple[BaseException, int] | None:
  """The error that came from a file, and the last of its lines on the way."""
  if error is None:
    return None
  if isinstance(error, SyntaxError) and _same(error.filename, path):
    return error, error.lineno or 1
  lines = [
    line
    for frame, line in traceback.walk_tb(error.__traceback__)
    if _same(frame.f_code.co_filename, path)
  ]
  # The flag libraries raise errors of their own at it.
  earlier = _in_file(error.__cause__ or error.__context__, path)
  return earlier or ((error, lines[-1]) if lines else None)


def _same(filename: str | None, path: str) -> bool:
  return bool(filename and path) and (
    pathlib.Path(str(filename)).absolute() == pathlib.Path(path).absolute()
  )


def _said(error: BaseException, path: str) -> str:
  """What Python says of it, in one line."""
  if isinstance(error, SyntaxError):
    if not _same(error.filename, path):
      return str(error)
    code = (error.text or '').strip()
    return f'{error.msg}{f" ({code})" if code else ""}'
  # That of a KeyError is only its key, in quotes.
  text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
  return ' '.join(text.replace('\\n', ' ').split())
