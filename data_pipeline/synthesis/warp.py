"""Geometry: where an output pixel looks in its source, and resampling there.

Source positions are pixels with 0-based centres. Images are planar
(..., h, w); outside the image lies 0. All maps are separable, so a resampling
is a row operator and a column operator: matrices on an accelerator, gathers
on a CPU, with the same result to rounding. dm_pix has no resizing to a traced
size, no fixed-point positions, and draws its elastic field itself; its
`flip_left_right` serves in blending.py (METHOD 2.9, 2.10, 2.15, 2.16).
"""

import flax.struct
import jax
from jax.experimental import layout
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, UInt8
import numpy as np

_HIGHEST = jax.lax.Precision.HIGHEST
# OpenCV's warpAffine works with positions in steps of 1/1024 px, and weights
# a bilinear sample by steps of 1/32 px.
_POSITION_STEPS = 1024
_WEIGHT_STEPS = 32


@flax.struct.dataclass
class Taps:
  """Two-tap sampling along one axis: (1 - weight) lower + weight upper."""

  lower: Int[Array, '*b out']
  upper: Int[Array, '*b out']
  weight: Float[Array, '*b out']


def resample(
  image: Float[Array, '*b h w'],
  rows: Taps,
  columns: Taps,
  *,
  gather: bool,
) -> Float[Array, '*b out_h out_w']:
  """Samples rows and columns of an image; taps outside it read 0."""
  if gather:
    rows, columns = settle((rows, columns))
    planes = image.reshape(-1, *image.shape[-2:])
    sampled = row_major(_gather(planes, rows, axis=-2))
    sampled = row_major(_gather(sampled, columns, axis=-1))
    return sampled.reshape(*image.shape[:-2], *sampled.shape[-2:])
  return apply_matrices(
    image,
    sampling_matrix(rows, image.shape[-2]),
    sampling_matrix(columns, image.shape[-1]),
  )


def apply_matrices(
  image: Float[Array, '*b h w'],
  rows: Float[Array, 'out_h h'],
  columns: Float[Array, 'out_w w'],
) -> Float[Array, '*b out_h out_w']:
  """rows @ image @ columns.T in full float32."""
  return jnp.einsum(
    'yh,...hw,xw->...yx', rows, image, columns, precision=_HIGHEST
  )


def sampling_matrix(taps: Taps, size: int) -> Float[Array, 'out size']:
  """The matrix that samples an axis of `size` pixels."""
  positions = jnp.arange(size)[None]
  weight = taps.weight[:, None]
  return jnp.where(
    taps.lower[:, None] == positions, 1.0 - weight, 0.0
  ) + jnp.where(taps.upper[:, None] == positions, weight, 0.0)


def _gather(image, taps: Taps, *, axis):
  size = image.shape[axis]
  after = [1] * (-1 - axis)

  def tap(index, weight):
    weight = jnp.where((index >= 0) & (index < size), weight, 0.0)
    pixels = jnp.take(image, index, axis=axis, mode='clip')
    before = [1] * (image.ndim + axis)
    return pixels * weight.reshape(*before, -1, *after)

  return tap(taps.lower, 1.0 - taps.weight) + tap(taps.upper, taps.weight)


def settle(arrays):
  """Returns a pytree of arrays, computed once; for CPUs.

  XLA's CPU compiler fuses what feeds a gather into it, index arithmetic and
  whole images, and repeats it for every tap of every pixel, as it repeats
  random bits in every loop that uses a draw; it drops optimization_barrier
  before that. It does not look through a branch; this one is always taken.
  Under vmap, as on accelerators, nothing is done: the branch would become a
  select, for whose condition a TPU lays out all arrays with the batch last.
  """
  leaves, structure = jax.tree.flatten(arrays)
  return jax.tree.unflatten(structure, _settle(leaves))


@jax.custom_batching.custom_vmap
def _settle(leaves):
  first = leaves[0].reshape(-1)[0]
  return jax.lax.cond(
    ~jnp.isnan(first.astype(jnp.float32)),
    lambda leaves: leaves,
    lambda leaves: jax.tree.map(jnp.zeros_like, leaves),
    leaves,
  )


