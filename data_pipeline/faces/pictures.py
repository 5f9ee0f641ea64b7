"""Decoded picture -> RGB, upright, with square pixels.

What enters: a frame as the decoder hands it out, in any pixel format, colour
matrix, orientation and shape of pixels. What leaves: uint8 RGB in [0, 255], as
a player shows it.

libswscale converts: matrix and range by the frame's tags, BT.601 where there
are none (as ffmpeg and OpenCV do). Transfer curve and primaries of ordinary
video are left as they are; PQ and HLG are brought to BT.709 with their white
(203 nit) as white, and what is brighter is cut off there.
"""

import dataclasses
import fractions

import av
from av import error as av_error
from av import filter as av_filter
from jaxtyping import UInt8
import numpy as np

# libavutil/pixfmt.h; the matrices and curves that need a word.
_MATRICES = {
  8: 'YCgCo',
  10: 'BT.2020 constant luminance',
  11: "SMPTE ST 2085 (Y'D'zD'x)",
  12: 'chromaticity-derived',
  13: 'chromaticity-derived constant luminance',
  14: 'ICtCp',
  15: 'IPT-C2 (Dolby Vision)',
  16: 'YCgCo-Re',
  17: 'YCgCo-Ro',
}
_HDR_CURVES = {16: 'PQ', 18: 'HLG'}
_LOG_CURVES = (9, 10)
_UNSPECIFIED = 2
# Choice: real files have 8:9 to 64:33; beyond these it is a damaged tag.
_MOST_ASPECT = 8


# a, b, c, d of libavutil/display.h, each -1, 0 or 1.
Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)


class ConversionError(Exception):
  """A picture that cannot be shown; says why."""


class Converter:
  """Converts pictures; keeps the filter from one to the next of its kind."""

  def __init__(self) -> None:
    self._graph: av_filter.Graph | None = None
    self._kind: _Kind | None = None

  def rgb(
    self,
    frame: av.VideoFrame,
    pixel_aspect: fractions.Fraction = fractions.Fraction(1),
    matrix: Matrix = UPRIGHT,
  ) -> UInt8[np.ndarray, 'h w 3']:
    """Converts one picture.

    Args:
      frame: pixels and colour tags.
      pixel_aspect: width of a pixel over its height.
      matrix: how the picture is turned, see `turn`.

    Raises:
      ConversionError: libswscale does not know its matrix or its format.
    """
    kind = _Kind.of(frame, pixel_aspect)
    try:
      if self._graph is None or kind != self._kind:
        self._graph, self._kind = _make_graph(kind), kind
      self._graph.vpush(frame)
      rgb = self._graph.vpull()
    except (av_error.FFmpegError, ValueError) as error:
      self._graph = None
      name = _MATRICES.get(kind.matrix, str(kind.matrix))
      raise ConversionError(
        f'colour matrix {name} in {kind.pixel_format} cannot be converted; '
        'if the tag is wrong: ffmpeg -i IN -vf setparams=colorspace=bt709 '
        '-c:v libx264 -crf 12 OUT.mp4'
      ) from error
    return turn(rgb.to_ndarray(), matrix)


@dataclasses.dataclass(frozen=True)
class _Kind:
  """All that a conversion depends on besides the pixels."""

  width: int
  height: int
  pixel_format: str
  square_width: int
  matrix: int
  full_range: int
  curve: int
  primaries: int

  @classmethod
  def of(
    cls, frame: av.VideoFrame, pixel_aspect: fractions.Fraction
  ) -> '_Kind':
    return cls(
      frame.width,
      frame.height,
      frame.format.name,
      square_width(frame.width, pixel_aspect),
      frame.colorspace,
      frame.color_range,
      frame.color_trc,
      frame.color_primaries,
    )


def _make_graph(kind: _Kind) -> av_filter.Graph:
  """Makes the filter that ffmpeg itself would put before an RGB encoder.

  Not `VideoFrame.reformat`, which puts the chroma elsewhere where it scales
  or where there are more than 8 bits (by 3 levels in a test picture).
  """
  scale = f'w={kind.square_width}:h={kind.height}:flags=bicubic'
  tags = []
  if kind.curve in _HDR_CURVES:
    scale += ':out_transfer=bt709:out_primaries=bt709'
    if kind.primaries == _UNSPECIFIED:
      tags = [('setparams', 'color_primaries=bt2020')]
  else:
    # Unknown or reserved tags must not keep a picture from being shown.
    tags = [('setparams', 'color_primaries=unknown:color_trc=unknown')]
  graph = av_filter.Graph()
  graph.threads = 1
  graph.link_nodes(
    graph.add(
      'buffer',
      f'video_size={kind.width}x{kind.height}:pix_fmt={kind.pixel_format}:'
      f'time_base=1/1000:colorspace={kind.matrix}:range={kind.full_range}',
    ),
    *(graph.add(name, arguments) for name, arguments in tags),
    graph.add('scale', scale),
    graph.add('format', 'rgb24'),
    graph.add('buffersink'),
  ).configure()
  return graph


def square_width(width: int, pixel_aspect: fractions.Fraction) -> int:
  """Returns the width in square pixels, at the same height."""
  if not 1 / _MOST_ASPECT <= pixel_aspect <= _MOST_ASPECT:
    return width
  return max(round(width * pixel_aspect), 1)


def shown_size(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction, matrix: Matrix
) -> tuple[int, int]:
  """Returns the width and height of a picture as `Converter.rgb` gives it."""
  width = square_width(frame.width, pixel_aspect)
  _, b, c, _ = matrix
  return (frame.height, width) if b and c else (width, frame.height)


def turn(
  image: UInt8[np.ndarray, 'h w 3'], matrix: Matrix
) -> UInt8[np.ndarray, 'h2 w2 3']:
  """Turns and mirrors an image: its (x, y) goes to (a x + c y, b x + d y)."""
  a, b, c, d = matrix
  if b and c:
    image = image.swapaxes(0, 1)
  right = a or c  # where the shown x comes from, and which way
  down = b or d
  return np.ascontiguousarray(image[::down, ::right])


def describe(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction, matrix: Matrix
) -> list[str]:
  """Names what is odd about how a picture is stored."""
  notes = []
  if frame.color_trc in _HDR_CURVES:
    notes.append(f'{_HDR_CURVES[frame.color_trc]} (HDR) tone-mapped to SDR')
  if frame.color_trc in _LOG_CURVES:
    notes.append('logarithmic transfer curve, shown as it is stored')
  if pixel_aspect != 1:
    shape = f'{pixel_aspect.numerator}:{pixel_aspect.denominator}'
    if square_width(frame.width, pixel_aspect) == frame.width:
      notes.append(f'pixels said to be {shape}, taken as square')
    else:
      notes.append(f'pixels of {shape}, made square')
  a, b, c, d = matrix
  if a * d - b * c < 0:
    notes.append('mirrored by its display matrix')
  return notes
