"""Self-blended pairs by OpenCV, NumPy and SciPy: the yardstick.

The same stages as data_pipeline, written for a CPU loader: uint8 images
(h, w, 3) between the steps, one frame after the other (METHOD 2-4). Tests
compare pixels with it, benchmarks/blending.py compares time. `faithful` works
as the released loader does: the elastic field is filtered by SciPy for the
image and for the mask of every frame, and the image result is thrown away
(METHOD D32). Without it, one field serves the clip.

Parameters are a `blending.BlendParams` of NumPy arrays.
"""

import cv2
import numpy as np
import scipy.ndimage

from data_pipeline import landmarks as landmarks_lib

_MEAN = np.array([0.485, 0.456, 0.406])
_DEVIATION = np.array([0.229, 0.224, 0.225])


def make_pair(
  params,
  frames,
  landmarks,
  config,
  image_size,
  patch_size,
  scores,
  *,
  faithful=False,
):
  """Returns (real, pseudo_fake, map, real map, soft label, kept) of a clip.

  Args:
    params: draws of one clip.
    frames: uint8 (t, h, w, 3), RGB.
    landmarks: (t, 81, 2), predictor order.
    config: a blending.SynthesisConfig.
    image_size: px of the output; patch_size of a patch.
    scores: (gh, gw) random numbers that choose the extra cells.
    faithful: spend time as the released loader does.
  """
  blends = blend_clip(
    params,
    frames,
    landmarks,
    config,
    image_size,
    patch_size,
    faithful=faithful,
  )
  cells = np.stack([blend['cells'] for blend in blends])
  kept, soft_label = cut_cells(params, cells, scores, config)
  mask = np.kron(kept, np.ones((patch_size, patch_size)))[..., None]
  mask = mask.astype(np.uint8)
  dtype = np.float64 if faithful else np.float32
  mean, scale = _MEAN.astype(dtype), (1 / (255 * _DEVIATION)).astype(dtype)
  clips = []
  for version in ('real', 'pseudo_fake'):
    images = np.stack([blend[version] * mask for blend in blends])
    clips.append(images * scale - mean / _DEVIATION.astype(dtype))
  fake_map, real_map = standardized_map(cells, config.boundary_change)
  return *clips, fake_map, real_map, soft_label, kept


