"""R3D-18 is the published network, and looks at clips as wholes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_detector import make_detector

from configs import baselines
from stormer_jax import flops, model, steps


def small_config(**changes):
  config = baselines.get_config('resnet3d')
  config.model.update({'width': 16, 'image_size': 32, **changes})
  return config


def clips(num, frames=4):
  rng = np.random.default_rng(1)
  return rng.normal(size=(num, frames, 32, 32, 3)).astype(np.float32)


def score(made, clip):
  scored = steps.score_clips(
    made.graphdef, made.params, made.stats, jnp.asarray(clip), alone=False
  )
  return scored['logits']


def test_it_has_the_published_number_of_parameters():
  params, _ = jax.eval_shape(
    steps.make_model(baselines.get_config('resnet3d'))[1]
  )
  # torchvision's r3d_18: 33,371,472 with a layer of 400 classes.
  expected = 33_371_472 - 400 * 513 + 513
  assert steps.count_parameters(params) == expected


def test_the_formula_counts_the_published_multiply_adds():
  config = baselines.get_config('resnet3d')
  config.model.update(num_frames=16, image_size=112)
  forward = flops.forward_flops(model.StormerConfig(**config.model), 1)
  # torchvision's r3d_18: 40.70 G for 16 frames of 112 px.
  assert forward / 2e9 == pytest.approx(40.70, rel=0.005)


def test_the_order_of_the_frames_matters():
  made = make_detector(small_config())
  batch = clips(2)
  there, back = score(made, batch), score(made, batch[:, ::-1])
  assert np.all(np.abs(there - back) > 1e-4)
  # A compiler may make another number of a network than its layers do.
  program = functools.partial(steps.score_clips, made.graphdef, alone=False)
  jitted = jax.jit(program)(made.params, made.stats, jnp.asarray(batch))
  np.testing.assert_allclose(jitted['logits'], there, rtol=1e-3, atol=1e-4)


@pytest.mark.extra
@pytest.mark.parametrize('frames', [1, 3, 4])
def test_it_computes_what_pytorchs_layers_do(frames):
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  made = make_detector(small_config(num_frames=frames))

  def conv_norm(x, name, stride):
    weights, stats = name(made.params), name(made.stats)
    kernel = torch.tensor(weights['conv']['kernel']).permute(4, 3, 0, 1, 2)
    padding = [size // 2 for size in kernel.shape[2:]]
    x = functional.conv3d(x, kernel, stride=stride, padding=padding)
    return functional.batch_norm(
      x,
      *(torch.tensor(stats['norm'][name]) for name in ('mean', 'var')),
      *(torch.tensor(weights['norm'][name]) for name in ('scale', 'bias')),
    )

  batch = clips(2, frames)
  x = torch.tensor(batch).permute(0, 4, 1, 2, 3)
  x = conv_norm(x, lambda tree: tree['first'], (1, 2, 2)).relu()
  for i in range(8):
    stride = 2 if i in (2, 4, 6) else 1

    def layer(name, i=i):
      return lambda tree: tree['blocks'][i][name]

    y = conv_norm(x, layer('conv1'), stride).relu()
    y = conv_norm(y, layer('conv2'), 1)
    if stride == 2:
      x = conv_norm(x, layer('shortcut'), 2)
    x = (x + y).relu()
  head = made.params['class_head']
  expected = x.mean(dim=(2, 3, 4)).numpy() @ head['kernel'] + head['bias']
  np.testing.assert_allclose(
    score(made, batch), expected[:, 0], rtol=1e-3, atol=1e-4
  )


def test_a_width_that_does_not_halve_three_times_is_refused():
  with pytest.raises(ValueError, match=r'model\.width is 20.*multiple of 8'):
    steps.make_model(small_config(width=20))
