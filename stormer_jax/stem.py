"""Pretrained convolutions in front of the tokens: EfficientNet-Lite0.

Enters: frames [b, h, w, 3], float32, ImageNet-normalised as all clips are.
Leaves: features [b, h / s, w / s, c] at stride s, from which the patch
embedding makes one token each, as in the hybrids of the ViT paper
(arXiv 2010.11929, section 3.1).

The network is EfficientNet-Lite0 (github.com/tensorflow/tpu, models/official/
efficientnet/lite): inverted residual blocks with ReLU6, without squeeze and
excitation. Its convolutions to stride s are taken, the last ones of that stride
included; the head's, which widens what the classifier sees, only where asked
for; the classifier is not.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from stormer_jax import depthwise


class Stage(NamedTuple):
  """Blocks of one width; the first of them has the stride."""

  num_blocks: int
  kernel_size: int
  stride: int
  expansion: int
  channels: int


STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
FIRST_CHANNELS = 32
HEAD_CHANNELS = 1280
STRIDES = (4, 8, 16, 32)
_EPSILON = 1e-3  # of every BatchNorm
_MOMENTUM = 0.99  # of the running statistics, as the network was trained with
# The network was trained on (8-bit RGB - 127) / 128; clips come as
# (RGB / 255 - mean) / deviation (data_pipeline/pipeline.py).
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class Block(NamedTuple):
  """Sizes of one inverted residual block."""

  channels_in: int
  hidden: int
  channels_out: int
  kernel_size: int
  stride: int


def list_blocks(stride: int) -> list[Block]:
  """Lists the blocks whose outputs have at most a stride.

  Raises:
    ValueError: If the network has no such stride.
  """
  if stride not in STRIDES:
    raise ValueError(
      f'model.patch_size is {stride}; with model.stem=efficientnet_lite0 it is'
      f' a stride of the network, one of {STRIDES}'
    )
  blocks = []
  channels, total = FIRST_CHANNELS, 2
  for stage in STAGES:
    total *= stage.stride
    if total > stride:
      break
    for i in range(stage.num_blocks):
      blocks.append(
        Block(
          channels,
          channels * stage.expansion,
          stage.channels,
          stage.kernel_size,
          stage.stride if i == 0 else 1,
        )
      )
      channels = stage.channels
  return blocks


def count_multiply_adds(image_size: int, stride: int) -> int:
  """Counts the multiply-adds of one frame, in convolutions before the head."""
  size = -(-image_size // 2)
  total = size**2 * 27 * FIRST_CHANNELS
  for block in list_blocks(stride):
    if block.hidden != block.channels_in:
      total += size**2 * block.channels_in * block.hidden
    size = -(-size // block.stride)
    total += size**2 * block.hidden * block.kernel_size**2
    total += size**2 * block.hidden * block.channels_out
  return total


class EfficientNetLite(nnx.Module):
  """The convolutions of EfficientNet-Lite0 up to a stride.

  Its BatchNorms follow one of two rules. 'frozen': they use the stored
  statistics always, in training too, so that a frame's features depend on no
  other frame. 'batch': in training they use those of the batch, on however many
  devices it lies, which also move the stored ones. Scale and bias are trained
  under both.

  Up to `frozen_stride` (0: nowhere) nothing is trained: kernels, scales and
  biases there are no parameters, and there is no way back through them.
  """

  def __init__(
    self,
    stride: int,
    statistics: str,
    dtype: str,
    *,
    frozen_stride: int = 0,
    head: bool = False,
    rngs: nnx.Rngs,
  ):
    layer = functools.partial(
      ConvNorm, statistics=statistics, dtype=dtype, rngs=rngs
    )
    frozen = functools.partial(
      ConvNorm, statistics=None, dtype=dtype, rngs=rngs
    )
    self.num_frozen = len(list_blocks(frozen_stride)) if frozen_stride else 0
    self.dtype = dtype
    self.conv = (frozen if self.num_frozen else layer)(
      (3, 3, 3, FIRST_CHANNELS)
    )
    self.blocks = nnx.List(
      [
        InvertedResidual(block, frozen if i < self.num_frozen else layer)
        for i, block in enumerate(list_blocks(stride))
      ]
    )
    channels = list_blocks(stride)[-1].channels_out
    self.head = layer((channels, HEAD_CHANNELS)) if head else None

  def __call__(
    self, frames: Float[Array, 'b h w 3']
  ) -> Float[Array, 'b h2 w2 c']:
    return self.trained_part(self.frozen_part(frames))

  def frozen_part(self, frames: Float[Array, 'b h w 3']) -> Array:
    """Gives the features that no training changes, down to `frozen_stride`."""
    x = self._rescale(frames)
    if self.num_frozen:
      x = _relu6(self.conv(x, _convolve))
    for block in list(self.blocks)[: self.num_frozen]:
      x = block(x)
    return x

  def trained_part(self, x: Array) -> Float[Array, 'b h2 w2 c']:
    """Goes on from what `frozen_part` gives."""
    if not self.num_frozen:
      x = _relu6(self.conv(x, _convolve))
    for block in list(self.blocks)[self.num_frozen :]:
      x = block(x)
    return x if self.head is None else _relu6(self.head(x, jnp.matmul))

  def outputs_of_blocks(self, frames: Float[Array, 'b h w 3']) -> list[Array]:
    """Gives what each block gives, the first one first, without the head."""
    x = _relu6(self.conv(self._rescale(frames), _convolve))
    outputs = []
    for block in self.blocks:
      x = block(x)
      outputs.append(x)
    return outputs

  def _rescale(self, frames: Float[Array, 'b h w 3']) -> Array:
    scale, offset = 255 * _DEVIATION / 128, (255 * _MEAN - 127) / 128
    x = frames * scale[None, None, None] + offset[None, None, None]
    return x.astype(self.dtype)


class InvertedResidual(nnx.Module):
  """Widens, convolves each channel, narrows; adds its input where it can."""

  def __init__(self, sizes: Block, layer: Callable[..., 'ConvNorm']):
    size, hidden = sizes.kernel_size, sizes.hidden
    self.stride = sizes.stride
    self.adds = sizes.stride == 1 and sizes.channels_in == sizes.channels_out
    widens = hidden != sizes.channels_in
    self.expand = layer((sizes.channels_in, hidden)) if widens else None
    self.depthwise = layer((size, size, hidden))
    self.project = layer((hidden, sizes.channels_out))

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c2']:
    convolve = functools.partial(depthwise.depthwise_conv, stride=self.stride)
    # A 1x1 convolution is a product over the last axis.
    hidden = x if self.expand is None else _relu6(self.expand(x, jnp.matmul))
    hidden = _relu6(self.depthwise(hidden, convolve))
    change = self.project(hidden, jnp.matmul)
    return x + change if self.adds else change


class ConvNorm(nnx.Module):
  """A convolution without bias, and the BatchNorm that follows each of them.

  `statistics` None: nothing of it is trained.
  """

  def __init__(
    self,
    shape: Sequence[int],
    *,
    statistics: str | None,
    dtype: str,
    rngs: nnx.Rngs,
  ):
    channels = shape[-1]
    self.statistics, self.dtype = statistics or 'frozen', dtype
    self.use_running_average = False
    kept = nnx.BatchStat if statistics is None else nnx.Param
    # He et al. 2015, for ReLU.
    deviation = (2 / math.prod(shape[:-1])) ** 0.5
    self.kernel = kept(deviation * jax.random.normal(rngs(), shape))
    self.scale = kept(jnp.ones(channels))
    self.bias = kept(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))

  def set_view(self, use_running_average: bool | None = None):
    """Called by `nnx.view`."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    convolve: Callable[[Array, Array], Array],
  ) -> Float[Array, 'b h2 w2 c2']:
    kernel, scale, bias = self.kernel[...], self.scale[...], self.bias[...]
    if self.statistics == 'frozen' or self.use_running_average:
      # Folded into the kernel: nothing of the image's size is kept for it.
      gain = scale * jax.lax.rsqrt(self.var[...] + _EPSILON)
      kernel = kernel * jnp.expand_dims(gain, range(kernel.ndim - 1))
      bias = (bias - self.mean[...] * gain).astype(self.dtype)
      return convolve(x, kernel.astype(self.dtype)) + _wide(bias)
    x = convolve(x, kernel.astype(self.dtype)).astype(jnp.float32)
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    for stored, new in ((self.mean, mean), (self.var, var)):
      stored[...] = _MOMENTUM * stored[...] + (1 - _MOMENTUM) * new
    gain = scale * jax.lax.rsqrt(var + _EPSILON)
    x = (x - _wide(mean)) * _wide(gain) + _wide(bias)
    return x.astype(self.dtype)


def _wide(x: Float[Array, ' c']) -> Float[Array, '1 1 1 c']:
  return x[None, None, None]


def _convolve(
  x: Float[Array, 'b h w 3'], kernel: Float[Array, '3 3 3 c']
) -> Float[Array, 'b h2 w2 c']:
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@jax.custom_vjp
def _relu6(x: Float[Array, '*b']) -> Float[Array, '*b']:
  """Cuts to [0, 6]; on the way back looks at what it gave, not at what came.

  The next layer keeps that anyway, so that one array is kept, not two.
  """
  return jnp.clip(x, 0, 6)


def _relu6_forward(x):
  y = _relu6(x)
  return y, y


def _relu6_backward(y, change):
  return (jnp.where((y > 0) & (y < 6), change, 0),)


_relu6.defvjp(_relu6_forward, _relu6_backward)
