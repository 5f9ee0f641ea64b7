"""Scores prepared data sets with a trained detector.

Enter: records of a split (uint8 frames of the 256 crop) and a `Detector`.
Leave: `report.Scores`: for every video its clip logits and the probability of
fake made of them (METHOD section 9), with every figure over the videos and the
protocol that they depend on. A video is cut into clips of T frames in order;
all of them count, once. What cannot be scored keeps its row and a reason.

With `corrupted` every data set is scored again for each damage done to its
crops, and a table of robustness made of all (scoring/robustness.py).

With `pseudo_fakes` each real video is scored beside the pseudo-fake made of it
with a fixed seed, the protocol of validation, for data without fakes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import time
from typing import Any

from absl import logging
import jax
from jaxtyping import Float
from ml_collections import config_dict
import numpy as np

from data_pipeline import clips, corruptions, places, shard_cache
from data_pipeline import records as records_lib
from data_pipeline.synthesis import blending
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import (
  aggregation,
  calibration,
  clip_scorer,
  published_figures,
  report,
  robustness,
  study,
  tables,
)
from stormer_jax.scoring import journal as journal_lib
from stormer_jax.scoring import protocol as protocol_lib

FRAME_RULES = ('uniform', 'dense')
_LOG_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How to score; the fields of `config.eval`.

  Raises:
    ValueError: If a field is out of range.
  """

  datasets: tuple[str, ...]
  margin: int
  batch_size: int
  threshold: float
  flip: bool
  pseudo_fakes: bool
  num_bootstrap: int
  checkpoint: str | int
  # Runs of before these fields have none of them.
  margins: tuple[str, ...] = ()
  reals: tuple[str, ...] = ()
  level: str = 'video'
  aggregation: str = 'mean_logit'
  failed_videos: str = 'exclude'
  conventions: tuple[str, ...] = tuple(protocol_lib.Protocol.conventions)
  resample_by: str = 'auto'
  frame_rule: str = 'uniform'
  calibrated: bool = True

  def __post_init__(self):
    for name, low in (('margin', 0), ('batch_size', 1), ('num_bootstrap', 0)):
      if getattr(self, name) < low:
        raise ValueError(
          f'eval.{name} is {getattr(self, name)}; at least {low}'
        )
    if 2 * self.margin > records_lib.CROP_SIZE - 2:
      raise ValueError(
        f'eval.margin is {self.margin} px on every side, which leaves nothing '
        f'of the {records_lib.CROP_SIZE} px crop'
      )
    if self.frame_rule not in FRAME_RULES:
      raise ValueError(
        f'eval.frame_rule is {self.frame_rule!r}; choose one of {FRAME_RULES}'
      )
    if not self.datasets:
      raise ValueError('eval.datasets is empty; name NAME:SPLIT to score')
    for entry in self.margins:
      name, _, margin = entry.partition(':')
      if not name or not margin.isdecimal():
        raise ValueError(
          f'eval.margins holds {entry!r}; write NAME:MARGIN, as dfdcp:5'
        )
    for entry in self.reals:
      name, _, other = entry.partition(':')
      if not name or not other or ':' in other:
        raise ValueError(
          f'eval.reals holds {entry!r}; write NAME:OTHER, as df40_ff:ffpp_c23'
        )
    measuring(self)

  @property
  def rule(self) -> str:
    """Of the records that are scored; pseudo-fakes are made of clips."""
    is_apart = self.frame_rule == 'uniform'
    return 'consecutive' if self.pseudo_fakes and is_apart else self.frame_rule


