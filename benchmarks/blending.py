"""Measures the pair synthesis: speed, fidelity, compile time, roofline.

  python -m benchmarks.blending [--batch 64] [--records DATA/NAME/consecutive]

Prints pairs a second by wall clock and by CPU second, beside two OpenCV
loaders on the same clips in the same run (benchmarks/cv2_blending.py): one
that works as the released loader does, PNG decoding included, and one written
as well as OpenCV allows, with frames at hand already. Then PSNR and SSIM of
our images against that loader's with the same draws, compile seconds cold and
from the persistent cache (child processes), FLOPs and bytes of the compiled
program with the share it reaches of the peaks that a matmul and a copy reach
in the same run, the time of each stage, and how time grows with the batch and
with devices (eight virtual ones on a CPU, in a child process). Runs unchanged
on any backend; on a GPU the bar is 1,000 pairs/s at batch 64.
"""

import argparse
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cv2_blending
from configs import base
from data_pipeline import pipeline, records
from data_pipeline.synthesis import blending, masks, photometric, targets, warp

_IMAGE_SIZE, _PATCH_SIZE, _NUM_FRAMES = 224, 16, 4
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_COLLECTIVES = ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute')
_GPU_BAR = 1000  # pairs/s at batch 64


def main() -> None:
  """Runs all measurements and prints one line each."""
  arguments = _parse()
  config = blending.SynthesisConfig(**base.get_config().synthesis)
  if arguments.compile_only:
    print(json.dumps(_compile_seconds(config, arguments.batch)))
    return
  batch = _inputs(arguments.records, arguments.batch)
  if arguments.devices_only:
    _report_devices(config, batch, arguments.repeats)
    return
  device = jax.devices()[0]
  print(f'device {device.device_kind}, {len(jax.devices())} of them')
  if arguments.compile:
    _report_compile(arguments.batch)
  compiled = _program(config).lower(*batch).compile()
  wall, cpu = _measure(lambda: compiled(*batch), arguments.repeats)
  pairs = arguments.batch
  print(
    f'ours, batch {pairs}: {pairs / wall:.1f} pairs/s, '
    f'{pairs / cpu:.1f} pairs per CPU second ({1e3 * cpu / pairs:.1f} CPU-ms)'
  )
  if device.platform != 'cpu' and pairs == 64:
    print(f'  that is {pairs / wall / _GPU_BAR:.2f} of the bar on a GPU')
  _report_memory(device)
  _report_roofline(compiled, wall, pairs, arguments)
  if arguments.loaders:
    _report_loaders(config, batch, compiled, cpu / pairs, arguments.loaders)
  for size in arguments.scaling:
    part = _inputs(arguments.records, size)
    program = _program(config)
    jax.block_until_ready(program(*part))
    wall, cpu = _measure(lambda p=program, x=part: p(*x), arguments.repeats)
    print(
      f'  batch {size}: {size / wall:.1f} pairs/s, '
      f'{1e3 * cpu / size:.1f} CPU-ms a pair'
    )
  if arguments.stages:
    _report_stages(config, batch, arguments.repeats)
  if arguments.devices:
    _report_devices_apart(arguments)


def _program(config, mesh=None):
  return jax.jit(
    functools.partial(
      pipeline.make_pairs,
      synthesis=config,
      image_size=_IMAGE_SIZE,
      patch_size=_PATCH_SIZE,
      mesh=mesh,
    )
  )


def _inputs(folder, num_pairs):
  """Clips of real records, or noise with a drawn face's landmarks."""
  seeds = jnp.arange(num_pairs, dtype=jnp.uint32)
  if folder:
    path = pathlib.Path(folder)
    videos = records.open_records(
      path.parent.parent, path.parent.name, path.name, 'train'
    )
    long_enough = [
      index
      for index, video in enumerate(videos.videos)
      if video.num_frames >= _NUM_FRAMES
    ]
    clips = [
      videos.read(long_enough[i % len(long_enough)], range(_NUM_FRAMES))
      for i in range(num_pairs)
    ]
    frames, landmarks = map(np.stack, zip(*clips, strict=True))
    return jnp.asarray(frames), jnp.asarray(landmarks), seeds
  rng = np.random.default_rng(0)
  frames = rng.integers(
    0, 256, (num_pairs, _NUM_FRAMES, 32, 32, 3), dtype=np.uint8
  )
  frames = frames.repeat(8, axis=2).repeat(8, axis=3)
  angle = np.linspace(0, 2 * np.pi, 81)
  points = 128 + 80 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  shape = (num_pairs, _NUM_FRAMES, 81, 2)
  points = points + rng.normal(0, 2, shape)
  return jnp.asarray(frames), jnp.asarray(points, jnp.float32), seeds


