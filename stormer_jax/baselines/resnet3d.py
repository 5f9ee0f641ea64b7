"""R3D-18, a ResNet of 18 layers whose convolutions go over time as well.

Enters: clips as for the detector. Leaves: a logit for each. The network of
Tran et al. (2018, arXiv 1711.11248, section 3.2): a convolution of 3 x 7 x 7,
four stages of two blocks of two convolutions of 3 x 3 x 3, each stage but the
first at half the size in time and space, and the mean over what is left. It is
trained from scratch: nothing here reads weights that were trained on videos.
"""

from einops import reduce
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stormer_jax import model
from stormer_jax.baselines import outputs

_STAGES = 4  # each twice as wide as the one before; the last as model.width
_BLOCKS = 2  # of a stage
_FIRST_KERNEL, _FIRST_STRIDES = (3, 7, 7), (1, 2, 2)


class ResNet3d(nnx.Module):
  """A CNN that looks at whole clips."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the layers.

    Args:
      config: `width` (channels of the last stage; 512 as published), `dtype`
        and `batch_norm_groups` are read, and the shape of a clip; `patch_size`
        is that of the batch's maps alone.
      rngs: Of the start.

    Raises:
      ValueError: If the width does not halve to the first stage.
    """
    if config.width % 2 ** (_STAGES - 1):
      raise ValueError(
        f'model.width is {config.width}; with model.kind=resnet3d it must be a'
        f' multiple of {2 ** (_STAGES - 1)}, for the first stage is an eighth'
        ' as wide as the last'
      )
    self.config = config
    widths = _widths(config)
    self.first = _ConvNorm(
      3, widths[0], _FIRST_KERNEL, _FIRST_STRIDES, config, rngs
    )
    blocks = []
    channels = widths[0]
    for stage, width in enumerate(widths):
      for i in range(_BLOCKS):
        stride = 2 if stage > 0 and i == 0 else 1
        blocks.append(_Residual(channels, width, stride, config, rngs))
        channels = width
    self.blocks = nnx.List(blocks)
    self.class_head = model.torch_linear(config.width, 1, jnp.float32, rngs)

  def __call__(
    self, clip: Float[Array, 'b t h w 3'], *, rngs: nnx.Rngs | None = None
  ) -> model.Outputs:
    """Scores clips; there is no dropout, so `rngs` is not read.

    Raises:
      ValueError: If the clip does not have the configured shape.
    """
    model.check_clip(clip.shape, self.config)
    x = jax.nn.relu(self.first(clip.astype(self.config.dtype)))
    for block in self.blocks:
      x = block(x)
    pooled = reduce(x.astype(jnp.float32), 'b t h w c -> b c', 'mean')
    return outputs.of_clips(self.class_head(pooled)[:, 0], self.config)

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    time, size = config.num_frames, -(-config.image_size // 2)
    widths = _widths(config)
    total = time * size**2 * 3 * 7 * 7 * 3 * widths[0]
    channels = widths[0]
    for stage, width in enumerate(widths):
      for i in range(_BLOCKS):
        if stage > 0 and i == 0:
          time, size = -(-time // 2), -(-size // 2)
          total += time * size**2 * channels * width
        total += time * size**2 * 27 * (channels + width) * width
        channels = width
    return total + config.width


class _Residual(nnx.Module):
  """Two convolutions, added to their input."""

  def __init__(
    self,
    channels: int,
    width: int,
    stride: int,
    config: model.StormerConfig,
    rngs: nnx.Rngs,
  ):
    strides = (stride,) * 3
    self.conv1 = _ConvNorm(channels, width, (3, 3, 3), strides, config, rngs)
    self.conv2 = _ConvNorm(width, width, (3, 3, 3), (1, 1, 1), config, rngs)
    self.shortcut = (
      None
      if stride == 1
      else _ConvNorm(channels, width, (1, 1, 1), strides, config, rngs)
    )

  def __call__(
    self, x: Float[Array, 'b t h w c']
  ) -> Float[Array, 'b t2 h2 w2 c2']:
    change = self.conv2(jax.nn.relu(self.conv1(x)))
    return jax.nn.relu(
      change + (x if self.shortcut is None else self.shortcut(x))
    )


class _ConvNorm(nnx.Module):
  """A convolution over space and time, and the BatchNorm after it."""

  def __init__(
    self,
    channels: int,
    width: int,
    kernel: tuple[int, int, int],
    strides: tuple[int, int, int],
    config: model.StormerConfig,
    rngs: nnx.Rngs,
  ):
    # He et al. 2015, for ReLU; by fan out, as residual networks start.
    init = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')
    self.conv = nnx.Conv(
      channels,
      width,
      kernel_size=kernel,
      strides=strides,
      padding=tuple((size // 2, size // 2) for size in kernel),
      use_bias=False,
      dtype=config.dtype,
      kernel_init=init,
      rngs=rngs,
    )
    self.norm = model.BatchNorm(width, config.dtype, config.batch_norm_groups)

  def __call__(
    self, x: Float[Array, 'b t h w c']
  ) -> Float[Array, 'b t2 h2 w2 c2']:
    return self.norm(self.conv(x))


def _widths(config: model.StormerConfig) -> list[int]:
  return [config.width // 2**i for i in reversed(range(_STAGES))]
