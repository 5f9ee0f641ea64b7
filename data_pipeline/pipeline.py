"""Records -> batches of self-blended pairs, and clips for scoring.

Grain readers hand over uint8 frames of the 256 crop, landmarks and a uint32
seed; `make_pairs` turns them, on the device, into the `Batch` that training
consumes (METHOD 2-5). `eval_clips` prepares frames for scoring (METHOD 9).
"""

import functools
import math
from typing import TypedDict

import einops
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, UInt8, UInt32
import numpy as np

from data_pipeline.synthesis import blending, cutout, targets, warp

# Of ImageNet, as the pretrained image models expect (METHOD 2.19).
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class Batch(TypedDict):
  """Training batch of b pairs; `clips` = 2b, pair i in rows 2i and 2i + 1."""

  clip: Float[Array, 'clips t h w 3']  # ImageNet-normalised
  label: Float[Array, ' clips']  # 0 real, 1 pseudo-fake
  vulnerability_map: Float[Array, 'clips t gh gw']  # temporal target
  soft_label: Float[Array, 'clips t']  # in [0, 1]
  kept: Float[Array, 'clips t gh gw']  # 1 kept, 0 cut out


@flax.struct.dataclass
class Pair:
  """Everything about one pair; maps are (t, h, w) of the crop, in [0, 1]."""

  levels: UInt8[Array, '*b 2 t 3 s s']  # real, pseudo-fake
  hull: Bool[Array, '*b t h w']
  mask: Float[Array, '*b t h w']  # blending mask
  boundary: Float[Array, '*b t h w']  # 4 m (1 - m)
  cells: Float[Array, '*b t gh gw']  # boundary on the patch grid
  vulnerability_map: Float[Array, '*b t gh gw']  # of the pseudo-fake
  real_vulnerability_map: Float[Array, '*b t gh gw']
  soft_label: Float[Array, '*b t']  # of the pseudo-fake; the real one has 0
  kept: Float[Array, '*b gh gw']  # 0 in cut-out patches, every frame
  real_first: Bool[Array, '*b']  # order of the two in a batch
  params: blending.BlendParams

  @property
  def real(self) -> Float[Array, '*b t s s 3']:
    """Images in [0, 1]."""
    return jnp.moveaxis(self.levels[..., 0, :, :, :, :], -3, -1) / 255.0

  @property
  def pseudo_fake(self) -> Float[Array, '*b t s s 3']:
    """Images in [0, 1]."""
    return jnp.moveaxis(self.levels[..., 1, :, :, :, :], -3, -1) / 255.0


def make_pair(
  frames: UInt8[Array, 't h w 3'],
  landmarks: Float[Array, 't 81 2'],
  seed: UInt32[Array, ''],
  synthesis: blending.SynthesisConfig,
  image_size: int,
  patch_size: int,
  flip_prob: Float[Array, ''] | None = None,
) -> Pair:
  """Makes a real and a pseudo-fake clip of one real clip (METHOD 2-4).

  A function of its arguments alone.

  Args:
    frames: face crops, RGB.
    landmarks: px of the crops, predictor order.
    seed: all randomness comes from it.
    synthesis: ranges of the draws; static.
    image_size: px of the output, a multiple of patch_size; static.
    patch_size: px of a patch; static.
    flip_prob: in place of synthesis.flip_prob; traced.

  Raises:
    ValueError: when the sizes do not fit each other.
  """
  num_frames, height, width, _ = frames.shape
  _check_sizes(height, width, synthesis, image_size, patch_size)
  blend_key, jitter_key, cutout_key = jax.random.split(jax.random.key(seed), 3)
  params = blending.sample_blend_params(
    blend_key, synthesis, height, width, flip_prob
  )
  frame_params = params
  if synthesis.temporal_jitter > 0:
    frame_params = blending.sample_frame_params(
      jitter_key, params, synthesis.temporal_jitter, num_frames, synthesis
    )
  blend = blending.blend_clip(
    frame_params,
    frames,
    landmarks,
    synthesis,
    image_size,
    gather=_sequential(synthesis),
    # A key of its own: what is drawn elsewhere stays as it is without a blur.
    post_blur_sigma=blending.sample_post_blur(
      jax.random.fold_in(blend_key, 1), synthesis
    ),
  )
  cells = targets.boundary_cells(
    blend.boundary,
    params.margin,
    image_size=image_size,
    patch_size=patch_size,
    grid=synthesis.target_grid,
  )
  vulnerability_map, real_vulnerability_map = targets.vulnerability_map(
    cells, change=synthesis.boundary_change, kind=synthesis.target_kind
  )
  num_cells = math.prod(cells.shape[1:])
  scores, order = jnp.split(
    jax.random.uniform(cutout_key, (num_cells + 1,)), [num_cells]
  )
  cut = cutout.vulnerability_cutout(
    scores.reshape(cells.shape[1:]),
    cells,
    params.cutout_threshold,
    params.cutout_on,
    extra=synthesis.cutout_extra,
  )
  soft_label = cut.soft_label
  if synthesis.soft_label == 'constant':
    soft_label = jnp.ones_like(soft_label)
  return Pair(
    levels=cutout.blank_patches(blend.clips, cut.kept),
    hull=blend.hull,
    mask=blend.mask,
    boundary=blend.boundary / 255.0,
    cells=cells / 255.0,
    vulnerability_map=vulnerability_map,
    real_vulnerability_map=real_vulnerability_map,
    soft_label=soft_label,
    kept=cut.kept,
    real_first=order[0] < 0.5,
    params=params,
  )


