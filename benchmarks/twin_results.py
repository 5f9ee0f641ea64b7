"""What came out of training JAX and PyTorch on the same pairs, for the page.

Enters: the folder of `train_both` with the finished runs of `twin_run`. Leave:
a dict that goes into JSON, figures with intervals by program and seed, and of
it the last section of docs/jax_vs_pytorch.md and its two plots.
"""

from collections.abc import Mapping, Sequence
import json
import math
import pathlib
import textwrap
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from benchmarks import dumped_pairs, twin_run
from stormer_jax.experiments import curves
from stormer_jax.scoring import bootstrap, metrics

HEADING = '## Trained to the end'
_SMOOTHED_OVER = 20  # steps, in the plot of the loss
# Steps from the first on over which losses are compared.
_STRETCHES = (10, 100, 1000)
# 97.5 % quantiles of Student's distribution for as many values.
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
_NAMES = {
  'jax': 'JAX',
  'torch': 'PyTorch',
  'nudged': 'JAX, nudged',
}


def summarize(
  folder: pathlib.Path, programs: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
  """Compares the finished runs of a folder.

  Returns:
    By program: its AUC after each scoring of each seed; the last of each seed,
    and their mean, with interval; its difference to JAX with interval; loss
    curves; how far its losses are from those of JAX, relative; times. Programs
    that were not run with all seeds have no mean.
  """
  with np.load(folder / 'unseen.npz') as arrays:
    labels = arrays['label'].astype(np.int64)
    windows = arrays['window'].astype(np.int64)
    # Pairs that were dumped before it was noted have none.
    commit = str(arrays.get('commit', 'unknown'))
  scored_after = json.loads((folder / 'plan.json').read_text())['scored_after']
  runs = {
    program: [
      dumped_pairs.read(folder / f'{program}_seed{seed}.npz')
      for seed in twin_run.seeds_of(program, seeds)
    ]
    for program in programs
  }
  results: dict[str, Any] = {
    'programs': list(programs),
    'seeds': list(seeds),
    'clips': len(labels),
    'windows': len(np.unique(windows)),
    'pairs_commit': commit,
  }
  ours = runs['jax']
  for program, theirs in runs.items():
    last = [run['scores'][-1] for run in theirs]
    reference = [run['scores'][-1] for run in ours]
    groups = [[i] for i in range(len(theirs))]
    if len(theirs) == len(seeds):
      groups.append([*range(len(seeds))])
    results[program] = {
      'auc_curves': [
        [
          (step, metrics.single('auc', labels, scores.astype(float)))
          for step, scores in zip(scored_after, run['scores'], strict=True)
        ]
        for run in theirs
      ],
      # One a seed, then over all.
      'auc': [
        _estimate(labels, windows, [last[i] for i in group]) for group in groups
      ],
      'more_than_jax': [
        _estimate(
          labels,
          windows,
          [last[i] for i in group],
          [reference[i] for i in group],
        )
        for group in groups
      ],
      'loss_curves': [_smoothed(run['total']) for run in theirs],
      'apart': [
        {
          stretch: _apart(run['total'][:stretch], other['total'][:stretch])
          for stretch in _STRETCHES
        }
        for run, other in zip(theirs, ours, strict=False)
      ],
      'cpu_ms': [1e3 * float(np.median(run['cpu'][1:])) for run in theirs],
      'wall_ms': [1e3 * float(np.median(run['wall'][1:])) for run in theirs],
      'first_cpu_s': [float(run['cpu'][0]) for run in theirs],
      'all_cpu_s': [float(run['cpu'].sum()) for run in theirs],
    }
  results['over_seeds'] = _over_seeds(
    [each['value'] for each in results['torch']['more_than_jax'][:-1]]
  )
  return results


def _over_seeds(differences: Sequence[float]) -> dict[str, float]:
  """Mean over seeds and Student's interval; nan where it cannot be told."""
  n, mean = len(differences), float(np.mean(differences))
  reach = math.nan
  if n in _STUDENT:
    reach = _STUDENT[n] * float(np.std(differences, ddof=1)) / n**0.5
  return {'value': mean, 'low': mean - reach, 'high': mean + reach}


def _estimate(
  labels: Int[np.ndarray, 'n'],
  windows: Int[np.ndarray, 'n'],
  runs: Sequence[Float[np.ndarray, 'n']],
  minus: Sequence[Float[np.ndarray, 'n']] = (),
) -> dict[str, float]:
  """Mean AUC of runs, or its difference to others', and its interval.

  All are measured on the same resamples of the clips that pairs were made of.
  """

  def mean(scores):
    value = np.mean(
      [metrics.single('auc', labels, x.astype(float)) for x in scores]
    )
    draws = [
      bootstrap.draw(
        bootstrap.Sample(labels, x.astype(float), windows),
        names=['auc'],
        num_bootstrap=1000,
      )['auc']
      for x in scores
    ]
    return float(value), np.mean(draws, axis=0)

  value, draws = mean(runs)
  if minus:
    other_value, other_draws = mean(minus)
    value, draws = value - other_value, draws - other_draws
  estimate = bootstrap.summary(value, draws)
  return {
    'value': estimate.value,
    'low': estimate.low,
    'high': estimate.high,
  }


def _smoothed(losses: Float[np.ndarray, ' s']) -> list[tuple[int, float]]:
  size = min(_SMOOTHED_OVER, len(losses))
  count = len(losses) // size
  means = losses[: count * size].reshape(count, size).mean(1)
  return [(size * (i + 1), float(mean)) for i, mean in enumerate(means)]


def _apart(
  losses: Float[np.ndarray, ' s'], others: Float[np.ndarray, ' s']
) -> dict[str, float]:
  relative = np.abs(losses - others) / np.abs(others)
  return {'largest': float(relative.max()), 'mean': float(relative.mean())}


def draw(results: Mapping[str, Any]) -> dict[str, str]:
  """Plots the losses and the AUCs of all programs, a band over the seeds."""
  return {
    name: curves.draw_curves(
      {_NAMES[p]: results[p][column] for p in results['programs']},
      _NAMES['jax'],
      title,
    )
    for name, column, title in (
      ('jax_vs_pytorch_loss.svg', 'loss_curves', 'training loss'),
      (
        'jax_vs_pytorch_auc.svg',
        'auc_curves',
        'AUC on pseudo-fakes of the unseen person',
      ),
    )
  }


def section(results: Mapping[str, Any]) -> str:
  """Returns the section of the page: what was done, what came out."""
  plan, config = results['plan'], results['config']
  model = config['model']
  ours, theirs = (results[p]['auc'][-1] for p in ('jax', 'torch'))
  difference = results['torch']['more_than_jax'][-1]
  apart = {
    stretch: max(at[stretch]['largest'] for at in results['torch']['apart'])
    for stretch in _STRETCHES
  }
  done = (
    f'{plan["num_steps"]:,} SAM steps of {config["data"]["batch_size"]} pairs,'
    f' drawn from {plan["num_pairs"]:,} that were dumped once of the'
    " demo's videos (docs/demo_data.md) by the code of commit"
    f' {results["pairs_commit"]}, with a detector of width'
    f' {model["width"]}, depth {model["depth"]}, {model["image_size"]} px in'
    f' patches of {model["patch_size"]}, T = {model["num_frames"]}'
    ' (configs/jax_vs_pytorch.py). A seed gives the weights to start from and'
    ' the order of the pairs, the same for all programs; dropout and DropPath'
    " are off. Ours is the training step of every run; the twin's model, loss,"
    ' SAM and Adam are its own.'
  )
  scored = (
    f'Then both score all {results["windows"]} clips of a person whom neither'
    f' has seen, `{plan["unseen"]}`, beside pseudo-fakes of each,'
    f' {results["clips"]} clips in all. An interval covers 95 % of 1,000'
    ' resamples of those clips with all that was made of them, the same ones'
    ' for both programs: it speaks of one man in one video, not of people.'
  )
  scored += _how_it_was_chosen(plan)
  over_seeds = results['over_seeds']
  found = (
    f'The mean AUC is {_interval(ours, ".3f")} for JAX and'
    f' {_interval(theirs, ".3f")} for PyTorch. PyTorch less JAX is'
    f' {_interval(difference, "+.3f")} for these runs;'
    f' {_interval(over_seeds, "+.3f")} if the seeds are what varies (Student).'
    f' Over the first 10 steps the losses differ by at most {apart[10]:.0e} of'
    f' their value, over the first 100 by {apart[100]:.0e}, over the first'
    f' 1,000 by {apart[1000]:.0e}.'
  )
  if 'nudged' in results['programs']:
    nudged = results['nudged']
    found += (
      ' How much of that is rounding, the third program says: "JAX, nudged" is'
      ' ours, with the first seed, from weights each of which was moved to the'
      " float32 next to it. Its losses leave JAX's by at most"
      f' {nudged["apart"][0][10]["largest"]:.0e},'
      f' {nudged["apart"][0][100]["largest"]:.0e} and'
      f' {nudged["apart"][0][1000]["largest"]:.0e}, and its AUC is'
      f' {_interval(nudged["more_than_jax"][0], "+.3f")} from that of JAX. An'
      ' interval over clips cannot see this: two runs that differ in a rounding'
      ' are two runs.'
    )
  paragraphs = [
    'Written by `python -m benchmarks.train_both`, which needs the extra'
    " `torch` (`pip install -e '.[torch]'`) and the demo's packages (`make"
    ' test` puts them into .demo/packages); do not edit by hand.'
    f' {results["machine"]}',
    done,
    scored,
    found,
  ]
  wrapped = '\n\n'.join(
    textwrap.fill(text, 80, break_on_hyphens=False) for text in paragraphs
  )
  return f"""{HEADING}

{wrapped}

{tabulate(results)}

A cell of the second table is the largest difference, and the mean in brackets.
In the third, a step is the median of a run and of the seeds. The first run of
JAX compiles, the others find the program in a cache. Where wall time is far
above CPU time, other programs were at work on the cores.

![Loss of both programs, step by step](jax_vs_pytorch_loss.svg)

![AUC of both programs, step by step](jax_vs_pytorch_auc.svg)
"""


def _how_it_was_chosen(plan: Mapping[str, Any]) -> str:
  """What was tried before the published run; nothing of another one."""
  said = ''
  if plan['unseen'] == 'man_carphone':
    said += (
      ' Size and rates were tried in one run with `president_obama` in his'
      ' place (`--unseen`); batch and blends were then set without a look at'
      " anybody's scores."
    )
    if (plan['num_steps'], plan['num_pairs']) == (2000, 3200):
      said += (
        ' A first comparison had 1,000 steps and 1,600 pairs'
        ' (`--steps=1000 --pairs=1600`), and one of its six runs did not reach'
        ' 0.8; then both numbers were doubled, once.'
      )
  return said


def tabulate(results: Mapping[str, Any]) -> str:
  """Returns the tables as Markdown."""
  others = [p for p in results['programs'] if p != 'jax']
  names = [f'seed {seed}' for seed in results['seeds']] + ['mean']
  columns = [
    (f'AUC, {_NAMES[p]}', p, 'auc', '.3f') for p in ('jax', *others)
  ] + [(f'{_NAMES[p]} - JAX', p, 'more_than_jax', '+.3f') for p in others]
  rows = [
    f'| | {" | ".join(head for head, *_ in columns)} |',
    '|' + ' --- |' * (1 + len(columns)),
  ]
  for i, name in enumerate(names):
    found = [
      (results[program][column][i : i + 1], digits)
      for _, program, column, digits in columns
    ]
    cells = [_interval(*each, digits) if each else '' for each, digits in found]
    rows.append(f'| {name} | {" | ".join(cells)} |')
  rows += [
    '',
    '| losses, relative to JAX | first 10 steps | first 100 | first 1,000 |',
    '|' + ' --- |' * 4,
  ]
  for program in others:
    seeds = twin_run.seeds_of(program, results['seeds'])
    for seed, apart in zip(seeds, results[program]['apart'], strict=True):
      cells = [
        f'{at["largest"]:.0e} ({at["mean"]:.0e})'
        for at in (apart[stretch] for stretch in _STRETCHES)
      ]
      rows.append(f'| {_NAMES[program]}, seed {seed} | {" | ".join(cells)} |')
  rows += [
    '',
    '| one thread | CPU ms a step | wall ms a step | first step of the first'
    ' seed, CPU s | its whole run, CPU s |',
    '|' + ' --- |' * 5,
  ]
  for program in results['programs']:
    found = results[program]
    cells = [
      f'{np.median(found["cpu_ms"]):.1f}',
      f'{np.median(found["wall_ms"]):.1f}',
      f'{found["first_cpu_s"][0]:.1f}',
      f'{found["all_cpu_s"][0]:.0f}',
    ]
    rows.append(f'| {_NAMES[program]} | {" | ".join(cells)} |')
  return '\n'.join(rows)


def _interval(estimate: Mapping[str, float], digits: str) -> str:
  value, low, high = (
    format(estimate[name], digits) for name in ('value', 'low', 'high')
  )
  return f'{value} ({low} to {high})'