def _measure(run, repeats):
  """Least (wall, CPU) seconds of a call, all threads counted."""
  jax.block_until_ready(run())
  times = []
  for _ in range(repeats):
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    times.append((time.perf_counter() - wall, time.process_time() - cpu))
  return tuple(np.min(times, axis=0))


def _compile_seconds(config, num_pairs):
  batch = _inputs(None, num_pairs)
  start = time.perf_counter(), time.process_time()
  _program(config).lower(*batch).compile()
  return time.perf_counter() - start[0], time.process_time() - start[1]


def _report_compile(num_pairs):
  with tempfile.TemporaryDirectory() as cache:
    environment = os.environ | {
      'JAX_COMPILATION_CACHE_DIR': cache,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    command = [sys.executable, '-m', 'benchmarks.blending', '--compile_only']
    for name in ('cold', 'cached'):
      output = subprocess.run(
        [*command, f'--batch={num_pairs}'],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
      ).stdout
      wall, cpu = json.loads(output.splitlines()[-1])
      print(f'trace and compile, {name}: {wall:.1f} s wall, {cpu:.1f} s CPU')


def _report_memory(device):
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  print(f'peak resident memory of this process {peak:.0f} MiB')
  on_device = device.memory_stats()  # None on CPUs
  if on_device and 'peak_bytes_in_use' in on_device:
    peak = on_device['peak_bytes_in_use'] / 2**20
    print(f'peak memory of the device {peak:.0f} MiB')


def _report_roofline(compiled, wall, num_pairs, arguments):
  """FLOPs and bytes as the compiler counts them; loop bodies count once."""
  cost = compiled.cost_analysis()
  memory = compiled.memory_analysis()
  # Under 'map' the body of the loop over pairs is counted once, too.
  loops = num_pairs if jax.default_backend() == 'cpu' else 1
  flops, accessed = (
    loops * cost.get(name, 0) for name in ('flops', 'bytes accessed')
  )
  print(
    f'program: {flops / num_pairs / 1e9:.2f} GFLOP and '
    f'{accessed / num_pairs / 2**20:.0f} MiB accessed a pair, '
    f'{memory.temp_size_in_bytes / 2**20:.0f} MiB of temporaries'
  )
  if loops > 1:
    print('  its loop over the frames of a pair is counted once')
  gflops, gbytes = _measure_peaks()
  gflops = arguments.peak_gflops or gflops
  gbytes = arguments.peak_gbytes or gbytes
  for reached, peak, unit in (
    (flops / wall / 1e9, gflops, 'GFLOP/s'),
    (accessed / wall / 1e9, gbytes, 'GB/s'),
  ):
    print(f'  reaches {reached:.1f} of {peak:.0f} {unit}, {reached / peak:.0%}')


def _measure_peaks():
  """Float32 GFLOP/s of a large matmul and GB/s of a large copy, best of 5."""
  size = 2048 if jax.default_backend() == 'cpu' else 8192
  matrix = jnp.ones((size, size))
  multiply = jax.jit(functools.partial(jnp.matmul, precision='highest'))
  multiplying, _ = _measure(lambda: multiply(matrix, matrix), 5)
  array = jnp.ones((2**26,))
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  times = []
  for _ in range(6):  # the first compiles
    start = time.perf_counter()
    array = jax.block_until_ready(add(array))
    times.append(time.perf_counter() - start)
  return 2e-9 * size**3 / multiplying, 2e-9 * array.nbytes / min(times)


def _report_loaders(config, batch, compiled, ours, num_pairs):
  cv2.setNumThreads(1)
  pairs = jax.tree.map(np.asarray, compiled(*batch))
  frames, landmarks, seeds = jax.tree.map(np.asarray, batch)
  height, width = frames.shape[2:4]

  @jax.jit
  def sample(seed):
    key, *_ = jax.random.split(jax.random.key(seed), 3)  # as make_pair does
    return blending.sample_blend_params(key, config, height, width)

  params = [jax.tree.map(np.asarray, sample(s)) for s in seeds[:num_pairs]]
  _report_fidelity(config, frames, landmarks, params, pairs)
  coded = [
    [cv2.imencode('.png', frame)[1] for frame in clip]
    for clip in frames[:num_pairs]
  ]
  scores = np.random.default_rng(0).random((14, 14))

  def pair(index, clip, *, faithful):
    return cv2_blending.make_pair(
      params[index],
      clip,
      landmarks[index],
      config,
      _IMAGE_SIZE,
      _PATCH_SIZE,
      scores,
      faithful=faithful,
    )

  def faithful():
    for index, clip in enumerate(coded):
      decoded = np.stack([cv2.imdecode(frame, 1) for frame in clip])
      pair(index, decoded, faithful=True)

  def good():
    for index in range(num_pairs):
      pair(index, frames[index], faithful=False)

  for name, run in (('as released', faithful), ('well written', good)):
    _, cpu = _measure(run, 2)
    cpu /= num_pairs
    print(
      f'cv2 loader, {name}: {1 / cpu:.1f} pairs per CPU second '
      f'({1e3 * cpu:.1f} CPU-ms); ours makes {cpu / ours:.2f} times as many'
    )


def _report_fidelity(config, frames, landmarks, params, pairs):
  """PSNR and SSIM of our images against OpenCV's with the same draws."""
  figures = {'without JPEG': [], 'with JPEG': []}
  for index, drawn in enumerate(params):
    rows = slice(2 * index, 2 * index + 2)
    order = np.argsort(pairs['label'][rows])
    ours = (pairs['clip'][rows] * _DEVIATION + _MEAN)[order]
    kept = pairs['kept'][2 * index, 0].repeat(_PATCH_SIZE, 0)
    kept = kept.repeat(_PATCH_SIZE, 1)[..., None]
    blends = cv2_blending.blend_clip(
      drawn,
      frames[index],
      landmarks[index],
      config,
      _IMAGE_SIZE,
      _PATCH_SIZE,
    )
    theirs = np.stack(
      [
        np.stack([blend[name] for blend in blends]) * kept / 255
        for name in ('real', 'pseudo_fake')
      ]
    )
    images = [jnp.float32(x.reshape(-1, *x.shape[2:])) for x in (ours, theirs)]
    figures['with JPEG' if drawn.jpeg_on else 'without JPEG'].append(
      (np.asarray(dm_pix.psnr(*images)), np.asarray(dm_pix.ssim(*images)))
    )
  for name, values in figures.items():
    if values:
      psnr, ssim = (np.stack(x) for x in zip(*values, strict=True))
      print(
        f'images against OpenCV {name}: PSNR median {np.median(psnr):.1f} dB, '
        f'least {psnr.min():.1f}; SSIM median {np.median(ssim):.4f}, '
        f'least {ssim.min():.4f} ({psnr.size} images)'
      )


def _report_devices_apart(arguments):
  """Runs `_report_devices` in a process that sees eight devices on a CPU."""
  environment = dict(os.environ)
  if jax.default_backend() == 'cpu':
    environment |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '8'}
  command = [sys.executable, '-m', 'benchmarks.blending', '--devices_only']
  command += [f'--batch={arguments.batch}', f'--repeats={arguments.repeats}']
  if arguments.records:
    command += [f'--records={arguments.records}']
  subprocess.run(command, env=environment, check=True)


