"""The small detector's second member: a linear probe of the ImageNet CNN.

  python -m stormer_jax.main --mode=train --config=configs/small_probe.py \
    --data_root=DATA --workdir=PROBE \
    --config.pretrained_stem=efficientnet-lite0-57934424.pth
  python -m stormer_jax.main --mode=convert --destination=SMALL \
    --source=RUN/checkpoints/1099,PROBE/checkpoints/624

on the data of `configs/small.py`, from which RUN comes. Minutes, because
nothing of the CNN is trained. What it brings: docs/findings.md.
"""

from ml_collections import config_dict

from configs import baselines, small


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the small run with a linear probe in place of the whole CNN."""
  config = small.get_config(semantics)
  config.model.kind = 'frame_probe'
  baselines.fit_probe(config)
  # Of both versions: without it blurred and small faces look forged to it.
  config.synthesis.post_blur_prob = 0.7
  config.synthesis.post_blur_sigma = (0.5, 4.0)
  config.synthesis.jpeg_prob = 0.7
  config.synthesis.jpeg_quality = (20, 100)
  return config
