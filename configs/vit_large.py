"""ViT-L on FaceForensics++ c23, 100 epochs, 4 pairs a device on 4 devices.

Not yet trained to the end with this code.
"""

from ml_collections import config_dict

from configs import ffpp_c23


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the headline run with the large backbone."""
  config = ffpp_c23.get_config(semantics)
  config.model.width = 1024
  config.model.depth = 24
  config.model.num_heads = 16
  config.model.remat = 'dots'
  config.data.batch_size = 16
  config.train.num_epochs = 100
  config.optimizer.warmup_epochs = 25
  config.optimizer.init_lr = config.optimizer.peak_lr  # "booster 1"
  return config
