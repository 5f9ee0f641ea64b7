"""Starts the backbone from an image ViT, and writes one.

Enters: freshly initialised parameters, and the named tensors of an image ViT
(`vit_names` says of whose). Leaves: parameters whose spatial half computes what
the image ViT does (METHOD 6.6). What differs between the two is taken into the
weights where that is exact: the scale of the pixels and, for larger patches,
their size. Every tensor is placed or named.
"""

from collections.abc import Mapping
import math
from typing import Any

from absl import logging
import jax
from jaxtyping import Float
import numpy as np

from stormer_jax.weights import placing, vit_names, weight_names

Tree = dict[str, Any]  # nested, arrays at the leaves
StateDict = Mapping[str, np.ndarray]


def init_backbone_from_vit(
  params: Mapping[str, Any], state_dict: StateDict, pixels: str = 'auto'
) -> Tree:
  """Starts the backbone from an image ViT, as METHOD 6.6 does from MAE.

  Placed are patch embedding, class token, position embedding, the norm before
  the blocks where the model has one, the spatial attention, norms and MLP of
  every block, and the last norm. A position embedding of another grid is
  resized bicubically, with antialiasing when it shrinks (as timm does); patches
  of another size by the pseudo-inverse of a bilinear resize (FlexiViT, arXiv
  2212.08013, section 3.4). The ViT's own head or decoder is left aside, and,
  where the model has a stem of convolutions, its patch embedding too. All else
  keeps its values in `params`, which should be freshly initialised.

  Args:
    params: Of the model to train.
    state_dict: As `weight_file.read_state_dict` returns it.
    pixels: What the ViT was trained on, a key of `vit_names.PIXELS`; 'auto'
      takes what the names tell.

  Returns:
    New parameters, NumPy arrays; `params` is not changed.

  Raises:
    ValueError: A tensor of the ViT is missing, unknown or of another size than
      the model's; all such are named.
  """
  if pixels not in ('auto', *vit_names.PIXELS):
    raise ValueError(
      f'pretrained_vit_pixels is {pixels!r}; it is one of auto,'
      f' {", ".join(vit_names.PIXELS)}'
    )
  if 'blocks' not in params:
    raise ValueError(
      'pretrained_vit is given, and the model has no transformer to start'
      ' (model.kind); --config.pretrained_vit= leaves it out'
    )
  vit = vit_names.read_image_vit(state_dict)
  leaves = placing.flatten(params)
  depth = len(leaves['blocks', 'norm1', 'scale'])
  tensors, aside = dict(vit.tensors), list(vit.aside)
  _check_vit(tensors, leaves, depth)
  if pixels == 'auto':
    pixels = vit.pixels
  places = weight_names.vit_places(depth, pre_norm='norm_pre' in params)
  if 'stem' in params['patch_embed']:
    embedding = [p.theirs for p in places if p.ours[0] == 'patch_embed']
    places = [p for p in places if p.theirs not in embedding]
    aside += [name for name in embedding if tensors.pop(name, None) is not None]
  else:
    tensors |= _patch_embedding(
      tensors, leaves['patch_embed', 'proj', 'kernel'].shape[0], pixels
    )
  grid = math.isqrt(leaves['position_embed',].shape[1] - 1)
  # SigLIP has no class: ours keeps its fresh start.
  if 'cls_token' not in tensors and _is_square(tensors['pos_embed'].shape[1]):
    places = [p for p in places if p.theirs != 'cls_token']
  tensors['pos_embed'] = _position_embedding(
    tensors, leaves['position_embed',], grid
  )
  shapes = {}
  for place in places:
    leaf = leaves[place.ours]
    leaf = leaf if place.block is None else leaf[place.block]
    shapes[place.theirs] = place.layout.theirs(leaf).shape
  placing.check_tensors(tensors, shapes)
  new: Tree = jax.tree.map(np.asarray, dict(params))
  for place in places:
    placing.place(new, place, tensors[place.theirs], depth)
  if aside:
    logging.info('left aside of the image ViT: %s', placing.some(sorted(aside)))
  logging.info('the image ViT is taken to know pixels as %s', pixels)
  return new


def to_image_vit(params: Mapping[str, Any]) -> StateDict:
  """Names the tensors of an image ViT as MAE and timm do.

  Args:
    params: Of a model with the embedding, blocks and last norm of one; its
      heads or decoder are left aside.
  """
  leaves = placing.flatten(params)
  depth = len(leaves['blocks', 'norm1', 'scale'])
  tensors = {}
  for place in weight_names.vit_places(depth, 'norm_pre' in params):
    leaf = np.asarray(leaves[place.ours], np.float32)
    leaf = leaf if place.block is None else leaf[place.block]
    tensors[place.theirs] = place.layout.theirs(leaf)
  return tensors


