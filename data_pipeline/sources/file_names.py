"""Names of files, which may be any bytes, in sentences and tables.

Python holds bytes of a name that are not UTF-8 as lone surrogates, which no
record, report or terminal takes; line breaks and escape sequences would forge
lines of a table.
"""

import os


def is_text(name: str) -> bool:
  """Whether a name from the disk is UTF-8."""
  return not any('\ud800' <= character <= '\udfff' for character in name)


def as_text(name: str) -> str:
  """A name as a report holds it: as it is, if that is UTF-8."""
  return name if is_text(name) else printable(name)


def printable(name: str) -> str:
  """Writes a name so that every terminal shows it and nothing hides in it."""
  text = os.fsencode(name).decode('utf-8', 'backslashreplace')
  return ''.join(
    c if c.isprintable() else c.encode('unicode_escape').decode() for c in text
  )
