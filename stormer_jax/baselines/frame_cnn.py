"""EfficientNet-Lite0 on single frames: the whole network, one logit a frame.

Enters: clips as for the detector. Leaves: the mean of the frames' logits, which
know nothing of each other. The network is that of a hybrid's stem
(`stem.EfficientNetLite`), down to stride 32, with the convolution of its head
and mean pooling; a layer of one logit stands where ImageNet's classes stood.
`config.pretrained_stem` starts all but that layer.
"""

from einops import rearrange
from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, stem
from stormer_jax.baselines import outputs

_STRIDE = stem.STRIDES[-1]


class FrameCnn(nnx.Module):
  """A CNN that looks at one frame at a time."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the layers.

    Args:
      config: What begins with `stem`, and `dtype`, are read, and the shape of a
        clip; `patch_size` is that of the batch's maps alone.
      rngs: Of the start.

    Raises:
      ValueError: If there is no stem to take.
    """
    if config.stem == 'patch':
      raise ValueError(
        'model.kind=frame_cnn is a stem of convolutions, and model.stem is'
        ' patch; set --config.model.stem=efficientnet_lite0'
      )
    self.config = config
    self.stem = stem.EfficientNetLite(
      _STRIDE,
      config.stem_statistics,
      config.dtype,
      frozen_stride=config.stem_frozen_stride,
      head=True,
      rngs=rngs,
    )
    self.class_head = nnx.Linear(
      stem.HEAD_CHANNELS, 1, dtype=jnp.float32, rngs=rngs
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
    logits = rearrange(self.score(frames), '(b t) -> b t', b=clip.shape[0])
    return outputs.of_frames(logits, self.config)

  def score(self, frames: Float[Array, 'b h w 3']) -> Float[Array, ' b']:
    """Gives the logits of b frames."""
    return self.score_features(self.stem.frozen_part(frames))

  def score_features(self, features: Array) -> Float[Array, ' b']:
    """Gives the logits of b frames from what `stem.frozen_part` gives."""
    features = self.stem.trained_part(features)
    pooled = features.astype(jnp.float32).mean(axis=(1, 2))
    return self.class_head(pooled)[:, 0]

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    channels = stem.list_blocks(_STRIDE)[-1].channels_out
    side = -(-config.image_size // _STRIDE)
    frame = (
      stem.count_multiply_adds(config.image_size, _STRIDE)
      + side**2 * channels * stem.HEAD_CHANNELS
      + stem.HEAD_CHANNELS
    )
    return config.num_frames * frame
