"""The detector: a TimeSformer with a temporal token, and three heads.

Enters: clips [b, t, h, w, 3], float32, ImageNet-normalised. Leaves: `Outputs`,
the real/fake logit of each clip, the soft-label logit of each frame and the
vulnerability map of each frame (paper section 3, METHOD 6).

The tokens of a clip are one sequence, [class, patches, temporal]: a class
token, n patches of each of the t frames in (patch, frame) order, and a
temporal token that sees every tube of t patches. Parameters of the blocks are
stacked along a leading axis of length `depth`, however the blocks are run.
"""

from collections.abc import Callable
import dataclasses
from typing import Literal

from einops import rearrange, repeat
import flax
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

_xavier = nnx.initializers.xavier_uniform()
_normal = nnx.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class StormerConfig:
  """Shape and numerics of a detector; the fields of `config.model`.

  Raises:
    ValueError: If a field is out of range or two do not fit together.
  """

  width: int
  depth: int
  num_heads: int
  mlp_ratio: float
  image_size: int  # px
  patch_size: int  # px
  num_frames: int
  drop_path: float  # of the last block, linear from 0 at the first
  head_dropout: float
  temporal_token: Literal['learned', 'first_clip']
  map_layout: Literal['thw', 'scrambled']
  dtype: Literal['float32', 'bfloat16']
  attention: Literal['xla', 'cudnn']
  remat: Literal['none', 'full', 'dots']
  scan_layers: bool

  def __post_init__(self):
    for name, allowed in (
      ('temporal_token', ('learned', 'first_clip')),
      ('map_layout', ('thw', 'scrambled')),
      ('dtype', ('float32', 'bfloat16')),
      ('attention', ('xla', 'cudnn')),
      ('remat', ('none', 'full', 'dots')),
    ):
      if getattr(self, name) not in allowed:
        raise ValueError(
          f'model.{name} is {getattr(self, name)!r}; it is one of {allowed}'
        )
    for name in ('depth', 'num_heads', 'patch_size', 'num_frames'):
      if getattr(self, name) < 1:
        raise ValueError(f'model.{name} is {getattr(self, name)}; at least 1')
    for name in ('drop_path', 'head_dropout'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'model.{name} is {getattr(self, name)}; in [0, 1)')
    if self.width < 4 or self.width % 4 or self.width % self.num_heads:
      raise ValueError(
        f'model.width is {self.width}; it must be a multiple of 4 and of '
        f'model.num_heads ({self.num_heads})'
      )
    if self.image_size < 1 or self.image_size % self.patch_size:
      raise ValueError(
        f'model.image_size is {self.image_size}; it must be a multiple of '
        f'model.patch_size ({self.patch_size})'
      )

  @property
  def grid_size(self) -> int:
    """Patches along one side of a frame."""
    return self.image_size // self.patch_size


@flax.struct.dataclass
class Outputs:
  """What the detector says about b clips, float32.

  Attributes:
    logits: Real/fake logit of each clip; positive is fake.
    soft_label_logits: Logit of each frame's soft label.
    vulnerability_map: Temporal vulnerability of each patch, unbounded.
  """

  logits: Float[Array, ' b']
  soft_label_logits: Float[Array, 'b t']
  vulnerability_map: Float[Array, 'b t gh gw']


class Carried(nnx.Variable):
  """A tensor of the released weights that takes no part in the computation."""


