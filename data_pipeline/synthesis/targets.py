"""Boundary maps -> per-patch cells -> temporal target (METHOD 2.16 and 4).

A boundary map holds whole levels 0 to 255 as float32, (t, h, w) of the crop
frame; cells hold whole levels too, (t, gh, gw), one a patch.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from data_pipeline.synthesis import photometric, warp

_MIN_PEAK = 0.1  # METHOD 4.6: below it a clip has no centre
_CENTRE_DEVIATION = 0.5  # cells and frames


def boundary_cells(
  boundary: Float[Array, 't h w'],
  margin: Int[Array, ''],
  *,
  image_size: int,
  patch_size: int,
  grid: str,
) -> Float[Array, 't gh gw']:
  """Samples a boundary map on the patch grid of the cropped image.

  Args:
    boundary: levels, before the crop.
    margin: px cut from every side.
    image_size: px of the model's input.
    patch_size: px of a patch.
    grid: 'point' resizes the crop straight to the grid, corner to corner;
      'area' takes means over the patches of the resized crop.
  """
  num_cells = image_size // patch_size
  num_samples = num_cells if grid == 'point' else image_size
  matrices = []
  for size in boundary.shape[1:]:
    positions = warp.affine_positions(
      num_samples, *warp.crop_positions(size, num_samples, margin)
    )
    matrix = warp.sampling_matrix(warp.linear_taps(positions), size)
    if grid == 'area':
      matrix = matrix.reshape(num_cells, patch_size, size).mean(1)
    matrices.append(matrix)
  rows, columns = matrices
  return photometric.round_half_up(warp.apply_matrices(boundary, rows, columns))


def boundary_change(
  cells: Float[Array, 't gh gw'], change: str
) -> Float[Array, 't-1 gh gw']:
  """Change of each cell from frame to frame, in levels (METHOD 4.1).

  'absolute' is what the paper means; 'uint8_wrap' is the difference modulo
  256 that the released code computes (METHOD D1).
  """
  difference = cells[1:] - cells[:-1]
  if change == 'uint8_wrap':
    return jnp.where(difference < 0, difference + 256.0, difference)
  return jnp.abs(difference)


def vulnerability_map(
  cells: Float[Array, 't gh gw'], *, change: str, kind: str
) -> tuple[Float[Array, 't gh gw'], Float[Array, 't gh gw']]:
  """Temporal targets of the pseudo-fake and of the real clip (METHOD 4).

  Args:
    cells: boundary levels of the pseudo-fake.
    change: 'absolute' or 'uint8_wrap'.
    kind: 'standardized' by the pseudo-fake's mean and deviation (real and
      pseudo-fake alike), 'gaussian' bumps around the largest changes, or
      'max_normalized'.
  """
  nothing = jnp.zeros_like(cells)
  if cells.shape[0] == 1:  # a single frame does not change
    return nothing, nothing
  changes = boundary_change(cells, change)
  maps = jnp.concatenate([nothing[:1], changes])
  if kind == 'gaussian':
    return _gaussian_bumps(maps), nothing
  if kind == 'max_normalized':
    peak = changes.max()
    return maps / jnp.where(peak > 0, peak, 1.0), nothing
  mean = changes.mean()
  deviation = jnp.sqrt(jnp.mean((changes - mean) ** 2))
  moves = deviation > 0
  deviation = jnp.where(moves, deviation, 1.0)
  pseudo_fake = jnp.where(moves, (maps - mean) / deviation, 0.0)
  real = jnp.where(moves, (nothing - mean) / deviation, 0.0)
  return pseudo_fake, real


def _gaussian_bumps(maps):
  centres = maps == jnp.maximum(_MIN_PEAK, maps.max())
  heat = centres.astype(jnp.float32)
  # The largest product of three factors, one axis at a time.
  for axis in range(3):
    positions = np.arange(maps.shape[axis])
    distance = (positions[:, None] - positions) / _CENTRE_DEVIATION
    factor = jnp.exp(-0.5 * jnp.asarray(distance, jnp.float32) ** 2)
    heat = jnp.moveaxis(heat, axis, -1)
    heat = jnp.max(heat[..., None, :] * factor[None, None], axis=-1)
    heat = jnp.moveaxis(heat, -1, axis)
  return heat
