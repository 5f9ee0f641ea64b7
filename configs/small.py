"""The small detector: an ImageNet CNN on single frames, for two CPU cores.

  python -m data_pipeline.prepare --root=VIDEOS --out=DATA --dataset=small \
    --rule=dense --num_frames=16
  python -m stormer_jax.main --mode=train --config=configs/small.py \
    --data_root=DATA --workdir=RUN \
    --config.pretrained_stem=efficientnet-lite0-57934424.pth

Where to get the file: docs/pretrained.md. What was tried, and what each value
rests on: docs/findings.md.
"""

from ml_collections import config_dict

from configs import base


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base run with a frame-wise CNN in place of the transformer."""
  config = base.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'small'
  config.data.frame_rule = 'dense'
  config.data.batch_size = 16
  config.model.kind = 'frame_cnn'
  config.model.num_frames = 1
  config.model.patch_size = 32
  config.model.stem = 'efficientnet_lite0'
  config.model.stem_statistics = 'batch'
  # Half of a step's time goes there, and nothing was lost without it.
  config.model.stem_frozen_stride = 4
  # A single frame has no change over time that a map could show.
  config.loss.classification_weight = 1.0
  config.loss.spatial_weight = 0.0
  config.loss.temporal_weight = 0.0
  config.loss.temperature = 1.0
  config.optimizer.rho = 0.0  # SAM doubles the time of a step
  config.optimizer.b2 = 0.999
  config.optimizer.weight_decay = 1e-2
  config.optimizer.decoupled_weight_decay = True
  config.optimizer.init_lr = 3e-4
  config.optimizer.peak_lr = 1e-3
  config.optimizer.warmup_epochs = 1
  config.optimizer.freeze_epochs = 0
  # 156 steps an epoch with the data of docs/findings.md.
  config.train.num_epochs = 8
  config.train.keep_every_epochs = 1
  config.train.checkpoint_every = 100
  config.train.log_every = 20
  config.eval.datasets = ('small:val',)
  config.eval.frame_rule = 'dense'
  return config
