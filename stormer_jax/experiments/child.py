"""One run of a sweep in a process of its own.

Enter: the command and the log it writes to. Leave: its exit status, and in one
line why it failed. Whatever ends the sweep ends the process, which then saves
itself; and a log that is being written is locked, so that a run is never
carried out twice at once.
"""

from collections.abc import Sequence
import contextlib
import fcntl
import io
import pathlib
import shlex
import signal
import subprocess
import sys

from absl import logging

# The kernel sends SIGTERM when the thread that started us is gone, however it
# ended: PR_SET_PDEATHSIG is 1. Linux alone has it; elsewhere a sweep that is
# killed by SIGKILL leaves the run that it was at to finish.
_TIED = """
import ctypes, os, signal, sys
if sys.platform == 'linux':
  ctypes.CDLL(None).prctl(1, signal.SIGTERM)
  if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
  """A running program; a context that stops it when it is left.

  Attributes:
    status: Exit status, as a shell says it; None while it runs.
  """

  def __init__(self, command: Sequence[str], log: pathlib.Path, parent: int):
    """Starts the program once no other process writes to the log.

    Args:
      command: Program and arguments.
      log: Grows by what the program writes; its folder is made.
      parent: Number of this process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    self._log = log
    with log.open('ab') as file:
      # The program inherits the open file, and with it the lock.
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        logging.info('%s: another process is at it; waiting for its end', log)
        fcntl.flock(file, fcntl.LOCK_EX)
      file.write(f'$ {shlex.join(command)}\n'.encode())
      file.flush()
      self._start = file.seek(0, io.SEEK_END)
      self._process = subprocess.Popen(
        [sys.executable, '-c', _TIED, str(parent), *command],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        # Control-C is for us, and we ask it to save itself.
        start_new_session=True,
      )

  def __enter__(self) -> 'Child':
    return self

  def __exit__(self, *_) -> None:
    if self._process.poll() is None:
      self._process.send_signal(signal.SIGTERM)
      self._process.wait()

  @property
  def status(self) -> int | None:
    status = self._process.poll()
    # As a shell says it: 137 for SIGKILL.
    return status if status is None or status >= 0 else 128 - status

  def wait(self, seconds: float) -> None:
    """Returns when it has ended, or after some time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(seconds)

  def failure(self) -> str:
    """Why it ended: its own word for it, or the last it said."""
    text = self._log.read_bytes()[self._start :].decode(errors='replace')
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith('error: ')]
    if own:
      return own[-1].removeprefix('error: ')
    status = self.status or 0
    if status > 128:
      with contextlib.suppress(ValueError):
        return f'ended by {signal.Signals(status - 128).name}'
    last = f': {lines[-1]}' if lines else ''
    return f'ended with status {status}{last}'
