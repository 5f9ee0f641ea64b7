"""Weights of PyTorch programs <-> parameters of ours.

Enters: named tensors, as `weight_file` reads them from a file without torch.
Leaves: nested dicts of NumPy arrays with the attribute names of
`model.Stormer`, blocks stacked on a leading axis, float32; or the other way
round. Two vocabularies are known: the released checkpoints of the method
(docs/method.md, section 6), whole and both ways, and image ViTs (MAE, timm,
HuggingFace), which start the backbone. Every tensor is placed or named in the
error.
"""

from collections.abc import Iterable, Mapping
import math
import re
from typing import Any

from absl import logging
import jax
from jaxtyping import Float
import ml_dtypes
import numpy as np

from stormer_jax.weights import weight_names

Tree = dict[str, Any]  # nested, arrays at the leaves
StateDict = Mapping[str, np.ndarray]

# The head size of every ViT that was ever released at these widths.
HEAD_SIZE = 64


def from_official(
  state_dict: StateDict, num_heads: int | None = None
) -> tuple[dict[str, Any], Tree, Tree]:
  """Turns a released checkpoint into our parameters.

  Args:
    state_dict: As `weight_file.read_state_dict` returns it.
    num_heads: Attention heads. No tensor's shape tells them; None takes heads
      of 64 features, as every released configuration has.

  Returns:
    values: The fields of `model.StormerConfig` that shapes tell: width, depth,
      num_heads, mlp_ratio, image_size, patch_size, num_frames.
    params: Parameters, float32 copies.
    stats: BatchNorm statistics and the norm that is carried but never used.

  Raises:
    ValueError: Tensors are missing, unknown, of a wrong shape or not numbers;
      or the number of heads cannot be told.
  """
  values = _infer_geometry(state_dict, num_heads)
  places = weight_names.official_places(values['depth'])
  state_dict = _with_counts(state_dict, places)
  _check_tensors(state_dict, weight_names.official_shapes(values))
  params: Tree = {}
  stats: Tree = {}
  for place in places:
    tree = stats if place.is_stat else params
    _place(tree, place, state_dict[place.theirs], values['depth'])
  return values, params, stats


def to_official(
  params: Mapping[str, Any], stats: Mapping[str, Any]
) -> StateDict:
  """Turns our parameters into the state dict of a released checkpoint.

  It loads strictly into the released model: its names in its order, its shapes,
  float32, and int64 for num_batches_tracked. The arrays are views of the
  parameters, most of them not contiguous.

  Raises:
    ValueError: A parameter is missing, or one is left over.
  """
  weights = _flatten(params) | _flatten(stats)
  if ('blocks', 'norm1', 'scale') not in weights:
    raise ValueError('the parameters have no blocks.norm1.scale')
  depth = len(weights['blocks', 'norm1', 'scale'])
  left = set(weights)
  state_dict = {}
  for place in weight_names.official_places(depth):
    if place.ours not in weights:
      raise ValueError(f'the parameters have no {".".join(place.ours)}')
    left.discard(place.ours)
    value = weights[place.ours]
    if place.block is not None:
      value = value[place.block]
    dtype = np.int64 if place.is_count else np.float32
    state_dict[place.theirs] = place.layout.theirs(
      value.astype(dtype, copy=False)
    )
  if left:
    names = sorted('.'.join(path) for path in left)
    raise ValueError(f'parameters without an official name: {_some(names)}')
  return state_dict


def init_backbone_from_vit(
  params: Mapping[str, Any], state_dict: StateDict
) -> Tree:
  """Starts the backbone from an image ViT, as METHOD 6.6 does from MAE.

  Known are the names of MAE, timm and HuggingFace (ViT and ViTMAE). Placed are
  patch embedding, class token, position embedding, the spatial attention, norms
  and MLP of every block, and the last norm. A position embedding of another
  grid is resized bicubically, with antialiasing when it shrinks (as timm does).
  The ViT's own head or decoder is left aside, and, where the model has a stem
  of convolutions, its patch embedding too. All else keeps its values in
  `params`, which should be freshly initialised.

  Args:
    params: Of the model to train.
    state_dict: As `weight_file.read_state_dict` returns it.

  Returns:
    New parameters, NumPy arrays; `params` is not changed.

  Raises:
    ValueError: A tensor of the ViT is missing, unknown or of another size than
      the model's; all such are named.
  """
  leaves = _flatten(params)
  depth = len(leaves['blocks', 'norm1', 'scale'])
  tensors, aside = _timm_names(state_dict)
  _check_vit(tensors, leaves, depth)
  places = weight_names.vit_places(depth)
  if 'stem' in params['patch_embed']:
    embedding = [p.theirs for p in places if p.ours[0] == 'patch_embed']
    places = [p for p in places if p.theirs not in embedding]
    aside += [name for name in embedding if tensors.pop(name, None) is not None]
  grid = math.isqrt(leaves['position_embed',].shape[1] - 1)
  tensors['pos_embed'] = resize_position_embed(tensors['pos_embed'], grid)
  shapes = {}
  for place in places:
    leaf = leaves[place.ours]
    leaf = leaf if place.block is None else leaf[place.block]
    shapes[place.theirs] = place.layout.theirs(leaf).shape
  _check_tensors(tensors, shapes)
  new: Tree = jax.tree.map(np.asarray, dict(params))
  for place in places:
    _place(new, place, tensors[place.theirs], depth)
  if aside:
    logging.info('left aside of the image ViT: %s', _some(sorted(aside)))
  return new


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


