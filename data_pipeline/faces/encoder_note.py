"""What x264 wrote into a file of how it made it.

What enters: a video file. What leaves: how strongly it was compressed, where
the encoder left its note (an SEI message before the first picture). A program
that packs a file anew keeps the note; one that encodes it anew writes its own.
"""

import mmap
import os
import pathlib
import re

_NOTE = b'x264 - core'
# The note stands before the first picture: behind the index, if that is first.
_SEARCHED = 2**23  # bytes
_LENGTH = 1024  # of the note, at most
_QUALITY = re.compile(rb' rc=(?:crf|cqp)\b.*? (?:crf|qp)=([0-9.]+)')


def read_crf(path: str | os.PathLike) -> float | None:
  """The constant rate factor that a file was encoded with, 0 for lossless.

  Returns:
    None where there is no such note, or another kind of rate control.

  Raises:
    OSError: the file cannot be read.
  """
  with pathlib.Path(path).open('rb') as file:
    if not os.fstat(file.fileno()).st_size:
      return None
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
      start = raw.find(_NOTE, 0, _SEARCHED)
      if start < 0:
        return None
      match = _QUALITY.search(raw[start : start + _LENGTH])
      return float(match[1]) if match else None
