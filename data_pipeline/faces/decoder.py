"""Track of an open container -> its pictures, in the order of presentation.

What enters: what `container.open_track` gives. What leaves: `Picture`s, as the
decoder hands them out: not upright, not RGB. Where the decoder fails it goes
on with the next packet. `Tally` counts what came and what did not.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import fractions
import math
import struct
import threading
from typing import Any, cast

import av
from av import error as av_error
from av import logging as av_logging
from av.container import InputContainer
from av.sidedata import sidedata

from data_pipeline.faces import container as container_lib

# What libavcodec says of a picture that it hands out with holes filled in:
# error_resilience, of most codecs that predict, and mjpegdec.
_GUESSED = ('concealing', 'error y=')
_MOST_READ_ERRORS = 16  # one after the other, then the file has ended


@dataclasses.dataclass(frozen=True)
class Picture:
  """One decoded picture.

  Attributes:
    number: position among the decoded pictures, 0 for the first.
    frame: pixels and tags.
    time: seconds from the first picture; NaN where it has no timestamp.
    pixel_aspect: width of a pixel over its height.
    matrix: a, b, c, d of libavutil/display.h, each -1, 0 or 1: the point (x, y)
      is shown at (a x + c y, b x + d y).
  """

  number: int
  frame: av.VideoFrame
  time: float
  pixel_aspect: fractions.Fraction
  matrix: tuple[int, int, int, int]


@dataclasses.dataclass
class Tally:
  """What a pass over a track has met so far.

  Attributes:
    num_packets: coded pictures; one that an edit list leaves out is none.
    num_pictures: of them, those that were decoded.
    num_concealed: decoded ones with blocks that the decoder had to guess.
    errors: what the decoder said of each packet that it refused.
    start: s, earliest timestamp of a packet; None without any.
    end: s, end of the last one.
    step: ticks that the last packet lasts.
    ended: whether the track was read to its end.
  """

  num_packets: int = 0
  num_pictures: int = 0
  num_concealed: int = 0
  errors: list[str] = dataclasses.field(default_factory=list)
  start: fractions.Fraction | None = None
  end: fractions.Fraction = fractions.Fraction(0)
  step: int = 0
  ended: bool = False

  @property
  def duration(self) -> fractions.Fraction:
    """Seconds; 0 where no packet has a timestamp."""
    return (
      fractions.Fraction(0) if self.start is None else self.end - self.start
    )


def decode_pictures(
  container: InputContainer, track: container_lib.VideoTrack, tally: Tally
) -> Iterator[Picture]:
  """Decodes a track from its first picture to its last; fills the tally."""
  context = track.codec_context
  aspects = _Aspects(track)
  stamp = _stamp(container)
  first = last = None
  for packet in _with_flush(read_packets(container, track, tally)):
    with _decoder_messages() as messages:
      try:
        frames = context.decode(packet)
      except av_error.FFmpegError as error:
        tally.errors.append(error.strerror or type(error).__name__)
        frames = []
    tally.num_concealed += any(
      phrase in text for text in messages for phrase in _GUESSED
    ) or any(frame.is_corrupt for frame in frames)
    aspects.note(packet)
    for frame in frames:
      ticks = getattr(frame, stamp)
      if packet is None and stamp == 'dts' and last is not None:
        ticks = last + tally.step  # what is flushed has no packet beside it
      if first is None:
        first = ticks
      last = ticks
      time = math.nan
      if ticks is not None and first is not None and track.time_base:
        time = float((ticks - first) * track.time_base)
      tally.num_pictures += 1
      yield Picture(
        number=tally.num_pictures - 1,
        frame=frame,
        time=time,
        pixel_aspect=aspects.at(frame.pts),
        matrix=_display_matrix(frame),
      )
  tally.ended = True


def read_packets(
  container: InputContainer, track: container_lib.VideoTrack, tally: Tally
) -> Iterator[av.Packet]:
  """Yields the packets of a track that hold a picture; counts them."""
  stamp = _stamp(container)
  failures = 0
  while failures <= _MOST_READ_ERRORS:
    try:
      for packet in container.demux(track):
        if not packet.size:
          continue  # a dropped frame, or the end
        failures = 0
        tally.num_packets += not packet.is_discard
        ticks = getattr(packet, stamp)
        if ticks is not None and not packet.is_discard:
          tally.step = packet.duration or 0
          start = ticks * packet.time_base
          end = (ticks + tally.step) * packet.time_base
          if tally.start is None:
            tally.start, tally.end = start, end
          tally.start, tally.end = min(tally.start, start), max(tally.end, end)
        yield packet
      return
    except av_error.FFmpegError:
      failures += 1  # reading goes on behind the place where it failed


def _stamp(container: InputContainer) -> str:
  """Which timestamp to go by."""
  # AVI has none of presentation: PyAV's are wrong where frames are reordered.
  return 'dts' if container.format.name == 'avi' else 'pts'


def _with_flush(packets: Iterator[av.Packet]) -> Iterator[av.Packet | None]:
  yield from packets
  yield None  # the decoder hands out what it held back to reorder


@contextlib.contextmanager
def _decoder_messages() -> Iterator[list[str]]:
  """Gathers what libavcodec says in this thread; others may do the same."""
  messages: list[str] = []
  with _PYAV.speaking(), av_logging.Capture() as logs:
    try:
      yield messages
    finally:
      messages += [text for _, _, text in logs]


class _PyavLog:
  """Lets PyAV speak while anybody listens; it is silent by default.

  Level and filter are the process's, not a thread's: the first listener sets
  them, the last one sets them back.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._num_listeners = 0
    # Takes what threads say meanwhile that do not listen: it would be printed.
    self._unheard = contextlib.ExitStack()

  @contextlib.contextmanager
  def speaking(self) -> Iterator[None]:
    """Has PyAV hand out what libavcodec says, repeated or not."""
    with self._lock:
      self._num_listeners += 1
      if self._num_listeners == 1:
        unheard: Any = av_logging.Capture(local=False)
        self._unheard.enter_context(unheard)
        av_logging.set_skip_repeated(False)
        av_logging.set_level(av_logging.INFO)
    try:
      yield
    finally:
      with self._lock:
        self._num_listeners -= 1
        if not self._num_listeners:
          av_logging.set_level(None)
          av_logging.set_skip_repeated(True)
          self._unheard.close()


