"""The engine of one machine: worker processes that are handed task by task.

A worker that dies, killed for want of memory or by a fault in a decoder, takes
nothing with it but the task it had: that goes to the end of the queue, and the
second time nobody tries it again.
"""

import collections
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import multiprocessing
from multiprocessing import connection
import signal
from typing import Any

from data_pipeline.engines import work as work_lib

_TRIES = 2


@dataclasses.dataclass(frozen=True)
class Processes:
  """Works in processes of this machine.

  Attributes:
    num_workers: how many.
  """

  num_workers: int

  def run(
    self,
    work: work_lib.Work,
    tasks: Sequence[Any],
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Does all tasks; see `engine.Engine`."""
    fresh = 0  # number of the first that nobody was given yet
    again: collections.deque[int] = collections.deque()
    deaths: collections.Counter[int] = collections.Counter()
    workers = [_Worker(work) for _ in range(min(self.num_workers, len(tasks)))]
    try:
      while workers:
        for worker in _speaking(workers):
          had, lives = worker.task, worker.hear()
          if had is not None:
            if not lives:
              deaths[had] += 1
            if lives or deaths[had] == _TRIES:
              tick()
            else:
              again.append(had)
          if not lives:
            workers.remove(worker)
            if fresh < len(tasks) or again:
              workers.append(_Worker(work))
          elif fresh < len(tasks):
            worker.give(fresh, tasks[fresh])
            fresh += 1
          elif again:
            number = again.popleft()
            worker.give(number, tasks[number])
          else:
            worker.send_home()
    finally:
      for worker in workers:
        worker.end()


def _speaking(workers: Sequence['_Worker']) -> list['_Worker']:
  """Waits for workers that say something, or die."""
  ready = connection.wait([worker.link for worker in workers])
  return [worker for worker in workers if worker.link in ready]


class _Worker:
  """A process, as seen from the one that started it.

  Attributes:
    link: to it.
    task: number of the one that it has; None: none.
  """

  def __init__(self, work: work_lib.Work):
    context = multiprocessing.get_context('spawn')
    self.link, its_end = context.Pipe()
    self.task: int | None = None
    self._is_up = False
    self._process = context.Process(
      target=_serve, args=(work, its_end), daemon=True
    )
    self._process.start()
    its_end.close()  # so that its death closes the link

  def hear(self) -> bool:
    """Takes the word that it is free; False: it is dead.

    Raises:
      ValueError: What it raised.
      OSError: Likewise, or it never came up.
      RuntimeError: It ended by itself, with a traceback on standard error.
    """
    try:
      said = self.link.recv()
    except (EOFError, ConnectionResetError):
      self._process.join()
      self._mourn()
      return False
    if said is not None:
      raise said
    self._is_up = True
    return True

  def _mourn(self) -> None:
    status = self._process.exitcode or 0
    if status > 0:
      raise RuntimeError(
        f'a worker process ended with status {status}; what it said stands '
        'above'
      )
    if not self._is_up:
      raise ChildProcessError(
        f'a worker process was killed by signal {-status} as it started (out '
        'of memory?)'
      )

  def give(self, number: int, task: Any) -> None:
    """Gives it a task."""
    self.task = number
    self._send(task)

  def send_home(self) -> None:
    """Lets it end."""
    self.task = None
    self._send(None)

  def _send(self, task: Any) -> None:
    # A dead one is noticed when it is listened to.
    with contextlib.suppress(BrokenPipeError):
      self.link.send(task)

  def end(self) -> None:
    """Ends it, whatever it does."""
    self._process.terminate()
    self._process.join()


def _serve(work: work_lib.Work, link: connection.Connection) -> None:
  """What a worker process does; ends with the process that started it."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # that one says when to stop
  with contextlib.suppress(EOFError, BrokenPipeError):
    try:
      do = work.start()
    except (ValueError, OSError) as error:
      link.send(error)
      return
    link.send(None)
    while (task := link.recv()) is not None:
      link.send(_raised(do, task))


def _raised(do: Callable[[Any], None], task: Any) -> Exception | None:
  """Does a task; returns what ends the whole work."""
  try:
    do(task)
  except (ValueError, OSError) as error:
    return error
  return None
