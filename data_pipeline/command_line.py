"""How the commands of this package talk: flags in, one line of error out.

A mistake of the user is one line on stderr and exit status 2. A name that the
terminal's encoding lacks is written with escapes and ends nothing; a reader
who has gone, as `head` does, ends the program, which is no mistake.
"""

import argparse
import io
import os
import signal
import sys
from typing import Any, BinaryIO, NoReturn, cast

from data_pipeline.sources import file_names


class Parser(argparse.ArgumentParser):
  """An argument parser whose complaint is one line."""

  def error(self, message: str) -> NoReturn:
    """Ends the program."""
    self.exit(2, f'error: {one_line(message)}; --help shows all flags\n')


def fail(error: Exception | str) -> int:
  """Prints an error as one line; returns the exit status."""
  print(f'error: {one_line(str(error))}', file=sys.stderr)
  return 2


def one_line(text: str) -> str:
  """A text without line breaks and control characters."""
  return file_names.printable(' '.join(text.split()))


def open_streams() -> None:
  """Makes the standard streams fit for what a command says.

  What their encoding lacks is written with escapes, and when nobody reads them
  any more, as after `| head -1`, the program ends without a word.
  """
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if type(stream) is io.TextIOWrapper:  # not what a test or notebook puts
      setattr(sys, name, _opened(stream))


def _opened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
  stream.flush()
  output = _Output(stream.fileno(), 'wb', closefd=False)
  is_buffered = isinstance(stream.buffer, io.BufferedWriter)  # not python -u
  return io.TextIOWrapper(
    cast(BinaryIO, io.BufferedWriter(output) if is_buffered else output),
    encoding=stream.encoding,
    errors='backslashreplace',
    line_buffering=stream.line_buffering,
    write_through=stream.write_through,
  )


class _Output(io.FileIO):
  """A standard stream that ends the program once nobody reads it.

  Not by SIGPIPE, as C programs do: that would come from the pipe to a worker
  and the connection to a browser as well.
  """

  def write(self, text: Any, /) -> int:
    """Writes bytes.

    Raises:
      SystemExit: nobody reads them; with a shell's status for SIGPIPE.
    """
    try:
      return super().write(text)
    except BrokenPipeError:
      # What is still to be written, in a `finally` or at exit, goes nowhere.
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, self.fileno())
      os.close(nowhere)
      if sys.is_finalizing():
        return len(text)
      raise SystemExit(128 + signal.SIGPIPE) from None
