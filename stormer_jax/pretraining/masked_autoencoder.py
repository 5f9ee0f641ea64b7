"""A masked autoencoder: a ViT that learns by filling in what it is not shown.

Enters: clips [b, t, h, w, 3], float32, ImageNet-normalised, and a seed for each
clip's masks. Leaves: `Reconstruction`, the pixels of all patches and which of
them were hidden. After He et al. (2022, arXiv 2111.06377, section 3): the
encoder, the blocks of the detector, sees what is shown alone; a narrow decoder,
which nothing else uses, sees its words and one learned token in every hidden
place.

`mae_masking` 'frame' takes each frame for an image. 'tube' hides the same
patches in all frames of a clip, so that no frame tells of another, and lets all
that is shown attend to each other (VideoMAE, Tong et al. 2022, arXiv
2203.12602, sections 3.3 and 3.4, without its tubelets of two frames). Either
way the encoder is an image ViT, which `convert` writes and
`config.pretrained_vit` reads.
"""

import dataclasses

from einops import rearrange, repeat
import flax
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32
import numpy as np

from stormer_jax import model, vit

_MASKS = 1  # folded into a clip's seed, whose other draws its view took


@flax.struct.dataclass
class Reconstruction:
  """What is said of b clips, float32.

  Attributes:
    pixels: Of every patch, row by row, its pixels (h w c) in the scale of the
      targets (`reconstruction.targets`).
    hidden: 1 where a patch was not shown, else 0.
  """

  pixels: Float[Array, 'b t n p']
  hidden: Float[Array, 'b t n']


class MaskedAutoencoder(vit.ImageVit):
  """Encoder, to be kept, and decoder."""

  def __init__(self, config: model.StormerConfig, *, rngs: nnx.Rngs):
    """Makes the layers.

    Args:
      config: As of `vit.ImageVit`, and what begins with `mae_`.
      rngs: Of the start.

    Raises:
      ValueError: If a field is out of range, or patches are not cut apart.
    """
    if config.stem != 'patch':
      raise ValueError(
        'model.kind=mae hides patches, and the convolutions of'
        f' model.stem={config.stem} look across them; set model.stem=patch'
      )
    count_shown(config)  # may raise
    decoder = _decoder_config(config)
    super().__init__(config, rngs=rngs)
    # Choice: learned, as the detector's are, from where MAE holds them fixed.
    place = sincos_places(config.grid_size, config.width)
    self.position_embed[...] = jnp.pad(place, ((1, 0), (0, 0)))[None]
    self.decoder_embed = model.mae_linear(
      config.width, decoder.width, config.dtype, rngs
    )
    self.mask_token = nnx.Param(
      0.02 * jax.random.normal(rngs(), (decoder.width,), jnp.float32)
    )
    self.decoder_blocks = model.make_blocks(decoder, rngs=rngs)
    self.decoder_norm = model.LayerNorm(
      decoder.width, dtype=config.dtype, rngs=rngs
    )
    self.decoder_head = model.mae_linear(
      decoder.width, 3 * config.patch_size**2, jnp.float32, rngs
    )

  def __call__(
    self,
    clip: Float[Array, 'b t h w 3'],
    seeds: UInt32[Array, ' b'] | None = None,
    *,
    rngs: nnx.Rngs | None = None,
  ) -> Reconstruction:
    """Hides patches of clips and fills them in.

    Args:
      clip: Frames of the configured number and size.
      seeds: Of each clip's masks; None: its row.
      rngs: Stream `dropout`; needed in training mode if `drop_path` is above 0.

    Raises:
      ValueError: If the clip does not have the configured shape, or `rngs` is
        missing.
    """
    config = self.config
    model.check_clip(clip.shape, config)
    if seeds is None:
      seeds = jnp.arange(len(clip), dtype=jnp.uint32)
    # Samples m are frames, or clips of s frames.
    num_together = _frames_together(config)
    order = _draw_order(seeds, config)
    num_shown, num_places = count_shown(config), config.grid_size**2

    patches = self.embed(rearrange(clip, 'b t h w c -> (b t) h w c'))
    patches = rearrange(patches, 'n (m s) d -> s n m d', s=num_together)
    shown = _take(patches, order[:, :num_shown])
    shown = shown + _times(num_together, config.width, config.dtype)
    said = self.encode(
      rearrange(shown, 's k m d -> (s k) m d'), self.drop_key(rngs)
    )

    said = self.decoder_embed(said)
    class_token, said = said[:1], said[1:]
    said = rearrange(said, '(s k) m d -> s k m d', s=num_together)
    width = said.shape[-1]
    unknown = jnp.broadcast_to(
      jnp.asarray(self.mask_token, config.dtype),
      (num_together, num_places - num_shown, *said.shape[2:]),
    )
    tokens = jnp.concatenate([said, unknown], axis=1)
    turns = jnp.argsort(order, axis=1)  # of each place; the first are shown
    tokens = _take(tokens, turns)
    place = sincos_places(config.grid_size, width)
    tokens = tokens + jnp.asarray(place, config.dtype)[None, :, None]
    tokens = tokens + _times(num_together, width, config.dtype)
    tokens = rearrange(tokens, 's n m d -> (s n) m d')
    tokens = vit.mix_tokens(
      self.decoder_blocks,
      jnp.concatenate([class_token, tokens]),
      _decoder_config(config),
    )
    pixels = self.decoder_head(self.decoder_norm(tokens[1:]))
    hidden = (turns >= num_shown).astype(jnp.float32)
    return Reconstruction(
      pixels=rearrange(
        pixels, '(s n) (b g) p -> b (g s) n p', s=num_together, b=len(clip)
      ),
      hidden=repeat(
        hidden, '(b g) n -> b (g s) n', s=num_together, b=len(clip)
      ),
    )

  @staticmethod
  def count_multiply_adds(config: model.StormerConfig) -> int:
    """Counts those of one clip, in convolutions and products."""
    together = _frames_together(config)
    places, decoder = config.grid_size**2, _decoder_config(config)
    shown = 1 + together * count_shown(config)
    sample = (
      vit.count_blocks(config, shown)
      + shown * config.width * decoder.width
      + vit.count_blocks(decoder, 1 + together * places)
      + together * places * decoder.width * 3 * config.patch_size**2
    )
    samples = config.num_frames // together
    return config.num_frames * vit.count_embedding(config) + samples * sample