class Stormer(nnx.Module):
  """Revisited TimeSformer with classification, soft-label and map heads."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, num_patches = config.width, config.grid_size**2
    self.config = config
    self.deterministic = False
    self.patch_embed = PatchEmbed(config, rngs=rngs)
    self.class_token = nnx.Param(_normal(rngs.params(), (1, 1, width)))
    self.position_embed = nnx.Param(
      _normal(rngs.params(), (1, 1 + num_patches, width))
    )
    self.time_embed = nnx.Param(jnp.zeros((1, config.num_frames + 1, width)))
    self.temporal_token = nnx.Param(
      1e-6 * jax.random.normal(rngs.params(), (1, 1, width))
    )
    self.blocks = nnx.split_rngs(splits=config.depth)(
      nnx.vmap(lambda rngs: SpaceTimeBlock(config, rngs=rngs))
    )(rngs)
    self.norm = _layer_norm(config, rngs)
    self.class_norm = _layer_norm(config, rngs)
    self.unused_norm = CarriedNorm(width)
    # Float32: logits rounded to bfloat16 would tie in the AUC.
    self.class_head = _head_linear(width, 1, jnp.float32, rngs)
    self.soft_label_head = SoftLabelHead(config, rngs=rngs)
    self.map_head = MapHead(config, rngs=rngs)

  def set_view(self, deterministic: bool | None = None):
    """Called by `nnx.view`."""
    if deterministic is not None:
      self.deterministic = deterministic

  def __call__(
    self, clip: Float[Array, 'b t h w 3'], *, rngs: nnx.Rngs | None = None
  ) -> Outputs:
    """Scores clips.

    Args:
      clip: ImageNet-normalised frames of the configured number and size.
      rngs: Stream `dropout`; needed in training mode if any rate is above 0.

    Returns:
      Outputs in float32. In eval mode a clip's outputs do not depend on the
      rest of the batch, unless `temporal_token` is 'first_clip'.

    Raises:
      ValueError: If the clip does not have the configured shape, or `rngs` is
        missing.
    """
    self._check(clip, rngs)
    drop_path = not self.deterministic and self.config.drop_path > 0
    tokens, frame_classes = self.encode(
      self.embed(clip), rngs.dropout() if drop_path else None
    )
    tokens = self.norm(tokens)
    return Outputs(
      logits=self.class_head(tokens[:, -1])[:, 0],
      soft_label_logits=self.soft_label_head(
        self.class_norm(frame_classes), rngs
      ),
      vulnerability_map=self.map_head(self._map_input(tokens[:, 1:-1])),
    )

  def embed(self, clip: Float[Array, 'b t h w 3']) -> Float[Array, 'b n d']:
    """Clip -> tokens [class, (patch, frame) patches, temporal]."""
    config, num_clips = self.config, clip.shape[0]
    dtype = config.dtype
    position = self.position_embed[...].astype(dtype)
    time = self.time_embed[...].astype(dtype)
    patches = self.patch_embed(rearrange(clip, 'b t h w c -> (b t) h w c'))
    patches = rearrange(
      patches + position[:, 1:], '(b t) n d -> b n t d', b=num_clips
    )
    patches = patches + time[:, None, :-1]
    class_token = self.class_token[...].astype(dtype) + position[:, :1]
    if config.temporal_token == 'learned':
      temporal_token = self.temporal_token[...].astype(dtype) + time[:, -1:]
      temporal_token = repeat(temporal_token, '1 1 d -> b 1 d', b=num_clips)
    else:  # D4: row b of all (clip, patch) rows, in its first frame
      rows = rearrange(patches, 'b n t d -> (b n) t d')
      temporal_token = rows[:num_clips, :1]
    return jnp.concatenate(
      [
        repeat(class_token, '1 1 d -> b 1 d', b=num_clips),
        rearrange(patches, 'b n t d -> b (n t) d'),
        temporal_token,
      ],
      axis=1,
    )

  def encode(
    self, tokens: Float[Array, 'b n d'], key: Key[Array, ''] | None = None
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'b t d']]:
    """Runs the blocks.

    Args:
      tokens: From `embed`.
      key: For DropPath; None keeps everything.

    Returns:
      tokens: Not yet normalised.
      frame_classes: What spatial attention of the last block says to the class
        token of each frame, without residual (D20), not yet normalised.
    """
    config = self.config
    graphdef, params = nnx.split(self.blocks)
    rates = jnp.linspace(0.0, config.drop_path, config.depth)
    keys = None if key is None else jax.random.split(key, config.depth)

    def run_block(carry, layer):
      params, rate, key = layer
      return nnx.merge(graphdef, params)(carry[0], rate, key), None

    if config.remat != 'none':
      policies = jax.checkpoint_policies
      run_block = jax.checkpoint(
        run_block,
        prevent_cse=not config.scan_layers,
        policy={
          'full': None,
          'dots': policies.dots_with_no_batch_dims_saveable,
        }[config.remat],
      )
    frame_classes = jnp.zeros(
      (tokens.shape[0], config.num_frames, config.width), tokens.dtype
    )
    carry, layers = (tokens, frame_classes), (params, rates, keys)
    if config.scan_layers:
      return jax.lax.scan(run_block, carry, layers)[0]
    # Unstacked, not indexed: the gradient is then one concatenation.
    leaves, treedef = jax.tree.flatten(layers)
    for layer in zip(*map(jnp.unstack, leaves), strict=True):
      carry, _ = run_block(carry, jax.tree.unflatten(treedef, layer))
    return carry

  def _map_input(
    self, patches: Float[Array, 'b nt d']
  ) -> Float[Array, 'b gh gw t d']:
    """Puts patch tokens on the grid of the map head."""
    sizes = {'gh': self.config.grid_size, 'gw': self.config.grid_size}
    if self.config.map_layout == 'thw':
      return rearrange(patches, 'b (gh gw t) d -> b gh gw t d', **sizes)
    # D2: the order is taken for (t, gh, gw).
    return rearrange(patches, 'b (t gh gw) d -> b gh gw t d', **sizes)

  def _check(self, clip: Array, rngs: nnx.Rngs | None):
    """Raises ValueError unless the call fits the configuration."""
    config = self.config
    num_frames, *size = clip.shape[1:4]
    if num_frames != config.num_frames:
      raise ValueError(
        f'clip has {num_frames} frames; model.num_frames is '
        f'{config.num_frames}: cut clips of that length or change the field'
      )
    if size != [config.image_size] * 2:
      raise ValueError(
        f'clip is {size[0]}x{size[1]} px; model.image_size is '
        f'{config.image_size}: resize the frames or change the field'
      )
    random = config.drop_path > 0 or config.head_dropout > 0
    if random and not self.deterministic and rngs is None:
      raise ValueError(
        'training mode needs random numbers: pass '
        'rngs=nnx.Rngs(dropout=key), or call model.eval()'
      )


class PatchEmbed(nnx.Module):
  """Frames -> one token per patch, row by row."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    patch = (config.patch_size, config.patch_size)
    self.proj = nnx.Conv(
      3,
      config.width,
      patch,
      strides=patch,
      padding='VALID',
      dtype=config.dtype,
      rngs=rngs,
    )

  def __call__(self, frames: Float[Array, 'b h w 3']) -> Float[Array, 'b n d']:
    return rearrange(self.proj(frames), 'b gh gw d -> b (gh gw) d')


