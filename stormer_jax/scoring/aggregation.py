"""Clip logits -> the score of a video.

Enter: the logits of a video's clips. Leaves: the probability of fake, in
[0, 1]. METHOD section 9 takes the mean logit; others take other things, and
which it was decides published figures by whole points.
"""

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import metrics

AGGREGATIONS = (
  'mean_logit',
  'mean_probability',
  'median_probability',
  'max_probability',
  'confident',
)
# The rule of the winner of the Deepfake Detection Challenge (Seferbekov, 2020).
_FAKE_FROM, _FAKE_SHARE, _FAKE_FRAMES = 0.8, 0.4, 11
_REAL_BELOW, _REAL_SHARE = 0.2, 0.9


def aggregate(
  clip_logits: Float[np.ndarray, 'clips'],
  how: str = 'mean_logit',
  *,
  frames_per_clip: int = 1,
) -> float:
  """Computes the score of one video; the order of its clips is of no effect.

  Args:
    clip_logits: At least one.
    how: One of `AGGREGATIONS`.
    frames_per_clip: Of which `confident` counts frames: a frame has the score
      of its clip.

  Raises:
    ValueError: No such aggregation.
  """
  # Sorted, so that a sum does not depend on the order.
  logits = np.sort(np.asarray(clip_logits, np.float64))
  if how == 'mean_logit':
    return float(metrics.sigmoid(np.array(logits.mean())))
  scores = metrics.sigmoid(logits)
  if how == 'mean_probability':
    return float(np.mean(scores))
  if how == 'median_probability':
    return float(np.median(scores))
  if how == 'max_probability':
    return float(scores[-1])
  if how == 'confident':
    return _confident(np.repeat(scores, frames_per_clip))
  raise ValueError(f'aggregation is {how!r}; choose one of {AGGREGATIONS}')


def video_scores(
  clip_logits: Float[np.ndarray, 'clips'],
  video_index: Int[np.ndarray, 'clips'],
  num_videos: int,
  how: str = 'mean_logit',
  *,
  frames_per_clip: int = 1,
) -> tuple[Float[np.ndarray, 'v'], Float[np.ndarray, 'v']]:
  """Aggregates clip logits per video.

  Returns:
    The mean logit of each video, and its score after `how`; both nan for a
    video without clips.
  """
  if clip_logits.size and not 0 <= video_index.min() <= video_index.max() < (
    num_videos
  ):
    raise ValueError(
      f'video_index runs from {video_index.min()} to {video_index.max()}; '
      f'expected 0 to {num_videos - 1}'
    )
  logits, scores = np.full((2, num_videos), np.nan)
  order = np.argsort(video_index, kind='stable')
  count = np.bincount(video_index, minlength=num_videos)
  of_videos = np.split(clip_logits[order], np.cumsum(count)[:-1])
  for video in np.flatnonzero(count):
    own = of_videos[video]
    logits[video] = np.mean(np.sort(own.astype(np.float64)))
    scores[video] = aggregate(own, how, frames_per_clip=frames_per_clip)
  return logits, scores


def _confident(scores: Float[np.ndarray, 'frames']) -> float:
  """The mean of the frames that are sure, where many enough are."""
  fake, real = scores[scores > _FAKE_FROM], scores[scores < _REAL_BELOW]
  if len(fake) > _FAKE_SHARE * len(scores) and len(fake) > _FAKE_FRAMES:
    return float(np.mean(fake))
  if len(real) > _REAL_SHARE * len(scores):
    return float(np.mean(real))
  return float(np.mean(scores))
