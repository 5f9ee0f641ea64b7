"""Moves weights between the released PyTorch code and this one.

Enters: a file of official weights (.pth, .npz, .safetensors) or a run of ours.
Leaves: official weights as .safetensors or .pth, or a folder that evaluate,
predict and train (`--config.init_from`) read like a run; of a masked
autoencoder, its encoder, as an image ViT for `--config.pretrained_vit`. Values
pass through bit by bit, unless float16 is asked for; the optimizer's state does
not pass. Nothing appears under the destination's name before it is whole.
"""

import pathlib
from typing import Any

from absl import logging
import jax
from ml_collections import config_dict

from stormer_jax import detector
from stormer_jax.weights import image_vit, pretrained, tensor_file, weight_file

Tree = dict[str, Any]
_TORCH_SUFFIXES = ('.pth', '.pt')
# Suffixes that nobody means as the name of a folder.
_OTHER_SUFFIXES = ('.npz', '.npy', '.bin', '.ckpt', '.pkl', '.tar', '.onnx')


def convert(
  source: str | pathlib.Path,
  destination: str | pathlib.Path,
  heads: int | None = None,
  config: config_dict.ConfigDict | None = None,
  key: str = '',
  half: bool = False,
) -> str:
  """Converts weights; the suffix of the destination decides the form.

  Args:
    source: Official weights (.pth, .npz, .safetensors), a workdir (its best
      checkpoint) or one folder of its checkpoints/.
    destination: .safetensors or .pth (needs torch), with official names, or
      MAE's of a masked autoencoder; or a folder, new or empty.
    heads: Attention heads of official weights; None for 64 features each.
    config: Of the run that a folder is to look like, for official weights:
      all but the sizes of the model, which the weights tell. It decides the
      semantics that they are read with (configs/base.py:official).
    key: Which weights, where the source holds several (`weight_file`).
    half: Whether a folder holds float16 weights in one file, to ship, in place
      of a checkpoint.

  Returns:
    A sentence that says what was converted.

  Raises:
    FileNotFoundError: There is no such source.
    ValueError: The weights do not fit, the destination is taken, torch is
      needed and missing, or a folder is wanted without `config`.
  """
  source, destination = pathlib.Path(source), pathlib.Path(destination)
  suffix = destination.suffix.lower()
  as_file = suffix in ('.safetensors', *_TORCH_SUFFIXES)
  check_destination(destination, as_file)
  if not source.exists():
    raise FileNotFoundError(f'{source}: no such file or folder')
  face_backend = ''
  if source.is_dir():
    run = read_run(source)
    config, params, stats = run.config, run.params, run.stats
    del run
    face_backend = read_face_backend(source)
    kind = config.model.get('kind', 'stormer')
    if as_file and kind not in ('stormer', 'mae'):
      raise ValueError(
        f'{source}: a baseline (model.kind={kind}), which is not the released'
        ' model; it converts to a folder alone'
      )
    if as_file and config.model.get('stem', 'patch') != 'patch':
      raise ValueError(
        f'{source}: a hybrid (model.stem={config.model.stem}), for whose stem'
        ' the released model has no place; it converts to a folder alone'
      )
    attention = config.model.get('space_time', 'divided')
    if as_file and kind == 'stormer' and attention != 'divided':
      raise ValueError(
        f'{source}: has {attention} attention (model.space_time), the released'
        ' model divided attention; it converts to a folder alone'
      )
    if kind == 'stormer':
      _warn_of_semantics(config, as_file)
  else:
    kind = 'stormer'
    if config is None and not as_file:
      raise ValueError(
        f'{destination}: a folder needs a configuration beside the weights; '
        'add --config=configs/base.py:official'
      )
    values, params, stats = _from_file(source, heads, key)
    if config is not None:
      config = config_dict.ConfigDict(config.to_dict())
      config.model.update(
        values, kind='stormer', stem='patch', space_time='divided'
      )
  count = sum(x.size for x in jax.tree.leaves(params))
  if as_file:
    if kind == 'mae':
      state_dict = image_vit.to_image_vit(params)
      count = sum(x.size for x in state_dict.values())
    else:
      state_dict = pretrained.to_official(params, stats)
    if suffix == '.safetensors':
      # 'format' is what HuggingFace's readers look for.
      tensor_file.write_safetensors(destination, state_dict, {'format': 'pt'})
    else:
      tensor_file.write_torch_file(destination, state_dict)
  elif half:
    weights = jax.device_get({'params': params, 'stats': stats})
    detector.save_kept(destination, config, weights, face_backend)
  else:
    # On the device, because Orbax would copy NumPy's arrays once more.
    weights = jax.device_put({'params': params, 'stats': stats})
    del params, stats
    detector.save_detector(destination, config, weights, face_backend)
  return f'{source} -> {destination}: {count:,} parameters'


