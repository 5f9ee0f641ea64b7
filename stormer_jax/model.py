"""The detector: a TimeSformer with a temporal token, and three heads.

Enters: clips [b, t, h, w, 3], float32, ImageNet-normalised. Leaves: `Outputs`,
the real/fake logit of each clip, the soft-label logit of each frame and the
vulnerability map of each frame (paper section 3, METHOD 6).

A clip's tokens are n patches of t frames, a class token that sees every frame
of n patches, and a temporal token that sees every tube of t patches. Patches
are [t, n, b, d]: frames and places lie outermost and clips beside the width, so
that cutting frames, joining a token to tubes or frames, and taking all tokens
as rows of one product move nothing, on a TPU with its tiles of 8 x 128 too.
Parameters of the blocks are stacked along a leading axis of length `depth`,
however the blocks are run.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from einops import rearrange, repeat
import flax
from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import layout
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

from stormer_jax import stem

_KEPT = 'kept'  # of a block by remat 'dots'
_LONG = 16  # frames, from which on a TPU takes attention in parts
_CHOICES = {
  'stem': ('patch', 'efficientnet_lite0'),
  'stem_statistics': ('frozen', 'batch'),
  'activation': ('gelu', 'quick_gelu', 'gelu_tanh'),
  'temporal_token': ('learned', 'first_clip'),
  'space_time': ('divided', 'joint', 'space'),
  'map_layout': ('thw', 'scrambled'),
  'dtype': ('float32', 'bfloat16'),
  'attention': ('xla', 'cudnn'),
  'remat': ('none', 'full', 'dots'),
  'mae_masking': ('frame', 'tube'),
}


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
  patch_size: int  # px; the stride of a stem of convolutions
  num_frames: int
  drop_path: float  # rate of the last block, linear from 0 at the first
  head_dropout: float
  temporal_token: str  # 'learned' | 'first_clip' (D4)
  map_layout: str  # 'thw' | 'scrambled' (D2)
  dtype: str  # of the computation; parameters are float32
  attention: str  # implementation of jax.nn.dot_product_attention
  remat: str  # 'none' | 'full' | 'dots' kept of a block for the way back
  scan_layers: bool
  batch_norm_groups: int = 1  # parts of a batch with statistics of their own
  stem: str = 'patch'  # | 'efficientnet_lite0', in front of the tokens
  stem_statistics: str = 'frozen'  # | 'batch', of the stem's BatchNorms
  stem_frozen_stride: int = 0  # px, up to which the stem is not trained
  pre_norm: bool = False  # between embeddings and blocks, as in CLIP
  activation: str = 'gelu'  # | 'quick_gelu' | 'gelu_tanh', of the MLPs
  space_time: str = 'divided'  # | 'joint' | 'space', attention of a block
  kind: str = 'stormer'  # which model: a key of `kinds.KINDS`
  members: int = 1  # networks whose logits are averaged
  probes: int = 0  # of these, the last ones, that are linear probes
  mae_masking: str = 'frame'  # | 'tube', what is hidden at once
  mae_mask_ratio: float = 0.75  # share of the patches
  mae_decoder_width: int = 512
  mae_decoder_depth: int = 8
  mae_decoder_heads: int = 16
  mae_normalize_pixels: bool = True  # of the targets, patch by patch

  def __post_init__(self):
    for name, allowed in _CHOICES.items():
      if getattr(self, name) not in allowed:
        raise ValueError(
          f'model.{name} is {getattr(self, name)!r}; it is one of {allowed}'
        )
    for name in (
      'depth',
      'num_heads',
      'patch_size',
      'num_frames',
      'batch_norm_groups',
      'members',
    ):
      if getattr(self, name) < 1:
        raise ValueError(f'model.{name} is {getattr(self, name)}; at least 1')
    if not 0 <= self.probes < self.members:
      raise ValueError(
        f'model.probes is {self.probes}; of model.members={self.members} at'
        ' least one is no probe'
      )
    for name in ('drop_path', 'head_dropout'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'model.{name} is {getattr(self, name)}; in [0, 1)')
    for name, unit in (
      ('image_size', self.patch_size),
      ('width', self.num_heads),
      ('width', 4),  # the heads are a quarter as wide
    ):
      if getattr(self, name) < unit or getattr(self, name) % unit:
        raise ValueError(
          f'model.{name} is {getattr(self, name)}; it must be a multiple of '
          f'{unit} (width: of num_heads and 4; image_size: of patch_size)'
        )
    if self.attention == 'cudnn' and self.dtype != 'bfloat16':
      raise ValueError('model.attention=cudnn needs model.dtype=bfloat16')
    if self.stem != 'patch':
      stem.list_blocks(self.patch_size)
    if self.stem_frozen_stride not in (0, *stem.STRIDES):
      raise ValueError(
        f'model.stem_frozen_stride is {self.stem_frozen_stride}; choose one of'
        f' {(0, *stem.STRIDES)}'
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


@flax.struct.dataclass
class Tokens:
  """All tokens of b clips: n patches of t frames and two that see them.

  Attributes:
    class_token: Sees each frame of patches.
    patches: Row by row of the grid.
    temporal_token: Sees each tube of patches.
  """

  class_token: Float[Array, 'b d']
  patches: Float[Array, 't n b d']
  temporal_token: Float[Array, 'b d']


class Carried(nnx.Variable):
  """A tensor of the released weights that takes no part in the computation."""


class Stormer(nnx.Module):
  """Revisited TimeSformer with classification, soft-label and map heads."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, num_patches = config.width, config.grid_size**2
    normal = functools.partial(jax.random.normal, dtype=jnp.float32)
    self.config = config
    self.deterministic = False
    self.patch_embed = PatchEmbed(config, rngs=rngs)
    self.class_token = nnx.Param(0.02 * normal(rngs(), (1, 1, width)))
    self.position_embed = nnx.Param(
      0.02 * normal(rngs(), (1, 1 + num_patches, width))
    )
    if config.pre_norm:
      self.norm_pre = LayerNorm(width, dtype=config.dtype, rngs=rngs)
    self.time_embed = nnx.Param(jnp.zeros((1, config.num_frames + 1, width)))
    self.temporal_token = nnx.Param(1e-6 * normal(rngs(), (1, 1, width)))
    self.blocks = make_blocks(config, rngs=rngs)
    self.norm = LayerNorm(width, dtype=config.dtype, rngs=rngs)
    self.class_norm = LayerNorm(width, dtype=config.dtype, rngs=rngs)
    self.unused_norm = CarriedNorm(width)
    # The last layer of each head is float32: logits rounded to bfloat16 would
    # tie in the AUC.
    self.class_head = torch_linear(width, 1, jnp.float32, rngs)
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
    config = self.config
    check_clip(clip.shape, config)
    drop_path = not self.deterministic and config.drop_path > 0
    dropout = not self.deterministic and config.head_dropout > 0
    if (drop_path or dropout) and rngs is None:
      raise ValueError(
        'training mode needs random numbers: pass '
        'rngs=nnx.Rngs(dropout=key), or call model.eval()'
      )
    tokens, frame_classes = self.encode(
      self.embed(clip),
      rngs.dropout() if drop_path and rngs is not None else None,
    )
    return Outputs(
      logits=self.class_head(self.norm(tokens.temporal_token))[:, 0],
      soft_label_logits=self.soft_label_head(
        rearrange(self.class_norm(frame_classes), 't b d -> b t d'), rngs
      ),
      vulnerability_map=self.map_head(
        rearrange(self.norm(tokens.patches), 't n b d -> b n t d')
      ),
    )

  def embed(self, clip: Float[Array, 'b t h w 3']) -> Tokens:
    """Turns a clip into tokens that know their place and time."""
    config, num_clips = self.config, clip.shape[0]
    position = jnp.asarray(self.position_embed, config.dtype)
    time = jnp.asarray(self.time_embed, config.dtype)
    patches = self.patch_embed(rearrange(clip, 'b t h w c -> (b t) h w c'))
    patches = patches + position[:, 1:]
    if config.pre_norm:
      patches = self.norm_pre(patches)
    patches = rearrange(patches, '(b t) n d -> t n b d', b=num_clips)
    patches = patches + rearrange(time[0, :-1], 't d -> t 1 1 d')
    token = jnp.asarray(self.class_token, config.dtype) + position[:, :1]
    if config.pre_norm:
      token = self.norm_pre(token)
    class_token = repeat(token, '1 1 d -> b d', b=num_clips)
    if config.temporal_token == 'learned':
      token = jnp.asarray(self.temporal_token, config.dtype) + time[:, -1:]
      temporal_token = repeat(token, '1 1 d -> b d', b=num_clips)
    else:  # D4: row b of all (clip, patch) rows, in its first frame
      rows = rearrange(patches[0], 'n b d -> (b n) d')
      temporal_token = rows[:num_clips]
    return Tokens(class_token, patches, temporal_token)

  def encode(
    self, tokens: Tokens, key: Key[Array, ''] | None = None
  ) -> tuple[Tokens, Float[Array, 't b d']]:
    """Runs the blocks, by `lax.scan` or one after the other.

    Args:
      tokens: From `embed`.
      key: For DropPath; None keeps everything.

    Returns:
      tokens: Not yet normalised.
      frame_classes: What spatial attention of the last block says to the class
        token of each frame, without residual (D20), not yet normalised.
    """
    carry = (tokens, jnp.zeros_like(tokens.patches[:, 0]))
    return run_blocks(
      self.blocks,
      lambda block, carry, *drawn: block(carry[0], *drawn),
      carry,
      self.config,
      key,
    )


