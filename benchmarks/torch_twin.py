"""A PyTorch twin of the detector, to compare with at any size.

Our own code, written from METHOD 6-8 (docs/method.md), with the tensor names
of the released checkpoints: `twin.load_state_dict(official, strict=True)`
works both ways. Enters: clip (b, 3, t, h, w) float32, ImageNet-normalised, the
layout of the released code. Leaves: logits (b,), soft-label logits (b, t),
vulnerability map (b, t, gh, gw). Both semantics are values of the same two
fields as in configs/base.py, `temporal_token` and `map_layout`. Training mode
differs from evaluation in BatchNorm only: there is no dropout here, so that
two programs can be compared number by number.

Needs the extra `torch`. Nothing in stormer_jax imports this file.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class TwinConfig:
  """The fields of configs/base.py `model` that change what is computed."""

  width: int
  depth: int
  num_heads: int
  mlp_ratio: float
  image_size: int
  patch_size: int
  num_frames: int
  temporal_token: str  # 'learned' | 'first_clip'
  map_layout: str  # 'thw' | 'scrambled'

  def __post_init__(self):
    if self.temporal_token not in ('learned', 'first_clip'):
      raise ValueError(f'temporal_token is {self.temporal_token!r}')
    if self.map_layout not in ('thw', 'scrambled'):
      raise ValueError(f'map_layout is {self.map_layout!r}')


class Outputs(NamedTuple):
  """What the detector says about b clips of t frames; all are logits."""

  logits: torch.Tensor  # (b,)
  soft_label_logits: torch.Tensor  # (b, t)
  vulnerability_map: torch.Tensor  # (b, t, gh, gw)


class Attention(nn.Module):
  """Multi-head self-attention, query-key-value in one matrix (METHOD 6.2)."""

  def __init__(self, width: int, num_heads: int):
    super().__init__()
    self.num_heads = num_heads
    self.qkv = nn.Linear(width, 3 * width)
    self.proj = nn.Linear(width, width)

  def forward(self, tokens: torch.Tensor) -> torch.Tensor:
    b, n, width = tokens.shape
    qkv = self.qkv(tokens).view(b, n, 3, self.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    out = functional.scaled_dot_product_attention(query, key, value)
    return self.proj(out.transpose(1, 2).reshape(b, n, width))


class Mlp(nn.Module):
  def __init__(self, width: int, hidden: int):
    super().__init__()
    self.fc1 = nn.Linear(width, hidden)
    self.fc2 = nn.Linear(hidden, width)

  def forward(self, tokens: torch.Tensor) -> torch.Tensor:
    return self.fc2(functional.gelu(self.fc1(tokens)))


class SpaceTimeBlock(nn.Module):
  """Time within a patch, space within a frame, then the MLP (METHOD 6.2)."""

  def __init__(self, config: TwinConfig):
    super().__init__()
    width = config.width
    self.num_frames = config.num_frames
    self.norm1 = nn.LayerNorm(width, eps=1e-6)
    self.attn = Attention(width, config.num_heads)
    self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
    self.temporal_attn = Attention(width, config.num_heads)
    self.temporal_fc = nn.Linear(width, width)
    self.norm2 = nn.LayerNorm(width, eps=1e-6)
    self.mlp = Mlp(width, round(width * config.mlp_ratio))

  def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [class, patches (h w t), temporal] tokens; also the frame classes.

    The second value (b, t, width) is the spatial attention's answer to each
    frame's class token, without residual or MLP.
    """
    b, _, width = tokens.shape
    t = self.num_frames
    class_token, temporal = tokens[:, :1], tokens[:, -1:]
    patches = tokens[:, 1:-1].reshape(b, -1, t, width)
    n = patches.shape[1]

    copies = temporal[:, None].expand(b, n, 1, width)
    tubes = torch.cat([patches, copies], 2).reshape(b * n, t + 1, width)
    tubes = self.temporal_fc(self.temporal_attn(self.temporal_norm1(tubes)))
    tubes = tubes.view(b, n, t + 1, width)
    patches = patches + tubes[:, :, :t]
    temporal = temporal + tubes[:, :, t].mean(1, keepdim=True)

    frames = patches.transpose(1, 2)
    copies = class_token[:, None].expand(b, t, 1, width)
    frames = torch.cat([copies, frames], 2).reshape(b * t, n + 1, width)
    frames = self.attn(self.norm1(frames)).view(b, t, n + 1, width)
    frame_class = frames[:, :, 0]
    class_token = class_token + frame_class.mean(1, keepdim=True)
    patches = patches + frames[:, :, 1:].transpose(1, 2)

    patches = patches.reshape(b, n * t, width)
    tokens = torch.cat([class_token, patches, temporal], 1)
    return tokens + self.mlp(self.norm2(tokens)), frame_class


