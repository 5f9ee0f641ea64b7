"""How well a masked autoencoder fills in faces of held-out videos.

Enter: the training state and records of real videos. Leave: 'val/...' figures,
the same in every epoch: the error of hidden patches, a mean over clips, and the
share of their variance that is explained, which names the best step. A clip is
cropped and hidden by the seed of its place, and not mirrored.
"""

from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from flax import nnx
import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import records as records_lib
from data_pipeline import views
from stormer_jax import model, sharding, steps, validation
from stormer_jax.pretraining import reconstruction

BEST_METRICS = ('val/explained',)


class HeldOut:
  """Fills in fixed patches of the held-out videos."""

  def __init__(
    self,
    config: config_dict.ConfigDict,
    records: records_lib.Records,
    graphdef: nnx.GraphDef,
    mesh: jax.sharding.Mesh,
    make_batch: Callable[..., views.Views],
  ):
    """Readies the programs.

    Args:
      config: The whole configuration.
      records: Consecutive-rule records of the held-out videos.
      graphdef: Of the model.
      mesh: Of the run.
      make_batch: Jitted, (frames, landmarks, seeds) -> batch of clips.

    Raises:
      ValueError: If no real video is as long as a clip.
    """
    validation.check_records(config, records)
    model_config = model.StormerConfig(**config.model)

    def measure(params, stats, batch):
      autoencoder: Any = steps.merge(graphdef, params, stats)
      autoencoder.eval()
      said = autoencoder(batch['clip'], batch['seed'])
      wanted = reconstruction.targets(batch['clip'], model_config)
      unknowing = said.replace(
        pixels=wanted.mean(axis=-1, keepdims=True)
      )  # that says the mean of each patch
      return (
        reconstruction.clip_errors(said, wanted),
        reconstruction.clip_errors(unknowing, wanted),
      )

    self._config = config
    self._records = records
    self._mesh = mesh
    self._make_batch = make_batch
    whole = sharding.replicated(mesh)
    self._measure = jax.jit(measure, out_shardings=whole)
    self._gather = jax.jit(lambda x: x, out_shardings=whole)

  def __call__(
    self, state: steps.TrainState, on_batch: Callable[[], None]
  ) -> dict[str, float]:
    """Returns the figures; calls `on_batch` as it goes."""
    params = state.params if state.ema is None else state.ema
    errors: list[np.ndarray] = []
    variances: list[np.ndarray] = []
    for batch in validation.real_batches(
      self._config, self._records, self._mesh, on_batch
    ):
      made = self._make_batch(
        batch['frames'], batch['landmarks'], batch['seed']
      )
      measured = self._measure(params, state.stats, made)
      valid = jax.device_get(self._gather(batch['valid']))
      for rows, new in zip(
        (errors, variances), jax.device_get(measured), strict=True
      ):
        rows.append(new[valid])
    error, variance = (np.concatenate(x) for x in (errors, variances))
    return {
      'val/clips': float(len(error)),
      'val/total': float(error.mean()),
      'val/explained': float(1 - error.mean() / variance.mean()),
    }


def log_figures(step: int, figures: Mapping[str, float]) -> None:
  """Says the figures of one validation in a line of the log."""
  logging.info(
    'step %d  validation: error %.4f, %.1f %% of the variance within hidden'
    ' patches explained (%d clips)',
    step,
    figures['val/total'],
    100 * figures['val/explained'],
    figures['val/clips'],
  )
