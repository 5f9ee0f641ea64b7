"""A large JSON document, value by value.

What enters: a file of text. What leaves: the keys and items of its outer
objects and arrays as they are come to, and whole values where they are small.
So a manifest of 40 MB takes the memory of one of its lines.
"""

from collections.abc import Iterator
import io
import json
from typing import Any

_BLANK = ' \t\n\r'
_ENDS = tuple(f'{_BLANK},:]}}')  # what may follow a value


class JsonStream:
  """Reads a document from its beginning; each part once, in its order.

  All that it does raises json.JSONDecodeError where the text is no JSON, or
  another kind of value comes than is asked for.
  """

  def __init__(self, file: io.TextIOBase, chunk: int = 2**16):
    """Takes a file that is open, and how many characters are read at once."""
    self._file = file
    self._chunk = chunk
    self._text, self._place = '', 0
    self._decode = json.JSONDecoder().raw_decode

  def keys(self) -> Iterator[str]:
    """Yields the keys of the object that comes next.

    The value of each is to be taken before the next key is asked for.
    """
    for _ in self._parts('{', '}'):
      key = self.value()
      if not isinstance(key, str):
        raise self._wrong('a key')
      self._take(':')
      yield key

  def items(self) -> Iterator[Any]:
    """Yields the items of the array that comes next."""
    for _ in self._parts('[', ']'):
      yield self.value()

  def _parts(self, opening: str, closing: str) -> Iterator[None]:
    self._take(opening)
    if self._next() == closing:
      self._take(closing)
      return
    while True:
      yield
      if self._next() == closing:
        self._take(closing)
        return
      self._take(',')

  def value(self) -> Any:
    """Returns the value that comes next, whole."""
    self._next()
    size = self._chunk
    while True:
      try:
        value, end = self._decode(self._text, self._place)
        # A number, or a part of one, may go on in what was not read yet.
        length = end - self._place  # reading on moves the place
        if self._text[end : end + 1] in _ENDS or not self._read(size):
          self._place += length
          return value
      except json.JSONDecodeError:
        if not self._read(size):
          raise
      size *= 2  # so that a large value is not begun anew too often

  def end(self) -> None:
    """Takes the end, after which nothing may come."""
    if self._next():
      raise self._wrong('the end')

  def _next(self) -> str:
    """The next character that is not blank; '' at the end."""
    while True:
      while self._place < len(self._text):
        character = self._text[self._place]
        if character not in _BLANK:
          return character
        self._place += 1
      if not self._read(self._chunk):
        return ''

  def _take(self, character: str) -> None:
    if self._next() != character:
      raise self._wrong(character)
    self._place += 1

  def _read(self, size: int) -> bool:
    """Reads on; whether there was more."""
    more = self._file.read(size)
    self._text, self._place = self._text[self._place :] + more, 0
    return bool(more)

  def _wrong(self, expected: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(f'expected {expected}', self._text, self._place)
