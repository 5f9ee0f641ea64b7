"""Colour, sharpness, resampling and JPEG with the rules of 8-bit images.

Images are planar (t, c, h, w), RGB, float32 that holds whole levels 0 to 255;
every function returns whole levels again. One parameter set serves all frames
of a clip (METHOD 2.8, 2.17). dm_pix has colour operations on [0, 1]; these
follow 8-bit arithmetic (look-up tables that truncate, hue in 0 to 179),
through which some of the method's draws act at all (METHOD D10).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from data_pipeline.synthesis import warp

_HIGHEST = jax.lax.Precision.HIGHEST


def truncate(levels: Float[Array, '*b']) -> Float[Array, '*b']:
  """Clips to 0..255 and drops the fraction, as a cast to uint8 does."""
  return jnp.floor(jnp.clip(levels, 0.0, 255.0))


def round_half_up(levels: Float[Array, '*b']) -> Float[Array, '*b']:
  """Clips to 0..255 and rounds to whole levels."""
  return jnp.floor(jnp.clip(levels, 0.0, 255.0) + 0.5)


def rgb_shift(
  image: Float[Array, 't 3 h w'], shift: Float[Array, '3']
) -> Float[Array, 't 3 h w']:
  """Adds a shift in levels to each channel, truncating (METHOD 2.8a)."""
  return truncate(image + shift[None, :, None, None])


def hsv_shift(
  image: Float[Array, 't 3 h w'], shift: Float[Array, '3']
) -> Float[Array, 't 3 h w']:
  """Adds to hue (mod 180), saturation and value in 8-bit HSV (METHOD 2.8b).

  The integer tables of OpenCV's RGB -> HSV are reproduced; dm_pix's
  `rgb_to_hsv` keeps fractions, which the truncation here must not see.
  """
  hue, saturation, value = _rgb_to_hsv(image[:, 0], image[:, 1], image[:, 2])
  hue = hue + shift[0]
  hue = jnp.floor(hue - 180.0 * jnp.floor(hue / 180.0))
  # A tiny negative shift of hue 0 rounds to 180 in float32.
  hue = jnp.where(hue >= 180.0, 179.0, hue)
  saturation = truncate(saturation + shift[1])
  value = truncate(value + shift[2])
  return jnp.floor(_hsv_to_rgb(*warp.settle((hue, saturation, value))))


def _rgb_to_hsv(red, green, blue):
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)

  def fixed_point(numerator, table):
    return jnp.floor((numerator * table + 2048.0) / 4096.0)

  saturation = fixed_point(
    chroma, jnp.round(255.0 * 4096.0 / jnp.maximum(value, 1.0))
  )
  sextant = jnp.where(
    value == red,
    green - blue,
    jnp.where(
      value == green,
      blue - red + 2.0 * chroma,
      red - green + 4.0 * chroma,
    ),
  )
  hue = fixed_point(
    sextant, jnp.round(30.0 * 4096.0 / jnp.maximum(chroma, 1.0))
  )
  return jnp.where(hue < 0, hue + 180.0, hue), saturation, value


def _hsv_to_rgb(hue, saturation, value):
  # OpenCV works on fractions and truncates at the end; where a level comes
  # out whole, the order of the multiplications decides.
  position = hue * np.float32(6 / 180)
  saturation = saturation * np.float32(1 / 255)
  value = value * np.float32(1 / 255)
  sextant = jnp.floor(position)
  fraction = position - sextant
  # Green runs through the sextants as red does, two later, and blue four.
  later = np.array([0, 4, 2], np.float32).reshape(1, 3, 1, 1)
  sextant = sextant[:, None] + later
  sextant = jnp.where(sextant >= 6.0, sextant - 6.0, sextant)
  fraction = fraction[:, None]
  # Full, falling, least, least, rising, full.
  paleness = jnp.where((sextant >= 2.0) & (sextant <= 3.0), 1.0, 0.0)
  paleness = jnp.where(sextant == 1.0, fraction, paleness)
  paleness = jnp.where(sextant == 4.0, 1.0 - fraction, paleness)
  return value[:, None] * (1.0 - saturation[:, None] * paleness) * 255.0


def brightness_contrast(
  image: Float[Array, 't 3 h w'],
  brightness: Float[Array, ''],
  contrast: Float[Array, ''],
) -> Float[Array, 't 3 h w']:
  """image (1 + contrast) + 255 brightness, truncating (METHOD 2.8c)."""
  return truncate(image * (1.0 + contrast) + 255.0 * brightness)


def downscale(
  image: Float[Array, 't 3 h w'],
  ratio_index: Int[Array, ''],
  *,
  ratios: tuple[int, ...],
  gather: bool,
) -> Float[Array, 't 3 h w']:
  """Shrinks by ratios[ratio_index] (nearest), grows back (bilinear).

  METHOD 2.8d. Both steps in one two-tap resampling.
  """
  *_, height, width = image.shape
  rows = _downscale_taps(height, ratios, ratio_index)
  columns = _downscale_taps(width, ratios, ratio_index)
  return round_half_up(warp.resample(image, rows, columns, gather=gather))


def _downscale_taps(size, ratios, ratio_index):
  taps = []
  for ratio in ratios:
    small = max(size // ratio, 1)
    source = (np.arange(size) + 0.5) * (small / size) - 0.5
    source = np.clip(source, 0, small - 1)
    lower = np.floor(source)
    upper = np.minimum(lower + 1, small - 1)
    nearest = [np.floor(i * (size / small)) for i in (lower, upper)]
    taps.append(np.stack([*nearest, source - lower]))
  lower, upper, weight = jnp.asarray(np.stack(taps), jnp.float32)[ratio_index]
  return warp.Taps(
    lower=lower.astype(jnp.int32), upper=upper.astype(jnp.int32), weight=weight
  )


def sharpen(
  image: Float[Array, 't 3 h w'],
  alpha: Float[Array, ''],
  lightness: Float[Array, ''],
) -> Float[Array, 't 3 h w']:
  """(1 - alpha) image + alpha (3x3 filter), METHOD 2.8d.

  The filter has -1 around 8 + lightness; borders mirror about their pixels.
  """
  padded = jnp.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), 'reflect')
  column = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
  box = column[..., :-2] + column[..., 1:-1] + column[..., 2:]
  centre = 1.0 - alpha + alpha * (9.0 + lightness)
  # A filter's halves go to the even level, as in OpenCV.
  return jnp.round(jnp.clip(centre * image - alpha * box, 0.0, 255.0))


def gaussian_blur(
  image: Float[Array, 't 3 h w'], sigma: Float[Array, ''], *, max_sigma: float
) -> Float[Array, 't 3 h w']:
  """Blurs by a Gaussian of sigma > 0 px, cut off at 3 max_sigma.

  Borders mirror about their pixels. dm_pix's takes no traced sigma.
  """
  radius = math.ceil(3 * max_sigma)
  weights = jnp.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
  weights /= weights.sum()
  for axis in (2, 3):
    size = image.shape[axis]
    margins = [(0, 0)] * 4
    margins[axis] = (radius, radius)
    padded = jnp.pad(image, margins, 'reflect')
    image = sum(
      weight * jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
      for start, weight in enumerate(weights)
    )
  return round_half_up(image)


# Tables K.1 and K.2 of the JPEG standard (ITU-T T.81), row by row.
_LUMA_TABLE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ],
  np.float32,
).reshape(64)
_CHROMA_TABLE = np.array(
  [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
  ],
  np.float32,
).reshape(64)


# (Cb, Cr) of a level of red, of green and of blue; blue, green and red of a
# level of Cb and of Cr.
_CHROMA_OF_RGB = np.array(
  [[-0.168735892, 0.5], [-0.331264108, -0.418687589], [0.5, -0.081312411]],
  np.float32,
)[:, None]
_BGR_OF_CHROMA = np.array(
  [[1.772, -0.344136286, 0.0], [0.0, -0.714136286, 1.402]], np.float32
)[:, None]


def jpeg(
  image: Float[Array, 't 3 h w'], quality: Float[Array, ''], *, gather: bool
) -> Float[Array, 't 3 h w']:
  """Compresses each frame by baseline JPEG, 4:2:0, and decodes it.

  Follows libjpeg: integer rounding after each step, its chroma down- and
  upsampling, its scaling of the tables by quality 1 to 100. The entropy code
  is lossless and left out. Red and blue are exchanged on the way in and out,
  as the released code hands RGB arrays to a BGR encoder (METHOD D29). dm_pix
  has no JPEG.

  Args:
    image: levels.
    quality: of libjpeg.
    gather: transform blocks laid out one after the other (CPU), else whole
      rows and columns by matrices.
  """
  *_, height, width = image.shape
  padding = ((0, 0), (0, 0), (0, -height % 16), (0, -width % 16))
  padded = jnp.pad(image, padding, 'edge')
  blue, green, red = padded[:, 0], padded[:, 1], padded[:, 2]
  luma = jnp.floor(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
  of_red, of_green, of_blue = _CHROMA_OF_RGB[..., None, None]
  chroma = of_red * red[:, None] + of_green * green[:, None]
  chroma = jnp.round(chroma + of_blue * blue[:, None] + 128.0)
  code = _code_blocks if gather else _code_planes
  luma = code(luma, _scaled_table(_LUMA_TABLE, quality))
  chroma = code(_halve(chroma), _scaled_table(_CHROMA_TABLE, quality))
  chroma = _double(_double(chroma, axis=-2), axis=-1)
  # Sixteenths: even columns round halves up, odd ones down.
  dither = np.where(np.arange(chroma.shape[-1]) % 2, 7 / 16, 8 / 16)
  dither = dither.astype(np.float32)[None, None, None]
  chroma = jnp.floor(chroma + dither) - 128.0
  luma, chroma = warp.settle((luma, chroma))
  of_cb, of_cr = _BGR_OF_CHROMA[..., None, None]
  colour = of_cb * chroma[:, :1] + of_cr * chroma[:, 1:]
  decoded = luma[:, None] + jnp.floor(colour + 0.5)
  return jnp.clip(decoded, 0.0, 255.0)[..., :height, :width]


def _scaled_table(table, quality):
  percent = jnp.where(
    quality < 50.0, jnp.floor(5000.0 / quality), 200.0 - 2.0 * quality
  )
  return jnp.clip(jnp.floor((table * percent + 50.0) / 100.0), 1.0, 255.0)


def _halve(planes):
  """Means of 2x2 pixels, halves rounded up in every second column."""
  bias = 1.0 + np.arange(planes.shape[-1] // 2, dtype=np.float32) % 2
  bias = bias.reshape(*[1] * (planes.ndim - 1), -1)
  rows = planes[..., ::2, :] + planes[..., 1::2, :]
  return jnp.floor((rows[..., ::2] + rows[..., 1::2] + bias) / 4.0)


def _double(planes, *, axis):
  """Twice the pixels, 3/4 of the nearest and 1/4 of the next nearest."""
  size = planes.shape[axis]
  first = jax.lax.slice_in_dim(planes, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(planes, size - 1, size, axis=axis)
  padded = jnp.concatenate([first, planes, last], axis=axis)
  before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
  after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
  axis = axis % planes.ndim
  doubled = jnp.stack(
    [0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after],
    axis=axis + 1,
  )
  shape = list(planes.shape)
  shape[axis] = 2 * size
  return doubled.reshape(shape)


def _code_blocks(planes, table):
  """Rounds the DCT coefficients of 8x8 blocks to multiples of a table."""
  *batch, height, width = planes.shape
  blocks = planes.reshape(*batch, height // 8, 8, width // 8, 8)
  blocks = jnp.swapaxes(blocks, -3, -2).reshape(*batch, -1, 64)
  transform = _dct_matrix()
  coefficients = jnp.einsum(
    '...p,fp->...f', blocks - 128.0, transform, precision=_HIGHEST
  )
  table = jnp.expand_dims(table, range(coefficients.ndim - 1))
  coefficients = jnp.round(coefficients / table) * table
  blocks = jnp.einsum(
    '...f,fp->...p', coefficients, transform, precision=_HIGHEST
  )
  blocks = blocks.reshape(*batch, height // 8, width // 8, 8, 8)
  planes = jnp.swapaxes(blocks, -3, -2).reshape(*batch, height, width)
  return round_half_up(planes + 128.0)


def _code_planes(planes, table):
  """The same without turning axes around, which a TPU pays for."""
  *batch, height, width = planes.shape
  # sqrt(8) times the basis has rows of ones, so that whole numbers stay whole
  # where a coefficient lies between two multiples.
  basis = np.sqrt(8.0) * _dct_basis()
  rows, columns = (
    jnp.asarray(np.kron(np.eye(size // 8), basis), jnp.float32)
    for size in (height, width)
  )
  table = jnp.tile((8.0 * table).reshape(8, 8), (height // 8, width // 8))
  table = jnp.expand_dims(table, range(len(batch)))
  coefficients = warp.apply_matrices(planes - 128.0, rows, columns)
  coefficients = jnp.round(coefficients / table) * (table / 64.0)
  planes = warp.apply_matrices(coefficients, rows.T, columns.T)
  return round_half_up(planes + 128.0)


def _dct_matrix() -> np.ndarray:
  """Orthonormal 8x8 DCT as a matrix on 64 pixels."""
  basis = _dct_basis()
  return np.kron(basis, basis).astype(np.float32)


def _dct_basis() -> np.ndarray:
  """Orthonormal DCT of 8 pixels, a frequency a row."""
  positions = np.arange(8)
  basis = np.cos((2 * positions + 1) * positions[:, None] * np.pi / 16) / 2
  basis[0] /= np.sqrt(2)
  return basis