class SpaceTimeBlock(nnx.Module):
  """Divided attention, first over time, then over space, then an MLP."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.width, config.dtype
    self.num_frames = config.num_frames
    self.temporal_norm1 = _layer_norm(config, rngs)
    # Choice: what an image ViT can initialise starts as MAE starts it, the
    # temporal attention as PyTorch does by default (METHOD 6.6).
    self.temporal_attn = Attention(config, _head_linear, rngs=rngs)
    zeros = nnx.initializers.zeros
    self.temporal_fc = nnx.Linear(
      width, width, dtype=dtype, kernel_init=zeros, bias_init=zeros, rngs=rngs
    )
    self.norm1 = _layer_norm(config, rngs)
    self.attn = Attention(config, _backbone_linear, rngs=rngs)
    self.norm2 = _layer_norm(config, rngs)
    self.mlp = Mlp(config, rngs=rngs)

  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    rate: Float[Array, ''],
    key: Key[Array, ''] | None,
  ) -> tuple[Float[Array, 'b n d'], Float[Array, 'b t d']]:
    """Returns new tokens, and spatial attention's word to each class token."""
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    num_frames = self.num_frames
    class_token, temporal_token = tokens[:, 0], tokens[:, -1]
    patches = rearrange(tokens[:, 1:-1], 'b (n t) d -> b n t d', t=num_frames)
    num_patches = patches.shape[1]

    # Time: each tube of t patches, with the temporal token.
    tubes = jnp.concatenate(
      [patches, repeat(temporal_token, 'b d -> b n 1 d', n=num_patches)], axis=2
    )
    residual = self.temporal_attn(self.temporal_norm1(tubes))
    # Dropped rows still receive the bias of temporal_fc (D19).
    residual = self.temporal_fc(_drop_path(residual, rate, keys[0], rows=2))
    patches = patches + residual[:, :, :-1]
    temporal_token = temporal_token + residual[:, :, -1].mean(axis=1)

    # Space: each frame, with the class token.
    frames = jnp.concatenate(
      [
        repeat(class_token, 'b d -> b t 1 d', t=num_frames),
        rearrange(patches, 'b n t d -> b t n d'),
      ],
      axis=2,
    )
    residual = self.attn(self.norm1(frames))
    residual = _drop_path(residual, rate, keys[1], rows=2)
    frame_classes = residual[:, :, 0]
    class_token = class_token + frame_classes.mean(axis=1)
    patches = patches + rearrange(residual[:, :, 1:], 'b t n d -> b n t d')

    tokens = jnp.concatenate(
      [
        class_token[:, None],
        rearrange(patches, 'b n t d -> b (n t) d'),
        temporal_token[:, None],
      ],
      axis=1,
    )
    residual = self.mlp(self.norm2(tokens))
    return tokens + _drop_path(residual, rate, keys[2], rows=1), frame_classes