def evaluate(
  config: config_dict.ConfigDict,
  workdir: str | os.PathLike[str],
  data_root: str | os.PathLike[str],
  out: str | os.PathLike[str] | None = None,
  cache: shard_cache.ShardCache | None = None,
  corrupted: Sequence[corruptions.Corruption] = (),
) -> list[report.Scores]:
  """Scores every data set of `config.eval.datasets` and writes the reports.

  Scoring goes on where a stopped call left off.

  Args:
    config: `eval`, `data.num_threads` and, for pseudo-fakes, `synthesis` are
      read; the model is that of the checkpoint.
    workdir: Run whose checkpoint `config.eval.checkpoint` names.
    data_root: Folder that `data_pipeline.prepare` wrote.
    out: Folder of the reports; None: `<workdir>/eval`.
    cache: Where shards are copied to before they are read, or None.
    corrupted: Damage to score each data set under, beside as it is; such a set
      is called NAME-crops-KIND-LEVEL.

  Returns:
    The scores, in the order of `config.eval.datasets`; behind those of a set
    those of its damaged ones.

  Raises:
    FileNotFoundError: No such run or checkpoint.
    ValueError: No such data set, split or setting; or damage and pseudo-fakes,
      which would be made of damaged frames.
  """
  options = EvalConfig(**config.eval)
  names = [
    parse_dataset(entry, margin_of(options, entry.split(':')[0]))
    for entry in options.datasets
  ]
  if len({(dataset, split) for dataset, split, _ in names}) < len(names):
    raise ValueError(
      f'eval.datasets names a split twice: {options.datasets}; each has one '
      'report'
    )
  if corrupted and options.pseudo_fakes:
    raise ValueError(
      'eval.pseudo_fakes makes fakes of frames that --corrupt has damaged '
      'already; ask for one of the two'
    )
  reals = _reals(options, [(dataset, split) for dataset, split, _ in names])
  rule = options.rule
  # All are looked at before the first is scored: a typo costs no hours.
  variants = [
    dataclasses.replace(options, margin=margin) for *_, margin in names
  ]
  splits = [
    records_lib.open_records(data_root, dataset, rule, split, cache)
    for dataset, split, _ in names
  ]
  detector = detector_lib.load_detector(
    pathlib.Path(workdir), options.checkpoint, config
  )
  found_by = detector_lib.load_face_backend(pathlib.Path(workdir))
  for (dataset, split, _), records in zip(names, splits, strict=True):
    if warning := other_backend(found_by, records):
      logging.warning('%s:%s: %s', dataset, split, warning)
  out = pathlib.Path(workdir) / 'eval' if out is None else pathlib.Path(out)
  suffix = '-pseudo_fakes' if options.pseudo_fakes else ''
  results: list[report.Scores] = []
  folders = []
  for (dataset, split, _), variant, records in zip(
    names, variants, splits, strict=True
  ):
    for corruption in (None, *corrupted):
      name = dataset
      if corruption:
        name = robustness.set_name(dataset, corruption.kind, corruption.level)
      folder = out / f'{name}-{split}{suffix}'
      scores = score_dataset(
        detector,
        records,
        variant,
        dataset=name,
        split=split,
        synthesis=blending.SynthesisConfig(**config.synthesis),
        num_threads=config.data.num_threads,
        journal_folder=folder,
        more=[
          *skipped_videos(data_root, dataset, rule, split),
          *_real_rows(results, reals.get(dataset), split, corruption),
        ],
        workdir=workdir,
        corruption=corruption,
      )
      if jax.process_index() == 0:
        report.write_scores(scores, folder)
        said = f'{report.table(scores)}\n  written to {folder}'
        print(report.line(scores) if corruption else said, flush=True)
      results.append(scores)
      folders.append(folder)
  if jax.process_index() == 0:
    system = pathlib.Path(workdir).resolve().name
    made = study.of_run(system, results)
    study.write(made, out)
    for table in robustness.make_tables(made.rows, made.changes):
      print(tables.text(table), flush=True)
  for folder in folders:
    journal_lib.remove(folder)
  return results


def _reals(
  options: EvalConfig, names: Sequence[tuple[str, str]]
) -> dict[str, str]:
  """Whose real videos stand beside the fakes of a data set.

  Raises:
    ValueError: They are not scored before.
  """
  reals = dict(entry.split(':') for entry in options.reals)
  for i, (dataset, split) in enumerate(names):
    other = reals.get(dataset)
    if other and (other, split) not in names[:i]:
      raise ValueError(
        f'eval.reals puts the real videos of {other} beside the fakes of '
        f'{dataset}: name {other}:{split} before {dataset}:{split} in '
        'eval.datasets'
      )
  return reals


def _real_rows(
  results: Sequence[report.Scores],
  other: str | None,
  split: str,
  corruption: corruptions.Corruption | None,
) -> list[report.VideoScore]:
  """Real videos of another set, as they were scored there."""
  if not other:
    return []
  name = other
  if corruption:
    name = robustness.set_name(other, corruption.kind, corruption.level)
  (found,) = [r for r in results if (r.dataset, r.split) == (name, split)]
  return [
    dataclasses.replace(row, video_id=f'{other}/{row.video_id}')
    for row in found.rows
    if not row.label
  ]


