"""Will a run fit, and how fast can it be: the answer without the hardware.

Enters: a configuration, a kind of device and their number. Leaves: bytes per
device, FLOPs a step and the bounds that follow, as a `Plan` and as text. State
and batch are counted exactly, from the shardings that training uses. The rest
lies between two figures. At least what the way there keeps for the way back,
counted in the traced model, and a gradient. At most, about, what a compiler
reserves for the real training step:

- for a TPU, its own compiler, if the package `libtpu` is there (it needs no
  TPU, but minutes);
- else XLA for as many virtual CPU devices, which have no bfloat16 products and
  so hold float32 copies.

Blocks are compiled as one `lax.scan`, whatever `model.scan_layers` says: the
same arrays are kept for the way back, in a third of the time. Attention is
'xla', since 'cudnn' needs the GPU.
"""

from collections.abc import Sequence
import dataclasses
import functools
import importlib.util
import math
import os
import re
from typing import Any

from absl import logging
from flax import nnx
import jax
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import config_dict
import numpy as np

from stormer_jax import flops, model, objectives, sharding, steps

_GIB = 2**30
# Of the peak. Choice: what well-tuned transformers of this size reach.
_HONEST_SHARE = 0.4
# Measured: blending and SAM step of ViT-B, T = 4, bfloat16 (docs/scaling.md).
_SEEN_SHARE = {'NVIDIA H200': 0.33}
_HEADROOM = 0.9  # of the memory; the rest is for programs and fragments
# Slices by generation: name of the smallest that has so many devices.
_GRIDS_2D = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_GRIDS_3D = (
  (2, 2, 1),
  (2, 2, 2),
  (2, 2, 4),
  (2, 4, 4),
  (4, 4, 4),
  (4, 4, 8),
  (4, 8, 8),
)
TOPOLOGIES = {
  'TPU v4': ('v4', _GRIDS_3D),
  'TPU v5 lite': ('v5e', _GRIDS_2D),
  'TPU v5e': ('v5e', _GRIDS_2D),
  'TPU v5': ('v5p', _GRIDS_3D),
  'TPU v5p': ('v5p', _GRIDS_3D),
  'TPU v6 lite': ('v6e', _GRIDS_2D),
  'TPU v6e': ('v6e', _GRIDS_2D),
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a training step takes; bytes are those of one device.

  Attributes:
    device_kind: As in `jax.Device.device_kind`.
    num_devices: How many.
    mesh: Devices along each axis.
    num_parameters: Of the whole model.
    params: Bytes of the parameters and statistics.
    moments: Bytes of Adam's moments.
    ema: Bytes of the averaged parameters; 0 if none are kept.
    batch: Bytes of this step's clips and targets, and of the next one's.
    kept: Bytes of activations that wait for the way back, and a gradient.
    temporaries: Bytes beside state and batch that the compiler reserves, kept
      ones included.
    compiler: Whose word `temporaries` is.
    memory: Bytes of the device; None if it is not known.
    clips: Clips a step.
    flops: Of a step, by formula.
    peak: FLOP/s of all devices; None if it is not known.
    advice: What to change if it does not fit.
  """

  device_kind: str
  num_devices: int
  mesh: dict[str, int]
  num_parameters: int
  params: int
  moments: int
  ema: int
  batch: int
  kept: int
  temporaries: int
  compiler: str
  memory: int | None
  clips: int
  flops: float
  peak: float | None
  advice: tuple[str, ...] = ()

  @property
  def least(self) -> int:
    """Bytes of one device that no compiler can do without."""
    return self.params + self.moments + self.ema + self.batch + self.kept

  @property
  def most(self) -> int:
    """Bytes of one device by the compiler asked."""
    return self.least - self.kept + max(self.kept, self.temporaries)

  @property
  def verdict(self) -> str:
    """'fits' | 'may fit' | 'does NOT fit' | 'not known'."""
    if self.memory is None:
      return 'not known'
    room = _HEADROOM * self.memory
    if self.most <= room:
      return 'fits'
    return 'does NOT fit' if self.least > room else 'may fit'


def make_plan(
  config: config_dict.ConfigDict, device_kind: str, num_devices: int
) -> Plan:
  """Compiles the training step of a configuration and adds up.

  Args:
    config: As in configs/base.py.
    device_kind: A key of `flops.DEVICES`, or 'cpu'.
    num_devices: Devices in all.

  Raises:
    ValueError: If the device is unknown, the configuration does not suit the
      number of devices, or the backend has too few virtual devices.
  """
  if device_kind != 'cpu' and device_kind not in flops.DEVICES:
    raise ValueError(
      f'--device_kind={device_kind}: unknown; one of cpu, '
      + ', '.join(flops.DEVICES)
    )
  devices, compiler = devices_of(device_kind, num_devices)
  mesh = make_mesh(config, devices)
  sharding.check_batch(config.data.batch_size, config.train.accumulate, mesh)
  model_config = model.StormerConfig(**config.model)
  state, batch, step = training_step(config, mesh)
  clips = objectives.choose(config).clips_each * config.data.batch_size
  peak = flops.peak_flops(device_kind, config.model.dtype)
  planned = Plan(
    device_kind=device_kind,
    num_devices=num_devices,
    mesh=dict(mesh.shape),
    num_parameters=steps.count_parameters(state.params),
    params=_bytes((state.params, state.stats)),
    moments=_bytes(state.opt_state),
    ema=_bytes(state.ema),
    # Pairs are made while the step before is still running.
    batch=2 * _bytes(batch),
    kept=_bytes(state.params) + _kept_bytes(config, mesh),
    temporaries=_temporaries(step.lower(state, batch), devices[0].platform),
    compiler=compiler,
    memory=flops.memory_bytes(device_kind),
    clips=clips,
    flops=flops.train_step_flops(model_config, clips, config.optimizer.rho),
    peak=None if peak is None else peak * num_devices,
  )
  return dataclasses.replace(planned, advice=tuple(_advice(planned, config)))


def text(planned: Plan) -> str:
  """Says it in a few lines."""
  p = planned
  axes = ' x '.join(f'{name} {size}' for name, size in p.mesh.items())
  lines = [
    f'{p.num_devices} x {p.device_kind} ({axes}), {p.clips} clips a step',
    f'parameters       {p.num_parameters:>14,}',
    'bytes of one device',
    f'  parameters     {_size(p.params)}',
    f'  moments        {_size(p.moments)}',
    f'  average        {_size(p.ema)}',
    f'  batch, twice   {_size(p.batch)}',
    f'  kept           {_size(p.kept)}  for the way back, and a gradient',
    f'  temporaries    {_size(p.temporaries)}  estimate of {p.compiler}, kept'
    ' ones included',
    f'  at least       {_size(p.least)}  with those kept',
    f'  about at most  {_size(p.most)}  with the temporaries',
  ]
  if p.memory is None:
    lines.append(f'memory of one {p.device_kind}: not known')
  else:
    lines.append(
      f'memory           {_size(p.memory)}  {p.verdict}'
      f' ({1 - _HEADROOM:.0%} left free)'
    )
  lines += [f'  change: {change}' for change in p.advice]
  lines.append(f'FLOPs a step     {p.flops / 1e12:10.4g} TFLOP, by formula')
  if p.peak is None:
    lines.append('no known peak: no bound on the speed')
  else:
    shares = {'bound': 1.0, 'hope': _HONEST_SHARE}
    if p.device_kind in _SEEN_SHARE:
      shares['seen'] = _SEEN_SHARE[p.device_kind]
    for name, share in shares.items():
      seconds = p.flops / (share * p.peak)
      hours = 1e6 / p.clips * seconds / 3600
      lines.append(
        f'{name} at {share:4.0%} MFU {1e3 * seconds:10.1f} ms a step,'
        f' {p.clips / seconds:,.0f} clips/s, {hours:.3g} h a million clips'
      )
    if 'seen' in shares:
      lines.append(
        '  seen: ViT-B, T = 4, bfloat16, attention=cudnn, scan_layers=False,'
        ' one device, blending included'
      )
  return '\n'.join(lines)


def _size(number: int) -> str:
  if number < _GIB:
    return f'{number / 2**20:10.1f} MiB'
  return f'{number / _GIB:10.2f} GiB'


def devices_of(
  device_kind: str, num_devices: int
) -> tuple[Sequence[jax.Device], str]:
  """Devices to compile for, and the name of their compiler."""
  if device_kind in TOPOLOGIES and importlib.util.find_spec('libtpu'):
    generation, grids = TOPOLOGIES[device_kind]
    sizes = [grid for grid in grids if math.prod(grid) >= num_devices]
    if sizes:
      # Else libtpu asks the metadata server of a machine that is no TPU host.
      os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
      os.environ.setdefault('TPU_ACCELERATOR_TYPE', f'{generation}-1')
      os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
      # Nor is a TPU locked that is not used.
      os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
      name = f'{generation}:{"x".join(map(str, sizes[0]))}'
      topology = topologies.get_topology_desc(name, platform='tpu')
      return topology.devices[:num_devices], f'the TPU compiler for {name}'
  elif device_kind in TOPOLOGIES:
    logging.info("pip install 'jax[tpu]': the TPU compiler's exact figures")
  devices = jax.devices('cpu')
  if len(devices) < num_devices:
    raise ValueError(
      f'--devices={num_devices}: this process has {len(devices)} virtual CPU'
      ' devices; set jax_num_cpu_devices before the first use of JAX'
    )
  return devices[:num_devices], 'XLA for CPU'


def training_step(
  config: config_dict.ConfigDict,
  mesh: Mesh,
  *,
  scan_layers: bool = True,
  attention: str = 'xla',
):
  """Abstract state and batch, where they lie, and the jitted step.

  Args:
    config: As in configs/base.py, but for the two that follow.
    mesh: Of devices, which need not be there.
    scan_layers: As `model.scan_layers`.
    attention: As `model.attention`; 'cudnn' needs a mesh of GPUs.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model.update(scan_layers=scan_layers, attention=attention)
  graphdef, init_weights = steps.make_model(config)
  objective = objectives.choose(config)
  tx = steps.make_optimizer(config, steps_per_epoch=1)
  init = functools.partial(
    steps.init_state,
    tx=tx,
    ema_decay=config.optimizer.ema_decay,
    terms=objective.terms,
  )
  abstract = jax.eval_shape(lambda: init(*init_weights()))
  shardings = sharding.state_shardings(abstract, mesh)
  step = jax.jit(
    steps.make_train_step(
      config,
      graphdef,
      tx,
      steps_per_epoch=1,
      platform=mesh.devices.flat[0].platform,
    ),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  by_clip = sharding.batch_sharding(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_clip)
    for name, x in objective.batch.items()
  }
  state = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    abstract,
    shardings,
  )
  return state, batch, step


