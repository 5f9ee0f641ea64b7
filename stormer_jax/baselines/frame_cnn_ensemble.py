"""Several networks that look at single frames, whose logits are averaged.

Enters: clips as for the detector. Leaves: for each frame the mean of what the
members say of it. Members are frame-wise CNNs, which may be checkpoints of one
run (snapshot ensembles, Huang et al. 2017, arXiv 1704.00109) or runs of several
seeds, and behind them linear probes (`frame_probe`). What no training of the
CNNs changed (`model.stem_frozen_stride`) is the same in all of them, and is
computed once. Members are trained alone and joined by `weights.ensemble`.
"""

import dataclasses

from einops import rearrange
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, stem
from stormer_jax.baselines import frame_cnn, frame_probe, outputs


class FrameCnnEnsemble(nnx.Module):
  """`model.members` networks of one start, `model.probes` of them probes."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the members.

    Args:
      config: As of `FrameCnn`; `members` is their number, of which the last
        `probes` are probes.
      rngs: Of the start.

    Raises:
      ValueError: If there is no stem to take.
    """
    self.config = config
    alone = dataclasses.replace(config, members=1, probes=0)
    self.num_cnns = config.members - config.probes
    self.members = nnx.List(
      [
        frame_cnn.FrameCnn(alone, rngs=rngs)
        if i < self.num_cnns
        else frame_probe.FrameProbe(alone, rngs=rngs)
        for i in range(config.members)
      ]
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
    members = list(self.members)
    cnns, probes = members[: self.num_cnns], members[self.num_cnns :]
    features = cnns[0].stem.frozen_part(frames)
    graphdefs, states = zip(*map(nnx.split, cnns), strict=True)

    def score(state):
      return nnx.merge(graphdefs[0], state).score_features(features)

    # One after the other through one program, compiled once: activations take
    # the memory of one.
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    logits = jax.lax.map(score, stacked).sum(axis=0)
    for probe in probes:
      logits += probe.score(frames)
    logits /= len(members)
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
    probe = frame_probe.FrameProbe.count_multiply_adds(config)
    num_cnns = config.members - config.probes
    return frozen + num_cnns * (alone - frozen) + config.probes * probe