_PYAV = _PyavLog()  # one, as PyAV's log is


class _Aspects:
  """The shape of pixels, picture by picture.

  A frame of PyAV does not carry it. The container's word goes over the
  codec's; the codec's holds from the packet on that changed it.
  """

  def __init__(self, track: container_lib.VideoTrack):
    self._context = track.codec_context
    said = track.sample_aspect_ratio or fractions.Fraction(1)
    coded = self._coded() or said
    self._of_container = said if said != coded else None
    self._changes: list[tuple[int | None, fractions.Fraction]] = [(None, said)]

  def _coded(self) -> fractions.Fraction | None:
    return self._context.sample_aspect_ratio or None

  def note(self, packet: av.Packet | None) -> None:
    """Looks whether the packet just decoded has changed it."""
    coded = self._coded()
    if packet and coded and coded != self._changes[-1][1]:
      self._changes.append((packet.pts, coded))

  def at(self, pts: int | None) -> fractions.Fraction:
    """Returns that of the picture with a timestamp."""
    if self._of_container:
      return self._of_container
    for start, aspect in reversed(self._changes):
      if start is None or pts is None or start <= pts:
        return aspect
    return self._changes[0][1]


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
  """How a picture is turned, to the nearest of eight turns and mirrorings."""
  # Not `frame.side_data`, which the frame would keep: the two would hold each
  # other until the garbage collector comes, hundreds of frames later.
  # PyAV's types know neither how it is made nor what it holds.
  for entry in cast(Any, sidedata).SideDataContainer(frame):
    if entry.type == sidedata.Type.DISPLAYMATRIX:
      a, b, _, c, d = struct.unpack('=5i', bytes(entry)[:20])
      if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
      return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0
  return 1, 0, 0, 1
