"""What validation says of clips and videos."""

import numpy as np

from stormer_jax import losses, validation


def columns(logits, label, video):
  n = len(logits)
  return {
    'logits': np.asarray(logits, np.float32),
    'label': np.asarray(label, np.float32),
    'video': np.asarray(video, np.int32),
    **{term: np.full(n, 2.0, np.float32) for term in losses.TERMS},
  }


def test_validation_ranks_videos_by_their_mean_logit():
  # Single clips overlap; the means of videos do not.
  figures = validation.summarize(
    columns(
      logits=[-3, 1, 0, 3, -3, 1, 0, 3],
      label=[0, 0, 1, 1, 0, 0, 1, 1],
      video=[0, 0, 0, 0, 1, 1, 1, 1],
    )
  )
  assert figures['val/video_auc'] == 1.0
  assert figures['val/clip_auc'] == 0.75
  assert figures['val/total'] == 2.0
  assert figures['val/clips'] == 8
