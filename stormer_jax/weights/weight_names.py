"""Names and shapes of the weights on both sides.

The one table that says which tensor of a released checkpoint (METHOD 6) is
which parameter of `model.Stormer`, and how its axes are turned. The part that
an image ViT has too carries timm's names, which are MAE's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
  """How one kind of weight is turned, and back."""

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray], np.ndarray]


class Place(NamedTuple):
  """Where a tensor lives on both sides."""

  theirs: str
  ours: tuple[str, ...]
  layout: Layout
  block: int | None = None  # its index on the stacked leading axis of `ours`

  @property
  def is_stat(self) -> bool:
    """Whether it is carried beside the parameters, not trained."""
    return self.ours[-1] in _STATS or self.ours[0] == 'unused_norm'

  @property
  def is_count(self) -> bool:
    """Whether it is the one integer of a BatchNorm."""
    return self.ours[-1] == 'count'


_SAME = Layout(lambda x: x, lambda x: x)
_LINEAR = Layout(np.transpose, np.transpose)  # (out, in), (in, out)
_PATCH = Layout(  # (out, in, h, w), (h, w, in, out)
  lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
_TIME_CONV = Layout(  # (out, in, time, 1, 1), (time, in, out)
  lambda x: x[:, :, :, 0, 0].transpose(2, 1, 0),
  lambda x: x.transpose(2, 1, 0)[..., None, None],
)


def _norm(theirs: str, *ours: str) -> list[Place]:
  return [
    Place(f'{theirs}.weight', (*ours, 'scale'), _SAME),
    Place(f'{theirs}.bias', (*ours, 'bias'), _SAME),
  ]


def _layer(theirs: str, *ours: str, layout: Layout = _LINEAR) -> list[Place]:
  return [
    Place(f'{theirs}.weight', (*ours, 'kernel'), layout),
    Place(f'{theirs}.bias', (*ours, 'bias'), _SAME),
  ]


# What an image ViT has too; names of timm and MAE.
_VIT_BLOCK = (
  *_norm('norm1', 'norm1'),
  *_layer('attn.qkv', 'attn', 'qkv'),
  *_layer('attn.proj', 'attn', 'proj'),
  *_norm('norm2', 'norm2'),
  *_layer('mlp.fc1', 'mlp', 'fc1'),
  *_layer('mlp.fc2', 'mlp', 'fc2'),
)
_VIT = (
  Place('cls_token', ('class_token',), _SAME),
  Place('pos_embed', ('position_embed',), _SAME),
  *_layer('patch_embed.proj', 'patch_embed', 'proj', layout=_PATCH),
  *_norm('norm', 'norm'),
)
# In the order of a released checkpoint, which torch programs show to users.
_BLOCK = (
  *_VIT_BLOCK[:6],
  *_norm('temporal_norm1', 'temporal_norm1'),
  *_layer('temporal_attn.qkv', 'temporal_attn', 'qkv'),
  *_layer('temporal_attn.proj', 'temporal_attn', 'proj'),
  *_layer('temporal_fc', 'temporal_fc'),
  *_VIT_BLOCK[6:],
)
_EMBEDDINGS = (
  *_VIT[:2],
  Place('temp_token', ('temporal_token',), _SAME),
  Place('time_embed', ('time_embed',), _SAME),
  *_VIT[2:4],
)
_NORMS = (
  *_VIT[4:],
  *_norm('norm_s_cls', 'class_norm'),
  *_norm('norm_t_cls', 'unused_norm'),
)


def _batch_norm(theirs: str, *ours: str) -> list[Place]:
  return [
    *_norm(theirs, *ours),
    Place(f'{theirs}.running_mean', (*ours, 'mean'), _SAME),
    Place(f'{theirs}.running_var', (*ours, 'var'), _SAME),
    Place(f'{theirs}.num_batches_tracked', (*ours, 'count'), _SAME),
  ]


_HEADS = (
  *_layer('hm.before_proj.0.0', 'map_head', 'conv1', layout=_TIME_CONV),
  *_batch_norm('hm.before_proj.0.1', 'map_head', 'norm1'),
  *_layer('hm.proj.0.0', 'map_head', 'conv2', layout=_TIME_CONV),
  *_batch_norm('hm.proj.0.1', 'map_head', 'norm2'),
  *_layer('hm.proj.1', 'map_head', 'conv3', layout=_TIME_CONV),
  *_layer('cls.fc_out', 'class_head'),
  *_layer('temp_loc.fc1.0', 'soft_label_head', 'fc1'),
  *_layer('temp_loc.fc_out', 'soft_label_head', 'fc2'),
)
_STATS = ('mean', 'var', 'count')


def vit_places(depth: int, pre_norm: bool = False) -> list[Place]:
  """Lists every tensor of an image ViT that the backbone has too."""
  before = _norm('norm_pre', 'norm_pre') if pre_norm else []
  return [*_VIT, *before, *_stacked('', _VIT_BLOCK, depth)]


def official_places(depth: int) -> list[Place]:
  """Lists every tensor of a released checkpoint."""
  return [
    *_prefixed('backbone.', _EMBEDDINGS),
    *_stacked('backbone.', _BLOCK, depth),
    *_prefixed('backbone.', _NORMS),
    *_prefixed('keypoint_head.', _HEADS),
  ]


def _prefixed(prefix: str, places: Iterable[Place]) -> list[Place]:
  return [p._replace(theirs=prefix + p.theirs) for p in places]


def _stacked(prefix: str, places: Iterable[Place], depth: int) -> list[Place]:
  return [
    p._replace(
      theirs=f'{prefix}blocks.{i}.{p.theirs}', ours=('blocks', *p.ours), block=i
    )
    for i in range(depth)
    for p in places
  ]


def official_shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Lists the shape of every tensor of a released checkpoint."""
  width, patch = values['width'], values['patch_size']
  hidden, narrow = int(width * values['mlp_ratio']), width // 4
  t, grid = values['num_frames'], values['image_size'] // patch
  matrices = {
    'cls_token': (1, 1, width),
    'pos_embed': (1, 1 + grid**2, width),
    'temp_token': (1, 1, width),
    'time_embed': (1, t + 1, width),
    'patch_embed.proj': (width, 3, patch, patch),
    'qkv': (3 * width, width),
    'attn.proj': (width, width),
    'temporal_fc': (width, width),
    'mlp.fc1': (hidden, width),
    'mlp.fc2': (width, hidden),
    'before_proj.0.0': (width, width, 3, 1, 1),
    'hm.proj.0.0': (narrow, width, 3, 1, 1),
    'hm.proj.0.1': (narrow,),
    'hm.proj.1': (1, narrow, 3, 1, 1),
    'cls.fc_out': (1, width),
    'fc1.0': (narrow, width),
    'temp_loc.fc_out': (t, t * narrow),
  }
  shapes = {}
  for place in official_places(values['depth']):
    module, _, kind = place.theirs.rpartition('.')
    key = place.theirs if 'embed' in kind or 'token' in kind else module
    found = [s for name, s in matrices.items() if key.endswith(name)]
    shape = found[0] if found else (width,)  # else a norm
    if kind == 'num_batches_tracked':
      shape = ()
    elif kind == 'bias':
      shape = shape[:1]
    shapes[place.theirs] = shape
  return shapes
