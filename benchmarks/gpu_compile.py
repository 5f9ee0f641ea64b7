"""Compiles for an NVIDIA GPU that need not be there, and says what comes out.

  pip install 'jax[cuda13]'
  python -m benchmarks.gpu_compile                    # the SAM step of ViT-B
  python -m benchmarks.gpu_compile --what pairs       # the blending
  python -m benchmarks.gpu_compile --devices 4 --depth 2

Prints compile seconds, temporaries and collectives of one device, its kernels,
matrix products and bytes, and a time that they add up to: of each kernel its
products at the card's rate, or its bytes at its bandwidth (`CARDS`). Then the
dearest kinds of kernel. Nothing runs, and no kernel is timed to choose among
others (XLA's autotuning needs the card).

That is a floor, but for what stays in caches: good for comparing one program
with another, not a forecast. On one H200 (ViT-B, 32 pairs, bfloat16, cuDNN's
attention) steps that took 410, 273 and 242 ms (commit 7d85b7e, blocks in a loop
and one by one; e219e99, one by one) have floors of 265, 186 and 164 ms, 0.65 to
0.68 of that. Not in it: what collectives take, products of cuDNN (their bytes
are), gaps between kernels. The blending, whose products are float32, is further
off: 64 pairs took 14.8 ms (docs/scaling.md), and have a floor of 4.5.
"""

import argparse
import collections
import dataclasses
import re
import sys
import time

import jax
from jax.experimental import topologies

from benchmarks import hlo_costs, tpu
from configs import ffpp_c23, vit_large
from stormer_jax import plan, sharding

_CONFIGS = {'ffpp_c23': ffpp_c23, 'vit_large': vit_large}


@dataclasses.dataclass(frozen=True)
class Card:
  """A kind of GPU.

  Attributes:
    name: As the driver says it.
    memory: Bytes that the compiler may plan with.
    peak_bandwidth: Of the data sheet, bytes/s; the compiler's own estimates
      use it.
    bandwidth: Of a copy on the card, bytes/s.
    products: Of a large bfloat16 matrix product, FLOP/s.
  """

  name: str
  memory: int
  peak_bandwidth: float
  bandwidth: float
  products: float


CARDS = {
  # Copies and products are round figures of such cards, from elsewhere; here a
  # step's products ran at 760 TFLOP/s on an H200 (docs/scaling.md).
  'h100': Card(
    'NVIDIA H100 80GB HBM3', 85_000_000_000, 3.35e12, 3.0e12, 790e12
  ),
  'h200': Card('NVIDIA H200', 140_929_347_584, 4.8e12, 4.3e12, 790e12),
}

# What the compiler must know of the chip: Hopper with 132 multiprocessors, as
# both cards have; CUDA 13.0 and cuDNN 9.20.
_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {peak_bandwidth:.0f}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 20 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{name}"
"""


def main() -> None:
  """Prints one program's figures."""
  arguments = _parse()
  # The plugin compiles; the process itself stays on the CPU.
  jax.config.update('jax_platforms', 'cpu')
  config = _CONFIGS[arguments.config].get_config()
  config.data.batch_size = arguments.pairs
  config.model.dtype = 'bfloat16'
  config.model.num_frames = arguments.frames
  config.model.remat = arguments.remat
  config.model.depth = arguments.depth or config.model.depth
  card = CARDS[arguments.kind]
  mesh = plan.make_mesh(config, devices_of(card, arguments.devices))
  sharding.check_batch(config.data.batch_size, config.train.accumulate, mesh)
  print(f'{arguments.devices} x {card.name}, {arguments.pairs} pairs')
  if arguments.what == 'pairs':
    lowered = tpu.lower_pairs(config, mesh)
  else:
    state, batch, step = plan.training_step(
      config,
      mesh,
      scan_layers=arguments.scanned,
      attention=arguments.attention,
    )
    lowered = step.lower(state, batch)
  start = time.monotonic()
  # There is no card on which to time one kernel against another.
  program = lowered.compile({'xla_gpu_autotune_level': 0})
  seconds = time.monotonic() - start
  print(f'compiled in       {seconds:8.0f} s')
  temporaries = program.memory_analysis().temp_size_in_bytes
  print(f'temporaries       {temporaries / 2**20:8.0f} MiB')
  kernels, exchanges = hlo_costs.read(program.as_text() or '')
  print('\n'.join(report(kernels, exchanges, card, arguments.rows)))


