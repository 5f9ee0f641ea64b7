"""The names by which the world's image ViTs call one and the same tensors.

Enters: named tensors of an image ViT, from whatever program. Leaves: the same
in timm's names, as a plain ViT has them: LayerScale folded into the layer
before it, query, key and value joined, registers dropped. The names tell whose
they are:

  MAE, timm, DINOv2 (Meta)       blocks.0.norm1.weight
  FSFM, FS-VFM                   the same beside rep_decoder_*
  ViT, ViTMAE, DINOv2 (Hugging Face)   encoder.layer.0....
  CLIP, SigLIP (Hugging Face)    vision_model.encoder.layers.0....
  CLIP, OpenCLIP                 visual.transformer.resblocks.0....
  big_vision, AugReg (.npz)      Transformer/encoderblock_0/...
"""

from collections.abc import Mapping
import re
from typing import NamedTuple

import numpy as np

StateDict = Mapping[str, np.ndarray]

# Mean and deviation of pixels in [0, 1] that a network was trained with.
PIXELS = {
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'half': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  'clip': (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
  ),
  # VGGFace2, as FSFM's pre-training.
  'vggface2': (
    (0.5482207536697388, 0.42340534925460815, 0.3654651641845703),
    (0.2789176106452942, 0.2438540756702423, 0.23493893444538116),
  ),
}


class ImageViT(NamedTuple):
  """An image ViT in timm's names.

  Attributes:
    tensors: `cls_token` and `patch_embed.proj.bias` may be missing; `norm_pre`
      is there if the blocks are preceded by a norm.
    aside: Names of tensors that belong to the ViT's own task, as they were.
    pixels: A key of `PIXELS`, as far as the names tell.
  """

  tensors: dict[str, np.ndarray]
  aside: list[str]
  pixels: str


def read_image_vit(state_dict: StateDict) -> ImageViT:
  """Renames the tensors of an image ViT.

  Args:
    state_dict: As `weight_file.read_state_dict` returns it.

  Raises:
    ValueError: It is one whose blocks are not those of a plain ViT.
  """
  inside, aside = _tower(state_dict)
  pixels = 'imagenet'
  if 'conv1.weight' in inside:
    tensors, pixels = _renamed(inside, _OPEN_CLIP), 'clip'
  elif 'embeddings.patch_embedding.weight' in inside:
    is_clip = 'embeddings.class_embedding' in inside
    pixels = 'clip' if is_clip else 'half'
    tensors = _renamed(inside, _HUGGING_FACE_CLIP)
  elif 'embedding/kernel' in inside:
    tensors, pixels = _from_big_vision(inside), 'half'
  elif 'embeddings.patch_embeddings.projection.weight' in inside:
    tensors = _renamed(inside, _HUGGING_FACE)
  else:
    tensors = _renamed(inside, _TIMM)
    if any(_FSFM.match(name) for name in inside):
      pixels = 'vggface2'
    elif 'norm_pre.weight' in inside:
      pixels = 'clip'
  theirs = {name for name in tensors if _ASIDE.match(name)}
  aside += sorted(theirs)
  tensors = {k: v for k, v in tensors.items() if k not in theirs}
  if any('.mlp.w12.' in name or '.mlp.weights_in.' in name for name in tensors):
    raise ValueError(
      'an image ViT with SwiGLU (DINOv2 giant), which the blocks here have not;'
      ' take a smaller one'
    )
  return ImageViT(_shaped(_joined(_folded(tensors))), aside, pixels)


