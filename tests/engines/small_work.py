"""Work that leaves a file for every task, and tasks that are odd."""

from collections.abc import Callable
import dataclasses
import os
import pathlib
import signal
import uuid


@dataclasses.dataclass(frozen=True)
class SmallWork:
  """Writes what a task says into a file of its name.

  'die' kills its process, 'die once' the first time, 'full' finds no room, and
  'fault' is a fault of the program.
  """

  folder: pathlib.Path

  def start(self) -> Callable[[str], None]:
    (self.folder / f'started-{uuid.uuid4().hex}').write_text(str(os.getpid()))
    return self._do

  def _do(self, task: str) -> None:
    met = self.folder / f'met-{task}'
    first = not met.exists()
    with met.open('a') as file:
      file.write('x')
    if task == 'die' or (task == 'die once' and first):
      os.kill(os.getpid(), signal.SIGKILL)
    if task == 'full':
      raise OSError(28, 'No space left on device')
    if task == 'fault':
      raise TypeError('a fault of the program')
    (self.folder / task).write_text(task)

  def done(self) -> set[str]:
    return {
      path.name
      for path in self.folder.iterdir()
      if not path.name.startswith(('met-', 'started-'))
    }

  def starts(self) -> list[int]:
    """Identifiers of the processes that it was started in, once a start."""
    return [int(p.read_text()) for p in self.folder.glob('started-*')]


@dataclasses.dataclass(frozen=True)
class Unready:
  """Work that lacks something that no worker can do without."""

  def start(self) -> Callable[[str], None]:
    raise ValueError('no model of faces')


@dataclasses.dataclass(frozen=True)
class NeverUp:
  """Work that kills its process before the first task."""

  def start(self) -> Callable[[str], None]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@dataclasses.dataclass(frozen=True)
class Idle:
  """Work that does nothing."""

  def start(self) -> Callable[[int], None]:
    return self._do

  def _do(self, task: int) -> None:
    pass
