"""Compiles for a TPU that need not be there, and says what the compiler says.

  pip install 'jax[tpu]'                    # brings libtpu
  python -m benchmarks.tpu                  # the pairs, 8 on one v6e
  python -m benchmarks.tpu --what step      # the SAM step of ViT-B
  python -m benchmarks.tpu --what products  # the floor under that step

Prints compile seconds, bytes of one device, collectives, and the cycles that
the compiler expects of each operation, the dearest first. Cycles are the
compiler's estimates, good for comparing one program with another; nothing runs.

The floor is the matrix products of the step's blocks, each compiled alone, from
memory to memory. Not in it: attention over time, patch embedding and heads,
together some 2 % of the arithmetic, and what remat computes again.
"""

import argparse
import collections
import functools
import re
import time

import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np

from configs import ffpp_c23, vit_large
from stormer_jax import model, plan, sharding, train

_CONFIGS = {'ffpp_c23': ffpp_c23, 'vit_large': vit_large}
_COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
# "ENTRY" and the name, at the head of a computation.
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
_CALLED = re.compile(
  r'(?:body|condition|calls|to_apply|true_computation|false_computation)='
  r'(%?[\w.-]+)|branch_computations=\{([^}]*)\}'
)


def main() -> None:
  """Prints one program's figures."""
  arguments = _parse()
  # libtpu compiles; the process itself stays on the CPU.
  jax.config.update('jax_platforms', 'cpu')
  config = _CONFIGS[arguments.config].get_config()
  config.data.batch_size = arguments.pairs
  config.model.num_frames = arguments.frames
  config.model.remat = arguments.remat
  devices, compiler = plan.devices_of(arguments.kind, arguments.devices)
  if 'TPU' not in compiler:
    raise SystemExit(
      f"no TPU compiler for {arguments.kind}: pip install 'jax[tpu]', and"
      ' choose one of ' + ', '.join(plan.TOPOLOGIES)
    )
  mesh = plan.make_mesh(config, devices)
  sharding.check_batch(config.data.batch_size, config.train.accumulate, mesh)
  print(f'{compiler}, {arguments.devices} devices, {arguments.pairs} pairs')
  if arguments.what == 'products':
    _print_products(config, mesh, arguments.rows)
    return
  if arguments.what == 'pairs':
    lowered = lower_pairs(config, mesh)
  else:
    state, batch, step = plan.training_step(
      config, mesh, scan_layers=not arguments.unrolled
    )
    lowered = step.lower(state, batch)
  start = time.monotonic()
  program = lowered.compile()
  seconds = time.monotonic() - start
  memory = program.memory_analysis()
  text = program.as_text() or ''
  print(f'compiled in       {seconds:8.0f} s')
  print(f'temporaries       {memory.temp_size_in_bytes / 2**20:8.0f} MiB')
  print(f'code              {memory.generated_code_size_in_bytes / 2**20:8.0f}')
  talk = collections.Counter(
    found
    for found in re.findall(r' ([a-z-]+)\(', text)
    if found.removesuffix('-start') in _COLLECTIVES
  )
  print(f'collectives       {dict(talk) or "none"}')
  total, dearest = estimated_cycles(text)
  print(f'estimated cycles  {total / 1e6:8.1f} M')
  for cycles, shape, name in dearest[: arguments.rows]:
    print(f'  {cycles / total:6.1%}  {shape:60}  {name}')


def estimated_cycles(text: str) -> tuple[int, list[tuple[int, str, str]]]:
  """Adds up the cycles that the TPU compiler wrote beside its operations.

  Args:
    text: Of the compiled program.

  Returns:
    All cycles, and (cycles, shape, name) of each operation, most first. What
    stands in a loop counts as often as the loop runs.
  """
  times = run_counts(text)
  count, found = 0, []
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      count = times.get(head[2], 0)
    if cycles := re.search(r'"estimated_cycles":"(\d+)"', line):
      shape = line.split(' = ')[1].split('{')[0].lstrip('(')
      name = re.search(r'op_name="([^"]*)"', line)
      found.append((count * int(cycles[1]), shape, name[1] if name else ''))
  return sum(cycles for cycles, *_ in found), sorted(found, reverse=True)


def run_counts(text: str) -> dict[str, int]:
  """How often each computation of a compiled program runs.

  A body or condition runs once a trip of its loop and so, in a nested loop, the
  product of the trips. Every branch of a conditional counts as taken.

  Raises:
    ValueError: If the text does not say how many trips a loop has.
  """
  lines: dict[str, list[str]] = {}
  entry = name = ''
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      name = head[2]
      lines[name] = []
      entry = name if head[1] else entry
    elif name:
      lines[name].append(line)
  counts: dict[str, int] = collections.Counter()

  def visit(name, count):
    counts[name] += count
    for line in lines[name]:
      trips = 1
      if ' while(' in line:
        condition = re.search(r'condition=%?([\w.-]+)', line)
        trips = _trips(line, lines[condition[1]] if condition else [])
      names = ' '.join(' '.join(pair) for pair in _CALLED.findall(line))
      for called in re.findall(r'[\w.-]+', names):
        visit(called, count * trips)

  visit(entry, 1)
  return dict(counts)


