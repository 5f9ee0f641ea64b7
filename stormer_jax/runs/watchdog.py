"""Ends a process that has stopped moving, and says what it waited for.

A hung disk, a dead reader thread or a lost peer blocks the main thread inside
C code, where no exception can reach it. A second thread can still end the
process: a job that has ended is started again, one that hangs costs a pod.
"""

from collections.abc import Callable
import os
import sys
import threading
import time


class Watchdog:
  """Expects a sign of life within a time; one thread, started at once."""

  def __init__(
    self, timeout: float, *, on_stall: Callable[[str], None] | None = None
  ):
    """Starts to watch; nothing is expected yet.

    Args:
      timeout: Seconds; 0 never ends anything.
      on_stall: Called with the message; the default prints it to stderr and
        ends the process with status 143, by which launchers know that the
        command is to be started again.
    """
    self._timeout = timeout
    self._on_stall = on_stall or _end_process
    self._what = ''
    self._since = 0.0
    self._stopped = threading.Event()
    if timeout > 0:
      threading.Thread(target=self._watch, daemon=True).start()

  def expect(self, what: str) -> None:
    """Says that the process lives, and what it waits for from now on."""
    # A clock that no change of date moves.
    self._since = time.monotonic()
    self._what = what

  def rest(self) -> None:
    """Expects nothing until the next `expect`."""
    self._what = ''

  def close(self) -> None:
    """Stops watching."""
    self._stopped.set()

  def _watch(self) -> None:
    while not self._stopped.wait(min(self._timeout / 4, 1.0)):
      what, waited = self._what, time.monotonic() - self._since
      if what and waited > self._timeout:
        self._what = ''
        self._on_stall(
          f'waited {waited:.0f} s for {what}, longer than train.stall_timeout'
          f' ({self._timeout:g} s); ending so that the job can be started'
          ' again: the same command continues from the last checkpoint'
        )


def _end_process(message: str) -> None:
  print(f'error: {message}', file=sys.stderr, flush=True)
  os._exit(143)
