"""image_vit: the backbone computes what the image ViT did, whoever named it."""

import math
import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormer_jax import model
from stormer_jax.weights import image_vit, pretrained, vit_names, weight_names

WIDTH, DEPTH, HEADS, PATCH, GRID, HIDDEN = 24, 2, 3, 8, 4, 48
CONFIG = {
  'width': WIDTH,
  'depth': DEPTH,
  'num_heads': HEADS,
  'mlp_ratio': 2.0,
  'image_size': PATCH * GRID,
  'patch_size': PATCH,
  'num_frames': 1,
  'drop_path': 0.0,
  'head_dropout': 0.0,
  'temporal_token': 'learned',
  'map_layout': 'thw',
  'dtype': 'float32',
  'attention': 'xla',
  'remat': 'none',
  'scan_layers': True,
}


def parts(**changes):
  """Static half, and parameters and statistics that are all different."""
  config = model.StormerConfig(**CONFIG | changes)
  graphdef, *trees = nnx.split(
    nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0))),
    nnx.Param,
    ...,
  )
  rng = np.random.default_rng(0)
  params, stats = (
    jax.tree.map(
      lambda x: rng.standard_normal(x.shape).astype(x.dtype),
      nnx.to_pure_dict(tree),
    )
    for tree in trees
  )
  # As a fresh start has them: temporal attention adds nothing yet.
  params['blocks']['temporal_fc'] = jax.tree.map(
    np.zeros_like, params['blocks']['temporal_fc']
  )
  params['time_embed'] = np.zeros_like(params['time_embed'])
  return graphdef, params, stats


def plain_vit(grid=GRID, patch=PATCH, **extra):
  """An image ViT in timm's names; `extra` are shapes of further tensors."""
  shapes = {
    'cls_token': (1, 1, WIDTH),
    'pos_embed': (1, 1 + grid**2, WIDTH),
    'patch_embed.proj.weight': (WIDTH, 3, patch, patch),
    'patch_embed.proj.bias': (WIDTH,),
    'norm.weight': (WIDTH,),
    'norm.bias': (WIDTH,),
  }
  for i in range(DEPTH):
    for name, shape in (
      ('norm1', (WIDTH,)),
      ('attn.qkv', (3 * WIDTH, WIDTH)),
      ('attn.proj', (WIDTH, WIDTH)),
      ('norm2', (WIDTH,)),
      ('mlp.fc1', (HIDDEN, WIDTH)),
      ('mlp.fc2', (WIDTH, HIDDEN)),
    ):
      shapes[f'blocks.{i}.{name}.weight'] = shape
      shapes[f'blocks.{i}.{name}.bias'] = shape[:1]
  rng = np.random.default_rng(3)
  return {
    name: (0.3 * rng.standard_normal(shape)).astype(np.float32)
    for name, shape in (shapes | extra).items()
  }


def layer_scales():
  return {
    f'blocks.{i}.ls{k}.gamma': (WIDTH,) for i in range(DEPTH) for k in (1, 2)
  }


def pre_norm():
  return {'norm_pre.weight': (WIDTH,), 'norm_pre.bias': (WIDTH,)}


ACTIVATIONS = {
  'gelu': lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5)),
  'quick_gelu': lambda x: x / (1 + np.exp(-1.702 * x)),
  'gelu_tanh': lambda x: (
    0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
  ),
}


