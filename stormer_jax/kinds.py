"""Which model `model.kind` names: the detector, or a baseline beside it.

All take clips and give `model.Outputs`, have their parameters in nested dicts,
and run in the same loop on the same pairs, so that what differs between two
runs is the model.
"""

from collections.abc import Mapping

from stormer_jax import model
from stormer_jax.baselines import frame_cnn

DETECTOR = 'stormer'
Model = model.Stormer | frame_cnn.FrameCnn
BASELINES: dict[str, type[frame_cnn.FrameCnn]] = {
  'frame_cnn': frame_cnn.FrameCnn,
}
KINDS: dict[str, type[Model]] = {DETECTOR: model.Stormer, **BASELINES}


def choose(config: model.StormerConfig) -> type[Model]:
  """Returns the class of a kind.

  Raises:
    ValueError: If there is no such kind.
  """
  if config.kind not in KINDS:
    raise ValueError(f'model.kind is {config.kind!r}; it is one of {[*KINDS]}')
  return KINDS[config.kind]


def check_losses(kind: str, weights: Mapping[str, float]) -> None:
  """Raises ValueError if a loss has weight whose head the model has not.

  Args:
    kind: A key of `KINDS`.
    weights: The fields of `config.loss`.
  """
  if kind == DETECTOR:
    return
  asked = [
    f'loss.{name}={weights[name]:g}'
    for name in ('spatial_weight', 'temporal_weight')
    if weights[name]
  ]
  if asked:
    raise ValueError(
      f'model.kind={kind} has a classification head alone, and'
      f' {" and ".join(asked)} is for another; set it to 0, as'
      ' configs/baselines.py does'
    )
