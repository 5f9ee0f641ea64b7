"""Decoded picture -> RGB, upright, with square pixels.

What enters: a frame as the decoder hands it out, in any pixel format, colour
matrix, orientation and shape of pixels. What leaves: uint8 RGB in [0, 255], as
a player shows it.

libswscale converts: matrix and range by the frame's tags, BT.601 where there
are none (as ffmpeg and OpenCV do). Transfer curve and primaries of ordinary
video are left as they are; PQ and HLG are brought to BT.709 with their white
(203 nit) as white, and what is brighter is cut off there.
"""

from collections.abc import Iterable
import fractions
import struct
from typing import cast

import av
from av import error as av_error
from av.sidedata import sidedata
from av.video import reformatter as reformatter_lib
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
_BT709 = 1
_BT2020 = 9
_UNSPECIFIED = 2
# What cv2.VideoCapture uses as well.
_SCALING = reformatter_lib.Interpolation.BICUBIC
# Choice: real files have 8:9 to 64:33; beyond these it is a damaged tag.
_MOST_ASPECT = 8


class ConversionError(Exception):
  """A picture that cannot be shown; says why."""


class Converter:
  """Converts pictures; keeps libswscale's tables from one to the next."""

  def __init__(self) -> None:
    self._reformatter = reformatter_lib.VideoReformatter()

  def rgb(
    self, frame: av.VideoFrame, pixel_aspect: fractions.Fraction
  ) -> UInt8[np.ndarray, 'h w 3']:
    """Converts one picture.

    Raises:
      ConversionError: libswscale does not know its matrix or its format.
    """
    options = {}
    if frame.color_trc in _HDR_CURVES:
      if frame.color_primaries == _UNSPECIFIED:
        frame.color_primaries = _BT2020
      options = {'dst_color_trc': _BT709, 'dst_color_primaries': _BT709}
    try:
      rgb = self._reformatter.reformat(
        frame,
        width=square_width(frame.width, pixel_aspect),
        height=frame.height,
        format='rgb24',
        interpolation=_SCALING,
        threads=1,
        **options,
      )
    except (av_error.FFmpegError, ValueError) as error:
      matrix = _MATRICES.get(frame.colorspace, str(frame.colorspace))
      raise ConversionError(
        f'colour matrix {matrix} in {frame.format.name} cannot be converted; '
        'if the tag is wrong: ffmpeg -i IN -vf setparams=colorspace=bt709 '
        '-c:v libx264 -crf 12 OUT.mp4'
      ) from error
    return turn(rgb.to_ndarray(), display_matrix(frame))


def square_width(width: int, pixel_aspect: fractions.Fraction) -> int:
  """Returns the width in square pixels, at the same height."""
  if not 1 / _MOST_ASPECT <= pixel_aspect <= _MOST_ASPECT:
    return width
  return max(round(width * pixel_aspect), 1)


def shown_size(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction
) -> tuple[int, int]:
  """Returns the width and height of a picture as `Converter.rgb` gives it."""
  width = square_width(frame.width, pixel_aspect)
  _, b, c, _ = display_matrix(frame)
  return (frame.height, width) if b and c else (width, frame.height)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
  """Returns a, b, c, d of libavutil/display.h, each -1, 0 or 1.

  The picture's point (x, y) is shown at (a x + c y, b x + d y). What is between
  the eight turns and mirrorings is brought to the nearest.
  """
  # PyAV is not typed here: iterating gives entries, not their names.
  for entry in cast(Iterable[sidedata.SideData], frame.side_data):
    if entry.type == sidedata.Type.DISPLAYMATRIX:
      a, b, _, c, d = struct.unpack('=5i', bytes(entry)[:20])
      if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
      return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0
  return 1, 0, 0, 1


def turn(
  image: UInt8[np.ndarray, 'h w 3'], matrix: tuple[int, int, int, int]
) -> UInt8[np.ndarray, 'h2 w2 3']:
  """Turns and mirrors an image as a display matrix says."""
  a, b, c, d = matrix
  if b and c:
    image = image.swapaxes(0, 1)
  right = a or c  # where the shown x comes from, and which way
  down = b or d
  return np.ascontiguousarray(image[::down, ::right])


def describe(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction
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
  a, b, c, d = display_matrix(frame)
  if a * d - b * c < 0:
    notes.append('mirrored by its display matrix')
  return notes
