"""Released checkpoints of the method <-> parameters of ours.

Enters: named tensors, as `weight_file` reads them from a file without torch.
Leaves: nested dicts of NumPy arrays with the attribute names of
`model.Stormer`, blocks stacked on a leading axis, float32; or the other way
round. The vocabulary is that of the released checkpoints of the method
(docs/method.md, section 6); `image_vit` starts a backbone from others. Every
tensor is placed or named in the error.
"""

from collections.abc import Iterable, Mapping
import math
import re
from typing import Any

from absl import logging
import numpy as np

from stormer_jax.weights import placing, weight_names

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
  placing.check_tensors(state_dict, weight_names.official_shapes(values))
  params: Tree = {}
  stats: Tree = {}
  for place in places:
    tree = stats if place.is_stat else params
    placing.place(tree, place, state_dict[place.theirs], values['depth'])
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
  weights = placing.flatten(params) | placing.flatten(stats)
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
    raise ValueError(
      f'parameters without an official name: {placing.some(names)}'
    )
  return state_dict


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
        f'{placing.some(sorted(state_dict))}'
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
    logging.info('taken to be 0, as it is missing: %s', placing.some(missing))
  return {**state_dict, **{name: np.array(0, np.int64) for name in missing}}
