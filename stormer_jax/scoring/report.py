"""What scoring a data set found, and the only writer of it: table, JSON, CSV.

Enter: `Scores` of a data set. Leave: text for people and files for programs.
Logits are of the classification head, scores their sigmoid: the probability of
fake, in [0, 1]. `answer` is what scoring one video found.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import math
import os
import pathlib
from typing import Any

import numpy as np

from stormer_jax.scoring import (
  bootstrap,
  measurement,
  metrics,
  plain_json,
  published_figures,
  robustness,
  score_file,
  tables,
)
from stormer_jax.scoring import protocol as protocol_lib

# What is printed; files hold all.
_PRINTED = (
  *('auc', 'average_precision', 'eer', 'accuracy', 'balanced_accuracy'),
  *('tpr_at_1_fpr', 'tpr_at_5_fpr', 'coverage'),
)
_MOST_LISTED = 20  # unscored videos in a table; files hold all of them


@dataclasses.dataclass(frozen=True)
class VideoScore:
  """One row: a video of a data set, or the pseudo-fake made from one."""

  video_id: str
  label: int  # 0 real, 1 fake
  method: str  # how the fake was made; '' for real
  identity: str
  source_path: str
  num_frames: int  # kept frames
  clip_logits: tuple[float, ...]
  logit: float  # mean of the clips; nan if not scored
  score: float
  reason: str = ''  # why it has no score
  scenario: str = ''  # what the method belongs to, as face swap
  group: str = ''  # part of the data with its own real videos
  pair: str = ''  # holds a real video and the fakes of it together


@dataclasses.dataclass(frozen=True)
class Scores:
  """A scored data set. `figures` are measured over the scored videos.

  `measured` holds these figures and all others, in rows.
  """

  dataset: str
  split: str
  rows: tuple[VideoScore, ...]
  figures: Mapping[str, bootstrap.Estimate]
  auc_by_method: Mapping[str, bootstrap.Estimate]  # its fakes and all real
  settings: Mapping[str, Any]  # what the scores depend on
  protocol: protocol_lib.Protocol = dataclasses.field(
    default_factory=protocol_lib.Protocol
  )
  measured: tuple[measurement.Row, ...] = ()

  @property
  def unscored(self) -> tuple[VideoScore, ...]:
    """Rows without a score."""
    return tuple(row for row in self.rows if row.reason)

  def count(self, label: int) -> int:
    """Number of scored videos of one class."""
    return sum(r.label == label and not r.reason for r in self.rows)


def measured(
  rows: Sequence[VideoScore],
  protocol: protocol_lib.Protocol,
  settings: Mapping[str, Any],
) -> Scores:
  """Measures the rows of a data set; one with damaged crops in brief."""
  dataset = f'{protocol.dataset}:{protocol.split}'
  found = measurement.measure(
    saved_scores(rows, dataset), protocol, brief=robustness.is_of_crops(dataset)
  )
  ours = [row for row in found if row.convention == 'ours']
  return Scores(
    dataset=protocol.dataset,
    split=protocol.split,
    rows=tuple(rows),
    figures={
      row.figure: row.estimate
      for row in ours
      if row.part == 'all'
      and (row.level == protocol.level or row.figure == 'coverage')
    },
    auc_by_method={
      row.name: row.estimate
      for row in ours
      if (row.part, row.figure) == ('method', 'auc')
    },
    settings={**settings, 'protocol': dataclasses.asdict(protocol)},
    protocol=protocol,
    measured=found,
  )


def saved_scores(
  rows: Sequence[VideoScore], dataset: str, system: str = ''
) -> score_file.SavedScores:
  """Returns rows as they will be read back from scores.csv."""
  texts: dict[str, Any] = {
    name: tuple(getattr(row, name) for row in rows)
    for name in ('reason', 'clip_logits', *score_file.TEXTS)
  }
  return score_file.SavedScores(
    system=system,
    dataset=dataset,
    video=tuple(row.video_id for row in rows),
    labels=np.array([row.label for row in rows], int),
    scores=np.array([row.score for row in rows], float),
    settings={},
    **texts,
  )


def table(scores: Scores) -> str:
  """Returns a table of the figures in %, an interval beside each."""
  clips = sum(len(row.clip_logits) for row in scores.rows)
  lines = [
    f'{scores.dataset}:{scores.split}: {scores.count(0)} real and '
    f'{scores.count(1)} fake videos scored, {clips} clips',
    f'  {"%":<24}{"value":>7}   95 % interval',
  ]
  lines += [
    _table_row(metrics.TITLES[name], estimate)
    for name, estimate in scores.figures.items()
    if name in _PRINTED
  ]
  lines += [
    _table_row(f'AUC {method}', estimate)
    for method, estimate in scores.auc_by_method.items()
  ]
  lines += _published(scores) + _conventions(scores)
  if scores.unscored:
    lines.append(f'  not scored: {len(scores.unscored)} videos')
    lines += [
      f'    {row.video_id}: {row.reason}'
      for row in scores.unscored[:_MOST_LISTED]
    ]
    if len(scores.unscored) > _MOST_LISTED:
      rest = len(scores.unscored) - _MOST_LISTED
      lines.append(f'    and {rest} more, listed in scores.csv')
  if scores.measured:
    lines.append('  protocol: ' + '; '.join(scores.protocol.lines()))
  return '\n'.join(lines)


def line(scores: Scores) -> str:
  """Returns the AUC of a data set, and the groups' mean, in one line."""
  titles = {'all': 'AUC', 'mean': 'mean of the groups'}
  areas = [
    f'{titles[row.part]} {tables.shown("auc", row.estimate)}'
    for row in scores.measured
    if (row.figure, row.convention) == ('auc', 'ours') and row.part in titles
  ]
  return f'{scores.dataset}:{scores.split}: ' + ', '.join(areas)


