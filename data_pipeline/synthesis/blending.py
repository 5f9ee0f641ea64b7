"""Real clip -> (real, pseudo-fake) with one draw of parameters (METHOD 2).

The face of a clip is changed a little in colour and place and pasted back
into the same clip under a soft mask. Frames enter as uint8 (t, h, w, 3); both
versions leave as planar uint8 levels (t, 3, size, size), cropped, resized and
photometrically augmented, with the boundary map of the blend.
"""

import dataclasses
import functools

import dm_pix
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from data_pipeline import landmarks as landmarks_lib
from data_pipeline.synthesis import masks, photometric, warp

_CHOICES = {
  'mode': ('auto', 'vmap', 'map'),
  'soft_label': ('visible', 'constant'),
  'target_grid': ('point', 'area'),
  'boundary_change': ('absolute', 'uint8_wrap'),
  'target_kind': ('standardized', 'gaussian', 'max_normalized'),
}


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
  """Ranges of every draw; defaults, units and sources in configs/base.py.

  A pair (a, b) is a closed range; kernel and sigma ranges are of integers.

  Raises:
    ValueError: for a probability outside [0, 1], an empty range or a word
      that is none of the choices.
  """

  mode: str
  margin: tuple[int, int]
  flip_prob: float
  num_points_68_prob: float
  hull_probs: tuple[float, ...]
  augment_source_prob: float
  rgb_shift: tuple[float, float]
  rgb_shift_prob: float
  hsv_shift: tuple[float, float]
  brightness: tuple[float, float]
  contrast: tuple[float, float]
  downscale_prob: float
  downscale_ratios: tuple[int, ...]
  sharpen_alpha: tuple[float, float]
  sharpen_lightness: tuple[float, float]
  translate_x: tuple[float, float]
  translate_y: tuple[float, float]
  scale: tuple[float, float]
  elastic_sigma: float
  elastic_alpha: float
  mask_resize: tuple[float, float]
  blur_kernel: tuple[int, int]
  blur_sigma: tuple[int, int]
  blend_ratios: tuple[float, ...]
  scale_target_by_ratio: bool
  temporal_jitter: float
  post_rgb_shift: tuple[float, float]
  post_rgb_shift_prob: float
  post_hsv_shift: tuple[float, float]
  post_hsv_shift_prob: float
  post_brightness: tuple[float, float]
  post_contrast: tuple[float, float]
  post_brightness_contrast_prob: float
  jpeg_quality: tuple[int, int]
  jpeg_prob: float
  cutout_prob: float
  cutout_threshold: tuple[float, float]
  cutout_extra: float
  target_grid: str
  boundary_change: str
  target_kind: str
  # Younger than some runs, whose config.json does not have them.
  smooth_landmarks: bool = True
  soft_label: str = 'visible'
  post_blur_prob: float = 0.0
  post_blur_sigma: tuple[float, float] = (0.5, 2.0)

  def __post_init__(self):
    for name, choices in _CHOICES.items():
      if getattr(self, name) not in choices:
        raise ValueError(
          f'synthesis.{name} is {getattr(self, name)!r}; choose one of '
          f'{", ".join(choices)}'
        )
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name.endswith('_prob') and not 0.0 <= value <= 1.0:
        raise ValueError(
          f'synthesis.{field.name} is {value}; a probability lies in [0, 1]'
        )
      is_range = field.type in (tuple[float, float], tuple[int, int])
      if is_range and value[0] > value[1]:
        raise ValueError(
          f'synthesis.{field.name} is {value}; a range is (least, greatest)'
        )
    if (
      not 1 <= len(self.hull_probs) <= masks.NUM_HULL_TYPES
      or min(self.hull_probs) < 0
      or abs(sum(self.hull_probs) - 1) > 1e-6
    ):
      raise ValueError(
        f'synthesis.hull_probs is {self.hull_probs}; give at most'
        f' {masks.NUM_HULL_TYPES} probabilities that sum to 1'
      )
    if not all(size % 2 for size in self.blur_kernel):
      raise ValueError(
        f'synthesis.blur_kernel is {self.blur_kernel}; a blur kernel is odd'
      )


