"""Decoded pictures as a player shows them: colour, turn, shape of pixels."""

import fractions

import av
import numpy as np
import pytest

from data_pipeline.faces import pictures

SQUARE = fractions.Fraction(1)


def grey_frame(levels, curve: int, primaries: int = 9) -> av.VideoFrame:
  """Columns of grey in 10 bits, from levels in [0, 1]."""
  codes = np.repeat(np.round(np.array(levels) * 65535), 32).astype(np.uint16)
  rgb = np.broadcast_to(codes[None, :, None], (32, len(codes), 3))
  frame = av.VideoFrame.from_ndarray(
    np.ascontiguousarray(rgb), format='rgb48le'
  ).reformat(format='yuv420p10le', dst_colorspace=9, dst_color_range=1)
  frame.colorspace, frame.color_range = 9, 1
  frame.color_trc, frame.color_primaries = curve, primaries
  return frame


def levels_of(image: np.ndarray) -> np.ndarray:
  return image[16, 16::32, 1].astype(int)


def pq(nits: np.ndarray) -> np.ndarray:
  """SMPTE ST 2084, the inverse EOTF."""
  y = (nits / 10000) ** (2610 / 16384)
  return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (
    2523 / 4096 * 128
  )


def test_pq_is_shown_as_bt709_with_its_white_as_white():
  nits = np.array([0, 20, 50, 100, 203, 1000])
  frame = grey_frame(pq(nits), curve=16)
  image = pictures.Converter().rgb(frame)
  # BT.1886: a display of gamma 2.4 whose white is 203 nit (BT.2408).
  expected = 255 * np.minimum(nits / 203, 1) ** (1 / 2.4)
  np.testing.assert_allclose(levels_of(image), expected, atol=3)
  assert image.std(-1).max() < 2  # grey stays grey
  assert pictures.describe(frame, SQUARE, pictures.UPRIGHT) == [
    'PQ (HDR) tone-mapped to SDR'
  ]


def test_pq_without_primaries_is_taken_for_bt2020():
  told, untold = grey_frame([0.3, 0.5], 16), grey_frame([0.3, 0.5], 16, 2)
  converter = pictures.Converter()
  np.testing.assert_array_equal(converter.rgb(told), converter.rgb(untold))


def test_hlg_is_brought_to_sdr_and_said_so():
  frame = grey_frame([0, 0.25, 0.5, 0.75], curve=18)
  levels = levels_of(pictures.Converter().rgb(frame))
  assert levels[0] == 0 and levels[-1] == 255
  assert (np.diff(levels) > 20).all()
  assert pictures.describe(frame, SQUARE, pictures.UPRIGHT) == [
    'HLG (HDR) tone-mapped to SDR'
  ]


@pytest.mark.parametrize('curve', [1, 2, 6, 9, 10, 13])
def test_other_curves_are_left_as_they_are(curve):
  levels = np.array([0, 0.25, 0.5, 1])
  frame = grey_frame(levels, curve)
  image = pictures.Converter().rgb(frame)
  np.testing.assert_allclose(levels_of(image), 255 * levels, atol=2)
  assert bool(pictures.describe(frame, SQUARE, pictures.UPRIGHT)) == (
    curve in (9, 10)
  )


@pytest.mark.parametrize('matrix, red', [(1, 0.2126), (5, 0.299), (9, 0.2627)])
def test_the_matrix_is_that_of_the_tag(matrix, red):
  # Pure red: luma as given, Cr at its limit.
  luma = np.full((16, 16), round(16 + 219 * red), np.uint8)
  cb = np.full(
    (8, 8), round(128 - 224 * red / {1: 1.8556, 5: 1.772, 9: 1.8814}[matrix])
  )
  cr = np.full((8, 8), 240)
  planes = np.concatenate([luma.ravel(), cb.ravel(), cr.ravel()])
  frame = av.VideoFrame.from_ndarray(
    planes.astype(np.uint8).reshape(24, 16), format='yuv420p'
  )
  frame.colorspace, frame.color_range = matrix, 1
  image = pictures.Converter().rgb(frame)
  np.testing.assert_allclose(image[8, 8], [255, 0, 0], atol=3)


def test_full_range_is_not_stretched():
  grey = np.full((24, 16), 128, np.uint8)
  grey[:16] = np.arange(16) * 17
  frame = av.VideoFrame.from_ndarray(grey, format='yuv420p')
  frame.color_range = 2
  image = pictures.Converter().rgb(frame)
  np.testing.assert_allclose(image[8, :, 1], np.arange(16) * 17, atol=1)


@pytest.mark.parametrize(
  'matrix',
  [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (-1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, 1, 0),
    (0, -1, -1, 0),
  ],
)
def test_every_point_is_shown_where_the_display_matrix_puts_it(matrix):
  a, b, c, d = matrix
  height, width = 3, 5
  image = np.arange(height * width * 3).reshape(height, width, 3)
  shown = pictures.turn(image.astype(np.uint8), matrix)
  points = {
    (x, y): (a * x + c * y, b * x + d * y)
    for x in range(width)
    for y in range(height)
  }
  left = min(x for x, _ in points.values())
  top = min(y for _, y in points.values())
  for (x, y), (shown_x, shown_y) in points.items():
    np.testing.assert_array_equal(
      shown[shown_y - top, shown_x - left], image[y, x]
    )
  assert shown.size == image.size
  assert shown.flags['C_CONTIGUOUS']


def test_pixels_are_made_square_by_their_width():
  assert pictures.square_width(640, fractions.Fraction(9, 16)) == 360
  assert pictures.square_width(320, fractions.Fraction(2)) == 640
  # A damaged tag is no reason for a picture of a thousand times the size.
  assert pictures.square_width(320, fractions.Fraction(1000)) == 320
