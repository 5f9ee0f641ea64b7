"""A video, or the crops of a clip -> the same, compressed anew by x264.

What enters: what `faces/footage` reads, or RGB uint8 crops in [0, 255].
What leaves: a file of the same frames, upright, with square pixels, at their
times; or crops. Where a most is said, the picture is made smaller and frames
are left out, as a social network does to an upload.
"""

from collections.abc import Iterator
import contextlib
import fractions
import math
import os
import pathlib
import tempfile

import av
from jaxtyping import UInt8
import numpy as np

from data_pipeline import places
from data_pipeline.faces import footage

_TICKS = 90_000  # a second, as in MPEG
_USUAL_RATE = 25.0  # frames a second, where a file says none
_ROUNDED_BY = 5e-4  # s, at most: Matroska's times are in whole milliseconds


def compress_crops(
  crops: UInt8[np.ndarray, 't h w 3'], rate_factor: int
) -> UInt8[np.ndarray, 't h w 3']:
  """Compresses the crops of one clip, as a film of its own.

  Args:
    crops: RGB, of even height and width.
    rate_factor: x264's constant rate factor, 0 (best) to 51.
  """
  encoder = av.VideoCodecContext.create('libx264', 'w')
  encoder.height, encoder.width = crops.shape[1:3]
  encoder.pix_fmt = 'yuv420p'
  encoder.time_base = fractions.Fraction(1, 25)
  encoder.options = {'crf': str(rate_factor), 'threads': '1'}
  packets = []
  for number, crop in enumerate(crops):
    frame = av.VideoFrame.from_ndarray(crop, format='rgb24')
    frame = frame.reformat(format='yuv420p')
    frame.pts, frame.time_base = number, encoder.time_base
    packets += encoder.encode(frame)
  packets += encoder.encode(None)
  decoder = av.VideoCodecContext.create('h264', 'r')
  decoder.thread_count = 1
  return np.stack(
    [
      frame.to_ndarray(format='rgb24')
      for packet in (*packets, None)
      for frame in decoder.decode(packet)
    ]
  )


@contextlib.contextmanager
def compressed_file(
  path: str | os.PathLike,
  rate_factor: int,
  most_side: float = math.inf,
  most_rate: float = math.inf,
) -> Iterator[pathlib.Path]:
  """Compresses a video anew; the copy is gone when the context ends.

  Args:
    path: a video file, or a folder of images.
    rate_factor: x264's constant rate factor, 0 (best) to 51.
    most_side: px, the longer side of the copy at most.
    most_rate: frames a second of the copy, at most, on average.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a video.
    OSError: the disk of temporary files, which it names, is full.
  """
  with tempfile.TemporaryDirectory(prefix='stormer-') as folder:
    copy = pathlib.Path(folder) / 'compressed.mp4'
    try:
      _compress(path, copy, rate_factor, most_side, most_rate)
    except av.FFmpegError as error:
      if error.errno in places.NO_SPACE:
        raise OSError(
          error.errno, os.strerror(error.errno), tempfile.gettempdir()
        ) from error
      raise ValueError(
        f'{path}: cannot be compressed anew ({error})'
      ) from error
    yield copy


def _compress(
  path: str | os.PathLike,
  copy: pathlib.Path,
  rate_factor: int,
  most_side: float,
  most_rate: float,
) -> None:
  stream = footage.probe(path)
  rate = stream.fps or _USUAL_RATE
  scale = min(most_side / max(stream.width, stream.height), 1)
  kept_rate = min(rate, most_rate)
  with av.open(str(copy), 'w') as target:
    encoded = target.add_stream(
      'libx264', fractions.Fraction(kept_rate).limit_denominator(1001)
    )
    encoded.width = _even(round(stream.width * scale))
    encoded.height = _even(round(stream.height * scale))
    encoded.pix_fmt = 'yuv420p'
    encoded.options = {'crf': str(rate_factor), 'threads': '1'}
    encoded.codec_context.time_base = fractions.Fraction(1, _TICKS)
    due, latest = 0.0, -1
    for read in footage.decode_frames(path, range(stream.num_frames)):
      time = read.index / rate if math.isnan(read.time) else read.time
      # The first frame at or after each moment of the new rate.
      if kept_rate < rate and time < due - _ROUNDED_BY:
        continue
      due = (math.floor((time + _ROUNDED_BY) * kept_rate) + 1) / kept_rate
      frame = av.VideoFrame.from_ndarray(read.image, format='rgb24')
      frame = frame.reformat(encoded.width, encoded.height, 'yuv420p')
      latest = max(latest + 1, round(time * _TICKS))  # ascends, whatever came
      frame.pts, frame.time_base = latest, encoded.codec_context.time_base
      target.mux(encoded.encode(frame))
    target.mux(encoded.encode(None))


def _even(pixels: int) -> int:
  return max(pixels & ~1, 2)
