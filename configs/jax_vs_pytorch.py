"""The model that JAX and PyTorch both train (docs/jax_vs_pytorch.md).

  python -m benchmarks.train_both

A step takes tens of milliseconds on one thread, and two thousand of them are
enough to tell pseudo-fakes of an unseen person from real clips. The blends are
those of configs/demo.py in stronger colours, without JPEG and cutout.
"""

from ml_collections import config_dict

from configs import demo


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the demo's run with a smaller model and easier pairs."""
  config = demo.get_config(semantics)
  config.synthesis.rgb_shift = (-80.0, 80.0)
  config.synthesis.jpeg_prob = 0.0
  config.synthesis.cutout_prob = 0.0
  config.model.image_size = 32
  config.model.patch_size = 8
  config.model.num_frames = 2
  config.model.width = 64
  config.model.depth = 2
  config.loss.spatial_weight = 3.0
  config.optimizer.peak_lr = 2e-3
  config.optimizer.warmup_epochs = 10
  config.train.num_epochs = 100
  return config