# HuggingFace -> timm, in this order.
_RENAMED = (
  (r'^vit\.', ''),
  (r'^embeddings\.cls_token$', 'cls_token'),
  (r'^embeddings\.position_embeddings$', 'pos_embed'),
  (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
  (r'^encoder\.layer\.', 'blocks.'),
  (r'\.layernorm_before\.', '.norm1.'),
  (r'\.layernorm_after\.', '.norm2.'),
  (r'\.attention\.output\.dense\.', '.attn.proj.'),
  (r'\.attention\.attention\.', '.attn.'),
  (r'\.intermediate\.dense\.', '.mlp.fc1.'),
  (r'\.output\.dense\.', '.mlp.fc2.'),
  (r'^layernorm\.', 'norm.'),
)
# Parts of image ViTs that the detector has no use for.
_ASIDE = re.compile(
  r'head\.|head_dist\.|classifier\.|pre_logits\.|pooler\.|fc_norm\.'
  r'|decoder|mask_token$|embeddings\.mask_token$'
)


def _timm_names(
  state_dict: StateDict,
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Renames to timm's names; also lists what belongs to the ViT's own task."""
  tensors, aside = {}, []
  for name, value in state_dict.items():
    for pattern, replacement in _RENAMED:
      name = re.sub(pattern, replacement, name)
    if _ASIDE.match(name):
      aside.append(name)
    else:
      tensors[name] = value
  # HuggingFace keeps query, key and value apart.
  for name in list(tensors):
    if '.attn.query.' in name:
      parts = [name.replace('query', x) for x in ('query', 'key', 'value')]
      if all(part in tensors for part in parts):
        joined = np.concatenate([tensors.pop(part) for part in parts])
        tensors[name.replace('query', 'qkv')] = joined
  return tensors, aside


def _check_vit(
  tensors: StateDict, leaves: Mapping[tuple[str, ...], np.ndarray], depth: int
) -> None:
  """Raises ValueError if the ViT as a whole is of another size."""
  if 'backbone.cls_token' in tensors:
    raise ValueError(
      'these are weights of the whole detector, not of an image ViT: give '
      'them as --config.init_from'
    )
  for name in ('pos_embed', 'patch_embed.proj.weight'):
    if name not in tensors:
      raise ValueError(
        f'not an image ViT of MAE, timm or HuggingFace: {name} is missing. It '
        f'has {_some(sorted(tensors))}'
      )
  embed = np.shape(tensors['pos_embed'])
  if len(embed) != 3 or math.isqrt(max(embed[1] - 1, 0)) ** 2 != embed[1] - 1:
    raise ValueError(
      f'pos_embed has shape {embed}; expected (1, 1 + the square of the grid, '
      'width)'
    )
  theirs = {
    'depth': len({n.split('.')[1] for n in tensors if n.startswith('blocks.')}),
    'width': embed[2],
    'patch_size': np.shape(tensors['patch_embed.proj.weight'])[-1],
  }
  kernel = leaves['patch_embed', 'proj', 'kernel']
  ours = {
    'depth': depth,
    'width': kernel.shape[3],
    'patch_size': kernel.shape[0],
  }
  if ('patch_embed', 'stem', 'conv', 'kernel') in leaves:
    ours['patch_size'] = theirs['patch_size']  # its patches are not used
  if theirs != ours:
    raise ValueError(
      f'an image ViT of another size: it has {theirs}, the model {ours}; '
      'change the fields of config.model or take another ViT'
    )


def _infer_geometry(
  state_dict: StateDict, num_heads: int | None
) -> dict[str, Any]:
  def shape(name: str, ndim: int) -> tuple[int, ...]:
    if name not in state_dict:
      hint = ''
      if 'backbone.register_token' in state_dict:
        hint = (
          ': a released "small" configuration, which has no temporal token and '
          'cannot run in the released code either (D6)'
        )
      elif 'pos_embed' in state_dict or 'cls_token' in state_dict:
        hint = ': an image ViT? Give it to training as --config.pretrained_vit'
      raise ValueError(
        f'not a checkpoint of the method: {name} is missing{hint}. It has '
        f'{_some(sorted(state_dict))}'
      )
    shape = np.shape(state_dict[name])
    if len(shape) != ndim or 0 in shape:
      raise ValueError(f'{name} has shape {shape}, expected {ndim} axes')
    return shape

  width, _, patch_size, _ = shape('backbone.patch_embed.proj.weight', 4)
  num_frames = shape('backbone.time_embed', 3)[1] - 1
  hidden = shape('backbone.blocks.0.mlp.fc1.weight', 2)[0]
  num_patches = shape('backbone.pos_embed', 3)[1] - 1
  grid = math.isqrt(num_patches)
  if num_frames < 1:
    raise ValueError('backbone.time_embed has no place for a frame')
  if grid == 0 or grid**2 != num_patches:
    raise ValueError(
      f'backbone.pos_embed has {num_patches} places for patches; expected the '
      'square of the grid, after one for the class token'
    )
  pattern = re.compile(r'backbone\.blocks\.(\d+)\.')
  depth = len({m[1] for m in map(pattern.match, state_dict) if m})
  if num_heads is None:
    if width % HEAD_SIZE:
      raise ValueError(
        f'the number of attention heads cannot be told from shapes, and width '
        f'{width} is no multiple of {HEAD_SIZE}: give it (--heads)'
      )
    num_heads = width // HEAD_SIZE
  if num_heads < 1 or width % num_heads:
    raise ValueError(
      f'{num_heads} heads do not divide the width {width} of these weights'
    )
  mlp_ratio = hidden / width
  if int(width * mlp_ratio) != hidden:  # one rounding below
    mlp_ratio = math.nextafter(mlp_ratio, math.inf)
  return {
    'width': width,
    'depth': depth,
    'num_heads': num_heads,
    'mlp_ratio': mlp_ratio,
    'image_size': grid * patch_size,
    'patch_size': patch_size,
    'num_frames': num_frames,
  }


def _with_counts(
  state_dict: StateDict, places: Iterable[weight_names.Place]
) -> StateDict:
  """Adds num_batches_tracked where some writers of weights leave it out.

  It counts the batches behind a BatchNorm's statistics and enters no output.
  """
  missing = [p.theirs for p in places if p.is_count]
  missing = [name for name in missing if name not in state_dict]
  if missing:
    logging.info('taken to be 0, as it is missing: %s', _some(missing))
  return {**state_dict, **{name: np.array(0, np.int64) for name in missing}}


def _check_tensors(
  tensors: StateDict, shapes: Mapping[str, tuple[int, ...]]
) -> None:
  """Raises ValueError unless the tensors are those, of those shapes."""
  problems = []
  if missing := [name for name in shapes if name not in tensors]:
    problems.append(f'missing: {_some(missing)}')
  if unknown := [name for name in tensors if name not in shapes]:
    problems.append(f'unknown: {_some(unknown)}')
  if wrong := [
    f'{name} has {np.shape(tensors[name])}, expected {shape}'
    for name, shape in shapes.items()
    if name in tensors and np.shape(tensors[name]) != shape
  ]:
    problems.append(f'wrong shape: {_some(wrong)}')
  if not_float := [
    f'{name} is {tensors[name].dtype}'
    for name in shapes
    if name in tensors
    and not name.endswith('num_batches_tracked')
    and not _is_float(tensors[name])
  ]:
    problems.append(f'not floating point: {_some(not_float)}')
  if not_finite := [
    name
    for name in shapes
    if name in tensors
    and _is_float(tensors[name])
    and not np.isfinite(tensors[name]).all()
  ]:
    problems.append(f'not finite (damaged): {_some(not_finite)}')
  if problems:
    raise ValueError(f'these weights do not fit: {"; ".join(problems)}')


def _is_float(x: np.ndarray) -> bool:
  return x.dtype.kind == 'f' or x.dtype == ml_dtypes.bfloat16


def _some(names: list[str]) -> str:
  more = f' and {len(names) - 4} more' if len(names) > 4 else ''
  return ', '.join(names[:4]) + more


def _place(
  tree: Tree, place: weight_names.Place, value: np.ndarray, depth: int
) -> None:
  """Writes one tensor, turned, into its copy in a nested dict."""
  value = place.layout.ours(np.asarray(value))
  dtype = np.int32 if place.is_count else np.float32
  for key in place.ours[:-1]:
    tree = tree.setdefault(key, {})
  leaf = place.ours[-1]
  if place.block is None:
    tree[leaf] = np.array(value, dtype, order='C')
    return
  if place.block == 0:
    tree[leaf] = np.empty((depth, *value.shape), dtype)
  tree[leaf][place.block] = value


def _flatten(
  tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> dict[tuple[str, ...], np.ndarray]:
  leaves: dict[tuple[str, ...], np.ndarray] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= _flatten(value, (*path, str(key)))
    else:
      leaves[(*path, str(key))] = np.asarray(value)
  return leaves