def _trips(loop: str, condition: list[str]) -> int:
  """Trips of a loop: known, or the one number that its condition compares."""
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop):
    return int(known[1])
  numbers = re.findall(r's32\[\]\S* constant\((\d+)\)', '\n'.join(condition))
  if len(numbers) != 1:
    raise ValueError(f'a loop of unknown length: {loop.strip()[:200]}')
  return int(numbers[0])


def block_products(
  config: model.StormerConfig, clips: int
) -> collections.Counter[tuple[str, tuple[int, ...], tuple[int, ...]]]:
  """Counts the matrix products of a block, forward and back.

  Three of each layer (its output, and the gradients of its input and weights)
  and six of attention over space.

  Args:
    config: Of a model with divided attention.
    clips: Of a device.

  Returns:
    How many there are of each (einsum, shape, shape).
  """
  patches, width = config.grid_size**2, config.width
  hidden = int(width * config.mlp_ratio)
  frames = config.num_frames * clips
  tubes = (config.num_frames + 1) * patches * clips
  tokens = frames * (patches + 1)
  rows = (config.num_frames * patches + 2) * clips
  layers = [(tubes, width, width)] * 5 + [(tokens, width, width)] * 4
  layers += [(rows, width, hidden), (rows, hidden, width)]
  counts = collections.Counter()
  for n, d, e in layers:
    counts['nd,de->ne', (n, d), (d, e)] += 1
    counts['ne,de->nd', (n, e), (d, e)] += 1
    counts['nd,ne->de', (n, d), (n, e)] += 1
  heads = (frames, config.num_heads, patches + 1)
  vectors, weights = (*heads, width // config.num_heads), (*heads, patches + 1)
  # Logits, and the gradient of the weights; the mixture, and the gradient of
  # queries; those of keys and of values.
  counts['bhnk,bhmk->bhnm', vectors, vectors] += 2
  counts['bhnm,bhmk->bhnk', weights, vectors] += 2
  counts['bhnm,bhnk->bhmk', weights, vectors] += 2
  return counts


def _print_products(
  config: config_dict.ConfigDict, mesh: jax.sharding.Mesh, rows: int
) -> None:
  """Compiles each product of a step alone, and adds up."""
  array = functools.partial(
    jax.ShapeDtypeStruct,
    dtype=config.model.dtype,
    sharding=sharding.replicated(mesh),
  )
  clips = 2 * config.data.batch_size // mesh.size
  found = []
  for (how, x, y), count in block_products(
    model.StormerConfig(**config.model), clips
  ).items():
    multiply = jax.jit(functools.partial(jnp.einsum, how))
    text = multiply.lower(array(x), array(y)).compile().as_text() or ''
    # In each block, in both passes of SAM.
    cycles = 2 * config.model.depth * count * estimated_cycles(text)[0]
    found.append((cycles, f'{how} {x} {y}'))
  total = sum(cycles for cycles, _ in found)
  print(f'estimated cycles  {total / 1e6:8.1f} M')
  for cycles, name in sorted(found, reverse=True)[:rows]:
    print(f'  {cycles / total:6.1%}  {name}')


def lower_pairs(
  config: config_dict.ConfigDict, mesh: jax.sharding.Mesh
) -> jax.stages.Lowered:
  """The making of a batch of pairs, as an accelerator makes them."""
  config.synthesis.mode = 'vmap'
  split = sharding.batch_sharding(mesh)
  pairs, frames = config.data.batch_size, config.model.num_frames
  make = train.jit_pairs(config, mesh)
  shape = functools.partial(jax.ShapeDtypeStruct, sharding=split)
  return make.lower(
    shape((pairs, frames, 256, 256, 3), np.uint8),
    shape((pairs, frames, 81, 2), np.float32),
    shape((pairs,), np.uint32),
    flip_probs=shape((pairs,), np.float32),
  )


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--what', choices=('pairs', 'step', 'products'), default='pairs'
  )
  parser.add_argument('--config', choices=_CONFIGS, default='ffpp_c23')
  parser.add_argument('--frames', type=int, default=4, help='of a clip')
  parser.add_argument('--kind', default='TPU v6e', help='%(default)s')
  parser.add_argument('--devices', type=int, default=1)
  parser.add_argument('--pairs', type=int, default=8, help='of all devices')
  parser.add_argument(
    '--remat',
    choices=('none', 'dots', 'full'),
    default='dots',
    help='of the step',
  )
  parser.add_argument(
    '--unrolled', action='store_true', help='blocks one by one, not scanned'
  )
  parser.add_argument('--rows', type=int, default=12, help='operations to show')
  return parser.parse_args()


if __name__ == '__main__':
  try:
    main()
  except ValueError as error:
    raise SystemExit(f'error: {error}') from None