class PatchEmbed(nn.Module):
  def __init__(self, patch_size: int, width: int):
    super().__init__()
    self.proj = nn.Conv2d(3, width, patch_size, patch_size)

  def forward(self, frames: torch.Tensor) -> torch.Tensor:
    return self.proj(frames).flatten(2).transpose(1, 2)


class Backbone(nn.Module):
  """Frames to tokens to depth blocks to normalised tokens (METHOD 6.1-6.4)."""

  def __init__(self, config: TwinConfig):
    super().__init__()
    self.config = config
    width, grid = config.width, config.image_size // config.patch_size
    self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
    self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
    self.temp_token = nn.Parameter(torch.zeros(1, 1, width))
    self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames + 1, width))
    self.patch_embed = PatchEmbed(config.patch_size, width)
    self.blocks = nn.ModuleList(
      SpaceTimeBlock(config) for _ in range(config.depth)
    )
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.norm_s_cls = nn.LayerNorm(width, eps=1e-6)
    # In every released checkpoint, used by none of its computations (D31).
    self.norm_t_cls = nn.LayerNorm(width, eps=1e-6)

  def embed(self, clip: torch.Tensor) -> torch.Tensor:
    """Returns the tokens of a clip before the first block (METHOD 6.1)."""
    b, c, t, h, w = clip.shape
    frames = clip.transpose(1, 2).reshape(b * t, c, h, w)
    patches = self.patch_embed(frames) + self.pos_embed[:, 1:]
    n, width = patches.shape[1:]
    patches = patches.view(b, t, n, width).transpose(1, 2)
    patches = patches + self.time_embed[:, None, :t]
    class_token = (self.cls_token + self.pos_embed[:, :1]).expand(b, 1, width)
    if self.config.temporal_token == 'learned':
      temporal = self.temp_token + self.time_embed[:, t:]
      temporal = temporal.expand(b, 1, width)
    else:  # D4: row b of all (clip, patch) rows, frame 0
      temporal = patches.reshape(b * n, t, width)[:b, :1]
      # D5: the idle token has a zero gradient, not none, and so decays.
      temporal = temporal + 0 * self.temp_token
    return torch.cat(
      [class_token, patches.reshape(b, n * t, width), temporal], 1
    )

  def forward(self, clip: torch.Tensor):
    """Returns temporal token (b, d), frame classes (b, t, d), map features."""
    config = self.config
    tokens = self.embed(clip)
    frame_class = tokens[:, :0]
    for block in self.blocks:
      tokens, frame_class = block(tokens)
    tokens = self.norm(tokens)
    b, _, width = tokens.shape
    grid = config.image_size // config.patch_size
    patches = tokens[:, 1:-1]
    if config.map_layout == 'thw':
      patches = patches.reshape(b, grid, grid, config.num_frames, width)
      features = patches.permute(0, 4, 3, 1, 2)
    else:  # D2: (h w t) tokens read as if (t h w)
      patches = patches.reshape(b, config.num_frames, grid, grid, width)
      features = patches.permute(0, 4, 1, 2, 3)
    return tokens[:, -1], self.norm_s_cls(frame_class), features


def _time_conv(width_in: int, width_out: int) -> nn.Conv3d:
  return nn.Conv3d(width_in, width_out, (3, 1, 1), padding=(1, 0, 0))


def _conv_norm(width_in: int, width_out: int) -> nn.Sequential:
  return nn.Sequential(
    _time_conv(width_in, width_out),
    nn.BatchNorm3d(width_out, eps=1e-5, momentum=0.05),
    nn.GELU(),
  )


