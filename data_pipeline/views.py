"""Records -> views of real clips: what learns from real faces alone is shown.

Enters: uint8 frames of the 256 crop and a uint32 seed, as Grain hands them
over. Leaves, on the device: clips cropped by a margin that the seed draws, and
mirrored or not, ImageNet-normalised. All frames of a clip are treated alike,
and nothing is blended.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8, UInt32

from data_pipeline import pipeline
from data_pipeline.synthesis import blending


class Views(TypedDict):
  """Batch of b real clips."""

  clip: Float[Array, 'b t h w 3']  # ImageNet-normalised
  seed: UInt32[Array, ' b']  # of the clip, for draws to come


def make_views(
  frames: UInt8[Array, 'b t h w 3'],
  seeds: UInt32[Array, ' b'],
  flip_probs: Float[Array, ' b'],
  *,
  margin: tuple[int, int],
  image_size: int,
) -> Views:
  """Crops, resizes, mirrors and normalises clips.

  A function of its arguments, row by row.

  Args:
    frames: face crops, RGB.
    seeds: one a clip.
    flip_probs: probability that a clip is mirrored, one a clip.
    margin: px cut from every side, least and most; static.
    image_size: px of the output; static.
  """
  least, most = margin

  def view(frames, seed, flip_prob):
    margin_key, flip_key = jax.random.split(jax.random.key(seed))
    images = jnp.moveaxis(frames, -1, 1).astype(jnp.float32)
    images = blending.crop_and_resize(
      images,
      jax.random.randint(margin_key, (), least, most + 1),
      image_size,
      gather=False,  # such batches may be split over devices by the compiler
    )
    flipped = jax.random.uniform(flip_key) < flip_prob
    return jnp.where(flipped, images[..., ::-1], images)

  images = jax.vmap(view)(frames, seeds, flip_probs)
  return Views(clip=pipeline.normalize(images), seed=seeds)