def make_blocks(config: StormerConfig, *, rngs: nnx.Rngs) -> 'SpaceTimeBlock':
  """Makes `config.depth` blocks, their parameters stacked on a first axis."""
  make_block = nnx.vmap(lambda rngs: SpaceTimeBlock(config, rngs=rngs))
  return nnx.split_rngs(splits=config.depth)(make_block)(rngs)


def run_blocks(
  blocks: nnx.Module,
  run: Callable,
  carry: Any,
  config: StormerConfig,
  key: Key[Array, ''] | None = None,
) -> Any:
  """Runs stacked blocks, by `lax.scan` or one after the other.

  Args:
    blocks: Of `make_blocks`.
    run: (block, carry, drop rate, key) -> carry, a pytree of arrays; rate and
      key are what the block's methods take.
    carry: What the first block is given.
    config: How many there are, and how they are run.
    key: For DropPath; None keeps everything.
  """
  graphdef, params = nnx.split(blocks)
  rates = jnp.linspace(0.0, config.drop_path, config.depth)
  keys = None if key is None else jax.random.split(key, config.depth)
  layers = (params, rates, keys)
  policies = jax.checkpoint_policies

  def run_block(carry, layer):
    params, rate, key = layer
    return run(nnx.merge(graphdef, params), carry, rate, key), None

  if config.remat != 'none':
    run_block = jax.checkpoint(
      run_block,
      prevent_cse=not config.scan_layers,
      policy=policies.save_only_these_names(_KEPT)
      if config.remat == 'dots'
      else None,
    )
  if config.scan_layers:
    return jax.lax.scan(run_block, carry, layers)[0]
  # Unstacked, not indexed: the gradient is then one concatenation.
  leaves, treedef = jax.tree.flatten(layers)
  for layer in zip(*map(jnp.unstack, leaves), strict=True):
    carry, _ = run_block(carry, jax.tree.unflatten(treedef, layer))
  return carry