def blend_clip(
  params, frames, landmarks, config, image_size, patch_size, *, faithful=False
):
  """Blends frame by frame; returns a dict of every stage for each frame."""
  height, width = frames.shape[1:3]
  field = None if faithful else elastic_field(params.noise, config, fast=True)
  points = smooth(np.asarray(landmarks, np.float64))
  blends = []
  for image, frame_points in zip(frames, points, strict=True):
    if faithful:
      # For the image, whose result nobody uses, and for the mask.
      elastic_field(params.noise, config)
      field = elastic_field(params.noise, config)
    if params.flip:
      image = image[:, ::-1]
      frame_points = mirror(frame_points, width)
    image = np.ascontiguousarray(image)
    changed = augment(params, image, config)
    source, target = (
      (changed, image) if params.augment_source else (image, changed)
    )
    matrix = affine_matrix(params, width, height)
    source = cv2.warpAffine(source, matrix, (width, height))
    hull = fill_hull(frame_points, params, (height, width))
    moved = cv2.warpAffine(
      hull, matrix, (width, height), flags=cv2.INTER_NEAREST
    )
    if faithful:
      displace(source, field)
    moved = displace(moved, field)
    mask = soften(moved, params)
    weight = (params.ratio * mask)[..., None]
    pseudo_fake = (weight * source + (1 - weight) * target).astype(np.uint8)
    shown = params.ratio * mask if config.scale_target_by_ratio else mask
    boundary = (255 * 4 * shown * (1 - shown)).astype(np.uint8)
    real, pseudo_fake = (
      augment_after(params, crop_and_resize(version, params, image_size))
      for version in (target, pseudo_fake)
    )
    blends.append(
      {
        'source': source,
        'target': target,
        'hull': moved,
        'mask': mask,
        'boundary': boundary,
        'cells': crop_and_resize(boundary, params, image_size // patch_size),
        'real': real,
        'pseudo_fake': pseudo_fake,
      }
    )
  return blends


def smooth(landmarks):
  """Forehead order and move limit, METHOD 2.3-2.4."""
  points = landmarks.copy()
  points[:, 68:] = landmarks[:, landmarks_lib.FOREHEAD_ORDER]
  for t in range(1, len(points)):
    move = points[t] - points[t - 1]
    distance = np.linalg.norm(move) / len(move)
    if distance > 0.35:
      points[t] = points[t - 1] + move / round(distance / 0.2)
  return points


def mirror(points, width):
  """METHOD 2.5 with x := width - 1 - x."""
  mirrored = points[landmarks_lib.MIRROR]
  mirrored[:, 0] = width - 1 - mirrored[:, 0]
  return mirrored


def fill_hull(points, params, shape):
  """METHOD 2.6-2.7 by cv2.convexHull and cv2.fillConvexPoly."""
  points = points.astype(np.int32)
  points = points[:68] if params.first_68 else points
  parts = {
    0: landmarks_lib.FACE_PARTS,
    1: landmarks_lib.COMPONENTS,
    2: landmarks_lib.COMPONENTS,
    3: [range(len(points))],
  }[int(params.hull_type)]
  if params.hull_type == 1:
    points = raise_brows(points)
  mask = np.zeros(shape, np.float32)
  for part in parts:
    cv2.fillConvexPoly(mask, cv2.convexHull(points[list(part)]), 1.0)
  return mask


def raise_brows(points):
  """METHOD 2.7, type 1, in integers."""
  left = (points[36] + (points[36] + points[0]) // 2) // 2
  right = (points[45] + (points[45] + points[16]) // 2) // 2
  raised = points.copy()
  for brows, eyes in (
    (slice(17, 22), np.vstack([left, points[36:40]])),
    (slice(22, 27), np.vstack([points[42:46], right])),
  ):
    raised[brows] = points[brows] + (points[brows] - eyes) // 2
  return raised


def augment(params, image, config):
  """METHOD 2.8 by look-up tables."""
  if params.rgb_on:
    image = rgb_shift(image, params.rgb)
  image = hsv_shift(image, params.hsv)
  image = brightness_contrast(image, params.brightness, params.contrast)
  if params.downscale_on:
    return downscale(image, config.downscale_ratios[params.downscale_index])
  return sharpen(image, params.sharpen_alpha, params.sharpen_lightness)


def rgb_shift(image, shift):
  """8-bit shift by a table for each channel."""
  levels = np.arange(256, dtype=np.float32)[:, None]
  table = np.clip(levels + np.asarray(shift, np.float32), 0, 255)
  return cv2.LUT(image, table.astype(np.uint8)[None])


def hsv_shift(image, shift):
  """8-bit shift of hue (mod 180), saturation and value."""
  levels = np.arange(256, dtype=np.float64)
  tables = [
    np.mod(levels + shift[0], 180),
    np.clip(levels + shift[1], 0, 255),
    np.clip(levels + shift[2], 0, 255),
  ]
  table = np.stack(tables, -1).astype(np.uint8)[None]
  hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table)
  return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def brightness_contrast(image, brightness, contrast):
  """8-bit table of x (1 + contrast) + 255 brightness."""
  levels = np.arange(256, dtype=np.float32)
  levels = levels * np.float32(1 + contrast) + np.float32(brightness) * 255
  return cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8))