def reference(vit, image, pixels='imagenet', activation='gelu'):
  """Tokens of an image ViT in plain NumPy, its last norm included.

  Args:
    vit: In timm's names.
    image: [h, w, 3] in [0, 1].
    pixels: A key of `vit_names.PIXELS`.
    activation: A key of `ACTIVATIONS`.
  """
  w = {name: x.astype(np.float64) for name, x in vit.items()}

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * w[f'{name}.weight'] + w[f'{name}.bias']

  def linear(x, name):
    return x @ w[f'{name}.weight'].T + w[f'{name}.bias']

  mean, deviation = vit_names.PIXELS[pixels]
  x = (image - mean) / deviation
  x = x.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3)
  kernel = w['patch_embed.proj.weight'].reshape(WIDTH, -1)
  x = x.reshape(GRID**2, -1) @ kernel.T + w.get('patch_embed.proj.bias', 0)
  if 'cls_token' in w:
    x = np.concatenate([w['cls_token'][0], x])
  x = x + w['pos_embed'][0]
  if 'norm_pre.weight' in w:
    x = norm(x, 'norm_pre')
  for i in range(DEPTH):
    block = f'blocks.{i}'
    q, k, v = np.split(
      linear(norm(x, f'{block}.norm1'), f'{block}.attn.qkv'), 3, 1
    )
    heads = []
    for h in range(HEADS):
      part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
      scores = q[:, part] @ k[:, part].T / (WIDTH // HEADS) ** 0.5
      scores = np.exp(scores - scores.max(1, keepdims=True))
      heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
    change = linear(np.concatenate(heads, 1), f'{block}.attn.proj')
    x = x + change * w.get(f'{block}.ls1.gamma', 1)
    hidden = ACTIVATIONS[activation](
      linear(norm(x, f'{block}.norm2'), f'{block}.mlp.fc1')
    )
    x = x + linear(hidden, f'{block}.mlp.fc2') * w.get(f'{block}.ls2.gamma', 1)
  return norm(x, 'norm')


def split_qkv(vit, to):
  """Query, key and value apart; `to` formats their names."""
  apart = {}
  for name, value in vit.items():
    if '.attn.qkv.' in name:
      for part, x in zip('qkv', np.split(value, 3), strict=True):
        apart[name.replace('attn.qkv', to[part])] = x
    else:
      apart[name] = value
  return apart


def renamed(vit, pairs, prefix=''):
  new = {}
  for name, value in vit.items():
    for ours, theirs in pairs:
      name = re.sub(ours, theirs, name)
    new[prefix + name] = value
  return new


def ones(*shape):
  return np.ones(shape, np.float32)


def mae(vit):
  return vit | {
    'mask_token': ones(1, 1, 8),
    'decoder_pos_embed': ones(1, 17, 8),
    'decoder_blocks.0.norm1.weight': ones(8),
  }


def fsfm(vit):
  return mae(vit) | {
    'rep_decoder_embed.weight': ones(8, WIDTH),
    'rep_decoder_blocks.0.attn.qkv.weight': ones(24, 8),
    'projector.0.weight': ones(8, 8),
    'predictor.0.weight': ones(8, 8),
  }


def dinov2_meta(vit):
  return vit | {
    'mask_token': ones(1, WIDTH),
    'register_tokens': ones(1, 4, WIDTH),
  }


def hugging_face(vit, prefix='vit.'):
  attention = 'attention.attention.'
  vit = split_qkv(
    vit,
    {
      'q': f'{attention}query',
      'k': f'{attention}key',
      'v': f'{attention}value',
    },
  )
  return renamed(
    vit,
    [
      ('cls_token', 'embeddings.cls_token'),
      ('pos_embed', 'embeddings.position_embeddings'),
      ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
      ('blocks.', 'encoder.layer.'),
      ('attn.proj', 'attention.output.dense'),
      ('^norm.', 'layernorm.'),
      ('ls1.gamma', 'layer_scale1.lambda1'),
      ('ls2.gamma', 'layer_scale2.lambda1'),
    ],
    prefix,
  )


def vit_hugging_face(vit):
  new = renamed(
    hugging_face(vit),
    [
      ('.norm1.', '.layernorm_before.'),
      ('.norm2.', '.layernorm_after.'),
      ('mlp.fc1', 'intermediate.dense'),
      ('mlp.fc2', 'output.dense'),
    ],
  )
  return new | {
    'classifier.weight': ones(10, WIDTH),
    'vit.pooler.dense.weight': ones(WIDTH, WIDTH),
  }


def dinov2_hugging_face(vit):
  return hugging_face(vit, 'dinov2.') | {
    'dinov2.embeddings.mask_token': ones(1, WIDTH),
    'dinov2.embeddings.register_tokens': ones(1, 4, WIDTH),
    'classifier.weight': ones(10, 2 * WIDTH),
  }


def hugging_face_tower(vit):
  """The vision tower of transformers' CLIPModel and SiglipModel."""
  new = split_qkv(vit, {part: f'self_attn.{part}_proj' for part in 'qkv'})
  new['pos_embed'] = new['pos_embed'][0]
  if 'cls_token' in new:
    new['cls_token'] = new['cls_token'][0, 0]
  new = renamed(
    new,
    [
      ('cls_token', 'embeddings.class_embedding'),
      ('pos_embed', 'embeddings.position_embedding.weight'),
      ('patch_embed.proj', 'embeddings.patch_embedding'),
      ('norm_pre.', 'pre_layrnorm.'),
      ('blocks.', 'encoder.layers.'),
      ('.norm1.', '.layer_norm1.'),
      ('.norm2.', '.layer_norm2.'),
      ('attn.proj', 'self_attn.out_proj'),
      ('^norm.', 'post_layernorm.'),
    ],
    'vision_model.',
  )
  return new | {
    'text_model.encoder.layers.0.layer_norm1.weight': ones(8),
    'logit_scale': ones(),
  }


def clip_hugging_face(vit):
  return hugging_face_tower(vit) | {
    'vision_model.embeddings.position_ids': np.arange(17)[None],
    'visual_projection.weight': ones(8, WIDTH),
    'text_projection.weight': ones(8, 8),
  }


def siglip_hugging_face(vit):
  return hugging_face_tower(vit) | {
    'vision_model.head.probe': ones(1, 1, WIDTH),
    'vision_model.head.attention.in_proj_weight': ones(3 * WIDTH, WIDTH),
    'vision_model.head.mlp.fc1.weight': ones(HIDDEN, WIDTH),
    'logit_bias': ones(),
  }


def open_clip(vit):
  new = dict(vit)
  new['pos_embed'], new['cls_token'] = (
    vit['pos_embed'][0],
    vit['cls_token'][0, 0],
  )
  new = renamed(
    new,
    [
      ('cls_token', 'class_embedding'),
      ('pos_embed', 'positional_embedding'),
      ('patch_embed.proj', 'conv1'),
      ('norm_pre.', 'ln_pre.'),
      ('blocks.', 'transformer.resblocks.'),
      ('.norm1.', '.ln_1.'),
      ('.norm2.', '.ln_2.'),
      ('attn.qkv.', 'attn.in_proj_'),
      ('attn.proj', 'attn.out_proj'),
      ('mlp.fc1', 'mlp.c_fc'),
      ('mlp.fc2', 'mlp.c_proj'),
      ('^norm.', 'ln_post.'),
    ],
    'visual.',
  )
  return new | {
    'visual.proj': ones(WIDTH, 8),
    'positional_embedding': ones(77, 8),
    'transformer.resblocks.0.ln_1.weight': ones(8),
    'token_embedding.weight': ones(9, 8),
    'text_projection': ones(8, 8),
    'logit_scale': ones(),
  }


def big_vision(vit, scan=False):
  """SigLIP's tower: query, key and value with an axis for heads."""
  img = {}
  head = WIDTH // HEADS
  for name, x in vit.items():
    if name == 'pos_embed':
      img['pos_embedding'] = x
    elif name.startswith('patch_embed'):
      kernel = name.endswith('weight')
      x = x.transpose(2, 3, 1, 0) if kernel else x
      img[f'embedding/{"kernel" if kernel else "bias"}'] = x
    elif name.startswith('norm.'):
      part = 'scale' if name.endswith('weight') else 'bias'
      img[f'Transformer/encoder_norm/{part}'] = x
    else:
      _, block, *layer, part = name.split('.')
      layer, kernel = '.'.join(layer), part == 'weight'
      place = f'Transformer/encoderblock_{block}/'
      attention = f'{place}MultiHeadDotProductAttention_0/'
      ending = 'kernel' if kernel else 'bias'
      if layer == 'attn.qkv':
        for which, y in zip(
          ('query', 'key', 'value'), np.split(x, 3), strict=True
        ):
          y = (
            y.T.reshape(WIDTH, HEADS, head)
            if kernel
            else y.reshape(HEADS, head)
          )
          img[f'{attention}{which}/{ending}'] = y
      elif layer == 'attn.proj':
        y = x.T.reshape(HEADS, head, WIDTH) if kernel else x
        img[f'{attention}out/{ending}'] = y
      elif layer.startswith('mlp'):
        number = int(layer[-1]) - 1
        img[f'{place}MlpBlock_0/Dense_{number}/{ending}'] = x.T if kernel else x
      else:
        number, ending = int(layer[-1]) - 1, 'scale' if kernel else 'bias'
        img[f'{place}LayerNorm_{number}/{ending}'] = x
  if scan:
    first = [n for n in img if '/encoderblock_0/' in n]
    for name in first:
      blocks = [
        img.pop(name.replace('block_0', f'block_{i}')) for i in range(DEPTH)
      ]
      img[name.replace('block_0', 'block')] = np.stack(blocks)
  img['MAPHead_0/probe'] = ones(1, 1, WIDTH)
  img['MAPHead_0/LayerNorm_0/scale'] = ones(WIDTH)
  return {f'params/img/{k}': v for k, v in img.items()} | {
    'params/t': ones(1),
    'params/b': ones(1),
    'params/txt/Encoder_0/encoderblock_0/LayerNorm_0/scale': ones(8),
  }


def without(vit, *names):
  return {k: v for k, v in vit.items() if k not in names}


def no_class():
  vit = without(plain_vit(), 'cls_token')
  return vit | {'pos_embed': vit['pos_embed'][:, 1:]}


def with_clip():
  return without(plain_vit(**pre_norm()), 'patch_embed.proj.bias')


# Name -> the ViT in timm's names, its names, its pixels, activation.
FAMILIES = {
  'MAE': (plain_vit, mae, 'imagenet', 'gelu'),
  'FSFM': (plain_vit, fsfm, 'vggface2', 'gelu'),
  'ViT (Hugging Face)': (plain_vit, vit_hugging_face, 'imagenet', 'gelu'),
  'DINOv2 (Meta)': (
    lambda: plain_vit(**layer_scales()),
    dinov2_meta,
    'imagenet',
    'gelu',
  ),
  'DINOv2 (Hugging Face)': (
    lambda: plain_vit(**layer_scales()),
    dinov2_hugging_face,
    'imagenet',
    'gelu',
  ),
  'CLIP (Hugging Face)': (with_clip, clip_hugging_face, 'clip', 'quick_gelu'),
  'OpenCLIP': (with_clip, open_clip, 'clip', 'gelu'),
  'SigLIP2 (Hugging Face)': (
    no_class,
    siglip_hugging_face,
    'half',
    'gelu_tanh',
  ),
  'big_vision': (no_class, big_vision, 'half', 'gelu_tanh'),
  'big_vision, scanned': (
    no_class,
    lambda vit: big_vision(vit, scan=True),
    'half',
    'gelu_tanh',
  ),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_the_backbone_computes_what_the_image_vit_did(family):
  """Without temporal attention and with one frame it is an image ViT."""
  make, rename, pixels, activation = FAMILIES[family]
  vit = make()
  graphdef, params, stats = parts(
    activation=activation, pre_norm='norm_pre.weight' in vit
  )
  new = image_vit.init_backbone_from_vit(params, rename(vit))
  if 'cls_token' not in vit:  # ours takes part in attention: theirs as ours
    vit = vit | {
      'cls_token': params['class_token'],
      'pos_embed': np.concatenate(
        [params['position_embed'][:, :1], vit['pos_embed']], axis=1
      ),
    }
  image = np.random.default_rng(1).uniform(size=(PATCH * GRID, PATCH * GRID, 3))
  mean, deviation = vit_names.PIXELS['imagenet']
  clip = jnp.asarray((image - mean) / deviation, jnp.float32)[None, None]
  detector = nnx.merge(
    graphdef, *(nnx.State(jax.tree.map(jnp.asarray, t)) for t in (new, stats))
  )
  detector.eval()
  tokens, _ = detector.encode(detector.embed(clip))
  # Of one clip of one frame: the class token, then the patches.
  rows = jnp.concatenate([tokens.class_token, tokens.patches[0, :, 0]])
  got = detector.norm(rows)
  expected = reference(vit, image, pixels, activation)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
  'prefix', ['module.', 'model.', 'backbone.', 'module.model.', 'encoder.']
)
def test_words_before_the_names_change_nothing(prefix):
  vit, (_, params, _) = plain_vit(), parts()
  prefixed = {prefix + name: x for name, x in vit.items()}
  jax.tree.map(
    np.testing.assert_array_equal,
    image_vit.init_backbone_from_vit(params, prefixed),
    image_vit.init_backbone_from_vit(params, vit),
  )


def test_a_vit_fills_its_part_of_the_backbone_and_nothing_else():
  vit, (_, params, stats) = plain_vit(), parts()
  before = jax.tree.map(np.copy, params)
  new = image_vit.init_backbone_from_vit(params, mae(vit))
  jax.tree.map(np.testing.assert_array_equal, params, before)
  kept = pretrained.to_official(params, stats)
  for name, value in pretrained.to_official(new, stats).items():
    source = vit.get(name.removeprefix('backbone.'), kept[name])
    np.testing.assert_array_equal(value, source)


def test_a_hybrid_takes_all_but_the_patches():
  vit = plain_vit(patch=16)
  _, params, _ = parts(stem='efficientnet_lite0')
  new = image_vit.init_backbone_from_vit(params, vit)
  jax.tree.map(
    np.testing.assert_array_equal, new['patch_embed'], params['patch_embed']
  )
  np.testing.assert_array_equal(new['class_token'], vit['cls_token'])
  np.testing.assert_array_equal(
    new['blocks']['attn']['qkv']['kernel'][1],
    vit['blocks.1.attn.qkv.weight'].T,
  )


def test_the_places_of_dinov2_come_to_our_grid():
  vit, (_, params, _) = plain_vit(grid=37, patch=14), parts()
  new = image_vit.init_backbone_from_vit(params, vit)
  np.testing.assert_array_equal(
    new['position_embed'],
    image_vit.resize_position_embed(vit['pos_embed'], GRID),
  )
  assert new['position_embed'].shape == (1, 17, WIDTH)


def test_places_without_one_for_the_class_leave_it_none():
  """timm's ViTs with registers add the class's place to its token."""
  vit, (_, params, _) = plain_vit(), parts()
  vit |= {'pos_embed': vit['pos_embed'][:, 1:], 'reg_token': ones(1, 4, WIDTH)}
  new = image_vit.init_backbone_from_vit(params, vit)
  assert not new['position_embed'][:, 0].any()
  np.testing.assert_array_equal(new['position_embed'][:, 1:], vit['pos_embed'])


def test_a_larger_patch_gives_for_enlarged_pixels_what_the_old_gave():
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((5, 3, 14, 14)).astype(np.float32)
  pixels = rng.standard_normal((3, 14, 14)).astype(np.float32)
  large = jax.image.resize(pixels, (3, 16, 16), 'bilinear')
  np.testing.assert_allclose(
    np.einsum('dchw,chw->d', image_vit.resize_patches(kernel, 16), large),
    np.einsum('dchw,chw->d', kernel, pixels),
    rtol=1e-3,
    atol=1e-3,
  )
  assert image_vit.resize_patches(kernel, 14) is kernel
  # Smaller ones cannot keep all, but an even patch is kept.
  flat = image_vit.resize_patches(np.ones((1, 1, 16, 16), np.float32), 8)
  np.testing.assert_allclose(flat.sum(), 256, rtol=0.05)


def test_pixels_may_be_named():
  vit, (_, params, _) = plain_vit(), parts()
  named = image_vit.init_backbone_from_vit(params, vit, 'half')
  kernel = vit['patch_embed.proj.weight'].transpose(2, 3, 1, 0)
  scale = np.array([0.229, 0.224, 0.225])[None, None, :, None] / 0.5
  np.testing.assert_allclose(
    named['patch_embed']['proj']['kernel'], kernel * scale, rtol=1e-6
  )
  with pytest.raises(ValueError, match=r'pretrained_vit_pixels is .grey.'):
    image_vit.init_backbone_from_vit(params, vit, 'grey')


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
  square = image_vit.resize_position_embed(embed, new)[0, 1:, 0]
  expected = np.repeat(np.array(expected)[:, None], new, axis=1)
  np.testing.assert_allclose(square.reshape(new, new), expected, atol=2e-6)


@pytest.mark.extra
@pytest.mark.parametrize(('old', 'new'), [(14, 16), (16, 14), (4, 7), (7, 4)])
def test_resizing_agrees_with_torch(old, new):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  embed = np.random.default_rng(0).standard_normal((1, 1 + old**2, 6))
  embed = embed.astype(np.float32)
  square = torch.from_numpy(embed[0, 1:].reshape(1, old, old, 6))
  expected = torch.nn.functional.interpolate(
    square.permute(0, 3, 1, 2), (new, new), mode='bicubic', antialias=True
  )
  ours = image_vit.resize_position_embed(embed, new)[0, 1:]
  expected = expected[0].permute(1, 2, 0).reshape(-1, 6).numpy()
  np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('change', 'named'),
  [
    ({'blocks.1.attn.qkv.bias': None}, 'missing: blocks.1.attn.qkv.bias'),
    ({'cls_token': None}, 'missing: cls_token'),
    ({'pos_embed': None}, 'not an image ViT.*pos_embed is missing'),
    ({'blocks.0.strange': ones(WIDTH)}, 'unknown: blocks.0.strange'),
    ({'pos_embed': ones(1, 15, WIDTH)}, r'pos_embed has shape \(1, 15, 24\)'),
    (
      {'blocks.2.norm1.bias': ones(WIDTH)},
      "another size or kind: it has {'depth': 3.*the model {'depth': 2",
    ),
    ({'norm.bias': ones(23)}, r'norm.bias has \(23,\), expected \(24,\)'),
    (
      {'norm_pre.weight': ones(WIDTH), 'norm_pre.bias': ones(WIDTH)},
      "'pre_norm': True}, the model .*'pre_norm': False}",
    ),
    ({'blocks.0.mlp.w12.weight': ones(8, WIDTH)}, 'SwiGLU'),
  ],
)
def test_a_vit_that_does_not_fit_is_named(change, named):
  vit = plain_vit() | change
  vit = {k: v for k, v in vit.items() if v is not None}
  with pytest.raises(ValueError, match=named):
    image_vit.init_backbone_from_vit(parts()[1], vit)


def test_weights_of_the_whole_detector_are_sent_elsewhere():
  values = {name: CONFIG[name] for name in list(CONFIG)[:7]}
  whole = {
    name: np.ones(shape, np.float32)
    for name, shape in weight_names.official_shapes(values).items()
  }
  with pytest.raises(ValueError, match=r'whole detector.*init_from'):
    image_vit.init_backbone_from_vit(parts()[1], whole)