def _published(scores: Scores) -> list[str]:
  """The paper's AUC of the same data, if it has one."""
  found = published_figures.find(
    f'{scores.dataset}:{scores.split}', scores.protocol.trained_on
  )
  if found is None:
    return []
  estimate = bootstrap.Estimate(found.auc, found.low, found.high)
  return [
    _table_row(f'AUC in the paper, {found.trained_on}', estimate),
  ]


def _conventions(scores: Scores) -> list[str]:
  """The same scores by the rules of others, a line each."""
  lines = []
  for name in scores.protocol.conventions:
    values = [
      100 * row.estimate.value
      for row in scores.measured
      if row.convention == name
    ]
    if values and not any(map(math.isnan, values)):
      lines.append(
        f'  as {name}: '
        + ', '.join(
          f'{title} {value:.2f}'
          for title, value in zip(
            protocol_lib.CONVENTION_TITLES, values, strict=True
          )
        )
      )
  return lines


def write_scores(scores: Scores, folder: str | os.PathLike[str]) -> None:
  """Writes scores.csv and metrics.json, each whole or not at all."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  _write(folder / 'scores.csv', scores_csv(scores))
  _write(folder / 'metrics.json', metrics_json(scores))


def scores_csv(scores: Scores) -> str:
  """Returns one line per row: empty score and a reason where unscored."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  names = [field.name for field in dataclasses.fields(VideoScore)]
  writer.writerow(names)
  for row in scores.rows:
    writer.writerow(_cell(getattr(row, name)) for name in names)
  return text.getvalue()


def metrics_json(scores: Scores) -> str:
  """Returns figures, counts, unscored videos and settings as JSON."""
  return plain_json.text(
    {
      'dataset': scores.dataset,
      'split': scores.split,
      'num_real': scores.count(0),
      'num_fake': scores.count(1),
      'num_clips': sum(len(row.clip_logits) for row in scores.rows),
      'figures': scores.figures,
      'auc_by_method': scores.auc_by_method,
      'measured': scores.measured,
      'not_scored': [
        {'video_id': row.video_id, 'label': row.label, 'reason': row.reason}
        for row in scores.unscored
      ],
      'settings': scores.settings,
    }
  )


def _table_row(title: str, estimate: bootstrap.Estimate) -> str:
  if math.isnan(estimate.value):
    return f'  {title:<24}{"-":>7}   {estimate.note}'
  interval = '-'
  if not math.isnan(estimate.low):
    interval = f'{100 * estimate.low:.1f} to {100 * estimate.high:.1f}'
  note = f'   ({estimate.note})' if estimate.note else ''
  return f'  {title:<24}{100 * estimate.value:>7.2f}   {interval}{note}'


def _cell(value: Any) -> str:
  if isinstance(value, tuple):
    return ' '.join(map(_cell, value))
  if isinstance(value, float):
    return '' if math.isnan(value) else repr(value)
  return str(value)


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_name(path.name + '.partial')
  try:
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