def resize_position_embed(
  embed: Float[np.ndarray, '1 n d'], grid: int
) -> Float[np.ndarray, '1 m d']:
  """Resizes the places of a square grid, bicubically; the class keeps its own.

  Args:
    embed: First the class token's place, then the patches' row by row.
    grid: Patches along one side that are wanted.
  """
  old = math.isqrt(embed.shape[1] - 1)
  if old == grid:
    return embed
  width = embed.shape[2]
  square = embed[0, 1:].reshape(old, old, width).astype(np.float32)
  square = np.asarray(jax.image.resize(square, (grid, grid, width), 'bicubic'))
  return np.concatenate(
    [embed[:, :1].astype(np.float32), square.reshape(1, -1, width)], axis=1
  )


def resize_patches(
  weight: Float[np.ndarray, 'd c p p'], size: int
) -> Float[np.ndarray, 'd c q q']:
  """Resizes the kernel of a patch embedding.

  The kernel gives for a bilinearly resized patch what the old one gave for the
  patch itself: exactly if patches grow, as nearly as can be if they shrink.
  """
  old = weight.shape[-1]
  if old == size:
    return weight
  basis = np.eye(old**2, dtype=np.float32).reshape(-1, old, old)
  resized = jax.image.resize(
    basis, (old**2, size, size), 'bilinear', antialias=False
  )
  # Of a patch, as a row of pixels: patch @ matrix is the resized one.
  matrix = np.asarray(resized, np.float64).reshape(old**2, size**2)
  flat = np.asarray(weight, np.float64).reshape(*weight.shape[:2], old**2)
  new = flat @ np.linalg.pinv(matrix).T
  return new.reshape(*weight.shape[:2], size, size).astype(np.float32)


def _patch_embedding(
  tensors: StateDict, patch_size: int, pixels: str
) -> dict[str, np.ndarray]:
  """Kernel and bias for our patches and for pixels as our clips have them."""
  weight = np.asarray(tensors['patch_embed.proj.weight'])
  if weight.shape[-1] != patch_size:
    logging.info(
      'patches of %d px resampled to model.patch_size=%d',
      *(weight.shape[-1], patch_size),
    )
    weight = resize_patches(weight, patch_size)
  bias = tensors.get('patch_embed.proj.bias')
  if bias is None:
    bias = np.zeros(len(weight), np.float32)
  if pixels == 'imagenet':
    return {'patch_embed.proj.weight': weight, 'patch_embed.proj.bias': bias}
  # Theirs are ours times `scale`, plus `shift`.
  mean, deviation = map(np.array, vit_names.PIXELS['imagenet'])
  their_mean, their_deviation = map(np.array, vit_names.PIXELS[pixels])
  scale = deviation / their_deviation
  shift = (mean - their_mean) / their_deviation
  weight = np.asarray(weight, np.float64)
  bias = np.asarray(bias, np.float64) + weight.sum(axis=(2, 3)) @ shift
  weight = weight * scale[None, :, None, None]
  return {
    'patch_embed.proj.weight': weight.astype(np.float32),
    'patch_embed.proj.bias': bias.astype(np.float32),
  }


def _position_embedding(
  tensors: StateDict, fresh: np.ndarray, grid: int
) -> np.ndarray:
  """Places of the class and of our grid."""
  embed = np.asarray(tensors['pos_embed'])
  num_patches = math.isqrt(embed.shape[1]) ** 2
  if num_patches == embed.shape[1]:  # none for the class
    own = np.zeros_like if 'cls_token' in tensors else np.asarray
    embed = np.concatenate([own(fresh[:, :1]), embed], axis=1)
  return resize_position_embed(embed, grid)


def _check_vit(
  tensors: StateDict, leaves: Mapping[tuple[str, ...], np.ndarray], depth: int
) -> None:
  """Raises ValueError if the ViT as a whole is of another kind or size."""
  if 'cls_token' in tensors and 'temp_token' in tensors:
    raise ValueError(
      'these are weights of the whole detector, not of an image ViT: give '
      'them as --config.init_from'
    )
  for name in ('pos_embed', 'patch_embed.proj.weight'):
    if name not in tensors:
      raise ValueError(
        'not an image ViT of MAE, FSFM, timm, DINOv2, CLIP, SigLIP or '
        f'big_vision: {name} is missing. It has '
        f'{placing.some(sorted(tensors))}'
      )
  embed = np.shape(tensors['pos_embed'])
  squares = [n for n in embed[1:2] if _is_square(n) or _is_square(n - 1)]
  if len(embed) != 3 or not squares:
    raise ValueError(
      f'pos_embed has shape {embed}; expected (1, 1 + the square of the grid, '
      'width)'
    )
  theirs = {
    'depth': len({n.split('.')[1] for n in tensors if n.startswith('blocks.')}),
    'width': embed[2],
    'pre_norm': 'norm_pre.weight' in tensors,
  }
  ours = {
    'depth': depth,
    'width': leaves['position_embed',].shape[2],
    'pre_norm': ('norm_pre', 'scale') in leaves,
  }
  if theirs != ours:
    raise ValueError(
      f'an image ViT of another size or kind: it has {theirs}, the model {ours}'
      '; change the fields of config.model or take another ViT'
    )


def _is_square(n: int) -> bool:
  return n > 0 and math.isqrt(n) ** 2 == n