class Attention(nnx.Module):
  """Multi-head self-attention over the third axis; softmax in float32."""

  def __init__(
    self, config: StormerConfig, linear: Callable, *, rngs: nnx.Rngs
  ):
    width = config.width
    self.num_heads = config.num_heads
    self.implementation = config.attention
    self.qkv = linear(width, 3 * width, config.dtype, rngs)
    self.proj = linear(width, width, config.dtype, rngs)

  def __call__(self, x: Float[Array, 'b m s d']) -> Float[Array, 'b m s d']:
    query, key, value = rearrange(
      self.qkv(x), 'b m s (qkv h k) -> qkv (b m) s h k', qkv=3, h=self.num_heads
    )
    attended = jax.nn.dot_product_attention(
      query, key, value, implementation=self.implementation
    )
    return self.proj(
      rearrange(attended, '(b m) s h k -> b m s (h k)', b=x.shape[0])
    )


class Mlp(nnx.Module):
  """Two layers with an exact GELU between them."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    self.fc1 = _backbone_linear(width, hidden, config.dtype, rngs)
    self.fc2 = _backbone_linear(hidden, width, config.dtype, rngs)

  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class SoftLabelHead(nnx.Module):
  """Class tokens of the frames -> soft-label logit of each frame."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, num_frames = config.width // 4, config.num_frames
    self.fc1 = _head_linear(config.width, width, config.dtype, rngs)
    self.dropout = nnx.Dropout(config.head_dropout)
    # Sees all frames at once.
    self.fc2 = _head_linear(num_frames * width, num_frames, jnp.float32, rngs)

  def __call__(
    self, frame_classes: Float[Array, 'b t d'], rngs: nnx.Rngs | None
  ) -> Float[Array, 'b t']:
    hidden = jax.nn.gelu(self.fc1(frame_classes), approximate=False)
    hidden = self.dropout(hidden, rngs=rngs)
    return self.fc2(rearrange(hidden, 'b t d -> b (t d)'))


