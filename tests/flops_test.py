"""FLOPs by formula, against the published figure and against XLA."""

import dataclasses

from flax import nnx
import jax
import numpy as np
import pytest

from configs import base, tiny, vit_large, vit_small
from stormer_jax import flops, model


def test_the_base_model_needs_the_published_multiply_adds():
  config = model.StormerConfig(**base.get_config().model)
  # METHOD 6.7: 106.6 GMAC a clip.
  assert round(flops.forward_flops(config, 1) / 2e9, 1) == 106.6


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'num_frames': 8, 'depth': 1},
    {'space_time': 'joint'},
    {'space_time': 'space'},
    {'patch_size': 8, 'mlp_ratio': 2.0},
    {'stem': 'efficientnet_lite0', 'patch_size': 8, 'depth': 1},
  ],
  ids=str,
)
def test_the_formula_agrees_with_the_compiler(changes):
  """To 3 %: XLA counts norms and softmax too, and no products with padding.

  The blocks are unrolled: it counts the body of a loop once.
  """
  config = model.StormerConfig(**tiny.get_config().model)
  config = dataclasses.replace(config, width=384, **changes)
  detector = nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0)))
  graphdef, state = nnx.split(detector)

  def forward(state, clip):
    detector = nnx.merge(graphdef, state)
    detector.eval()
    return detector(clip)

  size = config.image_size
  shape = (2, config.num_frames, size, size, 3)
  clip = jax.ShapeDtypeStruct(shape, np.float32)
  cost = jax.jit(forward).lower(nnx.to_pure_dict(state), clip).cost_analysis()
  np.testing.assert_allclose(
    flops.forward_flops(config, 2), cost['flops'], rtol=0.03
  )


def test_sam_costs_two_plain_steps_of_three_forwards():
  config = model.StormerConfig(**base.get_config().model)
  forward = flops.forward_flops(config, 128)
  assert flops.train_step_flops(config, 128, rho=0.05) == 6 * forward
  assert flops.train_step_flops(config, 128, rho=0.0) == 3 * forward


def test_a_larger_model_needs_more():
  small, large = (
    flops.forward_flops(model.StormerConfig(**c.get_config().model), 1)
    for c in (vit_small, vit_large)
  )
  assert 12 < large / small < 16  # 2 x the depth, (8/3)^2 x the products


@pytest.mark.parametrize(
  ('kind', 'dtype', 'teraflops'),
  [
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 989.5),
    ('NVIDIA H100 80GB HBM3', 'float32', 494.5),
    ('TPU v5 lite', 'bfloat16', 197),
    ('TPU v5e', 'float32', 197),
    ('TPU v5', 'bfloat16', 459),
  ],
)
def test_peaks_are_the_dense_ones_of_the_data_sheets(kind, dtype, teraflops):
  assert flops.peak_flops(kind, dtype) == teraflops * 1e12


def test_an_unknown_device_has_no_peak():
  assert flops.peak_flops(jax.devices()[0].device_kind, 'float32') is None
  assert flops.memory_bytes('cpu') is None
  assert flops.peak_flops('Tesla T4', 'bfloat16') is None