def other_backend(found_by: str, records: records_lib.Records) -> str:
  """Says where faces were cut out otherwise than those of the run; else ''.

  Args:
    found_by: full name of what found the faces of the run; '' if unknown.
    records: to be scored.
  """
  others = sorted(records.backends() - {found_by})
  if not found_by or not others:
    return ''
  return (
    f'its faces were found by {" and ".join(others)}, those that the run'
    f' learned from by {found_by}: crops differ, and so may the figures;'
    ' prepare it with the backend of the run'
  )


def measuring(options: EvalConfig) -> dict[str, Any]:
  """Returns how scores become figures, fields of a `protocol.Protocol`.

  Raises:
    ValueError: If one is out of range.
  """
  fields: dict[str, Any] = {
    'level': options.level,
    'aggregation': options.aggregation,
    'failed_videos': options.failed_videos,
    'threshold': options.threshold,
    'resample_by': options.resample_by,
    'num_bootstrap': options.num_bootstrap,
    'conventions': options.conventions,
  }
  protocol_lib.Protocol(**fields)
  return fields


def margin_of(options: EvalConfig, dataset: str) -> int:
  """Returns the margin of a data set that has none in its entry."""
  margins = dict(entry.split(':') for entry in options.margins)
  return published_figures.margin(
    dataset, {name: int(px) for name, px in margins.items()}, options.margin
  )


