"""A DRAFT of a small detector for CPUs, from an ImageNet stem. Not tuned.

  python -m stormer_jax.main --mode=train --config=configs/small.py \
    --data_root=DATA --workdir=RUN \
    --config.pretrained_stem=efficientnet-lite0-57934424.pth

Where to get the file: docs/pretrained.md. No value here was chosen by an
experiment: sizes so that two CPU cores can train it, rates as a frame-wise
study of the same network had them. Nothing has been trained with it to its end.
"""

from ml_collections import config_dict

from configs import base


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base run with a pretrained stem and two narrow blocks."""
  config = base.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'small'
  config.data.batch_size = 4  # pairs of four frames: 32 frames a step
  config.model.stem = 'efficientnet_lite0'
  config.model.width = 192
  config.model.depth = 2
  config.model.num_heads = 3
  config.model.drop_path = 0.0
  config.model.head_dropout = 0.0
  # As in configs/demo.py: so few steps leave little to the other two tasks
  # beside the map's usual 100.
  config.loss.spatial_weight = 10.0
  config.optimizer.rho = 0.0  # SAM doubles the time of a step
  config.optimizer.b2 = 0.999
  config.optimizer.weight_decay = 1e-2
  config.optimizer.decoupled_weight_decay = True
  config.optimizer.init_lr = 1e-5
  config.optimizer.peak_lr = 5e-4
  config.optimizer.warmup_epochs = 1
  config.optimizer.freeze_epochs = 0
  config.train.num_epochs = 10
  config.train.checkpoint_every = 100
  config.train.log_every = 20
  config.eval.datasets = ('small:val',)
  return config
