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
    pretrained.from_official(timm_vit(SMALL))
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


# Image ViTs.


def timm_vit(values: dict, grid: int = 4, seed: int = 3) -> dict:
  """An image ViT with the names of timm and MAE, classifier included."""
  rng = np.random.default_rng(seed)
  d, p, hidden = values['width'], values['patch_size'], 2 * values['width']
  sizes = {
    'cls_token': (1, 1, d),
    'pos_embed': (1, 1 + grid**2, d),
    'patch_embed.proj.weight': (d, 3, p, p),
    'patch_embed.proj.bias': (d,),
    'norm.weight': (d,),
    'norm.bias': (d,),
    'head.weight': (10, d),
    'head.bias': (10,),
  }
  for i in range(values['depth']):
    sizes |= {
      f'blocks.{i}.norm1.weight': (d,),
      f'blocks.{i}.norm1.bias': (d,),
      f'blocks.{i}.attn.qkv.weight': (3 * d, d),
      f'blocks.{i}.attn.qkv.bias': (3 * d,),
      f'blocks.{i}.attn.proj.weight': (d, d),
      f'blocks.{i}.attn.proj.bias': (d,),
      f'blocks.{i}.norm2.weight': (d,),
      f'blocks.{i}.norm2.bias': (d,),
      f'blocks.{i}.mlp.fc1.weight': (hidden, d),
      f'blocks.{i}.mlp.fc1.bias': (hidden,),
      f'blocks.{i}.mlp.fc2.weight': (d, hidden),
      f'blocks.{i}.mlp.fc2.bias': (d,),
    }
  return {
    name: rng.standard_normal(shape).astype(np.float32)
    for name, shape in sizes.items()
  }


def as_huggingface(vit: dict) -> dict:
  """The same ViT with the names of transformers' ViTForImageClassification."""
  renamed = {}
  for name, value in vit.items():
    if '.qkv.' in name:
      for part, x in zip(
        ('query', 'key', 'value'), np.split(value, 3), strict=True
      ):
        renamed[name.replace('attn.qkv', f'attention.attention.{part}')] = x
      continue
    for theirs, ours in (
      ('cls_token', 'embeddings.cls_token'),
      ('pos_embed', 'embeddings.position_embeddings'),
      ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
      ('attn.proj', 'attention.output.dense'),
      ('mlp.fc1', 'intermediate.dense'),
      ('mlp.fc2', 'output.dense'),
      ('norm1', 'layernorm_before'),
      ('norm2', 'layernorm_after'),
      ('head.', 'classifier.'),
    ):
      name = name.replace(theirs, ours)
    if name.startswith('norm.'):
      name = name.replace('norm', 'layernorm')
    renamed[name] = value
  return {
    k
    if k.startswith('classifier')
    else f'vit.{k}'.replace('vit.blocks.', 'vit.encoder.layer.'): v
    for k, v in renamed.items()
  }


@pytest.fixture
def params():
  return pretrained.from_official(random_state_dict(SMALL))[1]


def test_a_vit_fills_its_part_of_the_backbone_and_nothing_else(params):
  vit = timm_vit(SMALL)
  before = jax.tree.map(np.copy, params)
  new = pretrained.init_backbone_from_vit(params, vit)
  jax.tree.map(np.testing.assert_array_equal, params, before)
  official = pretrained.to_official(
    new, pretrained.from_official(random_state_dict(SMALL))[2]
  )
  kept = random_state_dict(SMALL)
  for name, value in official.items():
    source = vit.get(name.removeprefix('backbone.'), kept[name])
    np.testing.assert_array_equal(value, source)
  placed = {f'backbone.{name}' for name in vit}
  assert len(placed & set(official)) == len(vit) - 2  # all but the head