@_settle.def_vmap
def _settle_nothing(axis_size, in_batched, leaves):
  del axis_size
  return leaves, in_batched[0]


def row_major(array: Num[Array, '*b']) -> Num[Array, '*b']:
  """Returns an array, laid out with the last axis fastest; for CPUs.

  XLA's CPU compiler lays out a gather's or transpose's result as suits that
  operation alone, and turns it around in a pass of its own. Not for a batch
  that the compiler splits over devices: it would gather it here.
  """
  order = layout.Layout(tuple(range(array.ndim)))
  return layout.with_layout_constraint(array, order)


def linear_taps(source: Float[Array, ' out']) -> Taps:
  """Bilinear sampling at the given source positions."""
  lower = jnp.floor(source)
  index = lower.astype(jnp.int32)
  return Taps(lower=index, upper=index + 1, weight=source - lower)


def affine_positions(
  num_out: int,
  scale: Float[Array, ''],
  offset: Float[Array, ''],
) -> Float[Array, ' out']:
  """Positions scale * i + offset, in OpenCV's steps of 1/32 px."""
  steps = _position_steps(num_out, scale, offset)
  half = _POSITION_STEPS // _WEIGHT_STEPS
  return jnp.floor((steps + half / 2) / half) / _WEIGHT_STEPS


def nearest_positions(
  num_out: int,
  scale: Float[Array, ''],
  offset: Float[Array, ''],
) -> Float[Array, ' out']:
  """Integer positions nearest to scale * i + offset, as OpenCV rounds."""
  steps = _position_steps(num_out, scale, offset)
  return jnp.floor((steps + _POSITION_STEPS / 2) / _POSITION_STEPS)


def _position_steps(num_out, scale, offset):
  positions = jnp.arange(num_out, dtype=jnp.float32)
  return jnp.round(positions * scale * _POSITION_STEPS) + jnp.round(
    offset * _POSITION_STEPS
  )