def _report_devices(config, batch, repeats):
  """One device against all: pairs a second, equality, collectives."""
  alone = None
  for count in sorted({1, len(jax.devices())}):
    mesh = jax.make_mesh(
      (count,),
      ('data',),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=jax.devices()[:count],
    )
    sharding = jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec('data')
    )
    placed = jax.device_put(batch, sharding)
    compiled = _program(config, mesh).lower(*placed).compile()
    text = compiled.as_text()
    calls = sum(
      text.count(f'{word}(') + text.count(f'{word}-start(')
      for word in _COLLECTIVES
    )
    pairs = jax.tree.map(np.asarray, compiled(*placed))
    alone = alone or pairs
    difference = max(np.abs(pairs[name] - alone[name]).max() for name in alone)
    wall, cpu = _measure(
      lambda run=compiled, values=placed: run(*values), repeats
    )
    size = len(batch[0])
    print(
      f'  {count} devices: {size / wall:.1f} pairs/s, '
      f'{1e3 * cpu / size:.1f} CPU-ms a pair, {calls} collectives, '
      f'largest difference from one device {difference:.1e}'
    )


def _report_stages(config, batch, repeats):
  """Each stage as its own program over one clip, drawn branch or not."""
  frames, landmarks, _ = batch
  clip, points = frames[0], landmarks[0]
  _, height, width, _ = clip.shape
  gather = jax.default_backend() == 'cpu'
  params = blending.sample_blend_params(
    jax.random.key(1), config, height, width
  )
  planar = jnp.moveaxis(clip, -1, 1).astype(jnp.float32)
  both = jnp.concatenate([planar, planar])
  small = both[..., :_IMAGE_SIZE, :_IMAGE_SIZE]
  rows, columns = (jnp.arange(float(size)) for size in (height, width))
  field = warp.elastic_field(
    params.noise, sigma=config.elastic_sigma, alpha=config.elastic_alpha
  )
  reach = warp.elastic_reach(config.elastic_sigma, config.elastic_alpha)
  hull = masks.hull_mask(
    points, params.hull_type, params.first_68, rows, columns, gather=gather
  )
  boundary = jnp.zeros((_NUM_FRAMES, height, width))

  def sample(key):
    return blending.sample_blend_params(key, config, height, width)

  def soften(hull, params):
    return masks.soften(
      hull,
      params.mask_size[0],
      params.mask_size[1],
      params.kernel_1,
      params.kernel_2,
      params.sigma,
      size_bounds=(
        blending.mask_size_bounds(config, height),
        blending.mask_size_bounds(config, width),
      ),
      max_kernel=config.blur_kernel[1],
      gather=gather,
    )

  stages = {
    'draws': (sample, jax.random.key(0)),
    'hull': (
      lambda points, params: masks.hull_mask(
        points,
        params.hull_type,
        params.first_68,
        rows,
        columns,
        gather=gather,
      ),
      points,
      params,
    ),
    'elastic field': (
      lambda noise: warp.elastic_field(
        noise, sigma=config.elastic_sigma, alpha=config.elastic_alpha
      ),
      params.noise,
    ),
    'displace': (
      functools.partial(warp.displace, reach=reach, gather=gather),
      hull,
      field,
    ),
    'soften': (soften, hull, params),
    'hsv': (photometric.hsv_shift, planar, params.hsv),
    'sharpen': (
      photometric.sharpen,
      planar,
      params.sharpen_alpha,
      params.sharpen_lightness,
    ),
    'downscale': (
      functools.partial(
        photometric.downscale, ratios=config.downscale_ratios, gather=gather
      ),
      planar,
      params.downscale_index,
    ),
    'crop and resize': (
      lambda images, margin: blending.crop_and_resize(
        images, margin, _IMAGE_SIZE, gather=gather
      ),
      both,
      params.margin,
    ),
    'jpeg': (
      functools.partial(photometric.jpeg, gather=gather),
      small,
      params.jpeg_quality,
    ),
    'cells': (
      lambda boundary, margin: targets.boundary_cells(
        boundary,
        margin,
        image_size=_IMAGE_SIZE,
        patch_size=_PATCH_SIZE,
        grid='point',
      ),
      boundary,
      params.margin,
    ),
  }
  measured = {}
  for name, (function, *values) in stages.items():
    program = jax.jit(function)
    seconds = _measure(lambda f=program, v=values: f(*v), repeats)
    measured[name] = seconds[1 if gather else 0]
  total = sum(measured.values())
  unit = 'CPU-ms' if gather else 'ms'
  for name, seconds in measured.items():
    print(f'  {name:16} {1e3 * seconds:6.2f} {unit} {seconds / total:5.0%}')


def _parse():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--records', help='DATA_ROOT/NAME/RULE; else noise')
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--loaders', type=int, default=8, help='pairs; 0: skip')
  parser.add_argument('--scaling', type=int, nargs='*', default=[1, 4, 16, 64])
  parser.add_argument('--stages', type=int, default=1)
  parser.add_argument('--compile', type=int, default=1)
  parser.add_argument('--compile_only', action='store_true')
  parser.add_argument('--devices', type=int, default=1)
  parser.add_argument('--devices_only', action='store_true')
  parser.add_argument('--peak_gflops', type=float, help='measured if left out')
  parser.add_argument('--peak_gbytes', type=float, help='measured if left out')
  return parser.parse_args()


if __name__ == '__main__':
  main()
