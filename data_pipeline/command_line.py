"""How the commands of this package talk: flags in, one line of error out.

A mistake of the user is one line on stderr and exit status 2. A name that the
terminal's encoding lacks is written with escapes and ends nothing.
"""

import argparse
import sys
from typing import NoReturn

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


def tolerate_encoding() -> None:
  """Lets standard output write what its encoding lacks with escapes."""
  for stream in (sys.stdout, sys.stderr):
    reconfigure = getattr(stream, 'reconfigure', None)  # not a pipe of a test
    if reconfigure:
      reconfigure(errors='backslashreplace')
