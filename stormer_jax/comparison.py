"""Which of many runs is better: folders of runs -> measures of their entries.

Enter: folders. Leave: `summary.Measure`s: the best validation of each run, and
its AUC over the videos of every data set that it was scored on, runs that
differ in the seed alone taken together, each entry beside the base. Written as
Markdown, CSV and SVG.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import glob
import json
import math
import pathlib
import re
from typing import Any, NamedTuple

from flax import traverse_util
from jaxtyping import Float
import numpy as np

from stormer_jax.experiments import curves, summary
from stormer_jax.runs import metric_writer
from stormer_jax.runs import workdir as workdir_lib
from stormer_jax.scoring import bootstrap, metrics, score_file

_NUM_BOOTSTRAP = 1000
_NAN = (math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class Run:
  """What lies in the folder of one run."""

  folder: pathlib.Path
  config: Mapping[str, Any]  # 'section.field' -> value
  curve: tuple[tuple[int, float], ...]  # (step, validation figure)
  scores: Mapping[str, score_file.SavedScores]  # by folder under eval/
  unfinished: str  # '', or how far it is

  @property
  def seed(self) -> int:
    return self.config['seed']


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that differ in the seed alone."""

  name: str
  runs: tuple[Run, ...]
  fields: Mapping[str, Any]  # of those that differ among the groups

  @property
  def finished(self) -> tuple[Run, ...]:
    return tuple(run for run in self.runs if not run.unfinished)

  @property
  def note(self) -> str:
    missing = [run for run in self.runs if run.unfinished]
    return ', '.join(f'seed {run.seed} {run.unfinished}' for run in missing)


Keys = tuple[tuple[str, int, str], ...]  # what tells videos apart


class _Measured(NamedTuple):
  """AUC of the runs of an entry, and their mean on every resample."""

  values: tuple[float, ...]
  draws: Float[np.ndarray, 'b'] | None


def compare(
  patterns: Sequence[str], base: str | None = None
) -> tuple[list[summary.Measure], list[Group]]:
  """Reads runs and measures them.

  Args:
    patterns: Of folders; each is a run or holds runs, as those of an entry.
    base: Name of the entry that the others are compared with; None: 'base', or
      else the first.

  Returns:
    measures: Validation, then each data set.
    groups: The entries, in the order of the folders.

  Raises:
    ValueError: If there is no run, no entry named `base`, or a file of a run
      is damaged.
  """
  groups = _group(_find(patterns))
  names = [group.name for group in groups]
  if base is not None and base not in names:
    raise ValueError(f'--base is {base}; there are {", ".join(names)}')
  base = base or ('base' if 'base' in names else names[0])
  measures = []
  if any(run.curve for group in groups for run in group.finished):
    measures.append(_validation(groups, base))
  datasets = dict.fromkeys(
    name for group in groups for run in group.finished for name in run.scores
  )
  measures += [_scored(groups, base, dataset) for dataset in datasets]
  if not measures:
    raise ValueError(
      f'{", ".join(patterns)}: no run there is finished or scored yet: '
      + '; '.join(f'{group.name}: {group.note}' for group in groups)
    )
  return measures, groups


def report(
  patterns: Sequence[str],
  base: str | None = None,
  out: pathlib.Path | None = None,
) -> str:
  """Compares runs, writes what was found and returns it as Markdown.

  Args:
    patterns: As in `compare`.
    base: As in `compare`.
    out: Folder for comparison.md, comparison.csv, curves.svg and, for each
      data set, differences-NAME.svg; None: nothing is written.
  """
  measures, groups = compare(patterns, base)
  text = summary.markdown(measures)
  if out is None:
    return text
  out.mkdir(parents=True, exist_ok=True)
  plots = {
    'curves.svg': curves.draw_curves(
      {
        group.name: [run.curve for run in group.finished if run.curve]
        for group in groups
      },
      measures[0].base,
      'Validation by step',
    )
  }
  for measure in measures:
    name = measure.name.partition(':')[0]
    plots[f'differences-{name}.svg'] = curves.draw_differences(
      [
        (row.name, row.difference, row.difference_interval)
        for row in measure.rows
      ],
      measure.base,
      measure.name,
    )
  drawn = {name: plot for name, plot in plots.items() if plot}
  pages = '\n'.join(f'![{name}]({name})' for name in drawn)
  for name, content in {
    'comparison.md': f'{text}\n{pages}\n',
    'comparison.csv': summary.to_csv(measures),
    **drawn,
  }.items():
    partial = out / f'{name}.partial'
    partial.write_text(content, encoding='utf-8')
    partial.replace(out / name)
  return text


