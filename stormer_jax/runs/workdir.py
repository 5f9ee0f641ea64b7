"""The folder of a run: whose run it is, and whether it is over.

Enters: a configuration. Leaves: `<workdir>/config.json`, which says for ever
after what the run computes; a second command must agree with it. Beside it
lies faces.json: what found the faces that it learns from. At the end of
training, and not before, `<workdir>/finished.json` is written.
"""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from flax import traverse_util
import jax
from ml_collections import config_dict

# Fields that change how a run is carried out and not what it computes; all
# others must be those that the workdir was started with. The dtype is among
# them so that a run may go on with other hardware; its numbers then round
# differently from there on.
_FREE_FIELDS = (
  'data.corrupt_',
  'data.num_threads',
  'data.prefetch',
  'eval.',
  'model.attention',
  'model.dtype',
  'model.remat',
  'model.scan_layers',
  'synthesis.mode',
  'train.checkpoint_every',
  'train.keep_every_epochs',
  'train.keep_last',
  'train.mesh_',
  'train.nonfinite_budget',
  'train.stall_timeout',
)


def claim(config: config_dict.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes config.json, or checks that the one there is of the same run.

  Raises:
    ValueError: Naming every differing field.
    OSError: If the folder cannot be written.
  """
  path = workdir / 'config.json'
  ours = json.loads(config.to_json_best_effort())
  if path.exists():
    theirs = json.loads(path.read_text())
    ours_flat = traverse_util.flatten_dict(ours, sep='.')
    theirs_flat = traverse_util.flatten_dict(theirs, sep='.')
    differing = [
      f'{name}: {theirs_flat.get(name, "absent")} there,'
      f' {ours_flat.get(name, "absent")} here'
      for name in sorted(ours_flat.keys() | theirs_flat.keys())
      if ours_flat.get(name) != theirs_flat.get(name) and not is_free(name)
    ]
    if differing:
      fix = 'set these fields as they were'
      if any('absent' in field for field in differing):
        fix += ', with the version of this program that began the run'
      raise ValueError(
        f'{path}: written by another configuration ({"; ".join(differing)});'
        f' choose another --workdir, or {fix}'
      )
  elif jax.process_index() == 0:
    if workdir.exists() and not workdir.is_dir():
      raise ValueError(f'{workdir}: a file; --workdir is the folder of a run')
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      _write(path, ours)
    except OSError as error:
      raise OSError(
        f'{workdir}: cannot be written ({error.strerror or error}); choose a'
        ' --workdir on a disk with room that you may write to'
      ) from error


def claim_faces(backend: str, workdir: pathlib.Path) -> None:
  """Writes faces.json, or checks that the one there names the same backend.

  Args:
    backend: full name of what found the faces of the records; '' where nobody
      wrote it down, of which nothing is noted.
    workdir: claimed.

  Raises:
    ValueError: the run began with faces that something else had found.
  """
  path = workdir / 'faces.json'
  if not backend:
    return
  if path.exists():
    theirs = json.loads(path.read_text())['backend']
    if theirs != backend:
      raise ValueError(
        f'{workdir}: trained on faces found by {theirs}, the records are of'
        f' {backend}; give the --data_root of before, or another --workdir'
      )
  elif jax.process_index() == 0:
    _write(path, {'backend': backend})


def is_free(name: str) -> bool:
  """Whether 'section.field' says how a run is carried out, not what it is."""
  return name.startswith(_FREE_FIELDS)


def finish(workdir: pathlib.Path, step: int) -> None:
  """Notes that all steps are done and the last checkpoint is on disk."""
  if jax.process_index() == 0:
    _write(workdir / 'finished.json', {'step': step})


def is_finished(workdir: pathlib.Path) -> bool:
  """Whether training there has come to its end."""
  return (workdir / 'finished.json').exists()


def _write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes JSON, whole or not at all."""
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + '\n')
  temporary.rename(path)
