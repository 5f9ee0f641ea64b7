"""Video file -> frames, by exact frame number.

What enters: a path. What leaves: RGB uint8 frames in [0, 255], upright, with
square pixels, each with its own time.

A frame is a picture that was decoded; its number is its position among them in
the order of presentation, 0 for the first, whatever the frame rate does. A
picture that cannot be converted keeps its number and is missing. Frames are
decoded one after the other: seeking lands on the wrong frame in many files
(variable frame rate, broken timestamps), and decoding a 720p frame costs 2 ms,
a twentieth of finding the face in it.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import fractions
import itertools
import math
import os

from av import error as av_error
from jaxtyping import Int64, UInt8
import numpy as np

from data_pipeline.faces import container as container_lib
from data_pipeline.faces import decoder as decoder_lib
from data_pipeline.faces import deinterlacing, pictures

SPREADS = ('consecutive', 'uniform', 'dense')
_JITTER = 1e-3  # s; less is rounding between two time bases


@dataclasses.dataclass(frozen=True)
class VideoStream:
  """What a file holds, as far as its packets tell.

  Attributes:
    codec: FFmpeg's name of it, h264 or vp9.
    width: px of the first frame, upright, with square pixels.
    height: px, the same.
    fps: frames over duration; without timestamps what the file declares, or 0.
    num_frames: packets, counted: as many frames decode, unless some are
      damaged or share a packet. A `Decoding` knows.
    duration: seconds from the first frame to the end of the last; 0 without
      timestamps.
    notes: what is odd about the file.
  """

  codec: str
  width: int
  height: int
  fps: float
  num_frames: int
  duration: float
  notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Frame:
  """One frame.

  Attributes:
    index: frame number.
    time: seconds from the first frame, by the timestamps of both; NaN where it
      has none.
    image: RGB, upright, with square pixels.
  """

  index: int
  time: float
  image: UInt8[np.ndarray, 'h w 3']


def probe(path: str | os.PathLike) -> VideoStream:
  """Decodes the first frame of a file and counts its packets.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a video, one without a single frame, or one that
      nothing here decodes.
  """
  tally = decoder_lib.Tally()
  with container_lib.open_track(path) as (container, track):
    first = next(decoder_lib.decode_pictures(container, track, tally), None)
    if first is None:
      said = f' ({tally.errors[0]})' if tally.errors else ''
      raise ValueError(
        f'{path} holds no video frame: {tally.num_packets} packets, none of '
        f'which decodes{said}'
      )
    for _ in decoder_lib.read_packets(container, track, tally):
      pass
    width, height = pictures.shown_size(
      first.frame, first.pixel_aspect, first.matrix
    )
    rate = track.average_rate or fractions.Fraction(0)
    if tally.duration:
      rate = tally.num_packets / tally.duration
    return VideoStream(
      codec=track.codec_context.codec.canonical_name,
      width=width,
      height=height,
      fps=float(rate),
      num_frames=tally.num_packets,
      duration=float(tally.duration),
      notes=tuple(_notes_of_file(path, tally.num_packets, track.frames)),
    )


def frame_indices(
  num_frames: int, count: int, spread: str, clip_frames: int = 1
) -> Int64[np.ndarray, 'n']:
  """Chooses at most `count` of `num_frames` frames (METHOD 1.1).

  'consecutive' takes the first `count`; 'uniform' takes
  linspace(0, num_frames - 1, count). A shorter video gives all its frames.
  'dense' takes whole clips of `clip_frames` frames that follow each other, as
  in training, the first at the start and the last at the end of the video.
  """
  if spread not in SPREADS:
    raise ValueError(f'spread is {spread!r}; choose one of {SPREADS}')
  if num_frames < 1 or count < 1:
    raise ValueError(f'cannot take {count} of {num_frames} frames')
  count = min(count, num_frames)
  if spread == 'consecutive':
    return np.arange(count)
  if spread == 'dense':
    num_clips = max(count // clip_frames, 1)
    last = max(num_frames - clip_frames, 0)
    starts = np.linspace(0, last, num_clips).astype(np.int64)
    frames = starts[:, None] + np.arange(min(clip_frames, num_frames))
    return frames.reshape(-1)
  return np.linspace(0, num_frames - 1, count).astype(np.int64)


def decode_frames(
  path: str | os.PathLike, indices: Iterable[int]
) -> 'Decoding':
  """Decodes chosen frames, one at a time.

  Args:
    path: a video file.
    indices: frame numbers, ascending, without repeats.

  Returns:
    An iterator over the frames that could be decoded and converted. It goes
    on behind what is damaged, and ends where the file does.

  Raises:
    ValueError: indices that do not ascend. The first step raises what `probe`
      does.
  """
  wanted = [int(index) for index in indices]
  if any(a >= b for a, b in itertools.pairwise(wanted)) or (
    wanted and wanted[0] < 0
  ):
    raise ValueError('indices must be ascending frame numbers, 0 or more')
  return Decoding(path, wanted)


class Decoding(Iterator[Frame]):
  """A pass over a file; what it has met so far is known at any time.

  Attributes:
    missing: by frame number, why an asked frame that was decoded is not there.
  """

  def __init__(self, path: str | os.PathLike, wanted: list[int]):
    self.missing: dict[int, str] = {}
    self._tally = decoder_lib.Tally()
    self._oddities: dict[str, None] = {}  # an ordered set
    self._sizes: dict[tuple[int, int], None] = {}
    self._num_interlaced = 0
    self._num_asked = 0  # of those that were decoded
    self._frames = self._decode(path, wanted)

  def __next__(self) -> Frame:
    return next(self._frames)

  @property
  def num_frames(self) -> int | None:
    """How many frames the file holds; None if it was not read to its end."""
    return self._tally.num_pictures if self._tally.ended else None

  @property
  def errors(self) -> tuple[str, ...]:
    """What the decoder said of packets that it refused."""
    return tuple(self._tally.errors)

  @property
  def notes(self) -> tuple[str, ...]:
    """What was odd about the frames looked at."""
    notes = []
    tally = self._tally
    damaged = len(tally.errors) + tally.num_concealed
    if self.missing:
      notes.append(
        f'{len(self.missing)} of {self._num_asked} frames cannot be converted'
      )
    if damaged:
      notes.append(f'{damaged} of {tally.num_packets} frames damaged')
    if self._num_interlaced:
      notes.append('interlaced, deinterlaced')
    notes += self._oddities
    if len(self._sizes) > 1:
      sizes = ', '.join(f'{width}x{height}' for width, height in self._sizes)
      notes.append(f'resized in mid-stream: {sizes}')
    return tuple(notes)

  def _decode(
    self, path: str | os.PathLike, wanted: list[int]
  ) -> Iterator[Frame]:
    remaining = iter(wanted)
    index = next(remaining, None)
    latest = -math.inf
    converter = pictures.Converter()
    deinterlacer = deinterlacing.Deinterlacer()
    with container_lib.open_track(path) as (container, track):
      if index is None:
        return
      decoded = decoder_lib.decode_pictures(container, track, self._tally)
      for before, picture, after in _with_neighbours(decoded):
        if picture.number != index:
          continue
        self._num_asked += 1
        shape = picture.pixel_aspect, picture.matrix
        try:
          frame = deinterlacer.whole(before, picture, after)
          image = converter.rgb(frame, *shape)
        except (pictures.ConversionError, av_error.FFmpegError) as error:
          self.missing[index] = str(error)
        else:
          self._num_interlaced += picture.frame.interlaced_frame
          self._sizes[pictures.shown_size(frame, *shape)] = None
          for note in pictures.describe(frame, *shape):
            self._oddities[note] = None
          if picture.time < latest - _JITTER:
            self._oddities['timestamps that go back'] = None
          latest = picture.time
          yield Frame(index, picture.time, image)
        index = next(remaining, None)
        if index is None:
          return


def _with_neighbours(
  decoded: Iterator[decoder_lib.Picture],
) -> Iterator[
  tuple[
    decoder_lib.Picture | None, decoder_lib.Picture, decoder_lib.Picture | None
  ]
]:
  before, picture = None, next(decoded, None)
  while picture is not None:
    after = next(decoded, None)
    yield before, picture, after
    before, picture = picture, after


def _notes_of_file(
  path: str | os.PathLike, num_packets: int, num_declared: int
) -> Iterator[str]:
  missing = container_lib.missing_bytes(path)
  if missing and num_declared > num_packets:
    yield f'cut off: {num_packets} of {num_declared} frames are there'
  elif missing:
    yield f'cut off: {missing} bytes are missing'