# What stands before every name of the vision tower of a larger model, then
# before those of a ViT with a head of its own.
_TOWERS = (
  'visual.trunk.',
  'visual.',
  'vision_model.',
  'params/img/',
  'img/',
)
_PREFIXES = re.compile(
  r'^(?:(?:module|model|backbone|encoder(?=\.(?!layers?\.))'
  r'|dinov2|dinov2_with_registers|vit|image_encoder|trunk)\.|params/)+'
)
_FSFM = re.compile('rep_decoder')
# Parts of image ViTs that the detector has no use for.
_ASIDE = re.compile(
  r'head\.|head_dist\.|classifier\.|pre_logits\.|pooler\.|fc_norm\.|head/'
  r'|pre_logits/|MAPHead_0/|attn_pool\.|decoder|rep_decoder|projector\.'
  r'|predictor\.|mask_token$|reg_token$|proj$|embeddings\.position_ids$'
  r'|logit_scale$|logit_bias$'
)
_TIMM = (
  (r'^register_tokens$', 'reg_token'),
  # Chunks of DINOv2's training: blocks.CHUNK.BLOCK.
  (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),
)
_HUGGING_FACE = (
  (r'^embeddings\.cls_token$', 'cls_token'),
  (r'^embeddings\.mask_token$', 'mask_token'),
  (r'^embeddings\.register_tokens$', 'reg_token'),
  (r'^embeddings\.position_embeddings$', 'pos_embed'),
  (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
  (r'^encoder\.layer\.', 'blocks.'),
  (r'\.layernorm_before\.', '.norm1.'),
  (r'\.layernorm_after\.', '.norm2.'),
  (r'\.attention\.output\.dense\.', '.attn.proj.'),
  (r'\.attention\.attention\.', '.attn.'),
  (r'\.intermediate\.dense\.', '.mlp.fc1.'),
  (r'\.output\.dense\.', '.mlp.fc2.'),
  (r'\.layer_scale([12])\.lambda1$', r'.ls\1.gamma'),
  (r'^layernorm\.', 'norm.'),
)
_HUGGING_FACE_CLIP = (
  (r'^embeddings\.class_embedding$', 'cls_token'),
  (r'^embeddings\.patch_embedding\.', 'patch_embed.proj.'),
  (r'^embeddings\.position_embedding\.weight$', 'pos_embed'),
  (r'^pre_layrnorm\.', 'norm_pre.'),  # their spelling
  (r'^pre_layernorm\.', 'norm_pre.'),
  (r'^encoder\.layers\.', 'blocks.'),
  (r'\.layer_norm([12])\.', r'.norm\1.'),
  (r'\.self_attn\.q_proj\.', '.attn.query.'),
  (r'\.self_attn\.k_proj\.', '.attn.key.'),
  (r'\.self_attn\.v_proj\.', '.attn.value.'),
  (r'\.self_attn\.out_proj\.', '.attn.proj.'),
  (r'^post_layernorm\.', 'norm.'),
)
_OPEN_CLIP = (
  (r'^class_embedding$', 'cls_token'),
  (r'^positional_embedding$', 'pos_embed'),
  (r'^conv1\.', 'patch_embed.proj.'),
  (r'^ln_pre\.', 'norm_pre.'),
  (r'^ln_post\.', 'norm.'),
  (r'^transformer\.resblocks\.', 'blocks.'),
  (r'\.ln_([12])\.', r'.norm\1.'),
  (r'\.attn\.in_proj_', '.attn.qkv.'),
  (r'\.attn\.out_proj\.', '.attn.proj.'),
  (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
  (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
  (r'\.ls_([12])\.gamma$', r'.ls\1.gamma'),
)
_BIG_VISION = (
  (r'^cls$', 'cls_token'),
  (r'^(?:Transformer/posembed_input/)?pos_embedding$', 'pos_embed'),
  (r'^embedding/', 'patch_embed/proj/'),
  (r'^Transformer/encoder_norm/', 'norm/'),
  (r'^Transformer/encoderblock_', 'blocks/'),
  (r'/LayerNorm_0/', '/norm1/'),
  (r'/LayerNorm_[12]/', '/norm2/'),
  (r'/MultiHeadDotProductAttention_[01]/out/', '/attn/proj/'),
  (r'/MultiHeadDotProductAttention_[01]/', '/attn/'),
  (r'/MlpBlock_[03]/Dense_0/', '/mlp/fc1/'),
  (r'/MlpBlock_[03]/Dense_1/', '/mlp/fc2/'),
  (r'/(?:kernel|scale)$', '/weight'),
)


def _tower(state_dict: StateDict) -> tuple[dict[str, np.ndarray], list[str]]:
  """The image ViT in a model, without what stands before its names."""
  for tower in _TOWERS:
    if any(tower in name for name in state_dict):
      inside = {
        name.split(tower, 1)[1]: value
        for name, value in state_dict.items()
        if tower in name
      }
      return inside, [name for name in state_dict if tower not in name]
  return {_PREFIXES.sub('', k): v for k, v in state_dict.items()}, []


def _renamed(
  tensors: StateDict, patterns: tuple[tuple[str, str], ...]
) -> dict[str, np.ndarray]:
  new = {}
  for name, value in tensors.items():
    for pattern, replacement in patterns:
      name = re.sub(pattern, replacement, name)
    new[name] = value
  return new


def _from_big_vision(tensors: StateDict) -> dict[str, np.ndarray]:
  """Turns Flax's arrays too: [in, heads, head size] to [out, in]."""
  apart: dict[str, np.ndarray] = {}
  for name, value in tensors.items():
    match = re.match(r'Transformer/encoderblock/(.*)', name)
    if match:  # all blocks in one array
      apart |= {
        f'Transformer/encoderblock_{i}/{match[1]}': x
        for i, x in enumerate(value)
      }
    else:
      apart[name] = value
  turned = {}
  for name, value in _renamed(apart, _BIG_VISION).items():
    value = np.asarray(value)
    if name.startswith('blocks/'):
      if name.endswith('/attn/proj/weight'):
        value = value.reshape(-1, value.shape[-1]).T
      elif name.endswith('/bias'):
        value = value.reshape(-1)
      elif '/norm' not in name:
        value = value.reshape(value.shape[0], -1).T
    elif name == 'patch_embed/proj/weight':
      value = value.transpose(3, 2, 0, 1)
    is_theirs = _ASIDE.match(name)
    turned[name if is_theirs else name.replace('/', '.')] = value
  return turned


def _folded(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """LayerScale: g * (x W + b) is x (W g) + b g."""
  tensors = dict(tensors)
  for name in [n for n in tensors if re.search(r'\.ls[12]\.gamma$', n)]:
    gamma = np.asarray(tensors.pop(name), np.float32)
    layer = name.replace('.ls1.gamma', '.attn.proj')
    layer = layer.replace('.ls2.gamma', '.mlp.fc2')
    for part, factor in (('weight', gamma[:, None]), ('bias', gamma)):
      if f'{layer}.{part}' in tensors:
        value = np.asarray(tensors[f'{layer}.{part}'], np.float32)
        tensors[f'{layer}.{part}'] = value * factor
  return tensors


def _joined(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Query, key and value of a block in one array, in this order."""
  for name in list(tensors):
    if '.attn.query.' in name:
      parts = [name.replace('query', x) for x in ('query', 'key', 'value')]
      if all(part in tensors for part in parts):
        joined = np.concatenate([tensors.pop(part) for part in parts])
        tensors[name.replace('query', 'qkv')] = joined
  return tensors


def _shaped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Tokens with an axis for the batch, patches with axes for their pixels."""
  for name, ndim in (('cls_token', 3), ('pos_embed', 3)):
    if name in tensors:
      value = tensors[name]
      axes = tuple(range(ndim - value.ndim))
      tensors[name] = np.expand_dims(value, axes) if axes else value
  weight = tensors.get('patch_embed.proj.weight')
  if weight is not None and weight.ndim == 2:  # SigLIP2 NaFlex: (h w c) pixels
    size = round((weight.shape[1] / 3) ** 0.5)
    if 3 * size**2 == weight.shape[1]:
      pixels = weight.reshape(-1, size, size, 3)
      tensors['patch_embed.proj.weight'] = pixels.transpose(0, 3, 1, 2)
  return tensors