def complete(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Gives the configuration of an older run the fields that it had not."""
  with config.unlocked():
    for field in dataclasses.fields(EvalConfig):
      missing = field.name not in config.eval
      if missing and field.default is not dataclasses.MISSING:
        config.eval[field.name] = field.default
  return config


def parse_dataset(entry: str, margin: int) -> tuple[str, str, int]:
  """Splits 'NAME:SPLIT' or 'NAME:SPLIT:MARGIN' into its parts.

  Raises:
    ValueError: If the entry is neither.
  """
  name, *rest = entry.split(':')
  if name and len(rest) == 1 and rest[0]:
    return name, rest[0], margin
  if name and len(rest) == 2 and rest[0] and rest[1].isdecimal():
    return name, rest[0], int(rest[1])
  raise ValueError(
    f'eval.datasets holds {entry!r}; write NAME:SPLIT, as celebdf_v2:test, or '
    'NAME:SPLIT:MARGIN, as dfdcp:test:5'
  )


def score_dataset(
  detector: detector_lib.Detector,
  records: records_lib.Records,
  options: EvalConfig,
  *,
  dataset: str,
  split: str,
  synthesis: blending.SynthesisConfig,
  num_threads: int = 8,
  journal_folder: str | os.PathLike[str] | None = None,
  more: Sequence[report.VideoScore] = (),
  workdir: str | os.PathLike[str] | None = None,
  corruption: corruptions.Corruption | None = None,
) -> report.Scores:
  """Scores all videos of a split.

  Args:
    detector: From `detector.load_detector`.
    records: Of the rule `options.rule`.
    options: How; `datasets` and `checkpoint` are not read.
    dataset: Name for the report.
    split: Likewise.
    synthesis: How pseudo-fakes are made, if they are asked for; without flip,
      as in validation (METHOD 1.4).
    num_threads: Reader threads.
    journal_folder: Where finished batches are noted, so that a stopped call
      can be repeated without repeating them, until `journal.remove`; None:
      nowhere.
    more: Rows to be listed too, as those of videos that have no record.
    workdir: Run whose calibration is used if it has one; None: none.
    corruption: Damage done to the crops first.

  Raises:
    ValueError: If a logit is not finite, or pseudo-fakes are asked for and no
      video is real.
  """
  model = detector.config.model
  if options.rule == 'dense' and len(records):
    _check_clips(records, dataset, model.num_frames)
  synthesis = dataclasses.replace(synthesis, flip_prob=0.0)
  settings = {
    **clip_scorer.provenance(detector),
    'margin': None if options.pseudo_fakes else options.margin,
    'flip': options.flip,
    'threshold': options.threshold,
    'num_bootstrap': options.num_bootstrap,
    'pseudo_fakes': options.pseudo_fakes,
    'aggregation': options.aggregation,
    'rule': options.rule,
  }
  if corruption:
    settings['corruption'] = str(corruption)
  if options.pseudo_fakes:
    settings['synthesis'] = dataclasses.asdict(synthesis)
    if all(video.label for video in records.videos):
      raise ValueError(
        f'{dataset}:{split} has no real video to make pseudo-fakes of; set '
        'eval.pseudo_fakes=False'
      )
  # Each process takes the same number of clips.
  batch_size = clip_scorer.round_up(options.batch_size, jax.process_count())
  fingerprint = {
    'settings': settings,
    'videos': [[video.video_id, video.num_frames] for video in records.videos],
    'batch_size': batch_size,
    'process_count': jax.process_count(),
  }
  num_windows = [
    0
    if options.pseudo_fakes and video.label
    else video.num_frames // model.num_frames
    for video in records.videos
  ]
  if options.pseudo_fakes:
    score_batch = clip_scorer.pair_scorer(
      detector, synthesis, flip=options.flip
    )
  else:
    score_batch = clip_scorer.crop_scorer(
      detector, margin=options.margin, flip=options.flip
    )
  with journal_lib.Journal(journal_folder, fingerprint) as journal:
    first_batch = len(journal.finished)
    rate = _Rate(sum(num_windows) - first_batch * batch_size, dataset, split)
    batches = clips.eval_dataset(
      records,
      num_frames=model.num_frames,
      batch_size=batch_size,
      real_only=options.pseudo_fakes,
      num_threads=num_threads,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      first_batch=first_batch,
      corruption=corruption,
    )
    for batch, logits in _one_ahead(score_batch, batches):
      journal.add(batch, logits)
      rate.add(batch_size)
  num_kinds = 2 if options.pseudo_fakes else 1
  logits = journal_lib.gather(journal.finished, num_windows, num_kinds)
  rows = _rows(records, logits, num_windows, model.num_frames, options)
  rows += [r for r in more if not (options.pseudo_fakes and r.label)]
  made_by = _made_by(records)
  protocol = protocol_lib.Protocol(
    dataset=dataset,
    split=split,
    frame_rule=settings['rule'],
    margin=settings['margin'],
    clip_length=model.num_frames,
    flip=options.flip,
    pseudo_fakes=options.pseudo_fakes,
    trained_on=settings['trained_on'],
    semantics=settings['semantics'],
    weights=settings['weights'],
    checkpoint=settings['checkpoint'],
    config_hash=settings['config_hash'],
    face_backend=made_by.get('backend', ''),
    corruption=_corruption(made_by, corruption),
    **measuring(options),
  )
  if workdir is not None and options.calibrated:
    protocol = _calibrated(protocol, workdir)
  return report.measured(rows, protocol, settings)


def _one_ahead(
  score: clip_scorer.BatchScorer, batches: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray]]:
  """Yields batches and their logits; the next one is on its way by then.

  So a device does not wait until the host has read, sent and noted.
  """
  waiting = None
  for batch in batches:
    coming = batch, score(batch)
    if waiting:
      yield waiting[0], np.asarray(waiting[1])
    waiting = coming
  if waiting:
    yield waiting[0], np.asarray(waiting[1])


def _check_clips(
  records: records_lib.Records, dataset: str, num_frames: int
) -> None:
  """Raises where clips of the model would lie across those of the records."""
  made_by = _made_by(records)
  clip_frames = made_by.get('settings', {}).get('clip_frames', num_frames)
  if clip_frames % num_frames:
    raise ValueError(
      f'{dataset} holds dense clips of {clip_frames} frames, and the model '
      f'takes {num_frames}: prepare it with --rule dense --clip_frames '
      f'{num_frames}'
    )


def skipped_videos(
  data_root: str | os.PathLike[str], dataset: str, rule: str, split: str
) -> list[report.VideoScore]:
  """Lists what `prepare` could not make a record of, with its reasons.

  Returns:
    Rows without a score, from the report.csv beside the records.
  """
  path = places.path(data_root) / dataset / 'report.csv'
  try:
    with places.naming(path):
      text = path.read_text(encoding='utf-8')
  except FileNotFoundError:
    return []
  lines = [
    line
    for line in csv.DictReader(io.StringIO(text, newline=''))
    if (line['rule'], line['split'], line['status']) == (rule, split, 'skipped')
  ]
  return [
    report.VideoScore(
      video_id=line['video_id'],
      label=records_lib.LABELS.index(line['label']),
      method='',
      identity='',
      source_path='',
      num_frames=int(line['num_frames']),
      clip_logits=(),
      logit=math.nan,
      score=math.nan,
      reason=f'{line["reason"]}: {line["detail"]}',
    )
    for line in lines
  ]


def _rows(
  records: records_lib.Records,
  logits: Float[np.ndarray, 'videos windows kinds'],
  num_windows: list[int],
  num_frames: int,
  options: EvalConfig,
) -> list[report.VideoScore]:
  """Makes one row per video, or two: itself and its pseudo-fake."""
  rows = []
  originals = {video.pair for video in records.videos}
  for video, count, clip_logits in zip(
    records.videos, num_windows, logits, strict=True
  ):
    if options.pseudo_fakes and video.label:
      continue
    for kind in range(2 if options.pseudo_fakes else 1):
      values = clip_logits[:count, kind] if count else np.zeros(0, np.float32)
      if not np.isfinite(values).all():
        raise ValueError(
          f'the detector answers {values} to the clips of video '
          f'{video.video_id}: the weights are damaged'
        )
      mean, score = aggregation.video_scores(
        values,
        np.zeros(count, int),
        1,
        options.aggregation,
        frames_per_clip=num_frames,
      )
      rows.append(
        report.VideoScore(
          video_id=video.video_id,
          label=1 if kind else video.label,
          method='pseudo_fake' if kind else video.method,
          identity=video.identity,
          source_path=video.source_path,
          num_frames=video.num_frames,
          clip_logits=tuple(map(float, values)),
          logit=float(mean[0]),
          score=float(score[0]),
          reason=''
          if count
          else f'too_short: face in {video.num_frames} frames; a clip needs '
          f'{num_frames}',
          group=video.group,
          # A real video belongs to the fakes that were made from it.
          pair=video.pair
          or (video.source_path if video.source_path in originals else ''),
        )
      )
  return rows


def _calibrated(
  protocol: protocol_lib.Protocol, workdir: str | os.PathLike[str]
) -> protocol_lib.Protocol:
  """Takes the threshold and the probabilities that validation chose.

  A calibration is of mean logits over videos; elsewhere nothing changes.
  """
  made = calibration.load(workdir, protocol.weights, protocol.frame_rule)
  if (
    made is None
    or protocol.level != 'video'
    or protocol.aggregation != 'mean_logit'
  ):
    return protocol
  return dataclasses.replace(
    protocol,
    calibration=(made.slope, made.intercept),
    threshold=made.threshold,
    threshold_from=f'validation: best balanced accuracy on {made.fitted_on}',
  )


def _made_by(records: records_lib.Records) -> dict[str, Any]:
  """What made the records, as the first one tells it; {} if none does."""
  if not len(records):
    return {}
  return json.loads(records.read_record(0).provenance or '{}')


def _corruption(
  made_by: dict[str, Any], of_crops: corruptions.Corruption | None
) -> str:
  """Says what damage was done, in words."""
  of_videos = made_by.get('settings', {}).get('corruption', '')
  said = [f'{of_videos} of the videos'] if of_videos else []
  if of_crops:
    said.append(f'{of_crops.kind}:{of_crops.level} of the crops')
  return ', '.join(said) or 'none'


class _Rate:
  """Logs how far the scoring is and how long it will take."""

  def __init__(self, num_clips: int, dataset: str, split: str):
    self._total, self._name = num_clips, f'{dataset}:{split}'
    self._done = 0
    self._started = self._logged = time.monotonic()

  def add(self, num_clips: int) -> None:
    self._done += num_clips
    now = time.monotonic()
    if now - self._logged < _LOG_SECONDS:
      return
    self._logged = now
    speed = self._done / (now - self._started)
    left = max(0, self._total - self._done) / speed
    logging.info(
      '%s: %d of %d clips, %.1f a second, %.0f s left',
      self._name,
      min(self._done, self._total),
      self._total,
      speed,
      left,
    )
