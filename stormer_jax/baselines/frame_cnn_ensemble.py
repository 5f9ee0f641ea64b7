"""Several frame-wise CNNs, whose logits are averaged.

Enters: clips as for the detector. Leaves: for each frame the mean of what the
members say of it. They may be checkpoints of one run (snapshot ensembles,
Huang et al. 2017, arXiv 1704.00109) or runs of several seeds; what no training
changed (`model.stem_frozen_stride`) is the same in all of them, and is computed
once. Members are trained alone and joined by `weights.ensemble`.
"""

import dataclasses

from einops import rearrange
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, stem
from stormer_jax.baselines import frame_cnn, outputs


class FrameCnnEnsemble(nnx.Module):
  """`model.members` frame-wise CNNs of one start."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the members.

    Args:
      config: As of `FrameCnn`; `members` is their number.
      rngs: Of the start.

    Raises:
      ValueError: If there is no stem to take.
    """
    self.config = config
    alone = dataclasses.replace(config, members=1)
    self.members = nnx.List(
      [frame_cnn.FrameCnn(alone, rngs=rngs) for _ in range(config.members)]
    )

  def __call__(
    self, clip: Float[Array, 'b t h w 3'], *, rngs: nnx.Rngs | None = None
  ) -> model.Outputs:
    """Scores clips; there is no dropout, so `rngs` is not read.

    Raises:
      ValueError: If the clip does not have the configured shape.
    """
    model.check_clip(clip.shape, self.config)
    frames = rearrange(clip, 'b t h w c -> (b t) h w c')
    features = self.members[0].stem.frozen_part(frames)
    graphdefs, states = zip(*map(nnx.split, self.members), strict=True)

    def score(state):
      return nnx.merge(graphdefs[0], state).score_features(features)

    # One after the other through one program, compiled once: activations take
    # the memory of one.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    logits = jax.lax.map(score, stacked).mean(axis=0)
    logits = rearrange(logits, '(b t) -> b t', b=clip.shape[0])
    return outputs.of_frames(logits, self.config)

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    frozen = 0
    if config.stem_frozen_stride:
      frame = stem.count_multiply_adds(
        config.image_size, config.stem_frozen_stride
      )
      frozen = config.num_frames * frame
    alone = frame_cnn.FrameCnn.count_multiply_adds(config)
    return frozen + config.members * (alone - frozen)
