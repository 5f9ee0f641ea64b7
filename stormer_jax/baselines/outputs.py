"""One logit a frame -> the outputs that losses and scoring know.

A baseline has one head. What it says of a frame stands in the place of the
frame's soft label, and the vulnerability map is zero everywhere; nothing learns
from either (`kinds.check_losses`).
"""

from einops import repeat
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model


def of_frames(
  logits: Float[Array, 'b t'], config: model.StormerConfig
) -> model.Outputs:
  """The outputs of a model that scores frames: a clip's logit is their mean."""
  return model.Outputs(
    logits=logits.mean(axis=1),
    soft_label_logits=logits,
    vulnerability_map=_empty_map(logits, config),
  )


def of_clips(
  logits: Float[Array, ' b'], config: model.StormerConfig
) -> model.Outputs:
  """The outputs of a model that scores clips; a frame has its clip's logit."""
  return model.Outputs(
    logits=logits,
    soft_label_logits=repeat(logits, 'b -> b t', t=config.num_frames),
    vulnerability_map=_empty_map(logits, config),
  )


def _empty_map(
  logits: Float[Array, 'b ...'], config: model.StormerConfig
) -> Float[Array, 'b t gh gw']:
  grid = config.grid_size
  return jnp.zeros((logits.shape[0], config.num_frames, grid, grid))