class MapHead(nnx.Module):
  """Patch tokens -> vulnerability map, by convolutions over time alone."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width = config.width
    self.conv1 = _time_conv(width, width, config.dtype, rngs)
    self.norm1 = BatchNorm(width, config.dtype)
    self.conv2 = _time_conv(width, width // 4, config.dtype, rngs)
    self.norm2 = BatchNorm(width // 4, config.dtype)
    self.conv3 = _time_conv(width // 4, 1, jnp.float32, rngs)

  def __call__(
    self, x: Float[Array, 'b gh gw t d']
  ) -> Float[Array, 'b t gh gw']:
    x = jax.nn.gelu(self.norm1(self.conv1(x)), approximate=False)
    x = jax.nn.gelu(self.norm2(self.conv2(x)), approximate=False)
    return rearrange(self.conv3(x), 'b gh gw t 1 -> b t gh gw')


class BatchNorm(nnx.Module):
  """PyTorch's batch normalisation: unbiased running variance, a count.

  In training mode statistics are those of the whole batch, on however many
  devices it lies. Float32 inside.
  """

  def __init__(self, num_features: int, dtype: str):
    self.dtype = dtype
    self.use_running_average = False
    self.scale = nnx.Param(jnp.ones(num_features))
    self.bias = nnx.Param(jnp.zeros(num_features))
    self.mean = nnx.BatchStat(jnp.zeros(num_features))
    self.var = nnx.BatchStat(jnp.ones(num_features))
    self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

  def set_view(self, use_running_average: bool | None = None):
    """Called by `nnx.view`."""
    if use_running_average is not None:
      self.use_running_average = use_running_average

  def __call__(self, x: Float[Array, '*b c']) -> Float[Array, '*b c']:
    shape = x.shape
    x = x.astype(jnp.float32).reshape(-1, shape[-1])
    if self.use_running_average:
      mean, var = self.mean[...], self.var[...]
    else:
      mean, var, size = x.mean(axis=0), x.var(axis=0), x.shape[0]
      unbiased = var * (size / max(size - 1, 1))
      self.mean[...] = 0.95 * self.mean[...] + 0.05 * mean
      self.var[...] = 0.95 * self.var[...] + 0.05 * unbiased
      self.count[...] += 1
    gain = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
    x = (x - mean[None]) * gain[None] + self.bias[...][None]
    return x.reshape(shape).astype(self.dtype)


class CarriedNorm(nnx.Module):
  """The released code's `norm_t_cls`, kept so that weights go back whole."""

  def __init__(self, num_features: int):
    self.scale = Carried(jnp.ones(num_features))
    self.bias = Carried(jnp.zeros(num_features))


def _drop_path(
  x: Float[Array, '...'],
  rate: Float[Array, ''],
  key: Key[Array, ''] | None,
  rows: int,
) -> Float[Array, '...']:
  """Zeroes whole rows with probability `rate`; the others grow to match.

  A row is one index into the first `rows` axes (METHOD 6.3).
  """
  if key is None:
    return x
  shape = x.shape[:rows] + (1,) * (x.ndim - rows)
  kept: Bool[Array, '...'] = jax.random.bernoulli(key, 1 - rate, shape)
  return jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)


def _layer_norm(config: StormerConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Two-pass variance in float32: E[x^2] - E[x]^2 loses digits."""
  return nnx.LayerNorm(
    config.width,
    epsilon=1e-6,
    dtype=config.dtype,
    use_fast_variance=False,
    rngs=rngs,
  )


def _backbone_linear(
  features_in: int, features_out: int, dtype, rngs: nnx.Rngs
) -> nnx.Linear:
  """As MAE initialises it; that suits every width, unlike a fixed 0.02."""
  return nnx.Linear(
    features_in, features_out, dtype=dtype, kernel_init=_xavier, rngs=rngs
  )


def _head_linear(
  features_in: int, features_out: int, dtype, rngs: nnx.Rngs
) -> nnx.Linear:
  """PyTorch's default: uniform within 1 / sqrt(fan in), bias too."""
  init = _uniform(features_in**-0.5)
  return nnx.Linear(
    features_in,
    features_out,
    dtype=dtype,
    kernel_init=init,
    bias_init=init,
    rngs=rngs,
  )


def _time_conv(
  features_in: int, features_out: int, dtype, rngs: nnx.Rngs
) -> nnx.Conv:
  """Width 3 over time, zero padding; PyTorch's default initialisation."""
  init = _uniform((3 * features_in) ** -0.5)
  return nnx.Conv(
    features_in,
    features_out,
    kernel_size=3,
    padding=((1, 1),),
    dtype=dtype,
    kernel_init=init,
    bias_init=init,
    rngs=rngs,
  )


def _uniform(bound: float) -> nnx.initializers.Initializer:
  def init(key, shape, dtype=jnp.float32, out_sharding=None):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
