"""Trains one program, ours or the PyTorch twin, on dumped pairs, to the end.

  python -m benchmarks.twin_run --program=torch --seed=0 --folder=FOLDER

A process of its own on one thread, so that two frameworks share nothing.
Enter, in the folder: config.json, the run's configuration; plan.json, how many
steps, and after which the unseen person is scored; pairs.npz and unseen.npz of
`dumped_pairs`; start_seed0.npz, the weights to start from by the
names of the released code. Leaves torch_seed0.npz: the loss terms of every step
at w, the scores of the unseen person's clips, and CPU and wall time.

Ours is `steps.make_train_step` as every run compiles it; the twin has its own
model, loss, SAM and PyTorch's Adam. What they share is the table of learning
rates. The third program, 'nudged', is ours from weights each of which was moved
to the float32 next to it: it shows what rounding alone does to a run.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import time
from typing import Protocol

from jaxtyping import Float
from ml_collections import config_dict
import numpy as np

from benchmarks import dumped_pairs

PROGRAMS = ('jax', 'torch', 'nudged')  # as they are run
TERMS = ('classification', 'spatial', 'temporal', 'total')
_SCORED_AT_ONCE = 32  # clips


def seeds_of(program: str, seeds: Sequence[int]) -> tuple[int, ...]:
  """Which of the seeds a program is run with: 'nudged' with the first alone."""
  return tuple(seeds[:1] if program == 'nudged' else seeds)


class Program(Protocol):
  """A detector that is being trained."""

  def step(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Takes a SAM step; returns the loss terms before it."""

  def score(self, clip: Float[np.ndarray, 'b t h w 3']) -> np.ndarray:
    """Returns the logits [b] of clips."""


def make_ours(
  config: config_dict.ConfigDict,
  steps_per_epoch: int,
  start: dict[str, np.ndarray],
) -> Program:
  """Readies the JAX program."""
  import jax

  from stormer_jax import steps
  from stormer_jax.weights import pretrained

  graphdef, _ = steps.make_model(config)
  tx = steps.make_optimizer(config, steps_per_epoch)
  _, params, stats = pretrained.from_official(start, config.model.num_heads)
  train_step = jax.jit(
    steps.make_train_step(config, graphdef, tx, steps_per_epoch),
    donate_argnums=0,
  )

  @jax.jit
  def score(params, stats, clip):
    return steps.score_clips(graphdef, params, stats, clip, alone=False)

  class Ours:
    state = jax.device_put(steps.init_state(params, stats, tx, 0.0))

    def step(self, batch):
      self.state, terms = train_step(self.state, batch)
      return {name: float(terms[name]) for name in TERMS}

    def score(self, clip):
      outputs = score(self.state.params, self.state.stats, clip)
      return np.asarray(outputs['logits'])

  return Ours()