def make_pairs(
  frames: UInt8[Array, 'b t h w 3'],
  landmarks: Float[Array, 'b t 81 2'],
  seeds: UInt32[Array, ' b'],
  synthesis: blending.SynthesisConfig,
  image_size: int,
  patch_size: int,
  *,
  flip_probs: Float[Array, ' b'] | None = None,
  mesh: jax.sharding.Mesh | None = None,
  batch_axes: tuple[str, ...] | None = None,
) -> Batch:
  """Makes a training batch of b pairs, 2b clips (METHOD 2-5).

  Pair i fills rows 2i and 2i + 1; a bit of its seed says which one is real.
  So no row depends on another pair, and a batch may be split over devices
  without communication.

  Args:
    frames: face crops, RGB.
    landmarks: px of the crops, predictor order.
    seeds: one a pair.
    synthesis: static. Its `mode` runs the pairs at once ('vmap'), one after
      the other with real branches ('map'), or as suits the backend ('auto').
    image_size: px; static.
    patch_size: px; static.
    flip_probs: in place of synthesis.flip_prob, one a pair: then training,
      which flips, and validation, which does not, share a compiled program.
    mesh: devices over which the batch is split. Needed with 'map' on several
      devices, which would gather the batch otherwise.
    batch_axes: axes of the mesh that split it; along the others every device
      makes the same pairs. None: all axes.
  """
  pair = functools.partial(
    _pair_rows,
    synthesis=synthesis,
    image_size=image_size,
    patch_size=patch_size,
  )
  sequential = _sequential(synthesis)
  if sequential:
    # lax.cond stays a branch under map and becomes a select under vmap.
    def many(*batch):
      return jax.lax.map(lambda element: pair(*element), batch)
  else:
    many = jax.vmap(pair)

  def make(*batch):
    rows = many(*batch)
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    # Here and not in the loop over pairs, which would stack four times the
    # bytes, after zeroing them.
    clip = normalize(rows['clip'])
    return rows | {'clip': warp.row_major(clip) if sequential else clip}

  if mesh is not None:
    spec = jax.sharding.PartitionSpec(batch_axes or mesh.axis_names)
    # Unchecked: jax refuses vmap of a branch on values it knows to vary.
    make = jax.shard_map(
      make, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
  batch = (frames, landmarks, seeds)
  return make(*batch) if flip_probs is None else make(*batch, flip_probs)


def eval_clips(
  frames: UInt8[Array, 'b t h w 3'], margin: int, image_size: int
) -> Float[Array, 'b t s s 3']:
  """Crops, resizes and normalises clips for scoring (METHOD 9).

  Args:
    frames: face crops, RGB.
    margin: px cut from every side; 0 DFW, 5 DFDCP, 13 DFD, 15 others.
    image_size: px of the output.
  """
  num_frames = frames.shape[1]
  images = einops.rearrange(frames, 'b t h w c -> (b t) c h w')
  images = blending.crop_and_resize(
    images.astype(jnp.float32),
    jnp.asarray(margin),
    image_size,
    gather=False,  # such batches may be split over devices by the compiler
  )
  clips = einops.rearrange(images, '(b t) c h w -> b t c h w', t=num_frames)
  return normalize(clips)


def normalize(
  levels: Num[Array, '*b 3 s s'],
) -> Float[Array, '*b s s 3']:
  """Subtracts ImageNet's mean and divides by its deviation (METHOD 2.19).

  Args:
    levels: in [0, 255].
  """
  levels = jnp.moveaxis(levels, -3, -1).astype(jnp.float32)
  scale, offset = 1.0 / (255.0 * _DEVIATION), _MEAN / _DEVIATION
  shape = [1] * (levels.ndim - 1) + [3]
  return levels * scale.reshape(shape) - offset.reshape(shape)


def _pair_rows(
  frames,
  landmarks,
  seed,
  flip_prob=None,
  *,
  synthesis,
  image_size,
  patch_size,
) -> Batch:
  """One pair as a batch of two clips in random order, not normalised yet."""
  pair = make_pair(
    frames, landmarks, seed, synthesis, image_size, patch_size, flip_prob
  )

  def rows(real, pseudo_fake):
    return in_order(jnp.stack([real, pseudo_fake]))

  def in_order(both):
    return jnp.where(pair.real_first, both, both[::-1])

  kept = jnp.broadcast_to(pair.kept, pair.cells.shape)
  return Batch(
    clip=in_order(pair.levels),
    label=rows(jnp.zeros(()), jnp.ones(())),
    vulnerability_map=rows(pair.real_vulnerability_map, pair.vulnerability_map),
    soft_label=rows(jnp.zeros_like(pair.soft_label), pair.soft_label),
    kept=rows(kept, kept),
  )


def _sequential(synthesis: blending.SynthesisConfig) -> bool:
  if synthesis.mode == 'auto':
    return jax.default_backend() == 'cpu'
  return synthesis.mode == 'map'


def _check_sizes(height, width, synthesis, image_size, patch_size):
  if image_size % patch_size:
    raise ValueError(
      f'image_size {image_size} is not a multiple of patch_size {patch_size}'
    )
  if min(height, width) - 2 * synthesis.margin[1] < 2:
    raise ValueError(
      f'frames of {height}x{width} px leave nothing after a margin of '
      f'{synthesis.margin[1]} px on each side; lower synthesis.margin'
    )