def check_clip(shape: tuple[Any, ...], config: StormerConfig) -> None:
  """Raises ValueError if a clip [b, t, h, w, 3] is not of the model's shape."""
  num_frames, *size = shape[1:4]
  if (num_frames, *size) != (config.num_frames, *[config.image_size] * 2):
    raise ValueError(
      f'clip has {num_frames} frames of {size[0]}x{size[1]} px; '
      f'model.num_frames is {config.num_frames}, model.image_size is '
      f'{config.image_size}: cut clips to that, or change the fields'
    )


class PatchEmbed(nnx.Module):
  """Frames -> one token per patch, row by row.

  A hybrid takes the features of a stem for patches of one pixel.
  """

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    if config.stem == 'patch':
      self.stem = None
      channels, size = 3, config.patch_size
    else:
      self.stem = stem.EfficientNetLite(
        config.patch_size,
        config.stem_statistics,
        config.dtype,
        frozen_stride=config.stem_frozen_stride,
        rngs=rngs,
      )
      channels, size = stem.list_blocks(config.patch_size)[-1].channels_out, 1
    self.proj = nnx.Conv(
      channels,
      config.width,
      kernel_size=(size, size),
      strides=(size, size),
      padding='VALID',
      dtype=config.dtype,
      rngs=rngs,
    )

  def __call__(self, frames: Float[Array, 'b h w 3']) -> Float[Array, 'b n d']:
    features = frames if self.stem is None else self.stem(frames)
    return rearrange(self.proj(features), 'b gh gw d -> b (gh gw) d')


