"""A plain image ViT (Dosovitskiy et al. 2021, arXiv 2010.11929).

Enters: frames [f, h, w, 3], float32, ImageNet-normalised. Leaves: tokens
[n, f, d], the class token first. It has the detector's embedding and blocks but
for attention over time, and its parameters have the names of `model.Stormer`,
so that `config.pretrained_vit` starts it too. Models of frames are built on it:
two baselines and masked auto-encoding.
"""

import dataclasses
from typing import Any

from einops import rearrange, repeat
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from stormer_jax import model, stem


class ImageVit(nnx.Module):
  """Embedding, blocks and last norm of a ViT, without a head."""

  def __init__(
    self,
    config: model.StormerConfig,
    *,
    space_time: str = 'space',
    rngs: nnx.Rngs,
  ):
    """Makes the layers.

    Args:
      config: Shape and numerics; the detector's tokens, heads and
        `config.space_time` are not read.
      space_time: 'space', or 'divided' for blocks that have weights for
        attention over time too.
      rngs: Of the start.
    """
    config = dataclasses.replace(config, space_time=space_time)
    self.config = config
    self.deterministic = False
    self.patch_embed = model.PatchEmbed(config, rngs=rngs)
    draw = 0.02 * jax.random.normal(
      rngs(), (2 + config.grid_size**2, config.width), jnp.float32
    )
    self.class_token = nnx.Param(draw[None, :1])
    self.position_embed = nnx.Param(draw[None, 1:])
    if config.pre_norm:
      self.norm_pre = model.LayerNorm(
        config.width, dtype=config.dtype, rngs=rngs
      )
    self.blocks = model.make_blocks(config, rngs=rngs)
    self.norm = model.LayerNorm(config.width, dtype=config.dtype, rngs=rngs)

  def set_view(self, deterministic: bool | None = None):
    """Called by `nnx.view`."""
    if deterministic is not None:
      self.deterministic = deterministic

  def embed(self, frames: Float[Array, 'f h w 3']) -> Float[Array, 'n f d']:
    """Turns frames into patches that know their place."""
    position = jnp.asarray(self.position_embed, self.config.dtype)
    patches = self.patch_embed(frames) + position[:, 1:]
    if self.config.pre_norm:
      patches = self.norm_pre(patches)
    return rearrange(patches, 'f n d -> n f d')

  def class_tokens(self, num: Any) -> Float[Array, 'num d']:
    """The class token at its place, for so many frames or clips.

    Args:
      num: An int; in an export a symbol.
    """
    position = jnp.asarray(self.position_embed, self.config.dtype)
    token = jnp.asarray(self.class_token, self.config.dtype) + position[:, :1]
    if self.config.pre_norm:
      token = self.norm_pre(token)
    return repeat(token, '1 1 d -> num d', num=num)

  def encode(
    self, patches: Float[Array, 'n f d'], key: Key[Array, ''] | None
  ) -> Float[Array, 'n1 f d']:
    """Lets all tokens of a row see each other, and normalises them.

    Args:
      patches: From `embed`, or some of them.
      key: For DropPath, from `drop_key`.

    Returns:
      The class token, then the patches.
    """
    tokens = jnp.concatenate(
      [self.class_tokens(patches.shape[1])[None], patches]
    )
    return self.norm(mix_tokens(self.blocks, tokens, self.config, key))

  def drop_key(self, rngs: nnx.Rngs | None) -> Key[Array, ''] | None:
    """The key for DropPath, or None where nothing is dropped.

    Raises:
      ValueError: If one is needed, in training mode, and `rngs` is None.
    """
    if self.deterministic or self.config.drop_path == 0:
      return None
    if rngs is None:
      raise ValueError(
        'training mode needs random numbers: pass'
        ' rngs=nnx.Rngs(dropout=key), or call model.eval()'
      )
    return rngs.dropout()


def mix_tokens(
  blocks: model.SpaceTimeBlock,
  tokens: Float[Array, 'n f d'],
  config: model.StormerConfig,
  key: Key[Array, ''] | None = None,
) -> Float[Array, 'n f d']:
  """Runs blocks in which the n tokens of each row f see each other."""

  def run(block, tokens, rate, key):
    keys = (None, None) if key is None else jax.random.split(key)
    tokens = tokens + block.over_space(tokens[None], rate, keys[0])[0]
    return tokens + block.alone(tokens, rate, keys[1])

  return model.run_blocks(blocks, run, tokens, config, key)


def count_embedding(config: model.StormerConfig) -> int:
  """Counts the multiply-adds of one frame's embedding."""
  patches = config.grid_size**2
  if config.stem == 'patch':
    return patches * 3 * config.patch_size**2 * config.width
  channels = stem.list_blocks(config.patch_size)[-1].channels_out
  convolutions = stem.count_multiply_adds(config.image_size, config.patch_size)
  return convolutions + patches * channels * config.width


def count_blocks(config: model.StormerConfig, num_tokens: int) -> int:
  """Counts those of all blocks, for one row of tokens (`mix_tokens`)."""
  width = config.width
  # qkv and proj; logits and mixing; the MLP.
  attention = 4 * width**2 + 2 * num_tokens * width
  mlp = 2 * width * int(width * config.mlp_ratio)
  return config.depth * num_tokens * (attention + mlp)
