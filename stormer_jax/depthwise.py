"""Depthwise convolution: every channel with a small kernel of its own.

Enters: images [b, h, w, c] and kernels [k, k, c]. Leaves: images of h / stride
by w / stride, rounded up, zeros standing beyond the edges as TensorFlow's
'SAME' puts them (of an odd number, one more stands below and on the right).

XLA for CPU takes 18 to 40 times longer over such a convolution than its
arithmetic does, so there it is written out: a sum of shifted products, and a
gradient of its own. Elsewhere it is the library's convolution. Which of them
is taken is settled when the program is lowered, so that what is exported for a
GPU or TPU on a machine without one holds their form.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c'], stride: int
) -> Float[Array, 'b h2 w2 c']:
  """Convolves each channel of images, in the form that suits the platform."""
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_shifted_sum, stride=stride),
    default=functools.partial(library_conv, stride=stride),
  )


def library_conv(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c'], stride: int
) -> Float[Array, 'b h2 w2 c']:
  """The same by XLA's convolution, differentiable by itself."""
  return lax.conv_general_dilated(
    x,
    kernel[:, :, None],
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _forward(x, kernel, stride):
  return depthwise_conv(x, kernel, stride), (x, kernel)


def _backward(stride, saved, change):
  def by_library(x, kernel, change):
    conv = functools.partial(library_conv, stride=stride)
    return jax.vjp(conv, x, kernel)[1](change)

  def by_hand(x, kernel, change):
    return (
      _image_gradient(x.shape, kernel, change, stride),
      _kernel_gradient(x, change, kernel.shape[0], stride).astype(kernel.dtype),
    )

  return lax.platform_dependent(*saved, change, cpu=by_hand, default=by_library)


depthwise_conv.defvjp(_forward, _backward)


def _pads(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
  """Zeros before and after a row, as 'SAME' puts them."""
  last = -(-size // stride) - 1  # of the outputs
  total = max(last * stride + kernel_size - size, 0)
  return total // 2, total - total // 2


def _padded(x, kernel_size, stride):
  rows, columns = (_pads(n, kernel_size, stride) for n in x.shape[1:3])
  return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _shifted_sum(x, kernel, *, stride):
  size = kernel.shape[0]
  height, width = (-(-n // stride) for n in x.shape[1:3])
  padded = _padded(x, size, stride)

  def view(i, j):
    rows = slice(i, i + (height - 1) * stride + 1, stride)
    columns = slice(j, j + (width - 1) * stride + 1, stride)
    return padded[:, rows, columns]

  return sum(
    view(i, j) * kernel[i, j][None, None, None]
    for i in range(size)
    for j in range(size)
  )


def _image_gradient(shape, kernel, change, stride):
  """Every output goes back to where it came from: the kernel turned around."""
  size = kernel.shape[0]
  config = [(0, 0, 0)]
  for extent, outputs in zip(shape[1:3], change.shape[1:3], strict=True):
    before = size - 1 - _pads(extent, size, stride)[0]
    spread = (outputs - 1) * stride + 1
    config.append((before, extent + size - 1 - before - spread, stride - 1))
  spread = lax.pad(change, jnp.zeros((), change.dtype), [*config, (0, 0, 0)])
  height, width = shape[1:3]
  return sum(
    spread[:, i : i + height, j : j + width]
    * kernel[-1 - i, -1 - j][None, None, None]
    for i in range(size)
    for j in range(size)
  )


def _kernel_gradient(x, change, size, stride):
  """All taps of one row of outputs at a time; columns are added at the end."""
  num, height, width, channels = change.shape
  padded = _padded(x, size, stride)
  span = (width - 1) * stride + 1

  def add_row(taps, index):
    image, row = index // height, index % height
    outputs = lax.dynamic_slice(
      change, (image, row, 0, 0), (1, 1, width, channels)
    )[0, 0].astype(jnp.float32)
    inputs = lax.dynamic_slice(
      padded,
      (image, row * stride, 0, 0),
      (1, size, padded.shape[2], channels),
    )[0]
    products = [
      inputs[i, j : j + span : stride] * outputs
      for i in range(size)
      for j in range(size)
    ]
    return taps + jnp.stack(products), None

  taps = jnp.zeros((size**2, width, channels), jnp.float32)
  taps, _ = lax.scan(add_row, taps, jnp.arange(num * height))
  return taps.sum(1).reshape(size, size, channels)
