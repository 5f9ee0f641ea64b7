"""ViT-B on the uncompressed (c0) videos of FaceForensics++, 120 epochs.

Published AUC (%, over videos): CDF2 96.5, DFW 76.3, DFD 98.9, DFDC 77.6,
DFDCP 94.1, DiffSwap 97.7. Not yet trained to the end with this code.
"""

from ml_collections import config_dict

from configs import ffpp_c23


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the headline run on c0 videos."""
  config = ffpp_c23.get_config(semantics)
  config.data.train_dataset = config.data.val_dataset = 'ffpp_c0'
  config.train.num_epochs = 120
  config.optimizer.warmup_epochs = 30
  return config
