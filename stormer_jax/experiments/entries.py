"""What a sweep consists of: a configuration file -> entries -> runs.

A sweep is a file as those in configs/: `get_config()` is what all entries
share, `get_sweep()` lists how they differ, as tuples (name, overrides, seeds):

  ('no_map_head', {'loss.spatial_weight': 0.0}, (0, 1, 2))

Every entry with every seed is a run of its own, in `<workdir>/<name>/seed<k>`.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import importlib.util
import pathlib
import re
from types import ModuleType
from typing import Any

from flax import traverse_util
from ml_collections import config_dict


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of a sweep: a name, the fields it sets, the seeds it runs with."""

  name: str
  overrides: Mapping[str, Any]  # 'section.field' -> value
  seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
  """One entry with one seed."""

  entry: str
  seed: int
  config: config_dict.ConfigDict
  workdir: pathlib.Path

  def __str__(self) -> str:
    return f'{self.entry}/seed{self.seed}'


def read_sweep(file: str) -> tuple[config_dict.ConfigDict, list[Entry]]:
  """Reads a sweep's file.

  Args:
    file: Path of a configuration file, with its argument after a colon if it
      takes one.

  Returns:
    config: Of `get_config()`, no flag of the command line applied.
    entries: Of `get_sweep()`.

  Raises:
    ValueError: If the file has no `get_sweep()`, or lists what is no entry.
  """
  path, _, argument = file.partition(':')
  module = _load(path)
  if not hasattr(module, 'get_sweep'):
    raise ValueError(
      f'{path}: has no get_sweep(), so it is one run and not a sweep; use'
      ' --mode=train, or see configs/ablations.py for how a sweep is written'
    )
  entries = [_entry(path, item) for item in module.get_sweep()]
  names = [entry.name for entry in entries]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice or not entries:
    raise ValueError(
      f'{path}: get_sweep() '
      + (f'names {", ".join(twice)} twice' if twice else 'lists no entry')
    )
  config = module.get_config(argument) if argument else module.get_config()
  return config, entries


def list_runs(
  config: config_dict.ConfigDict,
  entries: Iterable[Entry],
  workdir: pathlib.Path,
) -> list[Run]:
  """Makes the runs of a sweep: each entry with each seed, in order.

  Args:
    config: What the entries share, flags of the command line applied.
    entries: From `read_sweep`.
    workdir: Folder of the sweep.

  Raises:
    ValueError: Naming the entry, if it sets a field that does not exist or has
      another type, or one that says how a run is scored.
  """
  runs = []
  for entry in entries:
    for seed in entry.seeds:
      own = config.copy_and_resolve_references().unlock()
      for field, value in (*entry.overrides.items(), ('seed', seed)):
        _override(own, entry.name, field, value)
      folder = workdir / entry.name / f'seed{seed}'
      runs.append(Run(entry.name, seed, own.lock(), folder))
  return runs


def flags_between(
  start: config_dict.ConfigDict, end: config_dict.ConfigDict
) -> list[str]:
  """The --config.FIELD=VALUE that make one configuration of another."""
  before, after = flatten(start), flatten(end)
  return [
    f'--config.{name}={value}'
    for name, value in after.items()
    if before.get(name) != value
  ]


def flatten(config: config_dict.ConfigDict) -> dict[str, Any]:
  """Names the leaves of a configuration 'section.field'."""
  return traverse_util.flatten_dict(config.to_dict(), sep='.')


def _load(path: str) -> ModuleType:
  spec = importlib.util.spec_from_file_location('sweep_config', path)
  assert spec is not None and spec.loader is not None, path
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _entry(path: str, item: Any) -> Entry:
  wanted = (
    f"{path}: get_sweep() lists {item!r}; an entry is ('name', {{'section."
    "field': value}, (seed, ...))"
  )
  if not isinstance(item, Sequence) or len(item) != 3:
    raise ValueError(wanted)
  name, overrides, seeds = item
  if not isinstance(overrides, Mapping) or not isinstance(seeds, Sequence):
    raise ValueError(wanted)
  if not isinstance(name, str) or not re.fullmatch(r'[\w.+-]*\w[\w.+-]*', name):
    raise ValueError(
      f'{path}: {name!r} names an entry; use letters, digits, _ . + and -, as'
      ' it becomes a folder'
    )
  if not seeds or len(set(seeds)) < len(seeds):
    raise ValueError(
      f'{path}: entry {name} has the seeds {seeds}; give each once, at least'
      ' one'
    )
  return Entry(name, dict(overrides), tuple(seeds))


def _override(
  config: config_dict.ConfigDict, entry: str, field: str, value: Any
) -> None:
  *sections, name = field.split('.')
  place = config
  for section in sections:
    place = place.get(section, config_dict.ConfigDict())
  if not isinstance(place, config_dict.ConfigDict) or name not in place:
    raise ValueError(
      f'entry {entry} sets {field}: no such field; see configs/base.py for all'
    )
  if field.startswith('eval.'):
    raise ValueError(
      f'entry {entry} sets {field}: all entries are scored alike, or their'
      ' figures could not be compared; set it for the whole sweep, by'
      f' --config.{field}'
    )
  try:
    place[name] = value
  except TypeError as error:
    raise ValueError(
      f'entry {entry} sets {field} to {value!r}; it is {place[name]!r}, of type'
      f' {type(place[name]).__name__}, in the configuration'
    ) from error
