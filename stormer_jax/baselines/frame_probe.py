"""A linear probe of a frozen ImageNet CNN on single frames, one logit a frame.

Enters: clips as for the detector. Leaves: the mean of the frames' logits, which
know nothing of each other. Features are means and deviations over a frame of
what the first blocks of EfficientNet-Lite0 give; nothing of these is trained. A
linear layer reads them (Alain and Bengio 2016, arXiv 1610.01644).

Alone it tells pseudo-fakes less well than a CNN that was trained on them. But
what it has learned hardly depends on the seed, and it keeps what training makes
a CNN forget, so that the mean logit of both ranks deepfakes better than either
(docs/findings.md). Trained by configs/small_probe.py, joined by
`weights.ensemble`.
"""

from einops import rearrange
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model, stem
from stormer_jax.baselines import outputs

# Of sixteen. With the next ones the probe knows pseudo-fakes better and
# deepfakes worse (docs/findings.md).
NUM_BLOCKS = 9
_STRIDE = 16  # of the last of them
_EPSILON = 1e-3  # of a feature's variance


class FrameProbe(nnx.Module):
  """One linear layer on pooled features of frozen convolutions."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the layers.

    Args:
      config: `stem`, `dtype` and the shape of a clip are read.
      rngs: Of the start, until `pretrained_stem` takes its place.

    Raises:
      ValueError: If there is no stem to take.
    """
    if config.stem == 'patch':
      raise ValueError(
        'model.kind=frame_probe reads the features of a stem of convolutions,'
        ' and model.stem is patch; set --config.model.stem=efficientnet_lite0'
      )
    self.config = config
    self.stem = stem.EfficientNetLite(
      _STRIDE, 'frozen', config.dtype, frozen_stride=_STRIDE, rngs=rngs
    )
    self.stem.blocks = nnx.List(list(self.stem.blocks)[:NUM_BLOCKS])
    size = 2 * sum(block.channels_out for block in _blocks())
    self.standardise = Standardise(size)
    self.class_head = nnx.Linear(
      size,
      1,
      dtype=jnp.float32,
      kernel_init=nnx.initializers.zeros,
      rngs=rngs,
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
    pooled = []
    for x in self.stem.outputs_of_blocks(frames):
      x = x.astype(jnp.float32)
      pooled += [x.mean(axis=(1, 2)), x.std(axis=(1, 2))]
    features = jnp.concatenate(pooled, axis=-1)
    return self.class_head(self.standardise(features))[:, 0]

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    later = stem.list_blocks(_STRIDE)[NUM_BLOCKS:]
    side = -(-config.image_size // _STRIDE)
    left_out = side**2 * sum(
      block.hidden
      * (block.channels_in + block.kernel_size**2 + block.channels_out)
      for block in later
    )
    size = 2 * sum(block.channels_out for block in _blocks())
    return config.num_frames * (
      stem.count_multiply_adds(config.image_size, _STRIDE) - left_out + size
    )


class Standardise(nnx.Module):
  """Brings each feature to mean 0 and variance 1.

  In training by the batch; then by the means, over all steps of the run, of the
  batches' means and variances.
  """

  def __init__(self, num_features: int):
    self.use_running_average = False
    self.mean = nnx.BatchStat(jnp.zeros(num_features))
    self.var = nnx.BatchStat(jnp.ones(num_features))
    self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

  def set_view(self, use_running_average: bool | None = None):
    """Called by `nnx.view`."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def __call__(self, x: Float[Array, 'b d']) -> Float[Array, 'b d']:
    if self.use_running_average:
      mean, var = self.mean[...], self.var[...]
    else:
      mean, var = x.mean(axis=0), x.var(axis=0)
      self.count[...] += 1
      for stored, new in ((self.mean, mean), (self.var, var)):
        stored[...] += (new - stored[...]) / self.count[...]
    return (x - mean[None]) * jax.lax.rsqrt(var + _EPSILON)[None]


def _blocks() -> list[stem.Block]:
  return stem.list_blocks(_STRIDE)[:NUM_BLOCKS]
