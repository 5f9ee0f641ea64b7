"""The embedded default: a small detector, minutes on two CPU cores.

  make demo                # on face videos that PyPI packages ship
  make demo DATA=FOLDER    # on a folder of your own

The model is 1/100 of the published one and trains from scratch for minutes, so
it shows that everything works, and tells little about an unknown video.
"""

from ml_collections import config_dict

from configs import base


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base run with a small model and a short schedule."""
  config = base.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'demo'
  config.data.batch_size = 16
  config.model.width = 128
  config.model.depth = 4
  config.model.num_heads = 4
  config.model.image_size = 112
  config.model.patch_size = 8
  config.model.drop_path = 0.1
  config.optimizer.init_lr = 1e-4
  config.optimizer.peak_lr = 1e-3
  config.optimizer.warmup_epochs = 5
  config.optimizer.freeze_epochs = 0
  config.train.num_epochs = 50
  config.train.eval_every_epochs = 5
  config.train.checkpoint_every = 50
  config.train.log_every = 10
  config.train.best_metric = 'val/clip_auc'
  config.eval.datasets = ('demo:val',)
  config.eval.pseudo_fakes = True
  return config