def devices_of(card: Card, num_devices: int) -> list[jax.Device]:
  """Devices of one machine, to compile for.

  Raises:
    ValueError: If JAX has no plugin for CUDA.
  """
  try:
    topology = topologies.get_topology_desc(
      card.name,
      platform='cuda',
      target_config=_TARGET.format(**dataclasses.asdict(card)),
      topology=f'1x{num_devices}x1',
    )
  except NotImplementedError:  # JAX's word for a platform without a plugin
    raise ValueError(
      "no compiler for NVIDIA GPUs: pip install 'jax[cuda13]"
      f"=={jax.__version__}'"
    ) from None
  return list(topology.devices)


def report(
  kernels: list[hlo_costs.Kernel],
  exchanges: list[hlo_costs.Collective],
  card: Card,
  rows: int,
) -> list[str]:
  """What the kernels and collectives of one device come to, in lines.

  Args:
    kernels: Of the program.
    exchanges: Its collectives.
    card: That it is compiled for.
    rows: Kinds of kernel to show.
  """

  def least(kernels):
    """Milliseconds."""
    return 1e3 * sum(k.seconds(card.bandwidth, card.products) for k in kernels)

  runs, sizes = collections.Counter(), collections.Counter()
  for exchange in exchanges:
    runs[exchange.kind] += exchange.runs
    sizes[exchange.kind] += exchange.runs * exchange.size
  talk = ', '.join(
    f'{runs[kind]} {kind} ({size / 2**20:.1f} MiB)'
    for kind, size in sizes.most_common()
  )
  flops = sum(kernel.runs * kernel.flops for kernel in kernels)
  touched = sum(kernel.runs * kernel.touched for kernel in kernels)
  lines = [
    f'collectives       {talk or "none"}',
    f'kernels           {sum(kernel.runs for kernel in kernels):8}',
    f'matrix products   {flops / 1e12:8.1f} TFLOP,'
    f' {1e3 * flops / card.products:.1f} ms',
    f'bytes             {touched / 1e9:8.1f} GB,'
    f' {1e3 * touched / card.bandwidth:.1f} ms',
    f'floor             {least(kernels):8.1f} ms',
  ]
  alike = collections.defaultdict(list)
  for kernel in kernels:
    shape = re.sub(r'\{[^}]*\}', '', kernel.shape)
    alike[kernel.kind, shape, _tail(kernel.source)].append(kernel)
  for (kind, shape, source), group in sorted(
    alike.items(), key=lambda item: least(item[1]), reverse=True
  )[:rows]:
    count = sum(kernel.runs for kernel in group)
    # Of one run, in the mean.
    touched = sum(kernel.runs * kernel.touched for kernel in group) / count
    flops = sum(kernel.runs * kernel.flops for kernel in group) / count
    lines.append(
      f'  {least(group):7.2f} ms {count:5} x {touched / 1e6:7.1f} MB'
      f' {flops / 1e9:6.1f} GFLOP  {kind[:32]:32}  {shape[:30]:30}  {source}'
    )
  return lines


def _tail(source: str) -> str:
  """The end of an operation's name, which tells the way there from back."""
  return '/'.join(source.split('/')[-2:])[:40]


def _positive(text: str) -> int:
  """Of an option; argparse says which one was wrong."""
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f'{number}; at least 1')
  return number


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--what', choices=('step', 'pairs'), default='step')
  parser.add_argument('--config', choices=_CONFIGS, default='ffpp_c23')
  parser.add_argument('--frames', type=_positive, default=4, help='of a clip')
  parser.add_argument(
    '--depth', type=_positive, help='blocks, if not as configured'
  )
  parser.add_argument('--kind', choices=CARDS, default='h200')
  parser.add_argument(
    '--devices', type=_positive, default=1, help='of one machine'
  )
  parser.add_argument(
    '--pairs', type=_positive, default=32, help='of all devices'
  )
  parser.add_argument(
    '--remat', choices=('none', 'dots', 'full'), default='none'
  )
  parser.add_argument('--attention', choices=('cudnn', 'xla'), default='cudnn')
  parser.add_argument(
    '--scanned', action='store_true', help='blocks in a loop, not one by one'
  )
  parser.add_argument('--rows', type=int, default=12, help='kinds to show')
  return parser.parse_args()


if __name__ == '__main__':
  try:
    main()
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from None
