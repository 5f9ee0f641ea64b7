"""A trained detector, read from a run or a checkpoint, ready to score.

What `evaluate`, `predict` and `convert` start from: the configuration that the
run was trained with, and the weights of one of its checkpoints.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import pathlib
import shutil
from typing import Any

from flax import nnx
import jax
from ml_collections import config_dict

from stormer_jax import kinds, model, steps
from stormer_jax.runs import checkpoint
from stormer_jax.weights import kept_weights, pretrained, weight_file

Tree = Any
# Of a run, beside config.json: what found the faces that it learned from.
FACES_FILE = 'faces.json'
# Fields of a model that change no more than how what it computes is rounded.
_HOW_COMPUTED = ('dtype', 'attention', 'scan_layers')
# Fields that scoring does not read.
_OF_TRAINING = (
  *('drop_path', 'head_dropout', 'remat', 'batch_norm_groups'),
  'stem_statistics',
)
# The detector that ships with the package: what `save_kept` writes, with its
# calibration.json and card.md.
SHIPPED = pathlib.Path(__file__).parent / 'weights' / 'small'


@dataclasses.dataclass(frozen=True)
class Detector:
  """A model and where it comes from.

  Attributes:
    config: The run's configuration.
    graphdef: Static half of the model, for `steps.merge`.
    params: Parameters; the averaged ones where the run kept an average.
    stats: BatchNorm statistics and carried tensors.
    step: Updates behind these weights; 0 for converted ones.
    source: Folder of the checkpoint.
  """

  config: config_dict.ConfigDict
  graphdef: nnx.GraphDef
  params: Tree
  stats: Tree
  step: int
  source: str


def load_detector(
  workdir: pathlib.Path,
  which: str | int = 'best',
  asked: config_dict.ConfigDict | None = None,
) -> Detector:
  """Reads a detector, or a baseline: `load_model` of what can score clips.

  Args:
    workdir: As in `load_model`.
    which: Likewise.
    asked: A configuration whose `model.dtype`, `model.attention` and
      `model.scan_layers` take the place of the run's; None: it computes as it
      was trained.

  Raises:
    FileNotFoundError: If there is no run or no such checkpoint.
    ValueError: If the checkpoint does not fit the configuration, the model
      tells no real from fake, or another model is asked for.
  """
  config = load_config(pathlib.Path(workdir))
  kinds.check_scores(config.model.get('kind', kinds.DETECTOR), str(workdir))
  run = load_model(workdir, which)
  return run if asked is None else _computing_as(run, asked, workdir)


def load_model(workdir: pathlib.Path, which: str | int = 'best') -> Detector:
  """Reads a run's configuration and one of its checkpoints.

  Args:
    workdir: Folder with config.json and checkpoints/, from `train` or
      `convert`, or one that `save_kept` wrote.
    which: 'best' by validation, 'last', or a step; of a kept one it says
      nothing.

  Raises:
    FileNotFoundError: If there is no run or no such checkpoint.
    ValueError: If the checkpoint does not fit the configuration.
  """
  workdir = pathlib.Path(workdir)
  config = load_config(workdir)
  graphdef, init = steps.make_model(config)
  params, stats = jax.eval_shape(init)
  abstract = {'params': params, 'stats': stats}
  kept = workdir / kept_weights.FILE
  if kept.exists():
    weights = kept_weights.read(kept, abstract)
    return Detector(config, graphdef, **weights, step=0, source=str(kept))
  step, weights = _read_checkpoint(workdir, which, abstract)
  return Detector(
    config=config,
    graphdef=graphdef,
    params=weights['params'],
    stats=weights['stats'],
    step=step,
    source=str(workdir / 'checkpoints' / str(step)),
  )


def list_differences(
  one: config_dict.ConfigDict, other: config_dict.ConfigDict
) -> dict[str, tuple[Any, Any]]:
  """Fields of two models that scoring reads and that differ, with both values.

  Fields that an older run has not have their defaults.
  """
  ours, theirs = (
    dataclasses.asdict(model.StormerConfig(**config.model))
    for config in (one, other)
  )
  return {
    name: (ours[name], theirs[name])
    for name in ours
    if ours[name] != theirs[name] and name not in _OF_TRAINING
  }


def _computing_as(
  run: Detector, asked: config_dict.ConfigDict, workdir: pathlib.Path
) -> Detector:
  """The same weights, computed with in another type or by other kernels."""
  differing = list_differences(run.config, asked)
  for name, (trained, wanted) in differing.items():
    if name not in _HOW_COMPUTED:
      raise ValueError(
        f'{workdir}: trained with model.{name}={trained}, and {wanted} is asked'
        f' for; of a trained model {", ".join(_HOW_COMPUTED)} alone can be'
        ' changed'
      )
  if not differing:
    return run
  config = run.config.copy_and_resolve_references().unlock()
  config.model.update({name: both[1] for name, both in differing.items()})
  graphdef, _ = steps.make_model(config)
  return dataclasses.replace(run, config=config.lock(), graphdef=graphdef)


def is_shipped() -> bool:
  """Whether weights ship with this version of the package."""
  return (SHIPPED / kept_weights.FILE).exists()


def shipped_folder() -> pathlib.Path:
  """The folder of the detector that ships with the package.

  Raises:
    FileNotFoundError: None does.
  """
  if not is_shipped():
    raise FileNotFoundError(
      f'{SHIPPED}: no weights are shipped with this version; name a run of your'
      ' own (--workdir=RUN, Detector.load(RUN)), as `make demo` trains one'
    )
  return SHIPPED


def save_detector(
  destination: pathlib.Path,
  config: config_dict.ConfigDict,
  weights: dict[str, Tree],
  face_backend: str = '',
) -> None:
  """Writes a run with one checkpoint, at step 0, whole or not at all.

  Args:
    destination: Folder to make; it does not exist or is empty.
    config: What the model is made from.
    weights: {'params': ..., 'stats': ...}.
    face_backend: Full name of what found the faces; '' if unknown.
  """
  with _whole_folder(destination, config, face_backend) as part:
    checkpointer = checkpoint.Checkpointer(
      part / 'checkpoints', save_steps=lambda step: True
    )
    with contextlib.closing(checkpointer):
      checkpointer.save(0, weights, {}, {})


def save_kept(
  destination: pathlib.Path,
  config: config_dict.ConfigDict,
  weights: dict[str, Tree],
  face_backend: str = '',
) -> None:
  """Writes a detector without its run, float16 weights, as a whole.

  Args:
    destination: Folder to make; it does not exist or is empty.
    config: What the model is made from.
    weights: {'params': ..., 'stats': ...}.
    face_backend: Full name of what found the faces; '' if unknown.
  """
  with _whole_folder(destination, config, face_backend) as part:
    kept_weights.write(part / kept_weights.FILE, weights)


def save_weights(path: pathlib.Path, detector: Detector) -> None:
  """Writes the weights of a detector as they are, under our names.

  Args:
    path: Of a .safetensors file.
    detector: Whose parameters and statistics.

  Raises:
    OSError: The disk is full or not writable; nothing is left behind.
  """
  kept_weights.write(path, _weights(detector), half=False)


def weight_names(detector: Detector) -> list[str]:
  """Names in that file, in the order of the leaves of (params, stats)."""
  return list(kept_weights.named(_weights(detector)))


def _weights(detector: Detector) -> dict[str, Tree]:
  return {'params': detector.params, 'stats': detector.stats}


@contextlib.contextmanager
def _whole_folder(
  destination: pathlib.Path, config: config_dict.ConfigDict, face_backend: str
) -> Iterator[pathlib.Path]:
  """A folder to fill; with config.json it then takes the destination's name."""
  part = destination.with_name(f'.{destination.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir()
  try:
    yield part
    text = json.dumps(
      json.loads(config.to_json_best_effort()), indent=2, sort_keys=True
    )
    (part / 'config.json').write_text(text + '\n')
    if face_backend:
      said = json.dumps({'backend': face_backend}, indent=2)
      (part / FACES_FILE).write_text(said + '\n')
    part.rename(destination)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def load_config(workdir: pathlib.Path) -> config_dict.ConfigDict:
  """Reads config.json of a run.

  Raises:
    FileNotFoundError: If there is no run.
    ValueError: If the file is damaged.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'{path}: no run here; train one first (--mode=train --workdir={workdir})'
      ' or convert released weights (--mode=convert)'
    )
  try:
    values = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path}: damaged ({error})') from error
  if not isinstance(values, dict) or 'model' not in values:
    raise ValueError(f'{path}: not the configuration of a run')
  return config_dict.ConfigDict(_with_tuples(values)).lock()


def load_face_backend(workdir: pathlib.Path) -> str:
  """Full name of what found the faces of a run's records; '' if unknown.

  Raises:
    ValueError: If the note is damaged.
  """
  path = pathlib.Path(workdir) / FACES_FILE
  try:
    return str(json.loads(path.read_text())['backend'])
  except FileNotFoundError:
    return ''
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'{path}: damaged ({error!r})') from error


def read_weights(
  workdir: pathlib.Path, abstract: Mapping[str, Tree], key: str = ''
) -> dict[str, Tree]:
  """Reads the best weights of a run, or official ones, for a model.

  The parameters are the averaged ones where the run kept an average.

  Args:
    workdir: As in `load_detector`; or a file of official weights (.pth, .npz,
      .safetensors).
    abstract: {'params': ..., 'stats': ...}, the shapes of the model.
    key: Which weights, where the file holds several (`weight_file`).

  Raises:
    FileNotFoundError: If there is no run.
    ValueError: If the weights are those of another model; names the tensors.
  """
  workdir = pathlib.Path(workdir)
  if workdir.is_file():
    return _read_official(workdir, abstract, key)
  check_run(workdir)
  if (
    'mask_token' not in abstract['params']
    and (workdir / 'config.json').exists()
  ):
    kind = load_config(workdir).model.get('kind', kinds.DETECTOR)
    kinds.check_scores(kind, str(workdir))
  if (workdir / kept_weights.FILE).exists():
    return kept_weights.read(workdir / kept_weights.FILE, abstract)
  return _read_checkpoint(workdir, 'best', abstract)[1]


def check_run(workdir: pathlib.Path) -> None:
  """Raises ValueError for a folder of foreign weights in place of a run."""
  if (workdir / kept_weights.FILE).exists() and (
    workdir / 'config.json'
  ).exists():
    return
  if workdir.is_dir() and not (workdir / 'checkpoints').exists():
    if problem := weight_file.describe_folder(workdir):
      raise ValueError(problem)


def _read_checkpoint(
  workdir: pathlib.Path, which: str | int, abstract: Mapping[str, Tree]
) -> tuple[int, dict[str, Tree]]:
  """Returns a checkpoint's step, and its parameters and statistics."""
  checkpointer = checkpoint.Checkpointer(workdir / 'checkpoints')
  with contextlib.closing(checkpointer):
    step = _choose(checkpointer, which, workdir)
    # Averaged parameters where a run kept them: its figures are theirs.
    name = 'ema' if checkpointer.has_part(step, 'ema') else 'params'
    weights = checkpointer.restore_weights(
      step, {name: abstract['params'], 'stats': abstract['stats']}
    )
  return step, {'params': weights[name], 'stats': weights['stats']}


def _read_official(
  path: pathlib.Path, abstract: Mapping[str, Tree], key: str
) -> dict[str, Tree]:
  if 'temporal_token' not in abstract['params']:
    raise ValueError(
      f'{path}: official weights are those of model.kind=stormer; start a'
      ' baseline from a run of its own kind, --config.pretrained_stem or'
      ' --config.pretrained_vit'
    )
  if 'stem' in abstract['params']['patch_embed']:
    raise ValueError(
      f'{path}: official weights have no stem of convolutions; set'
      ' --config.model.stem=patch, or start from --config.pretrained_stem'
    )
  tensors = weight_file.read_state_dict(path, key)
  try:
    # Heads shape no tensor, so one will do.
    _, params, stats = pretrained.from_official(tensors, num_heads=1)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  weights = {'params': params, 'stats': stats}
  differing = [
    f'{jax.tree_util.keystr(place, simple=True, separator=".")} is {x.shape}, '
    f'the model wants {wanted.shape}'
    for (place, x), wanted in zip(
      jax.tree_util.tree_leaves_with_path(weights),
      jax.tree.leaves(dict(abstract)),
      strict=True,
    )
    if x.shape != wanted.shape
  ]
  if differing:
    raise ValueError(
      f'{path}: weights of another model: {"; ".join(differing[:3])}. Set the '
      'fields of config.model to their sizes'
    )
  return weights


def _choose(
  checkpointer: checkpoint.Checkpointer,
  which: str | int,
  workdir: pathlib.Path,
) -> int:
  choices = {'best': checkpointer.best_step, 'last': checkpointer.latest_step}
  if str(which) not in choices and not str(which).isdecimal():
    raise ValueError(
      f"eval.checkpoint is {which!r}; it is 'best', 'last' or a step"
    )
  step = choices.get(str(which), lambda: int(which))()
  if step is None or step not in checkpointer.all_steps():
    raise FileNotFoundError(
      f'{workdir}/checkpoints: no checkpoint {which}; there are'
      f' {checkpointer.all_steps() or "none"}'
    )
  return step


def _with_tuples(value):
  """JSON knows lists only; our configurations hold tuples only."""
  if isinstance(value, dict):
    return {name: _with_tuples(item) for name, item in value.items()}
  return tuple(value) if isinstance(value, list) else value
