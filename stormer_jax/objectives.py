"""What a run minimises, by `model.kind`, and of which batches.

The detector and the baselines learn the three-task loss of self-blended pairs,
a masked autoencoder the reconstruction of real clips. Whoever makes a step,
plans or counts one asks here; the loop, the optimizer, checkpoints and
shardings know no difference.
"""

from collections.abc import Callable, Mapping
import dataclasses

from flax import nnx
import jax
from jaxtyping import Array, Float, Key
from ml_collections import config_dict
import numpy as np

from stormer_jax import kinds, losses, model
from stormer_jax.pretraining import reconstruction

Terms = dict[str, Float[Array, '']]


@dataclasses.dataclass(frozen=True)
class Objective:
  """A loss and the batches that it is of.

  Attributes:
    terms: Names of its summands, and 'total'.
    clips_each: Clips of a batch that one clip of the data becomes.
    loss: (module, batch, key of dropout) -> (total, terms), float32 scalars,
      means over all clips.
    batch: Shapes and types of a step's batch.
  """

  terms: tuple[str, ...]
  clips_each: int
  loss: Callable[
    [nnx.Module, Mapping[str, Array], Key[Array, '']],
    tuple[Float[Array, ''], Terms],
  ]
  batch: Mapping[str, jax.ShapeDtypeStruct]


def choose(config: config_dict.ConfigDict) -> Objective:
  """Returns the objective of a run.

  Args:
    config: The whole configuration; `model`, `loss` and `data.batch_size` are
      read.
  """
  if config.model.get('kind', kinds.DETECTOR) in kinds.PRETRAINING:
    return _reconstruction(config)
  return _detection(config)


def _detection(config: config_dict.ConfigDict) -> Objective:
  weights = dict(config.loss)
  clips, time = 2 * config.data.batch_size, config.model.num_frames
  size = config.model.image_size
  grid = size // config.model.patch_size

  def loss(detector, batch, key):
    outputs = detector(batch['clip'], rngs=nnx.Rngs(dropout=key))
    return losses.three_task_loss(outputs, batch, **weights)

  shapes = {
    'clip': (clips, time, size, size, 3),
    'label': (clips,),
    'vulnerability_map': (clips, time, grid, grid),
    'soft_label': (clips, time),
    'kept': (clips, time, grid, grid),
  }
  return Objective(
    terms=losses.TERMS,
    clips_each=2,
    loss=loss,
    batch={
      name: jax.ShapeDtypeStruct(shape, np.float32)
      for name, shape in shapes.items()
    },
  )


def _reconstruction(config: config_dict.ConfigDict) -> Objective:
  model_config = model.StormerConfig(**config.model)
  clips, size = config.data.batch_size, config.model.image_size

  def loss(autoencoder, batch, key):
    said = autoencoder(batch['clip'], batch['seed'], rngs=nnx.Rngs(dropout=key))
    wanted = reconstruction.targets(batch['clip'], model_config)
    total = reconstruction.clip_errors(said, wanted).mean()
    return total, {'total': total}

  return Objective(
    terms=reconstruction.TERMS,
    clips_each=1,
    loss=loss,
    batch={
      'clip': jax.ShapeDtypeStruct(
        (clips, config.model.num_frames, size, size, 3), np.float32
      ),
      'seed': jax.ShapeDtypeStruct((clips,), np.uint32),
    },
  )