def _find(patterns: Sequence[str]) -> list[Run]:
  folders: dict[pathlib.Path, None] = {}
  for pattern in patterns:
    for match in sorted(map(pathlib.Path, glob.glob(pattern))):
      for config in (
        match / 'config.json',
        *sorted(match.glob('*/config.json')),
      ):
        if config.is_file():
          folders[config.parent] = None
  if not folders:
    raise ValueError(
      f'--runs={",".join(patterns)}: no folder there is a run (has a'
      " config.json) or holds runs; quote the pattern, as --runs='RUNS/*'"
    )
  return [_read(folder) for folder in folders]


def _read(folder: pathlib.Path) -> Run:
  path = folder / 'config.json'
  try:
    config = traverse_util.flatten_dict(json.loads(path.read_text()), sep='.')
  except ValueError as error:
    raise ValueError(f'{path}: damaged ({error})') from error
  lines = metric_writer.read_metrics(folder / 'metrics.jsonl')
  figure = config.get('train.best_metric', '')
  scores = {
    file.parent.name: score_file.read(file, system=str(folder))[0]
    for file in sorted(folder.glob('eval/*/scores.csv'))
  }
  unfinished = ''
  # Converted weights were not trained here, and are whole.
  if not workdir_lib.is_finished(folder) and (lines or not scores):
    unfinished = f'stopped at step {lines[-1]["step"] if lines else 0}'
  return Run(
    folder,
    config,
    tuple(
      (line['step'], line[figure])
      for line in lines
      if line.get(figure) is not None
    ),
    scores,
    unfinished,
  )


