"""Validation of a run on its held-out videos, the same in every epoch.

Enter: the training state and records of real videos. Leave: 'val/...' figures:
AUC and accuracy over videos and over clips, each with its interval, and the
terms of the loss. Each real clip is scored beside the pseudo-fake that a fixed
seed makes of it (METHOD 1.4, 9).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging
from flax import nnx
import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import clips, pipeline
from data_pipeline import records as records_lib
from stormer_jax import losses, sharding, steps
from stormer_jax.scoring import bootstrap

# Of its figures, those by which a run may choose its best step.
BEST_METRICS = (
  'val/video_auc',
  'val/clip_auc',
  'val/video_accuracy',
  'val/clip_accuracy',
)


class Validation:
  """Scores fixed pairs of the held-out videos; the same in every epoch."""

  def __init__(
    self,
    config: config_dict.ConfigDict,
    records: records_lib.Records,
    graphdef: nnx.GraphDef,
    mesh: jax.sharding.Mesh,
    make_pairs: Callable[..., pipeline.Batch],
  ):
    """Readies the programs.

    Args:
      config: The whole configuration.
      records: Consecutive-rule records of the held-out videos.
      graphdef: Of the model.
      mesh: Of the run.
      make_pairs: Jitted, (frames, landmarks, seeds) -> batch of pairs.

    Raises:
      ValueError: If no real video is as long as a clip.
    """
    check_records(config, records)
    self._config = config
    self._records = records
    self._mesh = mesh
    self._make_pairs = make_pairs
    self._eval_step = jax.jit(
      steps.make_eval_step(config, graphdef),
      out_shardings=sharding.replicated(mesh),
    )
    self._gather = jax.jit(
      lambda place: place, out_shardings=sharding.replicated(mesh)
    )

  def __call__(
    self, state: steps.TrainState, on_batch: Callable[[], None]
  ) -> dict[str, float]:
    """Returns the figures of `summarize`; calls `on_batch` as it goes."""
    params = state.params if state.ema is None else state.ema
    rows = []
    for batch in real_batches(
      self._config, self._records, self._mesh, on_batch
    ):
      pairs = self._make_pairs(
        batch['frames'], batch['landmarks'], batch['seed']
      )
      scored = jax.device_get(self._eval_step(params, state.stats, pairs))
      place = jax.device_get(
        self._gather({name: batch[name] for name in ('video', 'valid')})
      )
      # Pair i is rows 2i and 2i + 1.
      place = {name: np.repeat(x, 2) for name, x in place.items()}
      rows.append(place | scored | scored['terms'])
    columns = {
      name: np.concatenate([row[name] for row in rows])
      for name in rows[0]
      if name != 'terms'
    }
    valid = columns.pop('valid')
    columns = {name: x[valid] for name, x in columns.items()}
    return summarize(columns)


def check_records(
  config: config_dict.ConfigDict, records: records_lib.Records
) -> None:
  """Raises ValueError if no real video is as long as a clip."""
  if not any(
    video.label == 0 and video.num_frames >= config.model.num_frames
    for video in records.videos
  ):
    raise ValueError(
      f'{config.data.val_dataset}:{config.data.val_split} has no real video'
      f' of {config.model.num_frames} frames (model.num_frames) to validate on'
    )


def real_batches(
  config: config_dict.ConfigDict,
  records: records_lib.Records,
  mesh: jax.sharding.Mesh,
  on_batch: Callable[[], None],
) -> Iterator[dict[str, Any]]:
  """Yields all clips of the real held-out videos, placed; calls `on_batch`."""
  for batch in clips.eval_dataset(
    records,
    num_frames=config.model.num_frames,
    batch_size=config.data.batch_size,
    num_threads=config.data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    real_only=True,
  ):
    on_batch()
    yield sharding.put_batch(batch, mesh)


def summarize(columns: dict[str, np.ndarray]) -> dict[str, float]:
  """Figures of one validation from its clips.

  Args:
    columns: Arrays [n] over clips: logits, label, video and the loss terms.

  Returns:
    'val/...' figures. `video_auc` ranks the mean logits of a video's real and
    of its pseudo-fake clips (METHOD 9), `clip_auc` single clips.
  """
  label = columns['label'].astype(int)
  # A video and its pseudo-fake twin are two things to rank, drawn together.
  unit = columns['video'] * 2 + label
  units = np.unique(unit)
  video_logits = np.array([columns['logits'][unit == u].mean() for u in units])
  figures = {'val/clips': float(len(label))}
  for name, labels, logits, clusters in (
    ('video', units % 2, video_logits, units // 2),
    ('clip', label, columns['logits'], columns['video']),
  ):
    estimates = bootstrap.estimates(
      labels,
      logits.astype(np.float64),
      threshold=0.0,
      names=('auc', 'accuracy'),
      num_bootstrap=1000,
      clusters=clusters,
    )
    auc, accuracy = estimates['auc'], estimates['accuracy']
    figures[f'val/{name}_auc'] = auc.value
    figures[f'val/{name}_auc_low'] = auc.low
    figures[f'val/{name}_auc_high'] = auc.high
    figures[f'val/{name}_accuracy'] = accuracy.value
  return figures | {
    f'val/{term}': float(columns[term].mean()) for term in losses.TERMS
  }


def log_figures(step: int, figures: Mapping[str, float]) -> None:
  """Says the figures of one validation in a line of the log."""
  logging.info(
    'step %d  validation: video AUC %.3f [%.3f, %.3f], clip AUC %.3f'
    ' [%.3f, %.3f], clip accuracy %.3f, loss %.4f (%d clips)',
    step,
    figures['val/video_auc'],
    figures['val/video_auc_low'],
    figures['val/video_auc_high'],
    figures['val/clip_auc'],
    figures['val/clip_auc_low'],
    figures['val/clip_auc_high'],
    figures['val/clip_accuracy'],
    figures['val/total'],
    figures['val/clips'],
  )
