"""Times one program, ours or the PyTorch twin, in a process of its own.

  python -m benchmarks.side_by_side --framework=jax --size=tiny --work=sam \
    --clips=2 --iterations=10 [--precision=tf32] [--compile]

Prints one line of JSON: medians of wall and of process CPU time per call, the
time of the first call (compilation and warm-up), and the most memory that the
process, or on a GPU its device, came to need beyond what it had at the start.
A process of its own, because the peak of a process cannot be reset.
"""

import argparse
from collections.abc import Callable
import json
import os
import resource
import statistics
import time

import numpy as np

SIZES = {
  'tiny': {
    'width': 48,
    'depth': 3,
    'num_heads': 4,
    'mlp_ratio': 4.0,
    'image_size': 32,
    'patch_size': 8,
    'num_frames': 4,
  },
  'base': {
    'width': 768,
    'depth': 12,
    'num_heads': 12,
    'mlp_ratio': 4.0,
    'image_size': 224,
    'patch_size': 16,
    'num_frames': 4,
  },
}
PAPER = {'temporal_token': 'learned', 'map_layout': 'thw'}
LOSS_WEIGHTS = {
  'classification_weight': 0.8,
  'spatial_weight': 100.0,
  'temporal_weight': 0.2,
  'temperature': 2.0,
}


def random_batch(
  sizes: dict, num_clips: int, seed: int
) -> dict[str, np.ndarray]:
  """A training batch of noise, float32, in our layout (pipeline.Batch)."""
  rng = np.random.default_rng(seed)
  t, size = sizes['num_frames'], sizes['image_size']
  grid = size // sizes['patch_size']
  maps = (num_clips, t, grid, grid)
  batch = {
    'clip': rng.standard_normal((num_clips, t, size, size, 3)),
    'label': np.arange(num_clips) % 2,
    'vulnerability_map': rng.standard_normal(maps),
    'soft_label': rng.uniform(size=(num_clips, t)),
    'kept': rng.uniform(size=maps) < 0.9,
  }
  return {name: x.astype(np.float32) for name, x in batch.items()}


def jax_program(args: argparse.Namespace) -> Callable[[], None]:
  """Returns a call that does the work once and waits for it."""
  from flax import nnx
  import jax
  import optax

  from stormer_jax import losses, model, optimizer

  precision = {'float32': 'highest', 'tf32': 'tensorfloat32'}
  jax.config.update(
    'jax_default_matmul_precision', precision.get(args.precision)
  )
  sizes = SIZES[args.size]
  config = model.StormerConfig(
    **sizes,
    **PAPER,
    drop_path=0.0,
    head_dropout=0.0,
    dtype='bfloat16' if args.precision == 'bfloat16' else 'float32',
    attention='xla',
    remat='none',
    scan_layers=False,
  )

  def build():
    detector = model.Stormer(config, rngs=nnx.Rngs(0))
    return nnx.split(detector, nnx.Param, ...)

  graphdef = nnx.eval_shape(build)[0]
  params, stats = jax.jit(
    lambda: tuple(nnx.to_pure_dict(x) for x in build()[1:])
  )()
  batch = jax.device_put(random_batch(sizes, args.clips, 0))

  def merge(params, stats):
    return nnx.merge(graphdef, nnx.State(params), nnx.State(stats), copy=True)

  @jax.jit
  def forward(params, stats, clip):
    detector = merge(params, stats)
    detector.eval()
    return detector(clip)

  if args.work == 'forward':
    return lambda: jax.block_until_ready(forward(params, stats, batch['clip']))

  tx = optimizer.make_optimizer(
    np.array([5e-5]), 1, 0.9, 0.995, 1e-8, 1e-4, False, 0
  )

  def loss_fn(params, stats):
    detector = merge(params, stats)
    detector.train()
    outputs = detector(batch['clip'])
    total, terms = losses.three_task_loss(outputs, batch, **LOSS_WEIGHTS)
    stats = nnx.to_pure_dict(nnx.split(detector, nnx.Param, ...)[2])
    return total, (terms, stats)

  def step(params, stats, opt_state):
    gradients, stats, _, _ = optimizer.sam_gradients(
      loss_fn, params, stats, rho=0.05, batch_stats='first_pass'
    )
    updates, opt_state = tx.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), stats, opt_state

  step = jax.jit(step, donate_argnums=(0, 1, 2))
  state = [params, stats, jax.jit(tx.init)(params)]

  def run():
    state[:] = step(*state)
    jax.block_until_ready(state)

  return run


