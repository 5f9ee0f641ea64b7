"""ImageNet weights of EfficientNet-Lite0 -> parameters of a stem.

Enters: named tensors of a PyTorch model, in the names of the package
efficientnet-lite-pytorch or in timm's (tf_efficientnet_lite0). Leaves:
parameters and BatchNorm statistics with the part of the stem replaced, whether
it stands before the tokens of a hybrid or is the whole of a frame-wise CNN. The
classifier, and what the model does not have, blocks beyond its stride or the
last convolution, are left aside; every other tensor is placed, or named in the
error.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from stormer_jax import stem
from stormer_jax.weights import placing
from stormer_jax.weights.weight_names import Layout

Tree = dict[Any, Any]  # nested, arrays at the leaves
StateDict = Mapping[str, np.ndarray]


class _Layer(NamedTuple):
  """A convolution and its BatchNorm on both sides."""

  conv: str
  norm: str
  ours: tuple[Any, ...]
  layout: Layout


_FULL = Layout(  # (out, in, h, w), (h, w, in, out)
  lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
_DEPTHWISE = Layout(  # (c, 1, h, w), (h, w, c)
  lambda x: x[:, 0].transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1)[:, None]
)
_POINTWISE = Layout(  # (out, in, 1, 1), (in, out)
  lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None]
)
_CLASSIFIER = re.compile(r'_fc\.|classifier\.')
_NORM = (
  ('weight', 'scale'),
  ('bias', 'bias'),
  ('running_mean', 'mean'),
  ('running_var', 'var'),
)


def init_stem(
  params: Mapping[str, Any], stats: Mapping[str, Any], state_dict: StateDict
) -> tuple[Tree, Tree]:
  """Starts the stem from ImageNet weights.

  Args:
    params: Of the model to train, a hybrid or a frame-wise CNN.
    stats: Its BatchNorm statistics.
    state_dict: As `read_state_dict` returns it.

  Returns:
    New parameters and statistics, NumPy arrays; the arguments are not changed.

  Raises:
    ValueError: The model has no such stem; or a tensor is missing, unknown, of
      another shape or not a number; all such are named.
  """
  new_params, new_stats = jax.tree.map(np.array, (dict(params), dict(stats)))
  our_params, our_stats = _stem_of(new_params) or {}, _stem_of(new_stats)
  if our_stats is None:
    raise ValueError(
      'pretrained_stem is given and the model has no stem of convolutions; set'
      ' --config.model.stem=efficientnet_lite0'
    )
  is_timm = 'conv_stem.weight' in state_dict
  if not is_timm and '_conv_stem.weight' not in state_dict:
    raise ValueError(
      'not an EfficientNet-Lite0 in the names of efficientnet-lite-pytorch or'
      ' timm: _conv_stem.weight is missing. It has '
      f'{placing.some(list(state_dict))}'
    )
  left = {
    name
    for name in state_dict
    if not name.endswith('.num_batches_tracked') and not _CLASSIFIER.match(name)
  }
  missing, wrong = [], []

  def place(name: str, leaf: np.ndarray, layout: Layout | None) -> None:
    left.discard(name)
    if name not in state_dict:
      missing.append(name)
      return
    value = np.asarray(state_dict[name])
    wanted = leaf.shape if layout is None else layout.theirs(leaf).shape
    if value.shape != wanted or value.dtype.kind not in 'fV':
      wrong.append(f'{name} is {value.dtype} {value.shape}, expected {wanted}')
      return
    leaf[...] = value if layout is None else layout.ours(value)

  for layer in _timm_layers() if is_timm else _layers():
    found = _find(our_params, layer.ours), _find(our_stats, layer.ours)
    if found[1] is None:  # beyond the stem
      left -= {f'{layer.conv}.weight'}
      left -= {f'{layer.norm}.{theirs}' for theirs, _ in _NORM}
      continue
    leaves = (found[0] or {}) | found[1]  # all statistics where it is frozen
    place(f'{layer.conv}.weight', leaves['kernel'], layer.layout)
    for theirs, ours in _NORM:
      place(f'{layer.norm}.{theirs}', leaves[ours], None)
  problems = [
    f'{what}: {placing.some(sorted(names))}'
    for what, names in (
      ('missing', missing),
      ('unknown', list(left)),
      ('wrong', wrong),
    )
    if names
  ]
  if problems:
    raise ValueError(f'these weights do not fit: {"; ".join(problems)}')
  logging.info(
    'left aside of the EfficientNet: its classifier and what lies beyond the'
    ' stem'
  )
  return new_params, new_stats


def _layers() -> Iterator[_Layer]:
  """The names of efficientnet-lite-pytorch."""
  yield _Layer('_conv_stem', '_bn0', ('conv',), _FULL)
  for i, block in enumerate(stem.list_blocks(stem.STRIDES[-1])):
    theirs, ours = f'_blocks.{i}', ('blocks', i)
    if block.hidden != block.channels_in:
      yield _Layer(
        f'{theirs}._expand_conv',
        f'{theirs}._bn0',
        (*ours, 'expand'),
        _POINTWISE,
      )
    yield _Layer(
      f'{theirs}._depthwise_conv',
      f'{theirs}._bn1',
      (*ours, 'depthwise'),
      _DEPTHWISE,
    )
    yield _Layer(
      f'{theirs}._project_conv',
      f'{theirs}._bn2',
      (*ours, 'project'),
      _POINTWISE,
    )
  yield _Layer('_conv_head', '_bn1', ('head',), _POINTWISE)


def _timm_layers() -> Iterator[_Layer]:
  """The names of timm, which counts blocks within stages and layers in each."""
  places = [
    (stage, block)
    for stage, sizes in enumerate(stem.STAGES)
    for block in range(sizes.num_blocks)
  ]
  yield _Layer('conv_stem', 'bn1', ('conv',), _FULL)
  for i, sizes in enumerate(stem.list_blocks(stem.STRIDES[-1])):
    theirs, ours = 'blocks.{}.{}'.format(*places[i]), ('blocks', i)
    layers = [
      ('conv_pw', 'expand', _POINTWISE),
      ('conv_dw', 'depthwise', _DEPTHWISE),
      ('conv_pwl', 'project', _POINTWISE),
    ]
    if sizes.hidden == sizes.channels_in:
      layers = [layers[1], ('conv_pw', 'project', _POINTWISE)]
    for number, (conv, name, layout) in enumerate(layers, 1):
      yield _Layer(
        f'{theirs}.{conv}', f'{theirs}.bn{number}', (*ours, name), layout
      )
  yield _Layer('conv_head', 'bn2', ('head',), _POINTWISE)


def _stem_of(tree: Tree) -> Tree | None:
  """The part of a model that is an EfficientNet, or None."""
  return _find(tree, ('stem',)) or _find(tree, ('patch_embed', 'stem'))


def _find(tree: Tree, path: tuple[Any, ...]) -> Tree | None:
  """What lies at a path, or None."""
  for key in path:
    if key not in tree:
      return None
    tree = tree[key]
  return tree