def _from_file(
  source: pathlib.Path, heads: int | None, key: str
) -> tuple[dict[str, Any], Tree, Tree]:
  """Reads official weights; their file is unmapped when this returns."""
  tensors = weight_file.read_state_dict(source, key)
  try:
    values, params, stats = pretrained.from_official(tensors, heads)
  except ValueError as error:
    raise ValueError(f'{source}: {error}') from error
  logging.info(
    'sizes told by the weights: %s',
    ', '.join(f'{name} {value}' for name, value in values.items()),
  )
  if heads is None:
    logging.info(
      '%d heads assumed, of %d features each; --heads=N says otherwise',
      values['num_heads'],
      pretrained.HEAD_SIZE,
    )
  return values, params, stats


def read_run(source: pathlib.Path) -> detector.Detector:
  """Reads the best checkpoint of a run, or that of a folder of checkpoints/.

  Raises:
    FileNotFoundError: If there is no run or no such checkpoint.
    ValueError: If it holds foreign weights, or does not fit its configuration.
  """
  which: str | int = 'best'
  if _run_of(source) != source:
    source, which = _run_of(source), int(source.name)
  detector.check_run(source)
  return detector.load_model(source, which)


def read_face_backend(source: pathlib.Path) -> str:
  """Full name of what found the faces of a run's records; '' if unknown.

  Raises:
    ValueError: If the note of it is damaged.
  """
  return detector.load_face_backend(_run_of(source))


def _run_of(source: pathlib.Path) -> pathlib.Path:
  """The folder of a run, given it or one of its checkpoints."""
  if source.name.isdigit() and source.parent.name == 'checkpoints':
    return source.parent.parent
  return source


def _warn_of_semantics(config: config_dict.ConfigDict, as_file: bool) -> None:
  ours = {
    name: config.model.get(name, official)
    for name, official in (
      ('temporal_token', 'first_clip'),
      ('map_layout', 'scrambled'),
      ('activation', 'gelu'),
    )
    if config.model.get(name, official) != official
  }
  if as_file and ours:
    logging.warning(
      'trained with %s; the released code computes something else with these '
      'weights (docs/official_differences.md, D2 and D4)',
      ' and '.join(f'model.{k}={v}' for k, v in ours.items()),
    )


def check_destination(destination: pathlib.Path, as_file: bool) -> None:
  """Raises ValueError or FileNotFoundError for what cannot be written."""
  if not as_file and destination.suffix.lower() in _OTHER_SUFFIXES:
    raise ValueError(
      f'{destination}: written are .safetensors, .pth and folders, not '
      f'{destination.suffix}'
    )
  if as_file and destination.is_dir():
    raise ValueError(f'{destination}: is a folder; name a file')
  if not as_file and destination.exists():
    if not destination.is_dir() or any(destination.iterdir()):
      raise ValueError(
        f'{destination}: exists and is not an empty folder; choose another'
      )
  if not destination.absolute().parent.is_dir():
    raise FileNotFoundError(f'{destination.parent}: no such folder')
