"""How a figure came about: what is printed and saved beside every result.

Enter: the `eval` section of a configuration and what is known of detector and
data. Leaves: a `Protocol`. Published figures differ by level, split, margin,
aggregation and rounding rule; `CONVENTIONS` names the rules of others, so that
one run can be put beside any of theirs.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from stormer_jax.scoring import aggregation

LEVELS = ('video', 'clip', 'frame')
FAILED = ('exclude', 'half')


@dataclasses.dataclass(frozen=True)
class Convention:
  """How others turn the scores of clips into figures over videos.

  Attributes:
    aggregation: One of `aggregation.AGGREGATIONS`.
    average_precision: Figure of `metrics.figures` that they call AP.
    eer: Likewise EER.
    strict: Whether a score equal to the threshold is called real.
    failed_videos: What a video without a score counts as; see `FAILED`.
    source: Where that can be read.
  """

  aggregation: str
  average_precision: str
  eer: str
  strict: bool
  failed_videos: str
  source: str

  @property
  def figures(self) -> tuple[str, ...]:
    """Names of its figures, in the order of `CONVENTION_TITLES`."""
    return (
      'auc',
      self.average_precision,
      self.eer,
      'accuracy',
      'tpr_at_1_fpr',
      'tpr_at_5_fpr',
    )


CONVENTION_TITLES = ('AUC', 'AP', 'EER', 'accuracy', 'TPR at 1 %', 'TPR at 5 %')
CONVENTIONS: Mapping[str, Convention] = {
  'paper': Convention(
    aggregation='mean_logit',
    average_precision='average_precision',
    eer='eer',
    strict=False,
    failed_videos='exclude',
    source='FakeSTormer, METHOD section 9',
  ),
  'deepfakebench': Convention(
    aggregation='mean_probability',
    average_precision='average_precision',
    eer='eer_vertex',
    strict=True,
    failed_videos='exclude',
    source='DeepfakeBench and DF40',
  ),
  'gend': Convention(
    aggregation='mean_probability',
    average_precision='average_precision_macro',
    eer='eer',
    strict=False,
    failed_videos='exclude',
    source='GenD, mean of the frames',
  ),
  'gend_median': Convention(
    aggregation='median_probability',
    average_precision='average_precision_macro',
    eer='eer',
    strict=False,
    failed_videos='exclude',
    source='GenD, median of the frames',
  ),
  'deepsafe_bench': Convention(
    aggregation='mean_probability',
    average_precision='average_precision',
    eer='eer_threshold',
    strict=False,
    failed_videos='half',
    source='deepsafe-bench 1.0.0',
  ),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How scores were made and how figures are made of them.

  The first half describes the scores, and is empty where nobody said it (as
  for a file of others); the second half can be chosen anew for saved scores.

  Attributes:
    dataset: Name of the data.
    split: Part of it.
    frame_rule: Which frames of a video were stored.
    margin: px of the 256 px crop cut from every side; None: unknown.
    clip_length: Frames of a clip.
    flip: Whether a clip's logit is averaged with its mirror image's.
    pseudo_fakes: Whether the fakes are made of the real videos, as in
      validation.
    trained_on: Name of the training data.
    semantics: 'paper', 'official' or 'mixed'.
    weights: Hash of all tensors, and the type they are computed with in where
      that is not float32.
    checkpoint: Where they lay.
    config_hash: Hash of the configuration that the run was trained with, and of
      how it computes here.
    face_backend: What found the faces.
    corruption: KIND:LEVEL, and whether crops or videos were damaged; 'none'.
    level: What is ranked: 'video', 'clip', or 'frame' (with its clip's score).
    aggregation: How clips become a video; 'as given' where only the video's
      score is known.
    failed_videos: 'exclude': a video without a score is counted and left out;
      'half': it scores 0.5.
    calibration: (slope, intercept) that validation gave the mean logit, so
      that a score is a probability; () for the sigmoid of the logit.
    threshold: Score from which a video is called fake.
    threshold_from: Where the threshold comes from.
    resample_by: What a resample draws: 'video', 'pair', 'identity', or 'auto':
      pairs where there are any.
    num_bootstrap: Resamples of an interval.
    conventions: Names in `CONVENTIONS` to measure by as well.

  Raises:
    ValueError: If a field is out of range.
  """

  dataset: str = ''
  split: str = ''
  frame_rule: str = ''
  margin: int | None = None
  clip_length: int | None = None
  flip: bool | None = None
  pseudo_fakes: bool = False
  trained_on: str = ''
  semantics: str = ''
  weights: str = ''
  checkpoint: str = ''
  config_hash: str = ''
  face_backend: str = ''
  corruption: str = ''
  level: str = 'video'
  aggregation: str = 'mean_logit'
  failed_videos: str = 'exclude'
  calibration: tuple[float, ...] = ()
  threshold: float = 0.5
  threshold_from: str = 'given, not chosen on validation'
  resample_by: str = 'auto'
  num_bootstrap: int = 1000
  conventions: tuple[str, ...] = (
    *('paper', 'deepfakebench', 'gend', 'deepsafe_bench'),
  )

  def __post_init__(self):
    choices = (
      ('level', LEVELS),
      ('aggregation', (*aggregation.AGGREGATIONS, 'as given')),
      ('failed_videos', FAILED),
      ('resample_by', ('auto', 'video', 'pair', 'identity')),
    )
    for name, allowed in choices:
      if getattr(self, name) not in allowed:
        raise ValueError(
          f'eval.{name} is {getattr(self, name)!r}; choose one of {allowed}'
        )
    for name in self.conventions:
      if name not in CONVENTIONS:
        raise ValueError(
          f'eval.conventions names {name!r}; choose of {tuple(CONVENTIONS)}'
        )
    if self.num_bootstrap < 0:
      raise ValueError(
        f'eval.num_bootstrap is {self.num_bootstrap}; at least 0'
      )

  def lines(self) -> list[str]:
    """Says all of it, a field a line; what nobody said as 'not said'."""
    return [
      f'{field.name.replace("_", " ")}: {_said(getattr(self, field.name))}'
      for field in dataclasses.fields(self)
    ]


MEASURING = (
  *('level', 'aggregation', 'failed_videos', 'threshold', 'threshold_from'),
  *('resample_by', 'num_bootstrap', 'conventions'),
)


def from_saved(
  saved: Mapping[str, Any], measuring: Mapping[str, Any] | None = None
) -> Protocol:
  """Makes the protocol of saved scores, with some fields chosen anew.

  Args:
    saved: Fields of a protocol as JSON gave them; {} where there are none.
    measuring: Fields of `MEASURING`; others, as those of a whole `eval`
      section, are not read.
  """
  known = {field.name for field in dataclasses.fields(Protocol)}
  fields = {name: saved[name] for name in known if saved.get(name) is not None}
  fields |= {
    name: (measuring or {})[name]
    for name in MEASURING
    if name in (measuring or {})
  }
  for name in ('conventions', 'calibration'):
    if name in fields:
      fields[name] = tuple(fields[name])
  return Protocol(**fields)


def _said(value: Any) -> str:
  if value is None or value == '':
    return 'not said'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, tuple):
    return ', '.join(map(str, value)) or 'none'
  return str(value)