def test_mae_timm_and_huggingface_names_mean_the_same(params):
  vit = timm_vit(SMALL)
  expected = pretrained.init_backbone_from_vit(params, vit)
  decoder = {
    'mask_token': np.ones((1, 1, 8), np.float32),
    'decoder_pos_embed': np.ones((1, 17, 8), np.float32),
    'decoder_blocks.0.norm1.weight': np.ones(8, np.float32),
  }
  mae = {k: v for k, v in vit.items() if 'head' not in k} | decoder
  pooler = {'vit.pooler.dense.weight': np.ones((64, 64), np.float32)}
  for other in (mae, as_huggingface(vit), as_huggingface(vit) | pooler):
    new = pretrained.init_backbone_from_vit(params, other)
    jax.tree.map(np.testing.assert_array_equal, new, expected)


@pytest.mark.parametrize('grid', [2, 3, 7])
def test_a_position_embedding_of_another_grid_is_resized(params, grid):
  vit = timm_vit(SMALL, grid)
  new = pretrained.init_backbone_from_vit(params, vit)
  embed = new['position_embed']
  np.testing.assert_array_equal(embed[:, 0], vit['pos_embed'][:, 0])
  assert embed.shape == (1, 17, 64)
  flat = np.full((1, 1 + grid**2, 64), 0.25, np.float32)
  resized = pretrained.resize_position_embed(flat, 4)
  np.testing.assert_allclose(resized, 0.25, rtol=1e-6)


@pytest.mark.parametrize(
  ('old', 'expected'),
  [
    (4, [-0.065789, 0.529412, 0.937500, 0.131944, -0.058824, 0.0]),
    (6, [0.393204, 0.372129, -0.041348, 0.0]),
  ],
)
def test_resizing_is_bicubic_with_antialiasing(old, expected):
  # A bright second row, as torch 2.13 resizes it.
  embed = np.zeros((1, 1 + old**2, 1), np.float32)
  embed[0, 1 + old : 1 + 2 * old] = 1
  new = len(expected)
  square = pretrained.resize_position_embed(embed, new)[0, 1:, 0]
  expected = np.repeat(np.array(expected)[:, None], new, axis=1)
  np.testing.assert_allclose(square.reshape(new, new), expected, atol=2e-6)


@pytest.mark.parametrize(('old', 'new'), [(14, 16), (16, 14), (4, 7), (7, 4)])
def test_resizing_agrees_with_torch(old, new):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  embed = np.random.default_rng(0).standard_normal((1, 1 + old**2, 6))
  embed = embed.astype(np.float32)
  square = torch.from_numpy(embed[0, 1:].reshape(1, old, old, 6))
  expected = torch.nn.functional.interpolate(
    square.permute(0, 3, 1, 2), (new, new), mode='bicubic', antialias=True
  )
  ours = pretrained.resize_position_embed(embed, new)[0, 1:]
  expected = expected[0].permute(1, 2, 0).reshape(-1, 6).numpy()
  np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'blocks.1.attn.qkv.bias': None}, 'missing: blocks.1.attn.qkv.bias'),
    ({'cls_token': None}, 'missing: cls_token'),
    ({'pos_embed': None}, 'not an image ViT.*pos_embed is missing'),
    (
      {'blocks.0.ls1.gamma': np.ones(64, np.float32)},
      'unknown: blocks.0.ls1.gamma',
    ),
    (
      {'pos_embed': np.ones((1, 16, 64), np.float32)},
      r'pos_embed has shape \(1, 16, 64\)',
    ),
    (
      {'blocks.2.norm1.bias': np.ones(64, np.float32)},
      "another size: it has {'depth': 3.*the model {'depth': 2",
    ),
    (
      {'norm.bias': np.ones(63, np.float32)},
      r'norm.bias has \(63,\), expected \(64,\)',
    ),
    (
      {'backbone.cls_token': np.ones((1, 1, 64), np.float32)},
      'whole detector.*init_from',
    ),
  ],
)
def test_a_vit_that_does_not_fit_is_named(params, change, named):
  vit = timm_vit(SMALL) | change
  vit = {k: v for k, v in vit.items() if v is not None}
  with pytest.raises(ValueError, match=named):
    pretrained.init_backbone_from_vit(params, vit)
