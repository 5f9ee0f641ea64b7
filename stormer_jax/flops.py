"""How much arithmetic a step needs, and how much a device can do.

Enters: a `StormerConfig`, or the name of a device. Leaves: floating-point
operations by formula, a multiply-add being two, and published peaks; their
ratio is the model FLOPs utilisation (MFU, docs/scaling.md). Only matrix
products and convolutions count, and what remat computes again does not: MFU
asks how fast the useful work is done. Blending is not counted either (0.2 % of
a step of the base model).
"""

import dataclasses

from stormer_jax import kinds, model, vit

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
  """What a JAX device of a kind can do at best.

  Attributes:
    bfloat16: Dense peak FLOP/s of bfloat16 matrix products; None: no unit.
    float32: The same with float32 operands at JAX's default precision: TF32
      on NVIDIA from Ampere on, bfloat16 passes on TPU.
    memory: Bytes of high-bandwidth memory.
  """

  bfloat16: float | None
  float32: float
  memory: int


def _tpu(teraflops: float | int, gib: int) -> Device:
  return Device(1e12 * teraflops, 1e12 * teraflops, gib * _GIB)


def _gpu(
  bfloat16: float | int | None, float32: float | int, gib: int
) -> Device:
  peak = None if bfloat16 is None else 1e12 * bfloat16
  return Device(peak, 1e12 * float32, gib * _GIB)


# By `jax.Device.device_kind`. TPU: cloud.google.com/tpu/docs/v2 ... /v6e and
# /tpu7x, per JAX device (v2, v3 and 7x have two to a chip). NVIDIA: the data
# sheet of each card, without sparsity (its large figures are with 2:4
# sparsity and are halved here).
_V5E = _tpu(197, 16)  # /v5e: 197 TFLOP/s, 16 GB
_V5P = _tpu(459, 95)  # /v5p: 459 TFLOP/s, 95 GB
_V6E = _tpu(918, 32)  # /v6e: 918 TFLOP/s, 32 GB
_V7X = _tpu(2307 / 2, 96)  # /tpu7x: 2307 TFLOP/s and 192 GB a chip
DEVICES = {
  'TPU v2': _tpu(45 / 2, 8),  # /v2: 45 TFLOP/s, 16 GB a chip
  'TPU v3': _tpu(123 / 2, 16),  # /v3: 123 TFLOP/s, 32 GB a chip
  'TPU v4': _tpu(275, 32),  # /v4: 275 TFLOP/s, 32 GB
  'TPU v5 lite': _V5E,
  'TPU v5e': _V5E,
  'TPU v5': _V5P,
  'TPU v5p': _V5P,
  'TPU v6 lite': _V6E,
  'TPU v6e': _V6E,
  'TPU7x': _V7X,
  # V100 data sheet: 15.7 TFLOP/s float32; tensor cores take float16 alone.
  'Tesla V100-SXM2-16GB': _gpu(None, 15.7, 16),
  'Tesla V100-SXM2-32GB': _gpu(None, 15.7, 32),
  'Tesla T4': _gpu(None, 8.1, 16),  # T4 data sheet: 8.1 TFLOP/s float32
  # A100 data sheet: 312 TFLOP/s bfloat16, 156 TF32, in all four forms.
  'NVIDIA A100-SXM4-40GB': _gpu(312, 156, 40),
  'NVIDIA A100-SXM4-80GB': _gpu(312, 156, 80),
  'NVIDIA A100-PCIE-40GB': _gpu(312, 156, 40),
  'NVIDIA A100 80GB PCIe': _gpu(312, 156, 80),
  'NVIDIA A10G': _gpu(70, 35, 24),  # A10G data sheet: 70 and 35
  'NVIDIA L4': _gpu(121, 60, 24),  # L4 data sheet: 242 and 120 with sparsity
  'NVIDIA L40S': _gpu(362, 183, 48),  # L40S data sheet: 362 and 183
  # H100 data sheet: SXM 1,979 and 989 TFLOP/s with sparsity, PCIe 1,513 and
  # 756, NVL 1,671 and 835.
  'NVIDIA H100 80GB HBM3': _gpu(989.5, 494.5, 80),
  'NVIDIA H100 PCIe': _gpu(756.5, 378, 80),
  'NVIDIA H100 NVL': _gpu(835.5, 417.5, 94),
  # H200 data sheet: SXM 1,979 and 989 with sparsity, 141 GB.
  'NVIDIA H200': _gpu(989.5, 494.5, 140),
  # B200 data sheet: 4.5 PFLOP/s bfloat16 and 2.2 TF32 with sparsity, 180 GB.
  'NVIDIA B200': _gpu(2250, 1100, 179),
}


def forward_flops(config: model.StormerConfig, num_clips: int) -> float:
  """FLOPs of a forward; 213.3 GFLOP a clip of the base model."""
  if config.kind != kinds.DETECTOR:
    other = kinds.choose(config)
    assert not issubclass(other, model.Stormer)
    return 2.0 * other.count_multiply_adds(config) * num_clips
  width, time = config.width, config.num_frames
  patches = config.grid_size**2
  tubes = patches * (time + 1)  # tokens of temporal attention
  tokens = patches * time + 2
  # Tokens that attend to each other in space, and how often.
  together, times = {
    'divided': (patches + 1, time),
    'space': (patches + 2, time),
    'joint': (tokens, 1),
  }[config.space_time]
  # Multiply-adds; an attention over s tokens has 2 s of `width` a token.
  temporal = 0
  if config.space_time == 'divided':  # qkv, proj, temporal_fc
    temporal = tubes * (5 * width**2 + 2 * (time + 1) * width)
  block = (
    temporal
    + times * together * (4 * width**2 + 2 * together * width)  # qkv, proj
    + tokens * 2 * width * int(width * config.mlp_ratio)
  )
  quarter = width // 4
  # As counters do, with the zeros before and after the clip.
  taps = patches * 3 * time
  map_head = taps * (width * width + width * quarter + quarter)
  soft_label_head = time * width * quarter + (time * quarter) * time
  embedding = time * vit.count_embedding(config)
  clip = config.depth * block + embedding + map_head + soft_label_head + width
  return 2.0 * clip * num_clips


def train_step_flops(
  config: model.StormerConfig, num_clips: int, rho: float
) -> float:
  """FLOPs of one update on clips, a pair being two of them.

  The way back costs twice the way there; SAM (rho > 0) goes both twice.
  """
  passes = 2 if rho > 0 else 1
  return passes * 3 * forward_flops(config, num_clips)


def peak_flops(device_kind: str, dtype: str) -> float | None:
  """Dense peak FLOP/s of a device, or None if it is not known.

  Args:
    device_kind: As in `jax.Device.device_kind`, or 'cpu'.
    dtype: Of the computation, `model.dtype`: 'float32' or 'bfloat16'.
  """
  device = DEVICES.get(device_kind)
  if device is None:
    return None
  return device.bfloat16 if dtype == 'bfloat16' else device.float32


def memory_bytes(device_kind: str) -> int | None:
  """Bytes of a device's memory, or None if it is not known."""
  device = DEVICES.get(device_kind)
  return None if device is None else device.memory
