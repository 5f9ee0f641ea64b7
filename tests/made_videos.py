"""Video files of one kind of oddity each, encoded by PyAV in milliseconds."""

from collections.abc import Callable, Iterable, Sequence
import fractions
import pathlib

import av
import face_videos
import numpy as np

SIZE = (128, 64)
# Every frame can be decoded by itself but for its group; nothing reordered.
PLAIN = {'preset': 'ultrafast', 'tune': 'zerolatency', 'crf': '10'}


def numbered(numbers: Iterable[int], size=SIZE) -> list[np.ndarray]:
  """Images that carry their number."""
  return [face_videos.numbered_image(number, size) for number in numbers]


def write(
  path: pathlib.Path,
  images: Sequence[np.ndarray],
  codec: str = 'libx264',
  pts: Sequence[int] | None = None,
  rate: int = 25,
  options: dict[str, str] | None = None,
  adjust: Callable | None = None,
  container_options: dict[str, str] | None = None,
) -> pathlib.Path:
  """Writes images as a video; `adjust` changes the stream before the start."""
  with av.open(str(path), 'w', options=container_options or {}) as out:
    stream = add_stream(out, images[0].shape, codec, rate, options)
    if adjust:
      adjust(stream)
    for packet in encode(stream, images, pts, rate):
      out.mux(packet)
  return path


def add_stream(out, shape, codec='libx264', rate=25, options=None):
  """Adds a video stream for images of a shape."""
  if options is None:
    options = PLAIN if codec == 'libx264' else {}
  stream = out.add_stream(codec, rate=rate, options=options)
  stream.height, stream.width = shape[:2]
  stream.pix_fmt = 'yuv420p'
  stream.codec_context.time_base = fractions.Fraction(1, rate)
  return stream


def encode(stream, images, pts=None, rate=25):
  """Yields the packets of images; `stream` may be an encoder as well."""
  for position, image in enumerate(images):
    frame = av.VideoFrame.from_ndarray(image, format='rgb24')
    frame.pts = position if pts is None else pts[position]
    frame.time_base = fractions.Fraction(1, rate)
    yield from stream.encode(frame)
  yield from stream.encode(None)


def write_changing(
  path: pathlib.Path, parts: Sequence[dict], num_each: int, codec: str
) -> pathlib.Path:
  """A stream whose encoder starts anew, with another size or pixel shape.

  `parts` hold `size` and `aspect`; frames are numbered through.
  """
  with av.open(str(path), 'w') as out:
    stream = None
    for part, fields in enumerate(parts):
      size, start = fields.get('size', SIZE), part * num_each
      images = numbered(range(start, start + num_each), size)
      context = av.CodecContext.create(codec, 'w')
      context.width, context.height = size
      context.pix_fmt = 'yuv420p'
      context.framerate = fractions.Fraction(25)
      context.time_base = fractions.Fraction(1, 25)
      context.sample_aspect_ratio = fractions.Fraction(fields.get('aspect', 1))
      context.options = PLAIN if codec == 'libx264' else {}
      if stream is None:
        stream = add_stream(out, images[0].shape, codec)
      for packet in encode(context, images, range(start, start + num_each)):
        packet.stream = stream
        out.mux(packet)
  return path


def add_silence(out, rate=8000):
  """Adds an audio stream of raw samples."""
  stream = out.add_stream('pcm_s16le', rate=rate)
  stream.layout = 'mono'
  return stream


def silence(stream, start: float, num_packets: int, samples=16):
  """Yields short packets of silence from a time on."""
  rate = stream.rate
  for number in range(num_packets):
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, samples), np.int16), format='s16', layout='mono'
    )
    frame.sample_rate = rate
    frame.pts = round(start * rate) + number * samples
    frame.time_base = fractions.Fraction(1, rate)
    yield from stream.encode(frame)
