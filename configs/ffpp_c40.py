"""ViT-B on the strongly compressed (c40) videos of FaceForensics++.

100 epochs at a constant-then-falling rate, loss weights .9/100/.1, three
frozen epochs. Not yet trained to the end with this code.
"""

from ml_collections import config_dict

from configs import ffpp_c23


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the headline run on c40 videos."""
  config = ffpp_c23.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'ffpp_c40'
  config.loss.classification_weight = 0.9
  config.loss.temporal_weight = 0.1
  config.train.num_epochs = 100
  config.optimizer.freeze_epochs = 3
  config.optimizer.warmup_epochs = 25
  config.optimizer.init_lr = config.optimizer.peak_lr  # "booster 1"
  return config