def downscale(image, ratio):
  """Nearest down, bilinear up."""
  height, width = image.shape[:2]
  small = cv2.resize(
    image, (width // ratio, height // ratio), interpolation=cv2.INTER_NEAREST
  )
  return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def sharpen(image, alpha, lightness):
  """3x3 sharpening."""
  kernel = np.full((3, 3), -1.0)
  kernel[1, 1] = 8 + lightness
  identity = np.zeros((3, 3))
  identity[1, 1] = 1
  return cv2.filter2D(image, -1, (1 - alpha) * identity + alpha * kernel)


def affine_matrix(params, width, height):
  """METHOD 2.9, forward map."""
  (scale_x, scale_y), (move_x, move_y) = params.scale, params.translate
  return np.array(
    [
      [scale_x, 0, (width - 1) / 2 * (1 - scale_x) + move_x * width],
      [0, scale_y, (height - 1) / 2 * (1 - scale_y) + move_y * height],
    ]
  )


def elastic_field(noise, config, *, fast=False):
  """METHOD 2.10: (dx, dy), by SciPy or, fast, by OpenCV."""
  sigma, alpha = config.elastic_sigma, config.elastic_alpha
  if fast:
    size = 2 * int(4 * sigma + 0.5) + 1
    blurred = [
      cv2.GaussianBlur(axis, (size, size), sigma, borderType=cv2.BORDER_REFLECT)
      for axis in noise
    ]
  else:
    blurred = [
      scipy.ndimage.gaussian_filter(axis.astype(np.float64), sigma)
      for axis in noise
    ]
  return np.stack(blurred).astype(np.float32) * np.float32(alpha)


def displace(image, field):
  """METHOD 2.10: nearest pixel at (x + dx, y + dy)."""
  height, width = image.shape[:2]
  x, y = np.meshgrid(np.arange(width), np.arange(height))
  return cv2.remap(
    image,
    (x + field[0]).astype(np.float32),
    (y + field[1]).astype(np.float32),
    cv2.INTER_NEAREST,
    borderMode=cv2.BORDER_REFLECT_101,
  )


def soften(mask, params):
  """METHOD 2.11."""
  height, width = mask.shape
  size = int(params.mask_size[1]), int(params.mask_size[0])
  kernel_1, kernel_2 = int(params.kernel_1), int(params.kernel_2)
  mask = cv2.resize(mask, size)
  mask = cv2.GaussianBlur(mask, (kernel_1, kernel_1), 0)
  mask = mask / max(mask.max(), 1e-6)
  mask[mask < 1] = 0
  mask = cv2.GaussianBlur(mask, (kernel_2, kernel_2), float(params.sigma))
  mask = mask / max(mask.max(), 1e-6)
  return cv2.resize(mask, (width, height))


def crop_and_resize(image, params, size):
  """METHOD 2.15-2.16."""
  margin = int(params.margin)
  height, width = image.shape[:2]
  image = image[margin : height - margin, margin : width - margin]
  height, width = image.shape[:2]
  matrix = np.array(
    [[(size - 1) / (width - 1), 0, 0], [0, (size - 1) / (height - 1), 0]]
  )
  return cv2.warpAffine(image, matrix, (size, size))


def augment_after(params, image):
  """METHOD 2.17."""
  if params.post_rgb_on:
    image = rgb_shift(image, params.post_rgb)
  if params.post_hsv_on:
    image = hsv_shift(image, params.post_hsv)
  if params.post_brightness_contrast_on:
    image = brightness_contrast(
      image, params.post_brightness, params.post_contrast
    )
  if params.jpeg_on:
    image = jpeg(image, params.jpeg_quality)
  return image


def jpeg(image, quality):
  """OpenCV's codec; an RGB array handed over as if it were BGR."""
  _, coded = cv2.imencode(
    '.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
  )
  return cv2.imdecode(coded, cv2.IMREAD_COLOR)


def cut_cells(params, cells, scores, config):
  """METHOD 3.1-3.5; extra cells are the candidates of highest score."""
  whole = np.ones(cells.shape[1:]), np.ones(len(cells))
  if not params.cutout_on:
    return whole
  first = cells[0].astype(float)
  threshold = min(255 * float(params.cutout_threshold), max(1, first.max()))
  if not (first < threshold).any():
    return whole
  bound = max(1, first[first < threshold].max())
  cut = first > bound
  count = cut.sum()
  share = config.cutout_extra * first.size
  candidates = np.flatnonzero(first < bound if count else first >= 0)
  if not len(candidates):
    return whole
  size = max(1, int(np.ceil(share - count)))
  if len(candidates) < np.floor(share - count):
    size = int(np.ceil(config.cutout_extra * len(candidates)))
  order = np.argsort(-scores.ravel()[candidates], kind='stable')
  cut.ravel()[candidates[order[:size]]] = True
  bounds = [max(1, np.where(cut, 0, frame).max()) for frame in cells]
  bounds[0] = bound
  if max(bounds) == 1:
    return whole
  return 1.0 - cut, np.array([threshold, *bounds[1:]]) / 255


def standardized_map(cells, change):
  """METHOD 4.1-4.4: (pseudo-fake, real)."""
  if change == 'uint8_wrap':
    changes = np.diff(cells.astype(np.uint8), axis=0).astype(float)
  else:
    changes = np.abs(np.diff(cells.astype(float), axis=0))
  maps = np.concatenate([np.zeros_like(changes[:1]), changes])
  mean, deviation = changes.mean(), changes.std()
  if deviation == 0:
    return np.zeros_like(maps), np.zeros_like(maps)
  return (maps - mean) / deviation, (0 * maps - mean) / deviation