def count_shown(config: model.StormerConfig) -> int:
  """Patches of a frame that the encoder sees.

  Raises:
    ValueError: If that is none, or all.
  """
  places = config.grid_size**2
  shown = round(places * (1 - config.mae_mask_ratio))
  if not 0 < shown < places:
    raise ValueError(
      f'model.mae_mask_ratio is {config.mae_mask_ratio}: {shown} of the'
      f' {places} patches of a frame would be shown; show at least one and hide'
      ' at least one'
    )
  return shown


def sincos_places(grid: int, width: int) -> Float[np.ndarray, 'n d']:
  """Fixed places of a grid, row by row: half of the width for each axis."""
  rows, columns = np.divmod(np.arange(grid**2), grid)
  return np.concatenate(
    [sincos(columns, width // 2), sincos(rows, width // 2)], axis=1
  )


def sincos(
  position: Int[np.ndarray, ' n'], width: int
) -> Float[np.ndarray, 'n d']:
  """Sines, then cosines, of wavelengths from 2 pi to 20,000 pi."""
  # Vaswani et al. 2017, section 3.5.
  rates = 10000.0 ** -(np.arange(width // 2) / (width / 2))
  angles = position[:, None] * rates
  return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def _decoder_config(config: model.StormerConfig) -> model.StormerConfig:
  """Of the decoder's blocks."""
  width, heads = config.mae_decoder_width, config.mae_decoder_heads
  for name, value in (('width', width), ('depth', config.mae_decoder_depth)):
    if value < 1:
      raise ValueError(f'model.mae_decoder_{name} is {value}; at least 1')
  if heads < 1 or width % heads or width % 4:
    raise ValueError(
      f'model.mae_decoder_width is {width}; it must be a multiple of 4 and of'
      f' model.mae_decoder_heads, {heads}'
    )
  return dataclasses.replace(
    config,
    width=width,
    depth=config.mae_decoder_depth,
    num_heads=heads,
    drop_path=0.0,
    space_time='space',
  )


def _frames_together(config: model.StormerConfig) -> int:
  """Frames whose patches are hidden together and see each other."""
  return config.num_frames if config.mae_masking == 'tube' else 1


def _draw_order(
  seeds: UInt32[Array, ' b'], config: model.StormerConfig
) -> Int[Array, 'm n']:
  """The places of each sample in random order; the first are shown."""
  samples = config.num_frames // _frames_together(config)

  def draw(seed):
    key = jax.random.fold_in(jax.random.key(seed), _MASKS)
    return jax.random.uniform(key, (samples, config.grid_size**2))

  noise = jax.vmap(draw)(seeds)
  return jnp.argsort(rearrange(noise, 'b g n -> (b g) n'), axis=1)


def _take(
  tokens: Float[Array, 's n m d'], places: Int[Array, 'm k']
) -> Float[Array, 's k m d']:
  """Takes the same places of every frame of a sample."""
  return jnp.take_along_axis(tokens, places.T[None, :, :, None], axis=1)


def _times(num: int, width: int, dtype: str) -> Float[Array, 's 1 1 d']:
  """Fixed times of frames that are seen together; zero for a single one."""
  if num == 1:
    return jnp.zeros((1, 1, 1, width), dtype)
  times = sincos(np.arange(num), width)
  return jnp.asarray(times[:, None, None], dtype)
