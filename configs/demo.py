"""The embedded default: a small detector, minutes on two CPU cores.

  make demo                # on face videos that PyPI packages ship
  make demo DATA=FOLDER    # on a folder of your own

The model is 1/200 of the published one and trains from scratch for minutes, so
it shows that everything works, and tells little about an unknown video.
"""

from ml_collections import config_dict

from configs import base


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base run with a small model and a short schedule."""
  config = base.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'demo'
  config.data.batch_size = 4
  # Strong blends and strong colours: fakes that a small model can learn to see
  # in minutes. Published runs learn from far subtler ones.
  config.synthesis.blend_ratios = (1.0,)
  config.synthesis.rgb_shift_prob = 1.0
  config.synthesis.rgb_shift = (-50.0, 50.0)
  config.synthesis.brightness = (-0.25, 0.25)
  config.synthesis.contrast = (-0.25, 0.25)
  config.model.width = 96
  config.model.depth = 3
  config.model.num_heads = 4
  config.model.image_size = 64
  config.model.drop_path = 0.0
  config.model.head_dropout = 0.0
  config.model.scan_layers = True  # compiles faster
  # From scratch, the map's usual weight of 100 leaves little for the rest.
  config.loss.spatial_weight = 10.0
  config.optimizer.init_lr = 1e-4
  config.optimizer.peak_lr = 1e-3
  config.optimizer.warmup_epochs = 5
  config.optimizer.freeze_epochs = 0
  config.train.num_epochs = 80
  config.train.eval_every_epochs = 8
  config.train.checkpoint_every = 100
  config.train.log_every = 20
  config.train.best_metric = 'val/clip_auc'
  config.eval.datasets = ('demo:val',)
  config.eval.pseudo_fakes = True
  return config
