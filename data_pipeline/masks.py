"""Landmarks -> hull mask -> blending mask -> boundary map (METHOD 2.7-2.13).

A hull mask is boolean, a blending mask float32 in [0, 1]; both are (t, h, w)
in pixels of the crop.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from data_pipeline import landmarks as landmarks_lib
from data_pipeline import warp

_HIGHEST = jax.lax.Precision.HIGHEST


def hull_mask(
  landmarks: Float[Array, 't 81 2'],
  hull_type: Int[Array, ''],
  first_68: Bool[Array, ''],
  rows: Float[Array, ' h'],
  columns: Float[Array, ' w'],
) -> Bool[Array, 't h w']:
  """Fills the convex hulls of one hull type (METHOD 2.6-2.7).

  Unlike a polygon fill over the image (dm_pix has none), the hull is
  evaluated at any grid of integer positions; a nearest-pixel affine map of
  the mask is then the same fill at other rows and columns.

  Args:
    landmarks: px; truncated to integers here.
    hull_type: 0 face parts, 1 components under raised brows, 2 components,
      3 whole face.
    first_68: leave the forehead out of type 3.
    rows: integer y of the wanted rows.
    columns: integer x of the wanted columns.
  """
  points = jnp.trunc(landmarks)
  points = jnp.where(hull_type == 1, landmarks_lib.raise_brows(points), points)
  # A repeated point changes no hull.
  is_forehead = jnp.arange(points.shape[1]) >= 68
  points = jnp.where((first_68 & is_forehead)[:, None], points[:, :1], points)

  def fill(parts):
    size = max(len(part) for part in parts)
    padded = jnp.array(
      [part + part[:1] * (size - len(part)) for part in parts], jnp.int32
    )
    return lambda points: _fill_hulls(points[:, padded], rows, columns)

  return jax.lax.switch(
    jnp.array([0, 1, 1, 2])[hull_type],
    [
      fill(landmarks_lib.FACE_PARTS),
      fill(landmarks_lib.COMPONENTS),
      fill(landmarks_lib.WHOLE_FACE),
    ],
    points,
  )


def _fill_hulls(
  points: Float[Array, 't parts n 2'],
  rows: Float[Array, ' h'],
  columns: Float[Array, ' w'],
) -> Bool[Array, 't h w']:
  """Union of the convex hulls of `parts` point sets, outlines included.

  OpenCV fills, in every row, the pixels between the rounded ends of the hull
  and draws the outline besides, which adds, in every column, the pixels
  between its rounded ends there. The ends come from the lines through the
  hull's edges.
  """
  x, y = points[..., 0], points[..., 1]
  dx, dy, is_edge = _hull_edges(x, y)
  # A hull lies on the left hand of its edges, x to the right and y upwards.
  left, right = _ends(rows, y, x, dy, dx, is_edge)
  bottom, top = _ends(columns, x, y, -dx, -dy, is_edge)
  in_row = (columns >= left[..., None]) & (columns <= right[..., None])
  in_column = (rows[:, None] >= bottom[..., None, :]) & (
    rows[:, None] <= top[..., None, :]
  )
  return jnp.any(in_row | in_column, axis=1)


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
  sloped = is_edge & (d_along != 0)
  slope = jnp.where(sloped, d_across / jnp.where(sloped, d_along, 1.0), 0.0)
  crossing = across[..., None] + slope[..., None] * (lines - along[..., None])
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
    index = jnp.argmax(jnp.where(other, best, -jnp.inf), axis=-1)
    chosen = jnp.arange(x.shape[-1]) == index[..., None]
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
  canvas: tuple[int, int],
  max_kernel: int,
) -> Float[Array, 't h w']:
  """Hull mask -> blending mask in [0, 1] (METHOD 2.11).

  The released code resizes the mask to (size_h, size_w), blurs it with
  kernel_1, zeroes what is below the maximum, blurs it with kernel_2 and
  resizes it back. A blurred mask has its maximum where the kernel sees
  nothing but ones, so resize, blur and threshold are one erosion: an output
  pixel is 1 where all input pixels it depends on are 1. Counting the others
  is exact in any precision, whereas the blur reaches 1 only to rounding.
  dm_pix's `gaussian_blur` takes neither a traced size nor a traced kernel.

  Args:
    mask: hull mask.
    size_h: rows while blurring; size_w columns, both at most the canvas.
    kernel_1: odd width of the first blur; kernel_2 of the second.
    sigma: px, of the second blur.
    canvas: static upper bounds of size_h and size_w.
    max_kernel: static upper bound of the kernels.
  """
  _, height, width = mask.shape
  num_rows, num_columns = canvas
  radius = (kernel_1 - 1) // 2
  holes = jnp.einsum(
    'yh,thw,xw->tyx',
    _window(height, num_rows, size_h, radius),
    1.0 - mask.astype(jnp.float32),
    _window(width, num_columns, size_w, radius),
  )
  inside = (jnp.arange(num_rows) < size_h)[:, None] & (
    jnp.arange(num_columns) < size_w
  )
  solid = jnp.where(inside, (holes < 0.5).astype(jnp.float32), 0.0)
  blurred = jnp.einsum(
    'yh,thw,xw->tyx',
    _blur_matrix(num_rows, size_h, kernel_2, sigma, max_kernel),
    solid,
    _blur_matrix(num_columns, size_w, kernel_2, sigma, max_kernel),
    precision=_HIGHEST,
  )
  peak = jnp.max(blurred, axis=(1, 2), keepdims=True)
  blurred = blurred / jnp.where(peak > 0, peak, 1.0)
  rows = warp.linear_taps(
    warp.resize_positions(height, size_h.astype(jnp.float32), 1.0 * height)
  )
  columns = warp.linear_taps(
    warp.resize_positions(width, size_w.astype(jnp.float32), 1.0 * width)
  )
  return warp.resample(blurred, rows, columns, gather=False)


def _window(size, num_out, size_out, radius):
  """1 where an output pixel, after resize and blur, depends on an input one.

  Blur borders are mirrored, which brings in no pixel that is not there.
  """
  positions = jnp.arange(num_out)

  def source(position):
    position = jnp.clip(position, 0, size_out - 1).astype(jnp.float32)
    source = (position + 0.5) * (size / size_out) - 0.5
    return jnp.clip(source, 0.0, size - 1.0)

  first = jnp.floor(source(positions - radius))
  last = jnp.ceil(source(positions + radius))
  inputs = jnp.arange(size)
  return ((inputs >= first[:, None]) & (inputs <= last[:, None])).astype(
    jnp.float32
  )


def _blur_matrix(num, size, kernel, sigma, max_kernel):
  """Gaussian blur of `size` <= num pixels, mirrored about the border ones."""
  radius = (kernel - 1) // 2

  def weight(distance):
    distance = jnp.abs(distance)
    value = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return jnp.where(distance <= radius, value, 0.0)

  offsets = jnp.arange(-(max_kernel // 2), max_kernel // 2 + 1)
  out = jnp.arange(num)[:, None]
  source = jnp.arange(num)
  last = size - 1
  weights = (
    weight(source - out)
    + jnp.where(source > 0, weight(source + out), 0.0)
    + jnp.where(source < last, weight(2 * last - source - out), 0.0)
  ) / jnp.sum(weight(offsets))
  return jnp.where((out < size) & (source < size), weights, 0.0)


def boundary_map(mask: Float[Array, '*b h w']) -> Float[Array, '*b h w']:
  """Blending mask m -> boundary map 4 m (1 - m) in [0, 1] (METHOD 2.13)."""
  return 4.0 * mask * (1.0 - mask)