@flax.struct.dataclass
class BlendParams:
  """All draws of one clip. Levels are 0..255, shares are of width or height."""

  flip: Bool[Array, '*b']
  first_68: Bool[Array, '*b']  # the hull ignores the forehead points
  hull_type: Int[Array, '*b']
  augment_source: Bool[Array, '*b']  # else the target gets the colours
  rgb_on: Bool[Array, '*b']
  rgb: Float[Array, '*b 3']  # levels
  hsv: Float[Array, '*b 3']  # 8-bit HSV units
  brightness: Float[Array, '*b']
  contrast: Float[Array, '*b']
  downscale_on: Bool[Array, '*b']  # else sharpen
  downscale_index: Int[Array, '*b']
  sharpen_alpha: Float[Array, '*b']
  sharpen_lightness: Float[Array, '*b']
  translate: Float[Array, '*b 2']  # x, y, shares
  scale: Float[Array, '*b 2']  # x, y
  noise: Float[Array, '*b 2 h w']  # in [-1, 1)
  mask_size: Int[Array, '*b 2']  # h, w while softening, px
  kernel_1: Int[Array, '*b']  # px
  kernel_2: Int[Array, '*b']
  sigma: Float[Array, '*b']  # px
  ratio: Float[Array, '*b']
  margin: Int[Array, '*b']  # px
  post_rgb_on: Bool[Array, '*b']
  post_rgb: Float[Array, '*b 3']
  post_hsv_on: Bool[Array, '*b']
  post_hsv: Float[Array, '*b 3']
  post_brightness_contrast_on: Bool[Array, '*b']
  post_brightness: Float[Array, '*b']
  post_contrast: Float[Array, '*b']
  jpeg_on: Bool[Array, '*b']
  jpeg_quality: Float[Array, '*b']
  cutout_on: Bool[Array, '*b']
  cutout_threshold: Float[Array, '*b']  # of 255


# What temporal_jitter lets vary from frame to frame: mask and colour.
_JITTERED = (
  *('rgb', 'hsv', 'brightness', 'contrast'),
  *('sharpen_alpha', 'sharpen_lightness', 'translate', 'scale'),
  *('mask_size', 'sigma', 'ratio'),
)


@flax.struct.dataclass
class Blend:
  """One blended clip; maps are (t, h, w) of the frame before the crop."""

  clips: UInt8[Array, '*b 2 t 3 s s']  # levels; real, pseudo-fake
  hull: Bool[Array, '*b t h w']  # after affine and elastic deformation
  mask: Float[Array, '*b t h w']  # blending mask in [0, 1]
  boundary: Float[Array, '*b t h w']  # whole levels

  @property
  def real(self) -> Float[Array, '*b t 3 s s']:
    return self.clips[..., 0, :, :, :, :].astype(jnp.float32)

  @property
  def pseudo_fake(self) -> Float[Array, '*b t 3 s s']:
    return self.clips[..., 1, :, :, :, :].astype(jnp.float32)


_NUM_DRAWS = 64


