"""Other models on the pairs of the headline run: what is the detector worth?

  python -m stormer_jax.main --mode=train --config=configs/baselines.py:KIND \
    --data_root=DATA --workdir=RUN [--config.pretrained_stem=FILE]

KIND is

- `frame_cnn`: EfficientNet-Lite0 on single frames. Its ImageNet weights come
  from --config.pretrained_stem=efficientnet-lite0-57934424.pth
  (docs/pretrained.md).

Records, synthesis, loop, checkpoints and evaluation are those of
configs/ffpp_c23.py; the model and how it is optimised differ. A baseline has
the classification loss alone, at temperature 1. None of these values was tuned,
and nothing has been trained with them to its end.
"""

from ml_collections import config_dict

from configs import ffpp_c23

KINDS = ('frame_cnn',)


def get_config(kind: str = 'frame_cnn') -> config_dict.ConfigDict:
  """Returns the headline run with a baseline in place of the detector."""
  if kind not in KINDS:
    raise ValueError(f'configs/baselines.py:{kind}: it is one of {KINDS}')
  config = ffpp_c23.get_config()
  config.model.kind = kind
  config.loss.classification_weight = 1.0
  config.loss.spatial_weight = 0.0
  config.loss.temporal_weight = 0.0
  config.loss.temperature = 1.0
  if kind == 'frame_cnn':
    config.model.stem = 'efficientnet_lite0'
    config.model.dtype = 'float32'
    # Frames are scored apart, so a pair of frames is a pair.
    config.model.num_frames = 1
    # As networks of its family are fine-tuned: with AdamW, without SAM.
    config.data.batch_size = 16
    config.optimizer.rho = 0.0
    config.optimizer.b2 = 0.999
    config.optimizer.decoupled_weight_decay = True
    config.optimizer.weight_decay = 1e-2
    config.optimizer.init_lr = 1e-5
    config.optimizer.peak_lr = 1e-3
    config.optimizer.warmup_epochs = 1
    config.optimizer.freeze_epochs = 0
    config.train.num_epochs = 10
  return config