def _bytes(tree: Any) -> int:
  """Bytes of a device's share of arrays."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def state_bytes(
  config: config_dict.ConfigDict, num_devices: int
) -> tuple[int, int]:
  """Number of parameters, and bytes of a whole state on one device."""
  state, _, _ = training_step(
    config, make_mesh(config, jax.devices('cpu')[:num_devices])
  )
  return steps.count_parameters(state.params), _bytes(state)


def make_mesh(
  config: config_dict.ConfigDict, devices: Sequence[jax.Device]
) -> Mesh:
  """The mesh of a run on the given devices."""
  return sharding.make_mesh(
    config.train.mesh_data,
    config.train.mesh_fsdp,
    config.train.mesh_tensor,
    devices=devices,
  )


def kept_bytes_per_clip(config: config_dict.ConfigDict) -> int:
  """Bytes that the model keeps of one clip for the way back, in training.

  Traced, not compiled: what differentiation and `model.remat` leave, in the
  types that they have on an accelerator.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model.update(scan_layers=True, attention='xla', batch_norm_groups=1)
  graphdef, init_weights = steps.make_model(config)
  params, stats = jax.eval_shape(init_weights)

  def way_back(params, stats, clip, key):
    def forward(params):
      detector = steps.merge(graphdef, params, stats)
      detector.train()
      return detector(clip, rngs=nnx.Rngs(dropout=key))

    return jax.vjp(forward, params)[1]  # a tree of all that is kept

  def total(num_clips):
    clip = objectives.choose(config).batch['clip']
    shape = (num_clips, *clip.shape[1:])
    kept = jax.eval_shape(
      way_back,
      params,
      stats,
      jax.ShapeDtypeStruct(shape, np.float32),
      jax.eval_shape(lambda: jax.random.key(0)),
    )
    return sum(
      math.prod(leaf.shape) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(kept)
    )

  # The difference leaves out what is kept once: the weights.
  return (total(4) - total(2)) // 2


