"""pretrained: every tensor has one place, both ways, at every size."""

import math

from flax import nnx
import jax
import ml_dtypes
import numpy as np
import pytest

from stormer_jax import model
from stormer_jax.weights import pretrained, weight_file, weight_names

NOT_IN_SHAPES = {
  'drop_path': 0.0,
  'head_dropout': 0.0,
  'temporal_token': 'learned',
  'map_layout': 'thw',
  'dtype': 'float32',
  'attention': 'xla',
  'remat': 'none',
  'scan_layers': False,
}
BASE = {
  'width': 768,
  'depth': 12,
  'num_heads': 12,
  'mlp_ratio': 4.0,
  'image_size': 224,
  'patch_size': 16,
  'num_frames': 4,
}
SMALL = {
  'width': 64,
  'depth': 2,
  'num_heads': 1,
  'mlp_ratio': 2.0,
  'image_size': 32,
  'patch_size': 8,
  'num_frames': 3,
}


def random_state_dict(values: dict, seed: int = 0) -> dict[str, np.ndarray]:
  """Official weights of a given size, no two values alike."""
  rng = np.random.default_rng(seed)
  return {
    name: np.array(7, np.int64)
    if name.endswith('num_batches_tracked')
    else rng.standard_normal(shape).astype(np.float32)
    for name, shape in weight_names.official_shapes(values).items()
  }


def random_geometry(seed: int) -> dict:
  rng = np.random.default_rng(seed)
  heads, patch = int(rng.integers(1, 5)), int(rng.integers(1, 6))
  width = heads * 4 * int(rng.integers(1, 6))
  return {
    'width': width,
    'depth': int(rng.integers(1, 4)),
    'num_heads': heads,
    'mlp_ratio': int(rng.integers(1, 5 * width)) / width,
    'image_size': patch * int(rng.integers(1, 6)),
    'patch_size': patch,
    'num_frames': int(rng.integers(1, 8)),
  }


def abstract_weights(values: dict) -> tuple[dict, dict]:
  """Shapes of the parameters and other arrays of a model."""
  config = model.StormerConfig(**values, **NOT_IN_SHAPES)
  weights = nnx.eval_shape(
    lambda: nnx.split(model.Stormer(config, rngs=nnx.Rngs(0)), nnx.Param, ...)
  )
  return tuple(nnx.to_pure_dict(state) for state in weights[1:])


def shapes(tree) -> dict:
  return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def assert_same(read, written):
  assert list(read) == list(written)
  for name, value in written.items():
    assert read[name].dtype == value.dtype, name
    np.testing.assert_array_equal(read[name], value)


def test_the_golden_checkpoint_comes_back_bit_by_bit(golden):
  state_dict = weight_file.read_state_dict(golden / 'model_tiny_state_dict.npz')
  values, params, stats = pretrained.from_official(state_dict, 4)
  assert values == SMALL | {
    'width': 48,
    'depth': 3,
    'num_heads': 4,
    'mlp_ratio': 4.0,
    'num_frames': 4,
  }
  assert_same(pretrained.to_official(params, stats), state_dict)


@pytest.mark.parametrize('seed', range(12))
def test_any_size_is_told_by_shapes_and_comes_back(seed):
  values = random_geometry(seed)
  state_dict = random_state_dict(values, seed)
  told, params, stats = pretrained.from_official(
    state_dict, values['num_heads']
  )
  wanted_params, wanted_stats = abstract_weights(told)
  assert shapes(params) == shapes(wanted_params)
  assert shapes(stats) == shapes(wanted_stats)
  hidden = round(values['width'] * values['mlp_ratio'])
  assert int(told['width'] * told['mlp_ratio']) == hidden
  assert told | {'mlp_ratio': 0} == values | {'mlp_ratio': 0}
  assert_same(pretrained.to_official(params, stats), state_dict)


def test_the_base_model_has_the_published_number_of_parameters():
  sizes = {
    name: math.prod(shape)
    for name, shape in weight_names.official_shapes(BASE).items()
    if 'running' not in name and 'tracked' not in name
  }
  assert sum(sizes.values()) == 123_627_078  # METHOD 6.7
  params, stats = abstract_weights(BASE)
  ours = sum(x.size for x in jax.tree.leaves(params))
  assert ours + sum(
    x.size for x in jax.tree.leaves(stats['unused_norm'])
  ) == sum(sizes.values())


