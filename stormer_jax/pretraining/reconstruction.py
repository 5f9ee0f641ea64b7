"""How well hidden patches are filled in (He et al. 2022, section 3).

Enters: clips and what a masked autoencoder says of them. Leaves: the mean
squared error over the pixels of hidden patches, float32. Targets are the pixels
of each patch, by default normalised to mean 0 and variance 1 within it, so that
an error of 1 is that of knowing nothing.
"""

from einops import rearrange
import jax
from jaxtyping import Array, Float

from stormer_jax import model
from stormer_jax.pretraining import masked_autoencoder

TERMS = ('total',)


def targets(
  clip: Float[Array, 'b t h w 3'], config: model.StormerConfig
) -> Float[Array, 'b t n p']:
  """The pixels of every patch, row by row, as they are to be said."""
  patches = rearrange(
    clip,
    'b t (gh h) (gw w) c -> b t (gh gw) (h w c)',
    gh=config.grid_size,
    gw=config.grid_size,
  )
  if not config.mae_normalize_pixels:
    return patches
  mean = patches.mean(axis=-1, keepdims=True)
  variance = patches.var(axis=-1, keepdims=True)
  return (patches - mean) * jax.lax.rsqrt(variance + 1e-6)


def clip_errors(
  said: masked_autoencoder.Reconstruction, wanted: Float[Array, 'b t n p']
) -> Float[Array, ' b']:
  """Mean squared error of each clip over its hidden patches."""
  error = ((said.pixels - wanted) ** 2).mean(axis=-1)
  return (error * said.hidden).sum(axis=(1, 2)) / said.hidden.sum(axis=(1, 2))