def sample_blend_params(
  key: jax.Array,
  config: SynthesisConfig,
  height: int,
  width: int,
  flip_prob: Float[Array, ''] | None = None,
) -> BlendParams:
  """Draws the parameters of one clip (METHOD 2 and 3).

  One call of the generator makes all: forty calls take ten seconds to
  compile.

  Args:
    key: a clip's random key.
    config: ranges.
    height: px of a frame, for the sizes and noise of the mask; width too.
    flip_prob: in place of the configured one; may be traced.
  """
  draws = jax.random.uniform(key, (_NUM_DRAWS + 2 * height * width,))
  noise = 2.0 * draws[_NUM_DRAWS:].reshape(2, height, width) - 1.0
  draws = iter(warp.settle(draws[:_NUM_DRAWS]))

  def chance(probability):
    return next(draws) < probability

  def real(bounds):
    return bounds[0] + (bounds[1] - bounds[0]) * next(draws)

  def factor(bounds):
    # Coarse enough that level (1 + contrast) + 255 brightness is exact in
    # float32: then no fused multiply-add of a compiler's choice moves it across
    # a level when it is truncated.
    return jnp.clip(jnp.round(real(bounds) * 2**15) / 2**15, *bounds)

  def integer(bounds, step=1):
    count = (bounds[1] - bounds[0]) // step + 1
    index = jnp.minimum(jnp.floor(next(draws) * count), count - 1)
    return bounds[0] + step * index.astype(jnp.int32)

  def one_of(values):
    return jnp.asarray(values)[integer((0, len(values) - 1))]

  def three(bounds):
    return jnp.stack([real(bounds) for _ in range(3)])

  sides = mask_size_bounds(config, height), mask_size_bounds(config, width)
  cumulative = jnp.cumsum(jnp.asarray(config.hull_probs[:-1]))
  return BlendParams(
    flip=chance(config.flip_prob if flip_prob is None else flip_prob),
    first_68=chance(config.num_points_68_prob),
    hull_type=jnp.sum(next(draws) >= cumulative),
    augment_source=chance(config.augment_source_prob),
    rgb_on=chance(config.rgb_shift_prob),
    rgb=three(config.rgb_shift),
    hsv=three(config.hsv_shift),
    brightness=factor(config.brightness),
    contrast=factor(config.contrast),
    downscale_on=chance(config.downscale_prob),
    downscale_index=integer((0, len(config.downscale_ratios) - 1)),
    sharpen_alpha=real(config.sharpen_alpha),
    sharpen_lightness=real(config.sharpen_lightness),
    translate=jnp.stack([real(config.translate_x), real(config.translate_y)]),
    scale=jnp.stack([real(config.scale), real(config.scale)]),
    noise=noise,
    mask_size=jnp.stack([integer(bounds) for bounds in sides]),
    kernel_1=integer(config.blur_kernel, step=2),
    kernel_2=integer(config.blur_kernel, step=2),
    sigma=integer(config.blur_sigma).astype(jnp.float32),
    ratio=one_of(config.blend_ratios),
    margin=integer(config.margin),
    post_rgb_on=chance(config.post_rgb_shift_prob),
    post_rgb=three(config.post_rgb_shift),
    post_hsv_on=chance(config.post_hsv_shift_prob),
    post_hsv=three(config.post_hsv_shift),
    post_brightness_contrast_on=chance(config.post_brightness_contrast_prob),
    post_brightness=factor(config.post_brightness),
    post_contrast=factor(config.post_contrast),
    jpeg_on=chance(config.jpeg_prob),
    jpeg_quality=integer(config.jpeg_quality).astype(jnp.float32),
    cutout_on=chance(config.cutout_prob),
    cutout_threshold=real(config.cutout_threshold),
  )


def sample_post_blur(
  key: jax.Array, config: SynthesisConfig
) -> Float[Array, ''] | None:
  """Draws the blur of both versions: sigma in px, 0 for none.

  None where the configuration has no such blur, so that nothing is computed.
  Not in the paper, and so no part of `BlendParams`.
  """
  if not config.post_blur_prob:
    return None
  on, share = jax.random.uniform(key, (2,))
  least, greatest = config.post_blur_sigma
  sigma = least + (greatest - least) * share
  return jnp.where(on < config.post_blur_prob, sigma, 0.0)


def mask_size_bounds(config: SynthesisConfig, size: int) -> tuple[int, int]:
  """Least and greatest size of a mask side while it is softened, px."""
  least, end = (int(factor * size) for factor in config.mask_resize)
  return least, max(end - 1, least)


def sample_frame_params(
  key: jax.Array,
  params: BlendParams,
  jitter: float,
  num_frames: int,
  config: SynthesisConfig,
) -> BlendParams:
  """A clip's draws with a frame axis, mask and colour varying along it.

  Each frame draws its own numbers and moves the clip's towards them by the
  share `jitter`; 0 leaves them shared, 1 makes frames independent. What
  decides a branch (flip, hull type, source or target, ...) and everything
  after the blend stay shared. Off in the paper; for ablation.
  """
  _, height, width = params.noise.shape
  keys = jax.random.split(key, num_frames)
  own = jax.vmap(lambda k: sample_blend_params(k, config, height, width))(keys)
  shared = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (num_frames, *leaf.shape)), params
  )

  def mixed(name):
    ours, theirs = getattr(shared, name), getattr(own, name)
    value = (1.0 - jitter) * ours + jitter * theirs
    is_integer = jnp.issubdtype(ours.dtype, jnp.integer)
    return jnp.round(value).astype(ours.dtype) if is_integer else value

  noise = (1.0 - jitter) * shared.noise + jitter * own.noise
  noise = noise / jnp.hypot(1.0 - jitter, jitter)  # same deviation
  return shared.replace(
    noise=noise, **{name: mixed(name) for name in _JITTERED}
  )