class MapHead(nn.Module):
  def __init__(self, width: int):
    super().__init__()
    self.before_proj = nn.Sequential(_conv_norm(width, width))
    self.proj = nn.Sequential(
      _conv_norm(width, width // 4), _time_conv(width // 4, 1)
    )

  def forward(self, features: torch.Tensor) -> torch.Tensor:
    return self.proj(self.before_proj(features))[:, 0]


class ClassHead(nn.Module):
  def __init__(self, width: int):
    super().__init__()
    self.fc_out = nn.Linear(width, 1)

  def forward(self, token: torch.Tensor) -> torch.Tensor:
    return self.fc_out(token)[:, 0]


class SoftLabelHead(nn.Module):
  def __init__(self, width: int, num_frames: int):
    super().__init__()
    self.fc1 = nn.Sequential(nn.Linear(width, width // 4), nn.GELU())
    self.fc_out = nn.Linear(num_frames * (width // 4), num_frames)

  def forward(self, frame_class: torch.Tensor) -> torch.Tensor:
    return self.fc_out(self.fc1(frame_class).flatten(1))


class Heads(nn.Module):
  def __init__(self, config: TwinConfig):
    super().__init__()
    self.hm = MapHead(config.width)
    self.cls = ClassHead(config.width)
    self.temp_loc = SoftLabelHead(config.width, config.num_frames)


class TorchTwin(nn.Module):
  """The whole detector with the released names."""

  def __init__(self, config: TwinConfig):
    super().__init__()
    self.backbone = Backbone(config)
    self.keypoint_head = Heads(config)

  def forward(self, clip: torch.Tensor) -> Outputs:
    token, frame_class, features = self.backbone(clip)
    heads = self.keypoint_head
    return Outputs(
      heads.cls(token), heads.temp_loc(frame_class), heads.hm(features)
    )


def randomise(twin: TorchTwin, seed: int) -> None:
  """Gives every tensor random values, so that no term of the model is idle.

  PyTorch's own initial values leave tokens zero and norms at identity, which
  would let a mix-up of two of them pass a comparison unseen.
  """
  generator = torch.Generator().manual_seed(seed)
  for name, tensor in twin.state_dict().items():
    if name.endswith('num_batches_tracked'):
      tensor.fill_(7)
      continue
    noise = torch.randn(tensor.shape, generator=generator)
    if name.endswith('running_var'):
      tensor.copy_(0.5 + noise.abs())
    elif 'norm' in name and name.endswith('weight'):
      tensor.copy_(1 + 0.2 * noise)
    elif tensor.ndim >= 2 and name.endswith('weight'):
      tensor.copy_(noise / tensor[0].numel() ** 0.5)
    else:
      tensor.copy_(0.2 * noise)


def three_task_loss(
  outputs: Outputs,
  batch: dict[str, torch.Tensor],
  *,
  classification_weight: float = 0.8,
  spatial_weight: float = 100.0,
  temporal_weight: float = 0.2,
  temperature: float = 2.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
  """Returns the total and its weighted terms (METHOD 7).

  `batch` has label (b,), vulnerability_map and kept (b, t, gh, gw) and
  soft_label (b, t), all float32.
  """
  kept = batch['kept']
  difference = kept * outputs.vulnerability_map
  difference = difference - kept * batch['vulnerability_map']
  bce = functional.binary_cross_entropy_with_logits
  terms = {
    'classification': classification_weight
    * bce(outputs.logits / temperature, batch['label']),
    'spatial': spatial_weight * 0.5 * difference.square().mean(),
    'temporal': temporal_weight
    * bce(outputs.soft_label_logits, batch['soft_label']),
  }
  return sum(terms.values()), terms


def make_adam(
  twin: TorchTwin, lr: float, *, fused: bool = False
) -> torch.optim.Adam:
  """Returns Adam as the release sets it, with L2 in the gradient (8.1)."""
  return torch.optim.Adam(
    twin.parameters(),
    lr,
    betas=(0.9, 0.995),
    eps=1e-8,
    weight_decay=1e-4,
    fused=fused,
  )


def sam_step(
  twin: TorchTwin,
  optimizer: torch.optim.Optimizer,
  loss_fn: Callable[[], torch.Tensor],
  *,
  rho: float = 0.05,
  batch_stats: str = 'first_pass',
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
  """Takes one SAM step (METHOD 8.1): ascend by rho, descend from there.

  `loss_fn` runs the model on the batch and returns the loss. Afterwards
  `p.grad` holds the gradient at w + e; the loss and the gradients (by name) at
  w are returned. `batch_stats` is 'first_pass' or 'both_passes' (D15).
  """
  optimizer.zero_grad()
  loss = loss_fn()
  loss.backward()
  named = [(k, p) for k, p in twin.named_parameters() if p.grad is not None]
  gradients = {name: p.grad.clone() for name, p in named}
  norm = torch.stack([g.norm() for g in gradients.values()]).norm()
  before = [p.detach().clone() for _, p in named]
  with torch.no_grad():
    for name, p in named:
      p.add_(gradients[name] * (rho / (norm + 1e-12)))
  stats = {k: v.clone() for k, v in twin.named_buffers()}
  optimizer.zero_grad()
  loss_fn().backward()
  with torch.no_grad():
    for (_, p), w in zip(named, before, strict=True):
      p.copy_(w)
    if batch_stats == 'first_pass':
      for name, buffer in twin.named_buffers():
        buffer.copy_(stats[name])
  optimizer.step()
  return loss.detach(), gradients
