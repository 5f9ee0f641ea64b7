"""ViT-S on FaceForensics++ c23; the released code's small runs are broken (D6).

Not yet trained to the end with this code.
"""

from ml_collections import config_dict

from configs import ffpp_c23


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the headline run with the small backbone."""
  config = ffpp_c23.get_config(semantics)
  config.model.width = 384
  config.model.num_heads = 6
  return config
