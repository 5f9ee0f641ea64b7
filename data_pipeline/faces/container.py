"""Video file -> its container, open at the track to read.

What enters: a path. What leaves: an open `av` container and one video track of
it. Containers say how long they are; a file that is shorter was cut off.
"""

from collections.abc import Iterator
import contextlib
import mmap
import os
import pathlib
import re
import struct

import av
from av import error as av_error
from av import stream as av_stream
from av.container import InputContainer

VideoTrack = av.VideoStream

# Pictures that lie beside the film: a cover, chapter images, one still.
_NO_FILM = (
  av_stream.Disposition.attached_pic
  | av_stream.Disposition.timed_thumbnails
  | av_stream.Disposition.still_image
)
# Formats that hold no pictures but open other files that do.
_LISTS = ('concat', 'dash', 'hls', 'imf', 'webm_dash_manifest')
# Choice: twice 8K. A damaged header may ask for more than there is memory.
_MOST_PIXELS = 2**26
# Where a container names the codec of its video track. PyAV does not.
_CODEC_NAMES = (
  re.compile(rb'hdlr.{8}vide.{1,4096}?stsd.{12}(.{4})', re.DOTALL),  # MP4
  re.compile(rb'strh.{4}vids(.{4})', re.DOTALL),  # AVI
  re.compile(rb'\x86[\x81-\xfe](V_[A-Z0-9_/]+)'),  # Matroska
)


@contextlib.contextmanager
def open_track(
  path: str | os.PathLike,
) -> Iterator[tuple[InputContainer, VideoTrack]]:
  """Opens a file at its film.

  Of several video tracks: the one marked as default, then the one with the
  largest picture. A cover is none. Packets of other tracks are skipped, and
  one thread decodes.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it cannot be read, is not a video, holds no video track, or
      one that nothing here decodes.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'no file {path}')
  try:
    with pathlib.Path(path).open('rb') as file:
      size = os.fstat(file.fileno()).st_size
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}') from error
  try:
    container = _open(path, {})
    if not container.streams.video:
      # In some containers a track shows with its first packet only.
      container.close()
      container = _open(path, {'probesize': '100M', 'analyzeduration': '100M'})
  except (av_error.FFmpegError, UnicodeError) as error:
    raise ValueError(
      f'{path} is not a video that can be read ({size} bytes; damaged, cut '
      'off before its index, or another kind of file)'
    ) from error
  with container:
    if container.format.name.split(',')[0] in _LISTS:
      raise ValueError(
        f'{path} is a list of other files ({container.format.long_name}), not '
        'a video; name those'
      )
    track = _best_track(path, container)
    for other in container.streams:
      if other.index != track.index:
        other.discard = av_stream.Discard.all
    # Frame after frame in one thread: as many files as cores are read at once.
    track.codec_context.thread_count = 1
    track.codec_context.options = {'max_pixels': str(_MOST_PIXELS)}
    yield container, track


def missing_bytes(path: str | os.PathLike) -> int:
  """Counts the bytes that a file lacks by what its container says.

  MP4, AVI and Matroska say how long they are; other files give 0.
  """
  with pathlib.Path(path).open('rb') as file:
    size = os.fstat(file.fileno()).st_size
    head = file.read(64)
    if head[:4] == b'RIFF' and head[8:12] == b'AVI ':
      end = 8 + int.from_bytes(head[4:8], 'little')
      # A longer AVI is several of these; the first says nothing of the rest.
      return max(end - size, 0)
    if head[:4] == b'\x1aE\xdf\xa3':
      return max(_matroska_end(head, file.read(4096)) - size, 0)
    if head[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip'):
      position = 0
      while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack('>I4s', file.read(8))
        if length == 1:
          length = int.from_bytes(file.read(8), 'big')
        if length < 8 or not kind.strip().isalnum():
          return 0  # up to the end of the file, or no box
        position += length
      return max(position - size, 0)
  return 0


def _open(path: str | os.PathLike, options: dict[str, str]) -> InputContainer:
  # 'file:' as a name may look like a protocol; nothing reaches the network.
  return av.open(
    'file:' + os.fspath(path),
    options={'protocol_whitelist': 'file', **options},
    metadata_errors='replace',
  )


def _best_track(
  path: str | os.PathLike, container: InputContainer
) -> VideoTrack:
  films = [
    track
    for track in container.streams.video
    if not track.disposition & _NO_FILM
  ]
  if not films:
    other = 'only a cover picture' if container.streams.video else 'no video'
    raise ValueError(f'{path} holds {other}, no film to look at')
  decoded = [track for track in films if track.codec_context is not None]
  if not decoded:
    raise ValueError(
      f'the codec of {path}{_codec_name(path)} cannot be decoded here; convert '
      'it where it plays: ffmpeg -i IN -c:v libx264 -crf 12 OUT.mp4'
    )

  def merit(track: VideoTrack) -> tuple[bool, int]:
    default = bool(track.disposition & av_stream.Disposition.default)
    return default, track.width * track.height

  return max(decoded, key=merit)  # the first of equals


def _codec_name(path: str | os.PathLike) -> str:
  """Returns ' (name)', as the container spells it, or '' if not found."""
  with (
    pathlib.Path(path).open('rb') as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw,
  ):
    for pattern in _CODEC_NAMES:
      if match := pattern.search(raw):
        name = match[1].decode('latin-1')
        return f' ({name})' if name.isprintable() else f' ({match[1]!r})'
  return ''


def _matroska_end(head: bytes, rest: bytes) -> int:
  """Where the segment of a Matroska file ends; 0 where it does not say."""
  raw = head + rest
  length, start = _matroska_size(raw, 4)
  position = start + length
  if raw[position : position + 4] != b'\x18S\x80g':
    return 0
  length, start = _matroska_size(raw, position + 4)
  return start + length if length else 0


def _matroska_size(raw: bytes, position: int) -> tuple[int, int]:
  """Reads an EBML length; returns it (0: unknown) and where it ends."""
  if position >= len(raw) or not raw[position]:
    return 0, position
  width = 9 - raw[position].bit_length()
  bits = 7 * width
  value = int.from_bytes(raw[position : position + width], 'big')
  value &= (1 << bits) - 1
  return 0 if value == (1 << bits) - 1 else value, position + width
