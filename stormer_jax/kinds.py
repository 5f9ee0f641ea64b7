"""Which model `model.kind` names: the detector, a baseline, an autoencoder.

Detector and baselines take clips and give `model.Outputs`; the models of
`PRETRAINING` learn from real clips alone, and what they learned starts a
detector (`objectives`). All have their parameters in nested dicts and run in
the same loop on the same records, so that what differs between two runs is the
model.
"""

from collections.abc import Mapping

from stormer_jax import model
from stormer_jax.baselines import (
  frame_cnn,
  frame_cnn_ensemble,
  frame_probe,
  frame_vit,
  resnet3d,
  timesformer,
)
from stormer_jax.pretraining import masked_autoencoder

DETECTOR = 'stormer'
Baseline = (
  frame_cnn.FrameCnn
  | frame_cnn_ensemble.FrameCnnEnsemble
  | frame_probe.FrameProbe
  | frame_vit.FrameVit
  | timesformer.TimeSformer
  | resnet3d.ResNet3d
)
Pretraining = masked_autoencoder.MaskedAutoencoder
Model = model.Stormer | Baseline | Pretraining
BASELINES: dict[str, type[Baseline]] = {
  'frame_cnn': frame_cnn.FrameCnn,
  'frame_probe': frame_probe.FrameProbe,
  'frame_vit': frame_vit.FrameVit,
  'timesformer': timesformer.TimeSformer,
  'resnet3d': resnet3d.ResNet3d,
}
PRETRAINING: dict[str, type[Pretraining]] = {
  'mae': masked_autoencoder.MaskedAutoencoder
}
# What counts its own arithmetic; the detector's is in `flops`.
OTHERS: dict[str, type[Baseline | Pretraining]] = {**BASELINES, **PRETRAINING}
KINDS: dict[str, type[Model]] = {DETECTOR: model.Stormer, **OTHERS}


def choose(config: model.StormerConfig) -> type[Model]:
  """Returns the class of a kind.

  Raises:
    ValueError: If there is no such kind, or none of several members.
  """
  if config.kind not in KINDS:
    raise ValueError(f'model.kind is {config.kind!r}; it is one of {[*KINDS]}')
  if config.members == 1:
    return KINDS[config.kind]
  if config.kind != 'frame_cnn':
    raise ValueError(
      f'model.members is {config.members}, which model.kind=frame_cnn alone can'
      f' have; model.kind is {config.kind}'
    )
  return frame_cnn_ensemble.FrameCnnEnsemble


def check_scores(kind: str, source: str) -> None:
  """Raises ValueError for a model that says nothing of real and fake.

  Args:
    kind: A key of `KINDS`.
    source: The run, for the error.
  """
  if kind in PRETRAINING:
    raise ValueError(
      f'{source}: model.kind={kind} tells no real from fake; it starts what'
      f' does: --mode=convert --source={source} --destination=VIT.safetensors,'
      ' then train with --config.pretrained_vit=VIT.safetensors'
    )


def check_losses(kind: str, weights: Mapping[str, float]) -> None:
  """Raises ValueError if a loss has weight whose head the model has not.

  Args:
    kind: A key of `KINDS`.
    weights: The fields of `config.loss`.
  """
  if kind == DETECTOR:
    return
  names = ['spatial_weight', 'temporal_weight']
  has, file = 'a classification head alone', 'configs/baselines.py'
  if kind in PRETRAINING:
    names.insert(0, 'classification_weight')
    has, file = 'no head of these', 'configs/mae_faces.py'
  asked = [f'loss.{name}={weights[name]:g}' for name in names if weights[name]]
  if asked:
    raise ValueError(
      f'model.kind={kind} has {has}, and {" and ".join(asked)} is for another;'
      f' set it to 0, as {file} does'
    )
