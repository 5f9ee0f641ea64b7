"""Cutout of the most vulnerable patches, and soft labels (METHOD 3).

Cells are boundary levels of the pseudo-fake on the patch grid. The cells cut
out of frame 0 are cut out of every frame, real and pseudo-fake alike; what
boundary is left visible becomes the soft label of a frame.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from data_pipeline.synthesis import warp


@flax.struct.dataclass
class Cutout:
  """One clip's cutout; all ones where none was drawn or possible."""

  kept: Float[Array, '*b gh gw']  # 1 kept, 0 cut out
  soft_label: Float[Array, '*b t']  # of the pseudo-fake; the real one has zeros
  applied: Bool[Array, '*b']


def vulnerability_cutout(
  scores: Float[Array, 'gh gw'],
  cells: Float[Array, 't gh gw'],
  intensity: Float[Array, ''],
  drawn: Bool[Array, ''],
  *,
  extra: float,
) -> Cutout:
  """Chooses the cells to cut out and what soft label remains (METHOD 3.1-3.5).

  Args:
    scores: random numbers; extra cells are those with the highest.
    cells: boundary levels 0..255 of the pseudo-fake.
    intensity: frame 0's threshold as a fraction of 255.
    drawn: whether this clip is cut at all.
    extra: share of cells that are cut at random.
  """
  first = cells[0]
  threshold = jnp.minimum(255.0 * intensity, jnp.maximum(1.0, first.max()))
  below = first < threshold
  bound = jnp.maximum(1.0, jnp.max(jnp.where(below, first, 0.0)))
  vulnerable = first > bound
  extra_cells, has_extra = _draw_extra(
    scores, vulnerable, candidates=first < bound, extra=extra
  )
  cut = vulnerable | extra_cells

  visible = jnp.max(jnp.where(cut[None], 0.0, cells), axis=(1, 2))
  bounds = jnp.maximum(1.0, visible).at[0].set(bound)
  soft_label = (bounds / 255.0).at[0].set(threshold / 255.0)
  # Choice: the released code throws an item away and draws another one when
  # no cell lies below the threshold, none is left to draw from, or no frame
  # keeps a visible boundary. A jitted function cannot draw another item, so
  # such a clip is left whole.
  applied = drawn & jnp.any(below) & has_extra & jnp.any(bounds > 1.0)
  return Cutout(
    # Of Python's numbers alone it were weakly typed, and the step compiled
    # once more where its batch comes from elsewhere.
    kept=jnp.where(applied & cut, 0.0, jnp.float32(1)),
    soft_label=jnp.where(applied, soft_label, 1.0),
    applied=applied,
  )


def _draw_extra(scores, vulnerable, *, candidates, extra):
  """Random cells to cut besides the vulnerable ones (METHOD 3.1)."""
  share = extra * vulnerable.size
  # All cells may be drawn when none is vulnerable.
  candidates = candidates | ~jnp.any(vulnerable)
  num_vulnerable = jnp.sum(vulnerable)
  num_candidates = jnp.sum(candidates)
  size = jnp.where(
    num_candidates < jnp.floor(share - num_vulnerable),
    jnp.ceil(extra * num_candidates),
    jnp.maximum(1.0, jnp.ceil(share - num_vulnerable)),
  )
  # Counting who scores higher, and not sorting: XLA would gather a batch that
  # is split over devices.
  ranked = jnp.where(candidates, scores, -jnp.inf).reshape(-1)
  higher = jnp.sum(ranked[None] > ranked[:, None], axis=1)
  return candidates & (higher.reshape(scores.shape) < size), num_candidates > 0


def blank_patches(
  clip: Num[Array, '*b h w'], kept: Float[Array, 'gh gw']
) -> Num[Array, '*b h w']:
  """Sets the patches that are not kept to 0, black (METHOD 3.3)."""
  *_, height, width = clip.shape
  rows, columns = kept.shape
  mask = jnp.broadcast_to(
    kept.astype(clip.dtype)[:, None, :, None],
    (rows, height // rows, columns, width // columns),
  )
  mask = warp.settle(mask.reshape(height, width))
  return clip * mask.reshape(*[1] * (clip.ndim - 2), height, width)
