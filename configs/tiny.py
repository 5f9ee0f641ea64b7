"""Seconds on a CPU: the configuration of the tests, worthless as a detector.

  python -m stormer_jax.main --mode=train --config=configs/tiny.py \
    --data_root=DATA --workdir=RUN
"""

from ml_collections import config_dict

from configs import base


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base run shrunk to a 24-wide, 2-block model."""
  config = base.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'demo'
  config.data.batch_size = 8
  config.model.width = 24
  config.model.depth = 2
  config.model.num_heads = 2
  config.model.image_size = 64
  config.model.drop_path = 0.1
  config.optimizer.init_lr = 1e-4
  config.optimizer.peak_lr = 1e-3
  config.optimizer.warmup_epochs = 1
  config.optimizer.freeze_epochs = 1
  config.train.num_epochs = 3
  config.train.log_every = 2
  config.train.checkpoint_every = 3
  config.eval.datasets = ('demo:val',)
  config.eval.num_bootstrap = 200
  return config
