"""TimeSformer with divided attention: one logit a clip, of its class token.

Enters: clips as for the detector. Leaves: a logit for each. The network of
Bertasius et al. (2021, arXiv 2102.05095, section 3): the detector without its
temporal token, its map and its soft labels. Time is attended to first; the
class token, which that leaves as it is, sees each frame and takes the mean of
what it saw. `config.pretrained_vit` starts all but attention over time, whose
last layer starts at zero, and the head.
"""

from einops import rearrange, repeat
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, vit
from stormer_jax.baselines import outputs


class TimeSformer(vit.ImageVit):
  """A ViT whose patches see their own place in the other frames too."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    super().__init__(config, space_time='divided', rngs=rngs)
    self.time_embed = nnx.Param(jnp.zeros((1, config.num_frames, config.width)))
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
    config = self.config
    model.check_clip(clip.shape, config)
    patches = self.embed(rearrange(clip, 'b t h w c -> (b t) h w c'))
    patches = rearrange(patches, 'n (b t) d -> t n b d', b=clip.shape[0])
    time = jnp.asarray(self.time_embed, config.dtype)
    patches = patches + rearrange(time, '1 t d -> t 1 1 d')
    class_token, _ = model.run_blocks(
      self.blocks,
      _run_block,
      (self.class_tokens(clip.shape[0]), patches),
      config,
      self.drop_key(rngs),
    )
    logits = self.class_head(self.norm(class_token))[:, 0]
    return outputs.of_clips(logits, config)

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    width, time = config.width, config.num_frames
    patches = config.grid_size**2
    # qkv, proj and the layer after them; logits and mixing along a tube.
    over_time = patches * time * (5 * width**2 + 2 * time * width)
    # The class token goes through the MLP once, not once a frame.
    saved = (time - 1) * 2 * width * int(width * config.mlp_ratio)
    return (
      time * vit.count_embedding(config)
      + time * vit.count_blocks(config, 1 + patches)
      + config.depth * (over_time - saved)
      + width
    )


def _run_block(block, carry, rate, key):
  class_token, patches = carry
  keys = (None,) * 3 if key is None else jax.random.split(key, 3)
  patches = patches + block.over_time(patches, rate, keys[0])
  tokens = repeat(class_token, 'b d -> t 1 b d', t=len(patches))
  frames = jnp.concatenate([tokens, patches], axis=1)
  change = block.over_space(frames, rate, keys[1])
  class_token = class_token + change[:, 0].mean(axis=0)
  patches = patches + change[:, 1:]
  return tuple(
    x + block.alone(x, rate, keys[2]) for x in (class_token, patches)
  )