def blend_clip(
  params: BlendParams,
  frames: UInt8[Array, 't h w 3'],
  landmarks: Float[Array, 't 81 2'],
  config: SynthesisConfig,
  image_size: int,
  *,
  gather: bool,
  post_blur_sigma: Float[Array, ''] | None = None,
) -> Blend:
  """Makes the real and the self-blended version of a clip (METHOD 2.3-2.17).

  Args:
    params: draws shared by all frames, or, with a frame axis, one a frame.
    frames: crops, RGB.
    landmarks: px of the crops, predictor order.
    config: for what is static (bounds, elastic field).
    image_size: px of the output.
    gather: resample by gathers (CPU) instead of matrices.
    post_blur_sigma: px, 0 for none; of `sample_post_blur`.
  """
  points = landmarks_lib.reorder_forehead(landmarks)
  if config.smooth_landmarks:
    points = landmarks_lib.smooth(points)
  blend = functools.partial(
    _blend_frames,
    post_blur_sigma=post_blur_sigma,
    config=config,
    image_size=image_size,
    gather=gather,
  )
  if params.flip.ndim == 0:
    return blend(params, frames, points)
  blends = jax.vmap(blend)(params, frames[:, None], points[:, None])
  return Blend(
    clips=jnp.moveaxis(blends.clips[:, :, 0], 0, 1),
    hull=blends.hull[:, 0],
    mask=blends.mask[:, 0],
    boundary=blends.boundary[:, 0],
  )


def _blend_frames(
  params: BlendParams,
  frames: UInt8[Array, 't h w 3'],
  points: Float[Array, 't 81 2'],
  *,
  post_blur_sigma: Float[Array, ''] | None,
  config: SynthesisConfig,
  image_size: int,
  gather: bool,
) -> Blend:
  """METHOD 2.5-2.17 with one set of draws."""
  _, height, width, _ = frames.shape
  points = jnp.where(params.flip, landmarks_lib.mirror(points, width), points)
  translate = params.translate * jnp.array([width, height], jnp.float32)
  maps_x = warp.scale_about_centre(width, params.scale[0], translate[0])
  maps_y = warp.scale_about_centre(height, params.scale[1], translate[1])
  taps = [
    warp.linear_taps(warp.affine_positions(size, *maps))
    for size, maps in ((height, maps_y), (width, maps_x))
  ]
  hull = _hull(
    params, points, maps_y, maps_x, config, (height, width), gather=gather
  )
  mask = masks.soften(
    hull,
    params.mask_size[0],
    params.mask_size[1],
    params.kernel_1,
    params.kernel_2,
    params.sigma,
    size_bounds=(
      mask_size_bounds(config, height),
      mask_size_bounds(config, width),
    ),
    max_kernel=config.blur_kernel[1],
    gather=gather,
  )
  visible = params.ratio * mask if config.scale_target_by_ratio else mask
  boundary = photometric.truncate(255.0 * masks.boundary_map(visible))

  paste = functools.partial(
    _paste,
    params,
    post_blur_sigma=post_blur_sigma,
    taps=taps,
    config=config,
    image_size=image_size,
    gather=gather,
  )
  if gather:
    # Frame by frame, as one fits a cache.
    clips = jax.lax.map(
      lambda frame: paste(frame[0][None], frame[1][None])[:, 0], (frames, mask)
    )
    clips = jnp.moveaxis(clips, 0, 1)
  else:
    clips = paste(frames, mask)
  return Blend(clips=clips, hull=hull, mask=mask, boundary=boundary)