def make_twin(
  config: config_dict.ConfigDict,
  steps_per_epoch: int,
  start: dict[str, np.ndarray],
) -> Program:
  """Readies the PyTorch program."""
  import torch

  from benchmarks import torch_twin
  from stormer_jax import steps

  torch.set_num_threads(1)
  model = config.model
  twin = torch_twin.TorchTwin(
    torch_twin.TwinConfig(
      width=model.width,
      depth=model.depth,
      num_heads=model.num_heads,
      mlp_ratio=model.mlp_ratio,
      image_size=model.image_size,
      patch_size=model.patch_size,
      num_frames=model.num_frames,
      temporal_token=model.temporal_token,
      map_layout=model.map_layout,
    )
  )
  tensors = {name: torch.from_numpy(x.copy()) for name, x in start.items()}
  twin.load_state_dict(tensors, strict=True)
  rates = steps.learning_rate(config)
  adam = torch_twin.make_adam(twin, rates[0])
  group = adam.param_groups[0]
  group['betas'] = (config.optimizer.b1, config.optimizer.b2)
  group['eps'] = config.optimizer.eps
  group['weight_decay'] = config.optimizer.weight_decay

  class Twin:
    num_steps = 0

    def step(self, batch):
      group['lr'] = rates[
        min(self.num_steps // steps_per_epoch, len(rates) - 1)
      ]
      self.num_steps += 1
      moved = {name: torch.from_numpy(x) for name, x in batch.items()}
      clip = _channels_first(moved['clip'])
      twin.train()
      found = []

      def loss_fn():
        loss, terms = torch_twin.three_task_loss(
          twin(clip), moved, **config.loss
        )
        found.append(terms | {'total': loss})
        return loss

      torch_twin.sam_step(
        twin,
        adam,
        loss_fn,
        rho=config.optimizer.rho,
        batch_stats=config.optimizer.batch_stats,
      )
      return {name: float(found[0][name].detach()) for name in TERMS}

    def score(self, clip):
      twin.eval()
      with torch.no_grad():
        return twin(_channels_first(torch.from_numpy(clip))).logits.numpy()

  def _channels_first(clip):
    return clip.permute(0, 4, 1, 2, 3).contiguous()

  return Twin()


def nudged(start: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
  """Moves every trained number to one of its two float32 neighbours."""
  rng = np.random.default_rng(seed)
  moved = {}
  for name, x in start.items():
    if x.dtype == np.float32 and 'running' not in name:
      towards = np.where(rng.random(x.shape) < 0.5, -np.inf, np.inf)
      x = np.nextafter(x, towards.astype(np.float32))
    moved[name] = x
  return moved


def run(folder: pathlib.Path, program: str, seed: int) -> None:
  """Trains and scores; writes the file when all is done."""
  config = config_dict.ConfigDict(
    json.loads((folder / 'config.json').read_text())
  )
  plan = json.loads((folder / 'plan.json').read_text())
  pairs = dumped_pairs.read(folder / 'pairs.npz')
  unseen = dumped_pairs.read(folder / 'unseen.npz')
  start = dumped_pairs.read(folder / f'start_seed{seed}.npz')
  steps_per_epoch = max(1, plan['num_steps'] // config.train.num_epochs)
  # The order of the pairs is the seed's; the program is the same for all.
  order = dumped_pairs.batch_order(
    len(pairs['label']) // 2, plan['num_steps'], config.data.batch_size, seed
  )
  make = make_twin if program == 'torch' else make_ours
  if program == 'nudged':
    start = nudged(start, seed)
  trained = make(config, steps_per_epoch, start)
  terms, scores, cpu, wall = [], [], [], []
  began = time.perf_counter()
  for step, chosen in enumerate(order, start=1):
    batch = dumped_pairs.take(pairs, chosen)
    start_cpu, start_wall = time.process_time(), time.perf_counter()
    terms.append(trained.step(batch))
    cpu.append(time.process_time() - start_cpu)
    wall.append(time.perf_counter() - start_wall)
    if step in plan['scored_after']:
      scores.append(_score(trained, unseen['clip']))
      passed = time.perf_counter() - began
      left = passed * (len(order) / step - 1)
      print(
        f'{program} seed {seed}: step {step} of {len(order)}, loss'
        f' {terms[-1]["total"]:.4f}, {passed:.0f} s, {left:.0f} s left',
        flush=True,
      )
  columns = {name: np.array([row[name] for row in terms]) for name in TERMS}
  timed = {'cpu': np.array(cpu), 'wall': np.array(wall)}
  dumped_pairs.write(
    folder / f'{program}_seed{seed}.npz',
    columns | timed | {'scores': np.array(scores)},
  )


def _score(trained: Program, clips: np.ndarray) -> np.ndarray:
  return np.concatenate(
    [
      trained.score(clips[i : i + _SCORED_AT_ONCE].astype(np.float32))
      for i in range(0, len(clips), _SCORED_AT_ONCE)
    ]
  )


def main() -> None:
  """Parses the flags and trains."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--program', choices=PROGRAMS, required=True)
  parser.add_argument('--seed', type=int, required=True)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  args = parser.parse_args()
  # Both frameworks size their thread pools by this, when they are imported.
  cpus = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, cpus[-1:])
  run(args.folder, args.program, args.seed)


if __name__ == '__main__':
  main()
