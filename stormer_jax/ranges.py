"""The range of every number of a configuration, looked at before anything runs.

What enters: a configuration. What leaves: nothing, or one error that names the
field, its value and its range. Fields that depend on each other are checked
where they meet (`model.StormerConfig`, `blending.SynthesisConfig`, `clips`).
"""

import math
from typing import Any

from ml_collections import config_dict

_MOST = math.nextafter(math.inf, 0)  # any finite number
_ABOVE_0 = math.nextafter(0, 1)
_BELOW_1 = math.nextafter(1, 0)
_SHARE = (0, 1)
_COUNT = (1, _MOST)
_NUMBER = (0, _MOST)

# Least and greatest value; of a tuple, of each of its values.
_RANGES: dict[str, tuple[int | float, int | float]] = {
  'seed': (0, 2**32 - 1),
  'data.batch_size': _COUNT,
  'data.max_offset': (-1, _MOST),
  'data.num_threads': _COUNT,
  'data.prefetch': _NUMBER,
  'data.corrupt_budget': _NUMBER,
  'synthesis.margin': (0, 126),  # px of 256
  'synthesis.rgb_shift': (-255, 255),
  'synthesis.hsv_shift': (-255, 255),
  'synthesis.brightness': (-1, 1),
  'synthesis.contrast': (-1, 1),
  'synthesis.downscale_ratios': (1, 256),
  'synthesis.sharpen_alpha': _SHARE,
  'synthesis.sharpen_lightness': _NUMBER,
  'synthesis.translate_x': (-1, 1),
  'synthesis.translate_y': (-1, 1),
  'synthesis.scale': (0.1, 10),
  'synthesis.elastic_sigma': (_ABOVE_0, 256),
  'synthesis.elastic_alpha': _NUMBER,
  'synthesis.mask_resize': (0.1, 10),
  'synthesis.blur_kernel': (1, 255),
  'synthesis.blur_sigma': (_ABOVE_0, _MOST),
  'synthesis.blend_ratios': _SHARE,
  'synthesis.temporal_jitter': _SHARE,
  'synthesis.post_rgb_shift': (-255, 255),
  'synthesis.post_hsv_shift': (-255, 255),
  'synthesis.post_brightness': (-1, 1),
  'synthesis.post_contrast': (-1, 1),
  'synthesis.post_blur_sigma': (_ABOVE_0, 16),
  'synthesis.jpeg_quality': (1, 100),
  'synthesis.cutout_threshold': _SHARE,
  'synthesis.cutout_extra': _SHARE,
  'model.members': _COUNT,
  'model.probes': _NUMBER,
  'model.width': _COUNT,
  'model.depth': _COUNT,
  'model.num_heads': _COUNT,
  'model.mlp_ratio': (_ABOVE_0, _MOST),
  'model.image_size': (1, 256),  # crops are no larger
  'model.patch_size': _COUNT,
  'model.num_frames': _COUNT,
  'model.drop_path': (0, _BELOW_1),
  'model.head_dropout': (0, _BELOW_1),
  'model.batch_norm_groups': _COUNT,
  'model.mae_mask_ratio': (0, _BELOW_1),
  'model.mae_decoder_width': _COUNT,
  'model.mae_decoder_depth': _COUNT,
  'model.mae_decoder_heads': _COUNT,
  'loss.classification_weight': _NUMBER,
  'loss.spatial_weight': _NUMBER,
  'loss.temporal_weight': _NUMBER,
  'loss.temperature': (_ABOVE_0, _MOST),
  'optimizer.rho': _NUMBER,
  'optimizer.b1': (0, _BELOW_1),
  'optimizer.b2': (0, _BELOW_1),
  'optimizer.eps': (_ABOVE_0, _MOST),
  'optimizer.weight_decay': _NUMBER,
  'optimizer.init_lr': _NUMBER,
  'optimizer.peak_lr': _NUMBER,
  'optimizer.warmup_epochs': _NUMBER,
  'optimizer.freeze_epochs': _NUMBER,
  'optimizer.ema_decay': (0, _BELOW_1),
  'train.num_epochs': _COUNT,
  'train.eval_every_epochs': _COUNT,
  'train.checkpoint_every': _COUNT,
  'train.keep_last': _COUNT,
  'train.keep_every_epochs': _NUMBER,
  'train.log_every': _COUNT,
  'train.nonfinite_budget': _NUMBER,
  'train.stall_timeout': _NUMBER,
  'train.accumulate': _COUNT,
  'train.mesh_data': (-1, _MOST),
  'train.mesh_fsdp': _COUNT,
  'train.mesh_tensor': _COUNT,
  'eval.margin': (0, 126),
  'eval.batch_size': _COUNT,
  'eval.threshold': _SHARE,
  'eval.num_bootstrap': _NUMBER,
}


def check(config: config_dict.ConfigDict) -> None:
  """Raises ValueError for a number out of its range, by name."""
  for name, (least, most) in _RANGES.items():
    value = _field(config, name)
    values = value if isinstance(value, tuple | list) else (value,)
    for number in values:
      if not isinstance(number, int | float):
        continue  # a field that this configuration has not
      if not least <= number <= most:
        raise ValueError(f'{name} is {value}; {_words(least, most)}')


def _field(config: config_dict.ConfigDict, name: str) -> Any:
  value: Any = config
  for part in name.split('.'):
    value = value.get(part) if hasattr(value, 'get') else None
  return value


def _words(least: int | float, most: int | float) -> str:
  low = 'above 0' if least == _ABOVE_0 else f'at least {least:g}'
  if most == _MOST:
    return f'{low}, and finite'
  return f'{low} and {"below 1" if most == _BELOW_1 else f"at most {most:g}"}'
