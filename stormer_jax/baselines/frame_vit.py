"""A ViT on single frames: one logit a frame, of its class token.

Enters: clips as for the detector. Leaves: the mean of the frames' logits, which
know nothing of each other. With self-blended frames and T = 1 it is the
self-blended images of Shiohara and Yamasaki (2022, arXiv 2204.08376) with the
detector's own kind of backbone, so that what is left of a difference is time.
`config.pretrained_vit` starts all but the last layer.
"""

from einops import rearrange
from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, vit
from stormer_jax.baselines import outputs


class FrameVit(vit.ImageVit):
  """A ViT that looks at one frame at a time."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    super().__init__(config, rngs=rngs)
    self.class_head = model.torch_linear(config.width, 1, jnp.float32, rngs)

  def __call__(
    self, clip: Float[Array, 'b t h w 3'], *, rngs: nnx.Rngs | None = None
  ) -> model.Outputs:
    """Scores clips.

    Args:
      clip: ImageNet-normalised frames of the configured number and size.
      rngs: Stream `dropout`; needed in training mode if `drop_path` is above 0.

    Raises:
      ValueError: If the clip does not have the configured shape, or `rngs` is
        missing.
    """
    model.check_clip(clip.shape, self.config)
    patches = self.embed(rearrange(clip, 'b t h w c -> (b t) h w c'))
    class_tokens = self.encode(patches, self.drop_key(rngs))[0]
    logits = rearrange(
      self.class_head(class_tokens), '(b t) 1 -> b t', b=clip.shape[0]
    )
    return outputs.of_frames(logits, self.config)

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    frame = (
      vit.count_embedding(config)
      + vit.count_blocks(config, 1 + config.grid_size**2)
      + config.width
    )
    return config.num_frames * frame