def test_reading_copies_and_never_aliases_the_source():
  state_dict = random_state_dict(SMALL)
  _, params, _ = pretrained.from_official(state_dict)
  for leaf in jax.tree.leaves(params):
    assert not any(np.may_share_memory(leaf, x) for x in state_dict.values())


def test_heads_are_of_64_features_unless_told():
  state_dict = random_state_dict(SMALL | {'width': 128})
  assert pretrained.from_official(state_dict)[0]['num_heads'] == 2
  assert pretrained.from_official(state_dict, 8)[0]['num_heads'] == 8
  with pytest.raises(ValueError, match='3 heads do not divide the width 128'):
    pretrained.from_official(state_dict, 3)
  with pytest.raises(ValueError, match='heads cannot be told'):
    pretrained.from_official(random_state_dict(SMALL | {'width': 48}))


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(dtype):
  state_dict = {
    name: x.astype(dtype) if x.ndim else x
    for name, x in random_state_dict(SMALL).items()
  }
  values, params, stats = pretrained.from_official(state_dict)
  assert shapes(params) == shapes(abstract_weights(values)[0])
  official = pretrained.to_official(params, stats)
  for name, x in state_dict.items():
    np.testing.assert_array_equal(
      official[name], x.astype(official[name].dtype)
    )


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'backbone.blocks.1.mlp.fc2.bias': None}, 'missing: .*1.mlp.fc2.bias'),
    ({'backbone.temp_token': None}, 'missing: backbone.temp_token'),
    ({'backbone.time_embed': None}, 'backbone.time_embed is missing'),
    ({'backbone.blocks.0.mlp.fc1.weight': None}, 'fc1.weight is missing'),
    ({'keypoint_head.extra': np.ones(2)}, 'unknown: keypoint_head.extra'),
    (
      {'backbone.blocks.9.norm1.weight': np.ones(64, np.float32)},
      'missing: backbone.blocks.2.*unknown: backbone.blocks.9.norm1.weight',
    ),
    (
      {'backbone.norm.bias': np.ones(63, np.float32)},
      r'backbone.norm.bias has \(63,\), expected \(64,\)',
    ),
    (
      {'backbone.norm.bias': np.ones(64, np.int32)},
      'backbone.norm.bias is int32',
    ),
    (
      {'backbone.norm.bias': np.full(64, np.nan, np.float32)},
      'not finite .*: backbone.norm.bias',
    ),
    (
      {'backbone.pos_embed': np.ones((1, 13, 64), np.float32)},
      'pos_embed has 12 places',
    ),
    ({'backbone.pos_embed': np.ones((13, 64), np.float32)}, 'expected 3 axes'),
    (
      {'backbone.time_embed': np.ones((1, 1, 64), np.float32)},
      'no place for a frame',
    ),
  ],
)
def test_what_does_not_fit_is_named(change, named):
  state_dict = random_state_dict(SMALL) | change
  state_dict = {k: v for k, v in state_dict.items() if v is not None}
  with pytest.raises(ValueError, match=named):
    pretrained.from_official(state_dict)


def test_counts_of_batches_that_are_missing_are_zero():
  state_dict = random_state_dict(SMALL)
  counts = [k for k in state_dict if k.endswith('num_batches_tracked')]
  without = {k: v for k, v in state_dict.items() if k not in counts}
  _, params, stats = pretrained.from_official(without)
  official = pretrained.to_official(params, stats)
  assert len(counts) == 2
  zeros = {name: np.array(0, np.int64) for name in counts}
  assert_same(official, state_dict | zeros)


def test_other_models_are_recognised():
  with pytest.raises(ValueError, match='an image ViT'):
    pretrained.from_official({'cls_token': np.ones((1, 1, 8))})
  small = random_state_dict(SMALL)
  del small['backbone.time_embed']
  small['backbone.register_token'] = np.ones((1, 1, 64), np.float32)
  with pytest.raises(ValueError, match=r'small.*D6'):
    pretrained.from_official(small)
  with pytest.raises(
    ValueError, match=r'not a checkpoint of the method.*fc\.w'
  ):
    pretrained.from_official({'fc.weight': np.ones(3)})


def test_parameters_without_an_official_name_are_an_error():
  _, params, stats = pretrained.from_official(random_state_dict(SMALL))
  with pytest.raises(ValueError, match=r'without an official name: more\.bias'):
    pretrained.to_official(params | {'more': {'bias': np.ones(2)}}, stats)
  del params['norm']['bias']
  with pytest.raises(ValueError, match=r'have no norm\.bias'):
    pretrained.to_official(params, stats)
