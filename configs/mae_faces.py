"""Masked auto-encoding of real faces: a start for the detector.

  python -m stormer_jax.main --mode=train --config=configs/mae_faces.py \
    --data_root=DATA --workdir=MAE [--config.data.train_dataset=NAME]
  python -m stormer_jax.main --mode=convert --source=MAE \
    --destination=mae_faces.safetensors
  python -m stormer_jax.main --mode=train --config=configs/ffpp_c23.py \
    --data_root=DATA --workdir=RUN --config.pretrained_vit=mae_faces.safetensors

`configs/mae_faces.py:tube` hides tubes of clips instead of patches of frames.
Values are those of He et al. (2022, arXiv 2111.06377, Table 8) where nothing
else is said. None was tuned on faces, and nothing has been trained with them to
its end.
"""

from ml_collections import config_dict

from configs import base

MASKINGS = ('frame', 'tube')


def get_config(masking: str = 'frame') -> config_dict.ConfigDict:
  """Returns a ViT-B autoencoder on the videos of the headline run."""
  if masking not in MASKINGS:
    raise ValueError(f'configs/mae_faces.py:{masking}: it is one of {MASKINGS}')
  config = base.get_config()
  config.model.kind = 'mae'
  config.model.dtype = 'bfloat16'
  config.model.scan_layers = True
  config.model.drop_path = 0.0
  config.model.mae_masking = masking
  if masking == 'frame':
    config.model.num_frames = 1
    config.data.batch_size = 256  # clips a step; 4,096 there
  else:
    config.data.batch_size = 64
    config.model.mae_mask_ratio = 0.9  # arXiv 2203.12602, section 3.3
  # There is no head for these.
  config.loss.classification_weight = 0.0
  config.loss.spatial_weight = 0.0
  config.loss.temporal_weight = 0.0
  config.optimizer.rho = 0.0
  config.optimizer.b2 = 0.95
  config.optimizer.decoupled_weight_decay = True
  config.optimizer.weight_decay = 0.05
  config.optimizer.init_lr = 0.0
  # 1.5e-4 for 256 images a step, and in proportion for others.
  config.optimizer.peak_lr = 1.5e-4
  config.optimizer.warmup_epochs = 40
  config.optimizer.freeze_epochs = 0
  # Choice: then linearly to 0, as all runs here; a half cosine there.
  config.train.num_epochs = 800
  config.train.eval_every_epochs = 10
  config.train.best_metric = 'val/explained'
  # It scores no clips.
  config.eval.datasets = ()
  return config