def torch_program(args: argparse.Namespace) -> Callable[[], None]:
  """Returns a call that does the work once and waits for it."""
  import torch

  from benchmarks import torch_twin

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.set_float32_matmul_precision(
    'high' if args.precision == 'tf32' else 'highest'
  )
  torch.backends.cudnn.allow_tf32 = args.precision == 'tf32'
  device = 'cuda' if args.gpu else 'cpu'
  config = torch_twin.TwinConfig(**SIZES[args.size], **PAPER)
  twin = torch_twin.TorchTwin(config).to(device)
  batch = {
    name: torch.from_numpy(x).to(device)
    for name, x in random_batch(SIZES[args.size], args.clips, 0).items()
  }
  clip = batch['clip'].permute(0, 4, 1, 2, 3).contiguous()
  model = torch.compile(twin) if args.compile else twin
  half = torch.autocast(
    device, torch.bfloat16, enabled=args.precision == 'bfloat16'
  )

  def wait():
    if args.gpu:
      torch.cuda.synchronize()

  def forward():
    with torch.no_grad(), half:
      model(clip)
    wait()

  if args.work == 'forward':
    twin.eval()
    return forward

  adam = torch_twin.make_adam(twin.train(), 5e-5)

  def loss_fn():
    with half:
      outputs = model(clip)
    outputs = torch_twin.Outputs(*(x.float() for x in outputs))
    return torch_twin.three_task_loss(outputs, batch, **LOSS_WEIGHTS)[0]

  def run():
    torch_twin.sam_step(twin, adam, loss_fn)
    wait()

  return run


def measure(args: argparse.Namespace) -> dict[str, float]:
  """Runs the program and returns what it took."""
  program = {'jax': jax_program, 'torch': torch_program}[args.framework]
  if args.framework == 'jax':
    import jax

    jax.devices()
  else:
    import torch  # noqa: F401 not to be counted below
  start_mb = _resident_mb()
  run = program(args)
  start = time.perf_counter()
  run()
  first = time.perf_counter() - start
  wall, cpu = [], []
  for _ in range(args.iterations):
    start_cpu, start = time.process_time(), time.perf_counter()
    run()
    wall.append(time.perf_counter() - start)
    cpu.append(time.process_time() - start_cpu)
  return {
    'wall_ms': 1e3 * statistics.median(wall),
    'cpu_ms': 1e3 * statistics.median(cpu),
    'first_s': first,
    'memory_mb': _device_mb(args) if args.gpu else _peak_mb() - start_mb,
  }


def _peak_mb() -> float:
  # Not ru_maxrss, which a process inherits from the one that started it.
  with open('/proc/self/status') as file:
    status = dict(line.split(':', 1) for line in file)
  return int(status['VmHWM'].split()[0]) / 1024


def _resident_mb() -> float:
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def _device_mb(args: argparse.Namespace) -> float:
  if args.framework == 'jax':
    import jax

    return jax.local_devices()[0].memory_stats()['peak_bytes_in_use'] / 2**20
  import torch

  return torch.cuda.max_memory_allocated() / 2**20


def main() -> None:
  """Parses the flags and prints the figures as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--framework', choices=('jax', 'torch'), required=True)
  parser.add_argument('--size', choices=SIZES, required=True)
  parser.add_argument('--work', choices=('forward', 'sam'), required=True)
  parser.add_argument('--clips', type=int, default=2)
  parser.add_argument('--iterations', type=int, default=10)
  parser.add_argument(
    '--precision', choices=('float32', 'tf32', 'bfloat16'), default='float32'
  )
  parser.add_argument('--compile', action='store_true', help='torch.compile')
  parser.add_argument('--gpu', action='store_true')
  parser.add_argument('--threads', type=int, default=1, help='CPUs to use')
  args = parser.parse_args()
  # Both frameworks size their thread pools by this, when they are imported.
  cpus = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, cpus[-args.threads :])
  print(json.dumps(measure(args)))


if __name__ == '__main__':
  main()
