"""Landmarks -> hull mask -> blending mask -> boundary map (METHOD 2.7-2.13).

A hull mask is boolean, a blending mask float32 in [0, 1]; both are (t, h, w)
in pixels of the crop.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from data_pipeline import landmarks as landmarks_lib
from data_pipeline.synthesis import warp

# Convex parts of each hull type; 0 to 3 are the original's (METHOD 2.7).
_HULL_TYPES = (
  landmarks_lib.FACE_PARTS,
  landmarks_lib.COMPONENTS,
  landmarks_lib.COMPONENTS,
  landmarks_lib.WHOLE_FACE,
  landmarks_lib.LOWER_FACE,
  landmarks_lib.MOUTH_AND_CHIN,
)
NUM_HULL_TYPES = len(_HULL_TYPES)


def hull_mask(
  landmarks: Float[Array, 't 81 2'],
  hull_type: Int[Array, ''],
  first_68: Bool[Array, ''],
  rows: Float[Array, ' h'],
  columns: Float[Array, ' w'],
  *,
  gather: bool,
) -> Bool[Array, 't h w']:
  """Fills the convex hulls of one hull type (METHOD 2.6-2.7).

  Unlike a polygon fill over the image (dm_pix has none), the hull is
  evaluated at any grid of integer positions; a nearest-pixel affine map of
  the mask is then the same fill at other rows and columns.

  Args:
    landmarks: px; truncated to integers here.
    hull_type: 0 face parts, 1 components under raised brows, 2 components,
      3 whole face, 4 lower face, 5 mouth and chin.
    first_68: leave the forehead out of type 3.
    rows: integer y of the wanted rows.
    columns: integer x of the wanted columns.
    gather: fill as many hulls as the type has (CPU); else always the most.
  """
  points = jnp.trunc(landmarks)
  points = jnp.where(hull_type == 1, landmarks_lib.raise_brows(points), points)
  # A repeated point changes no hull.
  is_forehead = jnp.arange(points.shape[1]) >= 68
  points = jnp.where(
    (first_68 & is_forehead)[None, :, None], points[:, :1], points
  )

  parts, num_parts = _hull_table()
  parts = parts[hull_type]

  def add(index, mask):
    ends = _hull_ends(points[:, parts[index]], rows, columns)
    return mask | _fill(warp.settle(ends) if gather else ends, rows, columns)

  mask = jnp.zeros((len(points), len(rows), len(columns)), bool)
  count = num_parts[hull_type] if gather else parts.shape[0]
  return jax.lax.fori_loop(0, count, add, mask)


def _hull_table():
  """Points of each part of each hull type, and the number of parts.

  Rows and parts are filled up by repeating one, which changes no union.
  """
  types = _HULL_TYPES
  most = max(len(parts) for parts in types)
  longest = max(len(part) for parts in types for part in parts)
  table = [
    [
      [*part, *part[:1] * (longest - len(part))]
      for part in [*parts, *parts[:1] * (most - len(parts))]
    ]
    for parts in types
  ]
  return jnp.array(table, jnp.int32), jnp.array([len(parts) for parts in types])


def _hull_ends(
  points: Float[Array, 't n 2'],
  rows: Float[Array, ' h'],
  columns: Float[Array, ' w'],
):
  """Ends of the convex hull of a point set in every row and every column.

  OpenCV fills, in every row, the pixels between the rounded ends of the hull
  and draws the outline besides, which adds, in every column, the pixels
  between its rounded ends there. The ends come from the lines through the
  hull's edges.
  """
  x, y = points[..., 0], points[..., 1]
  dx, dy, is_edge = _hull_edges(x, y)
  # A hull lies on the left hand of its edges, x to the right and y upwards.
  return (
    _ends(rows, y, x, dy, dx, is_edge),
    _ends(columns, x, y, -dx, -dy, is_edge),
  )


def _fill(
  ends, rows: Float[Array, ' h'], columns: Float[Array, ' w']
) -> Bool[Array, 't h w']:
  """Pixels between the ends of their row or of their column."""
  (left, right), (bottom, top) = ends
  columns, rows = columns[None, None], rows[None, :, None]
  in_row = (columns >= left[..., None]) & (columns <= right[..., None])
  in_column = (rows >= bottom[..., None, :]) & (rows <= top[..., None, :])
  return in_row | in_column


def _ends(
  lines: Float[Array, ' lines'],
  along: Float[Array, '*b n'],
  across: Float[Array, '*b n'],
  d_along: Float[Array, '*b n'],
  d_across: Float[Array, '*b n'],
  is_edge: Bool[Array, '*b n'],
) -> tuple[Float[Array, '*b lines'], Float[Array, '*b lines']]:
  """Rounded least and greatest `across` of a hull on lines of one `along`.

  Edges with d_along < 0 bound it from below, those with d_along > 0 from
  above. A line that misses the hull has its least end at infinity.
  """
  lines = jnp.expand_dims(lines, range(along.ndim - 1))
  sloped = is_edge & (d_along != 0)
  slope = jnp.where(sloped, d_across / jnp.where(sloped, d_along, 1.0), 0.0)
  crossing = across[..., None] + slope[..., None] * (
    lines[..., None, :] - along[..., None]
  )
  below = (sloped & (d_along < 0))[..., None]
  above = (sloped & (d_along > 0))[..., None]
  # Without an edge on one side (all points on a line): the points' own range.
  least, greatest = (
    across.min(-1)[..., None, None],
    across.max(-1)[..., None, None],
  )
  low = jnp.max(jnp.where(below, crossing, least), axis=-2)
  high = jnp.min(jnp.where(above, crossing, greatest), axis=-2)
  meets = (lines >= along.min(-1)[..., None]) & (
    lines <= along.max(-1)[..., None]
  )
  return jnp.where(meets, jnp.floor(low + 0.5), jnp.inf), jnp.floor(high + 0.5)


def _hull_edges(x, y):
  """Direction of the hull edge that starts at each point, and if one does.

  Seen from a hull vertex, all other points lie within half a turn; the
  outermost of them on one side is the next vertex. The direction to the mean
  of the points is the reference, so no angle jumps.
  """
  to_x = x.mean(-1, keepdims=True) - x
  to_y = y.mean(-1, keepdims=True) - y
  vx = x[..., None, :] - x[..., :, None]
  vy = y[..., None, :] - y[..., :, None]
  cross = to_x[..., None] * vy - to_y[..., None] * vx
  dot = to_x[..., None] * vx + to_y[..., None] * vy
  length = jnp.abs(cross) + jnp.abs(dot)
  other = length > 0
  # Grows with the angle from the reference, without a trigonometric function.
  turn = jnp.sign(cross) * (1.0 - dot / jnp.where(other, length, 1.0))

  def direction(best):
    best = jnp.where(other, best, -jnp.inf)
    # Points that tie lie in one direction, and so does their sum.
    chosen = best == best.max(axis=-1, keepdims=True)
    return (
      jnp.sum(jnp.where(chosen, vx, 0.0), -1),
      jnp.sum(jnp.where(chosen, vy, 0.0), -1),
    )

  next_x, next_y = direction(-turn)
  last_x, last_y = direction(turn)
  is_edge = jnp.any(other, -1) & (next_x * last_y - next_y * last_x >= 0)
  return next_x, next_y, is_edge


def soften(
  mask: Bool[Array, 't h w'],
  size_h: Int[Array, ''],
  size_w: Int[Array, ''],
  kernel_1: Int[Array, ''],
  kernel_2: Int[Array, ''],
  sigma: Float[Array, ''],
  *,
  size_bounds: tuple[tuple[int, int], tuple[int, int]],
  max_kernel: int,
  gather: bool,
) -> Float[Array, 't h w']:
  """Hull mask -> blending mask in [0, 1] (METHOD 2.11).

  The released code resizes the mask to (size_h, size_w), blurs it with
  kernel_1, zeroes what is below the maximum, blurs it with kernel_2 and
  resizes it back. A blurred mask has its maximum where the kernel sees
  nothing but ones, so resize, blur and threshold are one erosion: an output
  pixel is 1 where all input pixels it depends on are 1. That is exact in any
  precision, whereas the blur reaches 1 only to rounding. dm_pix's
  `gaussian_blur` takes neither a traced size nor a traced kernel.

  Args:
    mask: hull mask.
    size_h: rows while blurring; size_w columns.
    kernel_1: odd width of the first blur; kernel_2 of the second.
    sigma: px, of the second blur.
    size_bounds: static (least, greatest) of size_h and of size_w.
    max_kernel: static upper bound of the kernels.
    gather: look up and shift (CPU) instead of multiplying by matrices.
  """
  _, height, width = mask.shape
  solid = _shrink(
    mask,
    size_h,
    size_w,
    kernel_1,
    size_bounds=size_bounds,
    max_kernel=max_kernel,
    gather=gather,
  )
  return _feather(
    solid,
    size_h,
    size_w,
    kernel_2,
    sigma,
    out_shape=(height, width),
    max_kernel=max_kernel,
    gather=gather,
  )


def _shrink(
  mask: Bool[Array, 't h w'],
  size_h: Int[Array, ''],
  size_w: Int[Array, ''],
  kernel: Int[Array, ''],
  *,
  size_bounds: tuple[tuple[int, int], tuple[int, int]],
  max_kernel: int,
  gather: bool,
) -> Bool[Array, 't hs ws']:
  """The erosion of `soften`: resize, blur by `kernel_1`, threshold.

  The result fills the first size_h rows and size_w columns of the largest
  size; the rest is False.
  """
  _, height, width = mask.shape
  num_rows, num_columns = (greatest for _, greatest in size_bounds)
  radius = (kernel - 1) // 2
  rows = _window(height, num_rows, size_h, radius)
  columns = _window(width, num_columns, size_w, radius)
  inside = (jnp.arange(num_rows) < size_h)[:, None] & (
    jnp.arange(num_columns) < size_w
  )[None]
  if not gather:
    return _no_holes(mask, rows, columns) & inside[None]
  # Frames are packed into bits, so that one pass serves eight of them.
  bits = warp.pack_bits(mask)
  for axis, window, (least, _) in zip(
    (1, 2), (rows, columns), size_bounds, strict=True
  ):
    size = mask.shape[axis]
    longest = 2 + math.ceil((max_kernel - 1) * size / least)
    bits = _all_in_range(bits, window, longest, axis=axis)
  bits = jnp.where(inside[None], bits, 0)
  return warp.unpack_bits(bits, len(mask))


def _feather(
  solid: Bool[Array, 't hs ws'],
  size_h: Int[Array, ''],
  size_w: Int[Array, ''],
  kernel: Int[Array, ''],
  sigma: Float[Array, ''],
  *,
  out_shape: tuple[int, int],
  max_kernel: int,
  gather: bool,
) -> Float[Array, 't h w']:
  """The rest of `soften`: blur by `kernel_2`, divide by max, resize back."""
  blurred = _blur(
    solid.astype(jnp.float32),
    (size_h, size_w),
    _blur_weights(kernel, sigma, max_kernel),
    gather=gather,
  )
  peak = jnp.max(blurred, axis=(1, 2), keepdims=True)
  back = [
    warp.linear_taps(
      warp.resize_positions(size, small.astype(jnp.float32), 1.0 * size)
    )
    for size, small in zip(out_shape, (size_h, size_w), strict=True)
  ]
  mask = warp.resample(blurred, *back, gather=gather)
  return jnp.minimum(mask / jnp.where(peak > 0, peak, 1.0), 1.0)


def _window(size, num_out, size_out, radius):
  """First and last input pixel that an output one depends on.

  Output means after the resize and the first blur, whose mirrored borders
  bring in no pixel that is not inside already. Returned besides are the least
  and the greatest pixel that any depends on; what lies beyond is not looked at.
  """
  positions = jnp.arange(num_out, dtype=jnp.float32)

  def source(position):
    return (position + 0.5) * (size / size_out) - 0.5

  first = jnp.floor(source(positions - radius))
  last = jnp.ceil(source(positions + radius))
  least = jnp.floor(jnp.clip(source(0), 0.0, size - 1.0))
  greatest = jnp.ceil(jnp.clip(source(size_out - 1), 0.0, size - 1.0))
  return tuple(x.astype(jnp.int32) for x in (first, last, least, greatest))


def _no_holes(mask, rows, columns):
  """Whether a mask is true in all of rows x columns, ranges of an output."""

  def members(size, first, last, least, greatest):
    first, last = jnp.maximum(first, least), jnp.minimum(last, greatest)
    inputs = jnp.arange(size)[None]
    inside = (inputs >= first[:, None]) & (inputs <= last[:, None])
    return inside.astype(jnp.float32)

  # Counts of a few hundred at most are exact even in bfloat16.
  holes = jnp.einsum(
    'yh,thw,xw->tyx',
    members(mask.shape[1], *rows),
    1.0 - mask.astype(jnp.float32),
    members(mask.shape[2], *columns),
  )
  return holes < 0.5


def _all_in_range(bits, window, longest, *, axis):
  """Bitwise and over first..last of an axis, ranges of about one length."""
  first, last, least, greatest = window
  shape = [1, 1, 1]
  shape[axis] = -1
  positions = jnp.arange(bits.shape[axis]).reshape(shape)
  ones = np.uint8(255)
  seen = (positions >= least) & (positions <= greatest)
  before, after = longest // 2 + 2, 2 * longest
  widths = [(0, 0)] * 3
  widths[axis] = (before, after)
  run = jnp.pad(jnp.where(seen, bits, ones), widths, constant_values=ones)
  # Two runs of the shortest range's length cover any range, as the longest
  # one has a pixel or two more; a run grows by and with itself, shifted.
  length = jnp.min(last - first) + 1
  size = run.shape[axis]

  def grow(state):
    run, grown = state
    beyond = jax.lax.slice_in_dim(run, 0, longest, axis=axis) | ones
    shift = jnp.minimum(grown, length - grown)
    shifted = jax.lax.dynamic_slice_in_dim(
      jnp.concatenate([run, beyond], axis), shift, size, axis=axis
    )
    return run & shifted, grown + shift

  run, _ = jax.lax.while_loop(
    lambda state: state[1] < length, grow, (run, jnp.ones((), jnp.int32))
  )
  start, end = first + before, last - length + 1 + before
  run, start, end = warp.settle((run, start, end))
  return warp.settle(
    jnp.take(run, start, axis=axis, mode='clip')
    & jnp.take(run, end, axis=axis, mode='clip')
  )


def _blur_weights(kernel, sigma, max_kernel):
  """Gaussian weights for offsets -max_kernel // 2 to max_kernel // 2."""
  offsets = jnp.arange(-(max_kernel // 2), max_kernel // 2 + 1)
  weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
  weights = jnp.where(jnp.abs(offsets) <= (kernel - 1) // 2, weights, 0.0)
  return weights / jnp.sum(weights)


def _blur(image, sizes, weights, *, gather):
  """Blurs the first sizes[0] x sizes[1] pixels, borders mirrored."""
  if gather:
    for axis, size in enumerate(sizes, start=1):
      image = _shifted_sum(image, size, weights, axis=axis)
    return image
  rows, columns = (
    _blur_matrix(num, size, weights)
    for num, size in zip(image.shape[1:], sizes, strict=True)
  )
  return warp.apply_matrices(image, rows, columns)


def _mirrored(positions, size):
  """Index of a position beyond the border, mirrored about the border pixel."""
  positions = jnp.abs(positions)
  return jnp.where(positions >= size, 2 * (size - 1) - positions, positions)


def _shifted_sum(image, size, weights, *, axis):
  num, reach = image.shape[axis], len(weights) // 2
  first = jax.lax.slice_in_dim(image, 1, reach + 1, axis=axis)
  last = jax.lax.dynamic_slice_in_dim(image, size - 1 - reach, reach, axis=axis)
  padded = jnp.concatenate(
    [jnp.flip(first, axis), image, jnp.zeros_like(last)], axis=axis
  )
  padded = jax.lax.dynamic_update_slice_in_dim(
    padded, jnp.flip(last, axis), reach + size, axis=axis
  )
  padded = warp.settle(padded)
  return sum(
    weight * jax.lax.slice_in_dim(padded, i, i + num, axis=axis)
    for i, weight in enumerate(weights)
  )


def _blur_matrix(num, size, weights):
  reach = len(weights) // 2
  offsets = jnp.arange(-reach, reach + 1)
  out = jnp.arange(num)[:, None]
  source = _mirrored(out + offsets[None], size)
  hits = source[:, None] == jnp.arange(num)[None, :, None]
  matrix = jnp.sum(jnp.where(hits, weights[None, None], 0.0), axis=-1)
  return jnp.where(out < size, matrix, 0.0)


def boundary_map(mask: Float[Array, '*b h w']) -> Float[Array, '*b h w']:
  """Blending mask m -> boundary map 4 m (1 - m) in [0, 1] (METHOD 2.13)."""
  return 4.0 * mask * (1.0 - mask)
