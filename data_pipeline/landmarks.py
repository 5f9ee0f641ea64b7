"""81 landmarks of a face: order, smoothing, mirroring, hull groups.

Landmarks are (x, y) in pixels with 0-based pixel centres. They enter in the
order of the dlib 81-point predictor and leave, after `reorder_forehead`, with
the forehead running from image left to image right (METHOD 2.3-2.7).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

NUM_LANDMARKS = 81
# Rows 68 to 80 of the predictor, from image left to image right.
FOREHEAD_ORDER = np.array(
  [77, 75, 76, 68, 69, 70, 71, 80, 72, 73, 79, 74, 78], np.int32
)


def _between(*ranges: tuple[int, int]) -> list[int]:
  """Points of closed ranges; a range runs down when its end is smaller."""
  points = []
  for first, last in ranges:
    step = 1 if last >= first else -1
    points += list(range(first, last + step, step))
  return points


# Point i of a mirrored face is point MIRROR[i] of the face: jaw, brows, nose,
# eyes, outer and inner mouth, forehead.
MIRROR = np.array(
  _between((16, 0), (26, 17), (27, 30), (35, 31))
  + _between((45, 42), (47, 46), (39, 36), (41, 40))
  + _between((54, 48), (59, 55), (64, 60), (67, 65), (80, 68)),
  np.int32,
)

# Convex pieces of the hull types (METHOD 2.7). Type 1 is type 2 over raised
# brows; type 3, the hull of all points, alone sees the forehead.
FACE_PARTS = (
  _between((0, 16), (48, 67)),
  _between((27, 30), (33, 33)),
  [*_between((17, 26)), 0, 16, 27, 33],
)
COMPONENTS = (
  _between((0, 8), (17, 17)),
  _between((8, 16), (26, 26)),
  _between((17, 19), (8, 8)),
  _between((24, 26), (8, 8)),
  _between((19, 24), (8, 8)),
  _between((17, 21), (27, 27), (31, 35), (8, 8)),
  _between((22, 26), (27, 27), (31, 35), (8, 8)),
  _between((27, 35)),
)
WHOLE_FACE = (_between((0, 80)),)
# Ours, for lip-sync, which forges no more than this (types 4 and 5).
LOWER_FACE = (_between((2, 14), (29, 29)),)
MOUTH_AND_CHIN = (_between((5, 11), (31, 35), (48, 59)),)

_MOVE_LIMIT = 0.35  # of ||move||_F / 81, px (METHOD 2.4)
_MOVE_STEP = 0.2


def reorder_forehead(
  landmarks: Float[Array, '*b 81 2'],
) -> Float[Array, '*b 81 2']:
  """Puts the forehead points in order, image left to right (METHOD 2.3)."""
  return jnp.concatenate(
    [landmarks[..., :68, :], landmarks[..., FOREHEAD_ORDER, :]], axis=-2
  )


def smooth(landmarks: Float[Array, 't k 2']) -> Float[Array, 't k 2']:
  """Shortens large moves between successive frames (METHOD 2.4).

  A move is measured by its Frobenius norm over k, as the released code does;
  it is not a mean distance of points.
  """

  def step(previous, current):
    move = current - previous
    distance = jnp.sqrt(jnp.sum(move**2)) / landmarks.shape[1]
    shortened = previous + move / jnp.maximum(
      jnp.round(distance / _MOVE_STEP), 1.0
    )
    current = jnp.where(distance > _MOVE_LIMIT, shortened, current)
    return current, current

  return jax.lax.scan(step, landmarks[0], landmarks)[1]


def mirror(
  landmarks: Float[Array, '*b 81 2'], width: int
) -> Float[Array, '*b 81 2']:
  """Landmarks of the mirrored image: x := width - 1 - x, left for right.

  The released code subtracts from the width, one pixel off (METHOD 2.5, D9).
  """
  swapped = landmarks[..., MIRROR, :]
  return jnp.stack([width - 1 - swapped[..., 0], swapped[..., 1]], axis=-1)


def raise_brows(
  landmarks: Float[Array, '*b k 2'],
) -> Float[Array, '*b k 2']:
  """Raises each brow point by half its distance to the eye below (METHOD 2.7).

  Four brow points look at the four points of the upper eye; the outermost one
  looks a quarter of the way from the eye's corner to the end of the jaw.
  Halves are floored, as in the integer arithmetic of the released code.
  """

  def point(index):
    return landmarks[..., index : index + 1, :]

  def half(a, b):
    return jnp.floor((a + b) / 2)

  def lifted(brow, eye):
    return brow + jnp.floor((brow - eye) / 2)

  left_end = half(point(36), half(point(36), point(0)))
  right_end = half(point(45), half(point(45), point(16)))
  left_eye = jnp.concatenate([left_end, landmarks[..., 36:40, :]], axis=-2)
  right_eye = jnp.concatenate([landmarks[..., 42:46, :], right_end], axis=-2)
  return jnp.concatenate(
    [
      landmarks[..., :17, :],
      lifted(landmarks[..., 17:22, :], left_eye),
      lifted(landmarks[..., 22:27, :], right_eye),
      landmarks[..., 27:, :],
    ],
    axis=-2,
  )
