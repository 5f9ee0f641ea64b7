"""Joins frame-wise networks, trained alone, to one of their mean logit.

Enters: runs, checkpoints or kept weights of `model.kind=frame_cnn`, and behind
them of `frame_probe`, that started alike.
Leaves: a folder that evaluate, predict and export read like a run, with
`model.members` in its configuration and float16 weights in one file
(`kept_weights`).
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
import numpy as np

from stormer_jax import detector, stem
from stormer_jax.weights import convert, kept_weights

Tree = dict[str, Any]
_KINDS = ('frame_cnn', 'frame_probe')  # in the order in which they are joined
# Fields of the model that these kinds read when they score.
_READ = (
  *('image_size', 'patch_size', 'num_frames', 'dtype'),
  *('stem', 'stem_frozen_stride'),
)


def join(
  sources: Sequence[str | pathlib.Path], destination: str | pathlib.Path
) -> str:
  """Writes the detector whose logit is the mean of those of several.

  Args:
    sources: Workdirs (their best checkpoints), folders of checkpoints/, or what
      `detector.save_kept` wrote of one network. The first is the one that
      `init_from` of a single network starts from, and whose configuration is
      kept.
    destination: A folder, new or empty.

  Returns:
    A sentence that says what was joined.

  Raises:
    FileNotFoundError: There is no such source.
    ValueError: They are no frame-wise CNNs and probes in this order, are of
      different models, frames or starts, or the destination is taken.
    OSError: The destination cannot be written.
  """
  if not all(map(str, sources)):
    raise ValueError(f'{",".join(map(str, sources))}: an empty name in a list')
  paths = [pathlib.Path(source) for source in sources]
  destination = pathlib.Path(destination)
  convert.check_destination(destination, as_file=False)
  for path in paths:
    if not path.is_dir():
      raise FileNotFoundError(f'{path}: no such folder; joined are runs')
  runs = [convert.read_run(path) for path in paths]
  backends = [convert.read_face_backend(path) for path in paths]
  kinds = [run.config.model.get('kind', 'stormer') for run in runs]
  for path, run, kind, backend in zip(
    paths, runs, kinds, backends, strict=True
  ):
    if kind not in _KINDS:
      raise ValueError(
        f'{path}: joined are runs of model.kind={" or ".join(_KINDS)}, and this'
        f' one is {kind}'
      )
    if run.config.model.get('members', 1) != 1:
      raise ValueError(f'{path}: is an ensemble; name its members instead')
    _check_alike(paths[0], runs[0], path, run)
    if backend != backends[0]:
      raise ValueError(
        f'{path}: learned from faces of {backend or "an unknown backend"},'
        f' {paths[0]} from those of {backends[0] or "an unknown one"}'
      )
  if kinds != sorted(kinds) or kinds[0] != _KINDS[0]:
    raise ValueError(
      f'{",".join(map(str, paths))}: are {", ".join(kinds)}; the networks of'
      f' model.kind={_KINDS[0]} come first, and there is at least one'
    )
  config = runs[0].config.copy_and_resolve_references().unlock()
  config.model.members = len(runs)
  config.model.probes = kinds.count(_KINDS[1])
  weights = jax.device_get(
    {
      'params': {'members': {i: run.params for i, run in enumerate(runs)}},
      'stats': {'members': {i: run.stats for i, run in enumerate(runs)}},
    }
  )
  detector.save_kept(destination, config, weights, backends[0])
  count = sum(x.size for x in jax.tree.leaves(weights['params']))
  names = ' and '.join(str(path) for path in paths)
  return f'{names} -> {destination}: {len(runs)} members, {count:,} parameters'


def _check_alike(
  first_path: pathlib.Path,
  first: detector.Detector,
  path: pathlib.Path,
  other: detector.Detector,
) -> None:
  """Raises ValueError for two that cannot be averaged."""
  differing = {
    f'model.{name}': both
    for name, both in detector.list_differences(
      first.config, other.config
    ).items()
    if name in _READ
  }
  for name in ('frame_rule', 'margin'):
    ours, theirs = (run.config.eval.get(name) for run in (first, other))
    if None not in (ours, theirs) and ours != theirs:  # older runs have none
      differing[f'eval.{name}'] = ours, theirs
  for name, (ours, theirs) in differing.items():
    raise ValueError(
      f'{path}: {name} is {theirs!r}, that of {first_path} {ours!r}; members'
      ' differ in nothing but their weights'
    )
  # As they are kept, so that one that was kept can be joined too.
  leaves = (
    [kept_weights.halve(np.asarray(x)) for x in jax.tree.leaves(_frozen(run))]
    for run in (first, other)
  )
  if not all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True)):
    raise ValueError(
      f'{path}: started from another stem than {first_path}: what is not'
      ' trained (model.stem_frozen_stride) differs'
    )


def _frozen(run: detector.Detector) -> Tree:
  """Statistics and kernels of the layers that are not trained."""
  stride = run.config.model.get('stem_frozen_stride', 0)
  if not stride:
    return {}
  stats = run.stats['stem']
  blocks = range(len(stem.list_blocks(stride)))
  return {'conv': stats['conv'], 'blocks': [stats['blocks'][i] for i in blocks]}
