"""The depthwise convolution is one function in two forms."""

import functools

import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from stormer_jax import depthwise

# height, width, channels, kernel, stride: odd and even sizes, kernels larger
# than what they go over.
SHAPES = [
  (8, 8, 3, 3, 1),
  (8, 8, 3, 3, 2),
  (7, 10, 4, 3, 2),
  (9, 6, 2, 5, 1),
  (10, 8, 2, 5, 2),
  (7, 7, 2, 5, 2),
  (2, 2, 3, 5, 2),
  (1, 3, 2, 5, 1),
]


def arrays(height, width, channels, size, stride, num=3, seed=0):
  random = np.random.default_rng(seed)
  outputs = [-(-n // stride) for n in (height, width)]
  shapes = (
    (num, height, width, channels),
    (size, size, channels),
    (num, *outputs, channels),
  )
  return tuple(
    jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes
  )


def with_gradients(conv, stride, x, kernel, change):
  y, back = jax.vjp(lambda x, k: conv(x, k, stride), x, kernel)
  return y, *back(change)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_both_forms_and_both_gradients_agree(shape):
  given, stride = arrays(*shape), shape[-1]
  ours = with_gradients(depthwise.depthwise_conv, stride, *given)
  library = with_gradients(depthwise.library_conv, stride, *given)
  for a, b in zip(ours, library, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_the_compiled_form_gives_what_the_single_operations_give(stride):
  given = arrays(12, 10, 5, 5, stride)
  run = functools.partial(with_gradients, depthwise.depthwise_conv, stride)
  for a, b in zip(run(*given), jax.jit(run)(*given), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def lowered_text(platforms, run, given):
  exported = export.export(jax.jit(run), platforms=platforms)(*given)
  return exported.mlir_module()


def test_what_is_exported_holds_the_form_of_its_platform():
  given = arrays(8, 8, 4, 3, 2)
  forward = functools.partial(depthwise.depthwise_conv, stride=2)
  both = functools.partial(with_gradients, depthwise.depthwise_conv, 2)
  for platform, form in (('cpu', 0), ('cuda', 1), ('tpu', 1)):
    text = lowered_text([platform], forward, given[:2])
    assert text.count('stablehlo.convolution') == form, platform
    text = lowered_text([platform], both, given)
    assert text.count('stablehlo.convolution') == 3 * form, platform
    assert ('stablehlo.while' in text) == (not form), platform


def test_one_export_for_two_platforms_holds_both_forms():
  given = arrays(8, 8, 4, 3, 1)
  run = functools.partial(with_gradients, depthwise.depthwise_conv, 1)
  exported = export.export(jax.jit(run), platforms=['cpu', 'cuda'])(*given)
  assert 'stablehlo.convolution' in exported.mlir_module()
  for a, b in zip(exported.call(*given), run(*given), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_an_export_takes_any_number_of_images():
  forward = functools.partial(depthwise.depthwise_conv, stride=2)
  x, kernel, _ = arrays(8, 6, 4, 3, 2, num=5)
  (num,) = export.symbolic_shape('b')
  shapes = (
    jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype),
    jax.ShapeDtypeStruct(kernel.shape, kernel.dtype),
  )
  exported = export.export(jax.jit(forward), platforms=['cpu', 'tpu'])(*shapes)
  np.testing.assert_allclose(
    exported.call(x, kernel), forward(x, kernel), rtol=1e-6, atol=1e-6
  )


def test_the_kernels_gradient_is_added_up_in_float32():
  """2,048 products of 1 in bfloat16 alone would stop at 256."""
  x = jnp.ones((2, 32, 32, 1), jnp.bfloat16)
  kernel = jnp.ones((1, 1, 1), jnp.bfloat16)
  y, _, gradient = with_gradients(depthwise.depthwise_conv, 1, x, kernel, x)
  assert y.dtype == gradient.dtype == jnp.bfloat16
  assert gradient.item() == 2048


def test_images_on_eight_devices_give_what_one_gives():
  given = arrays(6, 6, 2, 3, 1, num=8)
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  place = NamedSharding(mesh, PartitionSpec('data'))
  run = jax.jit(functools.partial(with_gradients, depthwise.depthwise_conv, 1))
  x, kernel, change = given
  spread = run(jax.device_put(x, place), kernel, jax.device_put(change, place))
  for a, b in zip(spread, run(*given), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_images_may_be_mapped_over():
  x, kernel, _ = arrays(6, 6, 2, 3, 1)
  conv = functools.partial(depthwise.depthwise_conv, stride=1)
  mapped = jax.vmap(lambda one: conv(one[None], kernel)[0])(x)
  np.testing.assert_allclose(mapped, conv(x, kernel), rtol=1e-6, atol=1e-6)