def _paste(
  params, frames, mask, *, post_blur_sigma, taps, config, image_size, gather
):
  """Both versions of frames with a blending mask (METHOD 2.8-2.17), uint8."""
  # Planar, as the last axis should fill vector lanes.
  images = jnp.moveaxis(frames, -1, 1)
  if gather:
    images = warp.settle(images)
  mirrored = dm_pix.flip_left_right(images, channel_axis=1)
  original = jnp.where(params.flip, mirrored, images).astype(jnp.float32)
  if gather:
    original = warp.settle(original)
  changed = _augment(params, original, config, gather=gather)
  source = jnp.where(params.augment_source, changed, original)
  target = jnp.where(params.augment_source, original, changed)
  source = warp.resample(source, *taps, gather=gather)
  source = photometric.round_half_up(source)
  # r m source + (1 - r m) target, written so that equal pixels stay equal;
  # with r = 0 it is the real clip.
  ratios = jnp.stack([jnp.zeros_like(params.ratio), params.ratio])
  weight = ratios[:, None, None, None, None] * mask[None, :, None]
  change = (source - target)[None]
  both = photometric.truncate(target[None] + weight * change)
  both = both.reshape(-1, *both.shape[2:])
  both = crop_and_resize(both, params.margin, image_size, gather=gather)
  both = _augment_both(params, both, post_blur_sigma, config, gather=gather)
  return both.reshape(2, -1, *both.shape[1:]).astype(jnp.uint8)


def crop_and_resize(
  images: Float[Array, 'n 3 h w'],
  margin: Int[Array, ''],
  image_size: int,
  *,
  gather: bool,
) -> Float[Array, 'n 3 s s']:
  """Cuts `margin` px from every side and resizes (METHOD 2.15-2.16).

  Bilinear and corner-aligned, to whole levels.
  """
  taps = []
  for size in images.shape[-2:]:
    scale, offset = warp.crop_positions(size, image_size, margin)
    positions = warp.affine_positions(image_size, scale, offset)
    taps.append(warp.linear_taps(positions))
  return photometric.round_half_up(warp.resample(images, *taps, gather=gather))


def _augment(params, image, config, *, gather):
  """Colour, then downscale or sharpen (METHOD 2.8)."""
  # A shift by nothing leaves whole levels as they are, and needs no branch.
  shift = jnp.where(params.rgb_on, params.rgb, 0.0)
  image = photometric.rgb_shift(image, shift)
  image = photometric.hsv_shift(image, params.hsv)
  image = photometric.brightness_contrast(
    image, params.brightness, params.contrast
  )
  return jax.lax.cond(
    params.downscale_on,
    lambda image: photometric.downscale(
      image,
      params.downscale_index,
      ratios=config.downscale_ratios,
      gather=gather,
    ),
    lambda image: photometric.sharpen(
      image, params.sharpen_alpha, params.sharpen_lightness
    ),
    image,
  )


def _hull(params, points, maps_y, maps_x, config, size, *, gather):
  """Hull mask after affine and elastic deformation (METHOD 2.7-2.10)."""
  height, width = size
  rows = warp.nearest_positions(height, *maps_y)
  columns = warp.nearest_positions(width, *maps_x)
  hull = masks.hull_mask(
    points, params.hull_type, params.first_68, rows, columns, gather=gather
  )
  in_rows = (rows >= 0) & (rows < height)
  in_columns = (columns >= 0) & (columns < width)
  hull = hull & in_rows[None, :, None] & in_columns[None, None]
  field = warp.elastic_field(
    params.noise, sigma=config.elastic_sigma, alpha=config.elastic_alpha
  )
  reach = warp.elastic_reach(config.elastic_sigma, config.elastic_alpha)
  return warp.displace(hull, field, reach=reach, gather=gather)


def _augment_both(params, images, post_blur_sigma, config, *, gather):
  """Photometric changes that real and pseudo-fake share (METHOD 2.17)."""

  def sometimes(on, change, images):
    return jax.lax.cond(on, change, lambda images: images, images)

  # A shift by nothing leaves whole levels as they are, and needs no branch.
  shift = jnp.where(params.post_rgb_on, params.post_rgb, 0.0)
  images = photometric.rgb_shift(images, shift)
  images = sometimes(
    params.post_hsv_on,
    lambda images: photometric.hsv_shift(images, params.post_hsv),
    images,
  )
  on = params.post_brightness_contrast_on
  images = photometric.brightness_contrast(
    images,
    jnp.where(on, params.post_brightness, 0.0),
    jnp.where(on, params.post_contrast, 0.0),
  )
  if post_blur_sigma is not None:
    images = sometimes(
      post_blur_sigma > 0,
      lambda images: photometric.gaussian_blur(
        images, post_blur_sigma, max_sigma=config.post_blur_sigma[1]
      ),
      images,
    )
  return sometimes(
    params.jpeg_on,
    lambda images: photometric.jpeg(images, params.jpeg_quality, gather=gather),
    images,
  )