class SpaceTimeBlock(nnx.Module):
  """Divided attention, first over time, then over space, then an MLP.

  With `space_time` 'space' there is no attention over time, and with 'joint'
  the patches of all frames attend to each other; the temporal token then
  stands beside the class token.
  """

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.width, config.dtype
    self.config = config
    # Choice: what an image ViT can initialise starts as MAE's does, temporal
    # attention as PyTorch's does, and adds nothing yet (METHOD 6.6).
    if config.space_time == 'divided':
      self.temporal_norm1 = LayerNorm(width, dtype=dtype, rngs=rngs)
      self.temporal_attn = Attention(
        config, _attend_over_time, torch_linear, rngs=rngs
      )
      zeros = nnx.initializers.zeros
      self.temporal_fc = nnx.Linear(
        width, width, dtype=dtype, kernel_init=zeros, rngs=rngs
      )
    self.norm1 = LayerNorm(width, dtype=dtype, rngs=rngs)
    self.attn = Attention(config, _attend_over_space, mae_linear, rngs=rngs)
    self.norm2 = LayerNorm(width, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(config, rngs=rngs)

  def __call__(
    self,
    tokens: Tokens,
    drop_rate: Float[Array, ''],
    key: Key[Array, ''] | None,
  ) -> tuple[Tokens, Float[Array, 't b d']]:
    """Returns new tokens, and spatial attention's word to each class token."""
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    class_token, patches = tokens.class_token, tokens.patches
    temporal_token = tokens.temporal_token
    num_patches, space_time = patches.shape[1], self.config.space_time

    # Time: each tube of t patches, with the temporal token.
    if space_time == 'divided':
      token = repeat(temporal_token, 'b d -> 1 n b d', n=num_patches)
      tubes = jnp.concatenate([patches, token], axis=0)
      change = self.over_time(tubes, drop_rate, keys[0])
      patches = patches + change[:-1]
      temporal_token = temporal_token + change[-1].mean(axis=0)

    # Space: each frame, with the class token; or all frames as one.
    frames, seeing = patches, [class_token]
    if space_time != 'divided':
      seeing = [class_token, temporal_token]
    if space_time == 'joint':
      frames = rearrange(patches, 't n b d -> 1 (t n) b d')
    tokens_of = [repeat(x, 'b d -> f 1 b d', f=len(frames)) for x in seeing]
    frames = jnp.concatenate([*tokens_of, frames], axis=1)
    change = self.over_space(frames, drop_rate, keys[1])
    said, change = change[:, : len(seeing)], change[:, len(seeing) :]
    change = change.reshape(patches.shape)
    frame_classes = said[:, 0]
    if space_time == 'joint':
      # Choice: no word of it is of one frame, but those to the frame's patches.
      frame_classes = change.mean(axis=1)
    class_token = class_token + said[:, 0].mean(axis=0)
    if space_time != 'divided':
      temporal_token = temporal_token + said[:, 1].mean(axis=0)
    patches = patches + change

    patches = _as_it_lies(patches + self.alone(patches, drop_rate, keys[2]))
    seers = jnp.stack([class_token, temporal_token])
    class_token, temporal_token = seers + self.alone(seers, drop_rate, keys[2])
    return Tokens(class_token, patches, temporal_token), frame_classes

  def over_time(
    self,
    tubes: Float[Array, 't n b d'],
    drop_rate: Float[Array, ''],
    key: Key[Array, ''] | None,
  ) -> Float[Array, 't n b d']:
    """What attention along each tube adds to its tokens."""
    change = self.temporal_attn(self.temporal_norm1(tubes))
    # Dropped rows still receive the bias of temporal_fc (D19).
    change = _drop_path(change, drop_rate, key, row_axes=(2, 1))
    return self.temporal_fc(change)

  def over_space(
    self,
    frames: Float[Array, 't n b d'],
    drop_rate: Float[Array, ''],
    key: Key[Array, ''] | None,
  ) -> Float[Array, 't n b d']:
    """What attention within each frame adds to its tokens."""
    num_tokens = frames.shape[1]
    if self.config.attention == 'cudnn' and num_tokens % 2:
      # Its gradient takes even lengths alone: a token that nobody looks at.
      frames = jnp.pad(frames, ((0, 0), (0, 1), (0, 0), (0, 0)))
    change = self.attn(self.norm1(frames), num_tokens)[:, :num_tokens]
    return _drop_path(change, drop_rate, key, row_axes=(2, 0))

  def alone(
    self,
    rows: Float[Array, '*n b d'],
    drop_rate: Float[Array, ''],
    key: Key[Array, ''] | None,
  ) -> Float[Array, '*n b d']:
    """What the MLP adds to each token; a clip is dropped whole."""
    change = self.mlp(self.norm2(rows))
    return _drop_path(change, drop_rate, key, row_axes=(rows.ndim - 2,))


class Attention(nnx.Module):
  """Multi-head self-attention; `attend` says along which axis."""

  def __init__(
    self,
    config: StormerConfig,
    attend: Callable,
    linear: Callable,
    *,
    rngs: nnx.Rngs,
  ):
    width, dtype = config.width, config.dtype
    self.num_heads, self.dtype = config.num_heads, dtype
    self.attend, self.implementation = attend, config.attention
    self.qkv = linear(width, 3 * width, dtype, rngs)
    self.proj = linear(width, width, dtype, rngs)

  def __call__(
    self, x: Float[Array, 't n b d'], num_seen: int | None = None
  ) -> Float[Array, 't n b d']:
    """Mixes tokens.

    Args:
      x: Normalised tokens.
      num_seen: How many of the n others look at, for cuDNN's attention over
        space; None: all.
    """
    # Cut at heads: devices that share a clip (mesh axis `tensor`) then exchange
    # weights and no products.
    kernels, biases = (
      rearrange(
        jnp.asarray(p, self.dtype),
        '... (qkv h k) -> qkv ... h k',
        qkv=3,
        h=self.num_heads,
      )
      for p in (self.qkv.kernel, self.qkv.bias)
    )
    query, key, value = (
      _as_it_lies(
        _add_bias(
          x @ rearrange(kernel, 'd h k -> d (h k)'), bias.reshape(1, 1, 1, -1)
        )
      )
      for kernel, bias in zip(kernels, biases, strict=True)
    )
    x = self.attend(
      query, key, value, self.num_heads, self.implementation, num_seen
    )
    return self.proj(_as_it_lies(x))


@jax.custom_vjp
def _add_bias(
  x: Float[Array, '*b d'], bias: Float[Array, '*ones d']
) -> Float[Array, '*b d']:
  """Adds a bias whose gradient is, on a TPU, a product with ones.

  By its compiler a sum over 12,608 rows of 768 takes 0.20 M cycles, the product
  0.01.
  """
  return x + bias


def _add_bias_back(bias, change):
  total = jax.lax.platform_dependent(
    change,
    tpu=_sum_by_product,
    default=functools.partial(
      jnp.sum, axis=range(change.ndim - 1), dtype=jnp.float32
    ),
  )
  return change, total.reshape(bias.shape).astype(bias.dtype)


_add_bias.defvjp(lambda x, bias: (_add_bias(x, bias), bias), _add_bias_back)


def _sum_by_product(x: Float[Array, '*b d']) -> Float[Array, ' d']:
  ones = jnp.ones((8, *x.shape[:-1]), x.dtype)  # 8: the rows of a tile
  # Axis by axis, not as rows: else devices that share clips would gather them.
  axes = [*range(x.ndim - 1)]
  return jnp.tensordot(
    ones, x, ([i + 1 for i in axes], axes), preferred_element_type=jnp.float32
  )[0]


def _attend_over_space(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
  implementation: str,
  num_seen: int | None = None,
) -> Float[Array, 't n b d']:
  """Mixes the n tokens of each frame of each clip; softmax in float32."""
  query, key, value = (checkpoint_name(x, _KEPT) for x in (query, key, value))
  if implementation == 'cudnn':
    # Clips outermost, for it takes one axis of rows: devices that share a
    # batch gather all of it for rows that are cut into them any other way.
    num_frames, num_tokens, num_clips = query.shape[:3]
    lengths: dict[str, Any] = {}
    if num_seen not in (None, num_tokens):
      length = jnp.full(num_clips * num_frames, num_seen, jnp.int32)
      lengths = {'query_seq_lengths': length, 'key_value_seq_lengths': length}
    x = jax.nn.dot_product_attention(
      *(
        rearrange(x, 't n b (h k) -> (b t) n h k', h=num_heads)
        for x in (query, key, value)
      ),
      implementation='cudnn',
      **lengths,
    )
    return rearrange(x, '(b t) n h k -> t n b (h k)', t=num_frames)

  def attend(*inputs):
    # Barriers: merged with the products around them, on the way back too, the
    # cuts at heads would leave a TPU half-empty tiles of 64 units.
    barrier = jax.lax.optimization_barrier
    attend = functools.partial(
      jax.nn.dot_product_attention, implementation='xla'
    )
    x = jax.vmap(attend)(
      *(
        rearrange(barrier(x), 't n b (h k) -> t b n h k', h=num_heads)
        for x in inputs
      )
    )
    return barrier(rearrange(x, 't b n h k -> t n b (h k)'))

  if len(query) < _LONG:
    return attend(query, key, value)
  parts = functools.partial(
    _attend_in_parts, num_heads=num_heads, over_time=False
  )
  return jax.lax.platform_dependent(
    query, key, value, tpu=parts, default=attend
  )


def _attend_over_time(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
  implementation: str,
  num_seen: int | None = None,
) -> Float[Array, 't n b d']:
  """Mixes the t tokens of each tube of each clip; softmax in float32.

  A tube is so short that products of t x k matrices fill a small part of a
  TPU's tiles, and turning the operands around for them costs more than they do:
  with its layers, attention over time took 12 of the 22 M cycles of a block,
  forward and back, by the compiler (ViT-B, T = 4, 16 clips, v6e), where
  `_attend_in_lanes` takes 1.5. On a CPU products with ones took 17 to 30 times
  as long as the small products.

  On the way back all is computed again from query, key and value, whatever
  `remat` says.
  """
  del implementation, num_seen  # cuDNN's fills its tiles with long ones alone
  tpu = _attend_in_lanes
  if len(query) >= _LONG:
    tpu = functools.partial(_attend_in_parts, over_time=True)

  def attend(*inputs):
    return jax.lax.platform_dependent(
      *inputs,
      tpu=functools.partial(tpu, num_heads=num_heads),
      cuda=functools.partial(_attend_in_sums, num_heads=num_heads),
      default=functools.partial(_attend_in_batches, num_heads=num_heads),
    )

  kept = jax.custom_vjp(attend)
  kept.defvjp(
    lambda *inputs: (attend(*inputs), inputs),
    lambda inputs, change: jax.vjp(attend, *inputs)[1](change),
  )
  return kept(query, key, value)


def _attend_in_lanes(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
) -> Float[Array, 't n b d']:
  """Leaves the heads side by side; all queries meet one frame at a time.

  A product with ones and zeros adds up what belongs to a head, or spreads it.
  """
  size = query.shape[-1] // num_heads
  head = jnp.repeat(jnp.eye(num_heads, dtype=query.dtype), size, axis=0)
  logits = jnp.stack(
    [
      jnp.dot(query * frame, head, preferred_element_type=jnp.float32)
      for frame in jnp.split(key, len(key))
    ]
  )
  weights = jax.nn.softmax(logits * size**-0.5, axis=0).astype(query.dtype)
  mixed = jnp.zeros_like(query)
  for w, frame in zip(weights, jnp.split(value, len(value)), strict=True):
    mixed += jnp.dot(w, head.T) * frame
  return mixed


def _attend_in_parts(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
  over_time: bool,
) -> Float[Array, 't n b d']:
  """Attends a part of the tokens at a time, so that a TPU has room for it.

  A part is a frame; or over time as many tubes, side by side, as make up a
  sequence of 128 tokens, of which each sees its own tube alone. What a part
  needs stays in the fast memory, on the way back too, where it is computed
  again. All at once would write logits to the slow one, and there turn tokens
  around.
  """
  num_frames, num_places = query.shape[:2]
  axis, size, mask = 0, 1, None
  if over_time:
    axis, most = 1, max(1, 128 // num_frames)
    size = max(i for i in range(1, most + 1) if num_places % i == 0)
    place = np.arange(num_frames * size) % size
    mask = place[:, None] == place[None]

  def attend(*part):
    n = part[0].shape[1]
    query, key, value = (
      rearrange(x, 't n b (h k) -> b (t n) h k', h=num_heads) for x in part
    )
    x = jax.nn.dot_product_attention(
      query, key, value, mask=mask, implementation='xla'
    )
    return rearrange(x, 'b (t n) h k -> t n b (h k)', n=n)

  def loop(run, inputs, num_outputs):
    # Else XLA takes the order that suits the heads for what the loop writes,
    # and turns all tokens around behind it.
    in_order = functools.partial(
      jax.lax.platform_dependent, tpu=_in_order, default=lambda x: x
    )

    def step(i, outputs):
      part = (
        jax.lax.dynamic_slice_in_dim(x, i * size, size, axis) for x in inputs
      )
      return [
        in_order(jax.lax.dynamic_update_slice_in_dim(x, y, i * size, axis))
        for x, y in zip(outputs, run(*part), strict=True)
      ]

    # Not zeros: to write them costs as much as to write what comes out.
    empty = jax.lax.empty(query.shape, query.dtype)
    num_parts = query.shape[axis] // size
    return tuple(jax.lax.fori_loop(0, num_parts, step, [empty] * num_outputs))

  def forward(*inputs):
    return loop(lambda *part: [attend(*part)], inputs, 1)[0]

  def back(inputs, change):
    def run(change, *part):
      return jax.vjp(attend, *part)[1](change)

    return loop(run, (change, *inputs), 3)

  attended = jax.custom_vjp(forward)
  attended.defvjp(lambda *inputs: (forward(*inputs), inputs), back)
  return attended(query, key, value)


def _attend_in_sums(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
) -> Float[Array, 't n b d']:
  """Multiplies and adds up where the tokens lie; nothing is turned around."""
  query, key, value = (
    rearrange(x, 't n b (h k) -> t n b h k', h=num_heads)
    for x in (query, key, value)
  )
  logits = (query[:, None] * key[None]).sum(axis=-1, dtype=jnp.float32)
  weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5, axis=1)
  x = (weights[..., None] * value[None]).sum(axis=1).astype(query.dtype)
  return rearrange(x, 't n b h k -> t n b (h k)')


def _attend_in_batches(
  query: Float[Array, 't n b d'],
  key: Float[Array, 't n b d'],
  value: Float[Array, 't n b d'],
  num_heads: int,
) -> Float[Array, 't n b d']:
  """A small product for each tube and head."""
  attend = functools.partial(jax.nn.dot_product_attention, implementation='xla')
  x = jax.vmap(attend)(
    *(
      rearrange(x, 't n b (h k) -> n b t h k', h=num_heads)
      for x in (query, key, value)
    )
  )
  return rearrange(x, 'n b t h k -> t n b (h k)')


def _as_it_lies(x: Float[Array, 't n b d']) -> Float[Array, 't n b d']:
  """Has a GPU keep tokens, and their gradient, in the order of their axes.

  Left to choose, XLA for GPU lays all tokens as the convolutions of the map
  head like them, and turns them around for the products of every block.
  """
  return jax.lax.platform_dependent(x, cuda=_in_order, default=lambda x: x)


def _in_order(x: Float[Array, 't n b d']) -> Float[Array, 't n b d']:
  in_order = layout.Layout(tuple(range(x.ndim)))
  return layout.with_layout_constraint(x, in_order)


class Mlp(nnx.Module):
  """Two layers with a GELU between them."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    self.activation = _ACTIVATIONS[config.activation]
    self.fc1 = mae_linear(width, hidden, config.dtype, rngs)
    self.fc2 = mae_linear(hidden, width, config.dtype, rngs)

  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    return self.fc2(self.activation(self.fc1(x)))


class SoftLabelHead(nnx.Module):
  """Class tokens of the frames -> soft-label logit of each frame."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, num_frames = config.width, config.num_frames
    hidden = num_frames * width // 4  # the second layer sees all frames
    self.fc1 = torch_linear(width, width // 4, config.dtype, rngs)
    self.dropout = nnx.Dropout(config.head_dropout)
    self.fc2 = torch_linear(hidden, num_frames, jnp.float32, rngs)

  def __call__(
    self, frame_classes: Float[Array, 'b t d'], rngs: nnx.Rngs | None
  ) -> Float[Array, 'b t']:
    hidden = self.dropout(_gelu(self.fc1(frame_classes)), rngs=rngs)
    return self.fc2(rearrange(hidden, 'b t d -> b (t d)'))


class MapHead(nnx.Module):
  """Patch tokens -> vulnerability map, by convolutions over time alone."""

  def __init__(self, config: StormerConfig, *, rngs: nnx.Rngs):
    width, dtype = config.width, config.dtype
    self.config = config
    self.conv1 = _time_conv(width, width, dtype, rngs)
    self.norm1 = BatchNorm(width, dtype, config.batch_norm_groups)
    self.conv2 = _time_conv(width, width // 4, dtype, rngs)
    self.norm2 = BatchNorm(width // 4, dtype, config.batch_norm_groups)
    self.conv3 = _time_conv(width // 4, 1, jnp.float32, rngs)

  def __call__(
    self, patches: Float[Array, 'b n t d']
  ) -> Float[Array, 'b t gh gw']:
    size = self.config.grid_size
    if self.config.map_layout == 'scrambled':  # (n t) taken for (t n), D2
      b, n, t, d = patches.shape
      patches = rearrange(patches.reshape(b, t, n, d), 'b t n d -> b n t d')
    x = _gelu(self.norm1(self.conv1(patches)))
    x = _gelu(self.norm2(self.conv2(x)))
    return rearrange(self.conv3(x), 'b (gh gw) t 1 -> b t gh gw', gh=size)


class BatchNorm(nnx.Module):
  """PyTorch's batch normalisation: unbiased running variance, a count.

  In training mode statistics are those of the whole batch, on however many
  devices it lies; or of each of `groups` equal parts, one after the other. Then
  the running ones are of the first part alone, as with as many GPUs of the
  released code (D36). Float32 inside.
  """

  def __init__(self, num_features: int, dtype: str, groups: int = 1):
    self.dtype, self.groups = dtype, groups
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

  def __call__(self, x: Float[Array, 'b *m c']) -> Float[Array, 'b *m c']:
    """Normalises each channel.

    Raises:
      ValueError: In training mode, if b does not divide into the groups.
    """
    groups = 1 if self.use_running_average else self.groups
    if x.shape[0] % groups:
      raise ValueError(
        f'model.batch_norm_groups is {groups}, which does not divide the'
        f' {x.shape[0]} clips of a step (2 data.batch_size /'
        ' train.accumulate)'
      )
    rows = x.astype(jnp.float32).reshape(groups, -1, x.shape[-1])
    if self.use_running_average:
      mean, var = self.mean[...][None], self.var[...][None]
    else:
      mean, var, size = rows.mean(axis=1), rows.var(axis=1), rows.shape[1]
      unbiased = var[0] * (size / max(size - 1, 1))
      self.mean[...] = 0.95 * self.mean[...] + 0.05 * mean[0]
      self.var[...] = 0.95 * self.var[...] + 0.05 * unbiased
      self.count[...] += 1
    gain = self.scale[...][None] * jax.lax.rsqrt(var + 1e-5)
    rows = (rows - mean[:, None]) * gain[:, None] + self.bias[...][None, None]
    return rows.reshape(x.shape).astype(self.dtype)


class CarriedNorm(nnx.Module):
  """The released code's `norm_t_cls`, kept so that weights go back whole."""

  def __init__(self, num_features: int):
    self.scale = Carried(jnp.ones(num_features))
    self.bias = Carried(jnp.zeros(num_features))


class LayerNorm(nnx.LayerNorm):
  """Normalises the last axis in float32; its way back is written out."""

  def __init__(self, width: int, *, dtype: str, rngs: nnx.Rngs):
    super().__init__(width, epsilon=1e-6, dtype=dtype, rngs=rngs)

  def __call__(
    self, x: Float[Array, '*b d'], *, mask: Array | None = None
  ) -> Float[Array, '*b d']:
    del mask  # nobody hides features
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale, bias = (
      jnp.asarray(p).reshape(shape) for p in (self.scale, self.bias)
    )
    return _normalise(x.astype(self.dtype), scale, bias)


@jax.custom_vjp
def _normalise(
  x: Float[Array, '*b d'],
  scale: Float[Array, '*ones d'],
  bias: Float[Array, '*ones d'],
) -> Float[Array, '*b d']:
  """Layer normalisation that keeps its input and two numbers a row."""
  return _normalise_and_keep(x, scale, bias)[0]


def _normalise_and_keep(x, scale, bias):
  y = x.astype(jnp.float32)
  mean = y.mean(axis=-1, keepdims=True)
  if x.dtype == jnp.bfloat16:  # whose own rounding loses more digits than this
    var = (y**2).mean(axis=-1, keepdims=True) - mean**2
    var = jnp.maximum(var, 0)
  else:
    var = ((y - mean) ** 2).mean(axis=-1, keepdims=True)
  mean = checkpoint_name(mean, _KEPT)
  slope = checkpoint_name(jax.lax.rsqrt(var + 1e-6), _KEPT)
  normal = (y - mean) * (slope * scale) + bias
  return normal.astype(x.dtype), (x, mean, slope, scale)


def _normalise_back(kept, change):
  x, mean, slope, scale = kept
  unit = (x.astype(jnp.float32) - mean) * slope
  change = change.astype(jnp.float32)
  pull = change * scale
  along = (pull * unit).mean(axis=-1, keepdims=True)
  pull = slope * (pull - pull.mean(axis=-1, keepdims=True) - unit * along)
  total = functools.partial(jnp.sum, axis=range(x.ndim - 1), keepdims=True)
  return pull.astype(x.dtype), total(change * unit), total(change)


_normalise.defvjp(_normalise_and_keep, _normalise_back)


@jax.custom_jvp
def _gelu(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """The exact GELU, by erf and in float32.

  `jax.nn.gelu` takes erfc, which costs a TPU as much as the products around it,
  and keeps several arrays for the way back; this keeps the slope, as x is.
  """
  y = x.astype(jnp.float32)
  return (y * _normal_cdf(y)).astype(x.dtype)


@_gelu.defjvp
def _gelu_jvp(primals, tangents):
  (x,), (change,) = primals, tangents
  y = x.astype(jnp.float32)
  cdf = _normal_cdf(y)
  slope = cdf + y * jnp.exp(-0.5 * y**2) * (2 * jnp.pi) ** -0.5
  return (y * cdf).astype(x.dtype), slope.astype(x.dtype) * change


def _normal_cdf(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'gelu': _gelu,
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),  # Hendrycks 2016, 2
  'gelu_tanh': jax.nn.gelu,
}


def _drop_path(
  x: Float[Array, '*b d'],
  rate: Float[Array, ''],
  key: Key[Array, ''] | None,
  row_axes: tuple[int, ...],
) -> Float[Array, '*b d']:
  """Zeroes whole rows with probability `rate`; the others grow to match.

  A row is one index into the axes `row_axes` (METHOD 6.3), drawn in their
  order, so that a seed means the same however tokens are laid out.
  """
  if key is None:
    return x
  shape = [size if i in row_axes else 1 for i, size in enumerate(x.shape)]
  drawn = [x.shape[i] for i in row_axes]
  kept = jax.random.bernoulli(key, 1 - rate, drawn)
  kept = kept.transpose(np.argsort(row_axes)).reshape(shape)
  return jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)


def _time_conv(
  width_in: int, width_out: int, dtype: str | type, rngs: nnx.Rngs
) -> nnx.Conv:
  """Convolution over three frames; zeros stand before and after the clip."""
  init = _torch_init(3 * width_in)
  return nnx.Conv(
    width_in,
    width_out,
    kernel_size=3,
    padding=((1, 1),),
    dtype=dtype,
    kernel_init=init,
    bias_init=init,
    rngs=rngs,
  )


def mae_linear(
  width_in: int, width_out: int, dtype: str | type, rngs: nnx.Rngs
) -> nnx.Linear:
  """Starts as in MAE's image ViT, which suits every width."""
  init = nnx.initializers.xavier_uniform()
  return nnx.Linear(
    width_in, width_out, dtype=dtype, kernel_init=init, rngs=rngs
  )


def torch_linear(
  width_in: int, width_out: int, dtype: str | type, rngs: nnx.Rngs
) -> nnx.Linear:
  """Starts as PyTorch's layers do."""
  init = _torch_init(width_in)
  return nnx.Linear(
    width_in,
    width_out,
    dtype=dtype,
    kernel_init=init,
    bias_init=init,
    rngs=rngs,
  )


def _torch_init(fan_in: int) -> nnx.initializers.Initializer:
  """Uniform within 1 / sqrt(fan in), biases too."""
  bound = fan_in**-0.5
  return functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