def _group(runs: Sequence[Run]) -> list[Group]:
  """Puts together what differs in the seed alone."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    computed = {
      name: value
      for name, value in run.config.items()
      if name != 'seed' and _is_compared(name)
    }
    found.setdefault(json.dumps(computed, sort_keys=True), []).append(run)
  configs = [json.loads(key) for key in found]
  differing = [
    name
    for name in dict.fromkeys(name for config in configs for name in config)
    if len({json.dumps(config.get(name)) for config in configs}) > 1
  ]
  names = [_name(group[0].folder) for group in found.values()]
  return [
    Group(
      # Two of one name: by their folders.
      name if names.count(name) == 1 else str(group[0].folder),
      tuple(sorted(group, key=lambda run: run.seed)),
      {field: config.get(field, '') for field in differing},
    )
    for name, group, config in zip(names, found.values(), configs, strict=True)
  ]


def _is_compared(name: str) -> bool:
  """Whether a field tells runs apart: not if it only says how to run them.

  What a model rounds with is such a field for a run that goes on elsewhere;
  among runs it makes a difference to look at.
  """
  return name.startswith('model.') or not workdir_lib.is_free(name)


def _name(folder: pathlib.Path) -> str:
  folder = folder.resolve()
  named_by_seed = re.fullmatch(r'seed[_-]?\d+', folder.name)
  return folder.parent.name if named_by_seed else folder.name


def _validation(groups: Sequence[Group], base: str) -> summary.Measure:
  """The best validation of each run; its videos are not kept one by one."""
  best = {
    group.name: [
      (run.seed, max(value for _, value in run.curve))
      for run in group.finished
      if run.curve
    ]
    for group in groups
  }
  base_values = [value for _, value in best[base]]
  rows = []
  for group in groups:
    values = [value for _, value in best[group.name]]
    difference = math.nan
    if values and base_values and group.name != base:
      difference = float(np.mean(values) - np.mean(base_values))
    rows.append(
      summary.Row(
        group.name,
        group.fields,
        tuple(seed for seed, _ in best[group.name]),
        tuple(values),
        _NAN,
        difference,
        _NAN,
        group.note,
      )
    )
  figures = {
    run.config['train.best_metric']
    for group in groups
    for run in group.finished
    if run.curve
  }
  named = ' or '.join(sorted(figures))
  name = f'validation: best {named}, each run by its own fakes'
  return summary.Measure(name, base, 0, tuple(rows))


def _scored(
  groups: Sequence[Group], base: str, dataset: str
) -> summary.Measure:
  """AUC over the videos of a data set that runs were scored on."""
  scored = {
    group.name: {
      run.seed: run.scores[dataset]
      for run in group.finished
      if dataset in run.scores
    }
    for group in groups
  }
  own = {name: _shared(by_seed.values()) for name, by_seed in scored.items()}
  # Where videos are missing, those that an entry shares with the base.
  both = {name: _common([own[base], keys]) for name, keys in own.items()}
  measured: dict[tuple[str, Keys], _Measured] = {}
  for keys in {*own.values(), *both.values()}:
    wanted = {
      name: list(by_seed.values())
      for name, by_seed in scored.items()
      if by_seed and (keys in (own[name], both[name]) or name == base)
    }
    for name, found in _measure(wanted, keys).items():
      measured[name, keys] = found
  rows = []
  for group in groups:
    values: tuple[float, ...] = ()
    interval, difference, between = _NAN, math.nan, _NAN
    notes = [group.note] * bool(group.note)
    if scored[group.name]:
      ours = measured[group.name, own[group.name]]
      values, interval = ours.values, _interval(ours.draws)
    if scored[group.name] and scored[base] and group.name != base:
      keys = both[group.name]
      ours, theirs = measured[group.name, keys], measured[base, keys]
      difference = float(np.mean(ours.values) - np.mean(theirs.values))
      if ours.draws is not None and theirs.draws is not None:
        between = _interval(ours.draws - theirs.draws)
      if len(keys) < len(own[base]):
        missing = len(own[base]) - len(keys)
        notes.append(f'{missing} videos of the base not scored')
    rows.append(
      summary.Row(
        group.name,
        group.fields,
        tuple(scored[group.name]),
        values,
        interval,
        difference,
        between,
        ', '.join(notes),
      )
    )
  return summary.Measure(
    f'{dataset}: AUC over videos', base, len(own[base]), tuple(rows)
  )


def _shared(scores: Iterable[score_file.SavedScores]) -> Keys:
  """The videos that all have scored, in the order of the first."""
  keys = [
    [key for key, yes in zip(one.keys, one.scored, strict=True) if yes]
    for one in scores
  ]
  return _common(keys) if keys else ()


def _common(keys: Sequence[Sequence[tuple[str, int, str]]]) -> Keys:
  """What is in all of them, in the order of the first."""
  common = set.intersection(*map(set, keys))
  return tuple(key for key in keys[0] if key in common)


def _measure(
  scores: Mapping[str, Sequence[score_file.SavedScores]], keys: Keys
) -> dict[str, _Measured]:
  """AUC of every run of every entry on some videos, all resampled alike."""
  auc = metrics.figures()['auc']
  chosen = {
    name: [_select(one, keys) for one in runs] for name, runs in scores.items()
  }
  some = next(iter(chosen.values()))[0]
  values = {
    name: tuple(metrics.single('auc', one.labels, one.scores) for one in runs)
    for name, runs in chosen.items()
  }
  clusters = some.clusters()
  drawn: dict[str, list[np.ndarray]] = {name: [] for name in scores}
  undefined = metrics.undefined('auc', some.labels, some.scores)
  if not undefined and not bootstrap.too_few(some.labels, clusters):
    rankings = {
      name: [metrics.Ranking(one.labels, one.scores) for one in runs]
      for name, runs in chosen.items()
    }
    for weights in bootstrap.resamples(
      some.labels, clusters, _NUM_BOOTSTRAP, seed=0
    ):
      for name, runs in rankings.items():
        draws = [auc(ranking(weights)) for ranking in runs]
        drawn[name].append(np.mean(draws, axis=0))
  return {
    name: _Measured(
      values[name], np.concatenate(drawn[name]) if drawn[name] else None
    )
    for name in scores
  }


def _select(
  scores: score_file.SavedScores, keys: Keys
) -> score_file.SavedScores:
  place = {key: i for i, key in enumerate(scores.keys)}
  return scores.select(np.array([place[key] for key in keys], int))


def _interval(draws: Float[np.ndarray, 'b'] | None) -> tuple[float, float]:
  if draws is None:
    return _NAN
  low, high = np.percentile(draws, [2.5, 97.5])
  return float(low), float(high)