def _kept_bytes(config: config_dict.ConfigDict, mesh: Mesh) -> int:
  """Bytes of one device, if `tensor` splits all of them (it does not quite)."""
  clips = objectives.choose(config).clips_each * config.data.batch_size
  clips //= config.train.accumulate
  return clips * kept_bytes_per_clip(config) // mesh.size


def _temporaries(lowered: jax.stages.Lowered, platform: str) -> int:
  """Bytes of one device beside the arguments, results in their place."""
  # Nothing will run: half the time, and the same allocations.
  options: dict[str, str | bool] = {
    'xla_backend_optimization_level': '0',
    'xla_llvm_disable_expensive_passes': True,
  }
  try:
    compiled = lowered.compile(options if platform == 'cpu' else None)
    memory: Any = compiled.memory_analysis()
  except jax.errors.JaxRuntimeError as error:
    # The TPU compiler refuses what does not fit, and says how much it takes.
    needed = re.search(r'program\s+([\d.]+)([MG])', str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or needed is None:
      raise
    return int(float(needed[1]) * {'M': 2**20, 'G': _GIB}[needed[2]])
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return memory.temp_size_in_bytes + results


def _advice(planned: Plan, config: config_dict.ConfigDict) -> list[str]:
  """What would make a plan fit, the cheapest first."""
  if planned.memory is None or planned.verdict == 'fits':
    return []
  changes = []
  if config.model.dtype == 'float32':
    changes.append('model.dtype=bfloat16: half the activations, twice as fast')
  state = planned.params + planned.moments + planned.ema
  fsdp, parts = planned.mesh['fsdp'], planned.mesh['data']
  if state > planned.memory / 4 and parts > 1:
    changes.append(
      f'train.mesh_fsdp={fsdp * parts}: state / {parts}, and collectives'
    )
  if config.model.remat == 'none':
    changes.append('model.remat=dots: keeps a seventh, a fifth more work')
  if config.model.remat != 'full':
    changes.append('model.remat=full: keeps one array a block, a third slower')
  accumulate = 2 * config.train.accumulate
  if config.data.batch_size % (parts * fsdp * accumulate) == 0:
    changes.append(
      f'train.accumulate={accumulate}: temporaries / 2, BatchNorm over'
      f' {planned.clips // accumulate} clips'
    )
  if planned.device_kind != 'cpu':
    changes.append(f'more devices than {planned.num_devices}')
  return changes