def scale_about_centre(
  size: int, scale: Float[Array, ''], translate: Float[Array, '']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Inverse map of scaling about the centre, then moving (METHOD 2.9).

  Args:
    size: pixels along the axis.
    scale: factor by which content grows.
    translate: px by which content moves.

  Returns:
    (scale, offset) for `affine_positions` and `nearest_positions`.
  """
  centre = (size - 1) / 2
  forward_offset = centre * (1.0 - scale) + translate
  return 1.0 / scale, -forward_offset / scale


def crop_positions(
  size: int, num_out: int, margin: Int[Array, '']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Map of a crop by `margin` on both sides, resized corner to corner.

  METHOD 2.15-2.16: the first and last output pixels sit on the first and last
  pixels of the crop.
  """
  cropped = (size - 2 * margin).astype(jnp.float32)
  return (cropped - 1.0) / (num_out - 1), margin.astype(jnp.float32)


def resize_positions(
  num_out: int,
  size_in: Float[Array, ''],
  size_out: Float[Array, ''] | float,
) -> Float[Array, ' out']:
  """Positions of a half-pixel-centred linear resize between traced sizes.

  Args:
    num_out: static number of positions; those from `size_out` on are unused.
    size_in: pixels before.
    size_out: pixels after.
  """
  positions = jnp.arange(num_out, dtype=jnp.float32)
  source = (positions + 0.5) * (size_in / size_out) - 0.5
  return jnp.clip(source, 0.0, size_in - 1.0)


def elastic_field(
  noise: Float[Array, '2 h w'], *, sigma: float, alpha: float
) -> Float[Array, '2 h w']:
  """Displacements (dx, dy) in px from uniform noise in [-1, 1).

  Gaussian filter with mirrored borders, cut at 4 sigma, times alpha
  (METHOD 2.10).
  """
  _, height, width = noise.shape
  return alpha * jnp.einsum(
    'yh,chw,xw->cyx',
    _mirrored_gaussian(height, sigma),
    noise,
    _mirrored_gaussian(width, sigma),
    precision=_HIGHEST,
  )


def _mirrored_gaussian(size: int, sigma: float) -> np.ndarray:
  radius = int(4.0 * sigma + 0.5)
  offsets = np.arange(-radius, radius + 1)
  weights = np.exp(-0.5 * (offsets / sigma) ** 2)
  weights /= weights.sum()
  # Half-sample mirror: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
  source = np.mod(np.arange(size)[:, None] + offsets, 2 * size)
  source = np.where(source < size, source, 2 * size - 1 - source)
  matrix = np.zeros((size, size))
  np.add.at(matrix, (np.arange(size)[:, None], source), weights)
  return matrix.astype(np.float32)


def elastic_reach(sigma: float, alpha: float) -> int:
  """Pixels beyond which no displacement of `elastic_field` goes.

  7.5 standard deviations; the field is a mean of many uniform numbers, so
  the chance of a larger one is below 1e-12 a pixel.

  Raises:
    ValueError: when the reach leaves the 31 bits that `displace` packs.
  """
  deviation = alpha * np.sqrt(1.0 / 3.0) / (2.0 * sigma * np.sqrt(np.pi))
  reach = int(np.ceil(7.5 * deviation))
  if reach > 15:
    raise ValueError(
      f'elastic_alpha {alpha} with elastic_sigma {sigma} moves pixels by up to '
      f'{reach} px; at most 15 are supported. Lower elastic_alpha or raise '
      'elastic_sigma.'
    )
  return reach


def pack_bits(mask: Bool[Array, 't h w']) -> UInt8[Array, 'n h w']:
  """Frames as bits of bytes, eight in one; frame 0 is the lowest bit."""
  packed = []
  for start in range(0, len(mask), 8):
    frames = mask[start : start + 8].astype(jnp.uint8)
    packed.append(
      sum(frames[i] << i for i in range(1, len(frames))) | frames[0]
    )
  return jnp.stack(packed)


def unpack_bits(
  bits: UInt8[Array, 'n h w'], count: int
) -> Bool[Array, 't h w']:
  """The inverse of `pack_bits` for `count` frames."""
  frames = np.arange(count)
  shift = (frames % 8).astype(np.uint8)[:, None, None]
  return (bits[frames // 8] >> shift) & 1 == 1


def displace(
  mask: Bool[Array, 't h w'],
  field: Float[Array, '2 h w'],
  *,
  reach: int,
  gather: bool,
) -> Bool[Array, 't h w']:
  """Moves a mask by a displacement field: out(y, x) = mask(y + dy, x + dx).

  Nearest pixel, border mirrored about the outermost pixels (METHOD 2.10).
  One lookup serves eight frames, packed into bytes; without gathers, each
  pixel's row neighbours are packed into the bits of an integer, so that a
  two-dimensional lookup costs two passes of shifts.
  """
  _, height, width = mask.shape
  field = jnp.clip(jnp.round(field), -reach, reach).astype(jnp.int32)
  around = ((0, 0), (reach, reach), (reach, reach))
  if gather:
    padded = jnp.pad(pack_bits(mask), around, 'reflect')
    rows = jnp.arange(reach, reach + height)[:, None] + field[1]
    columns = jnp.arange(reach, reach + width)[None] + field[0]
    index = (rows * padded.shape[-1] + columns).reshape(-1)
    padded, index = settle((padded.reshape(len(padded), -1), index))
    moved = jnp.take(padded, index, axis=1, mode='clip')
    return unpack_bits(moved.reshape(-1, height, width), len(mask))
  dx, dy = field[:1], field[1:]
  padded = jnp.pad(mask, around, 'reflect').astype(jnp.int32)
  shifts = range(2 * reach + 1)
  zero = jnp.zeros((), jnp.int32)
  bits = sum((padded[:, :, i : i + width] << i for i in shifts), zero)
  row = sum(
    jnp.where(dy == i - reach, bits[:, i : i + height], 0) for i in shifts
  )
  return (row >> (dx + reach)) & 1 == 1
