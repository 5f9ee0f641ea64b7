"""Scores prepared data sets with a trained detector.

Enter: records of a split (uint8 frames of the 256 crop) and a `Detector`.
Leave: `report.Scores`: for every video the mean of its clip logits and the
sigmoid of it, the probability of fake, with AUC, AP, EER and accuracy over the
videos (METHOD section 9). A video is cut into clips of T frames in order; all
of them count, once. What cannot be scored keeps its row and a reason.

With `pseudo_fakes` each real video is scored beside the pseudo-fake made of it
with a fixed seed, the protocol of validation, for data without fakes.
"""

from collections.abc import Callable, Mapping, Sequence
import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import time
from typing import Any, NamedTuple

from absl import logging
import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8
from ml_collections import config_dict
import numpy as np

from data_pipeline import blending, clips, pipeline
from data_pipeline import records as records_lib
from stormer_jax import detector as detector_lib
from stormer_jax import metrics, report, steps

_LOG_SECONDS = 15.0
_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python', 'onnxruntime')


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
    if not self.datasets:
      raise ValueError('eval.datasets is empty; name NAME:SPLIT to score')


class HostOutputs(NamedTuple):
  """`model.Outputs` as NumPy arrays, float32."""

  logits: Float[np.ndarray, 'b']
  soft_label_logits: Float[np.ndarray, 'b t']
  vulnerability_map: Float[np.ndarray, 'b t gh gw']


Scorer = Callable[[Float[Array, 'b t h w 3']], HostOutputs]


def evaluate(
  config: config_dict.ConfigDict,
  workdir: str | os.PathLike[str],
  data_root: str | os.PathLike[str],
  out: str | os.PathLike[str] | None = None,
) -> list[report.Scores]:
  """Scores every data set of `config.eval.datasets` and writes the reports.

  Scoring goes on where a stopped call left off.

  Args:
    config: `eval`, `data.num_threads` and, for pseudo-fakes, `synthesis` are
      read; the model is that of the checkpoint.
    workdir: Run whose checkpoint `config.eval.checkpoint` names.
    data_root: Folder that `data_pipeline.prepare` wrote.
    out: Folder of the reports; None: `<workdir>/eval`.

  Returns:
    The scores, in the order of `config.eval.datasets`.

  Raises:
    FileNotFoundError: No such run or checkpoint.
    ValueError: No such data set, split or setting.
  """
  options = EvalConfig(**config.eval)
  names = [parse_dataset(entry, options.margin) for entry in options.datasets]
  if len({(dataset, split) for dataset, split, _ in names}) < len(names):
    raise ValueError(
      f'eval.datasets names a split twice: {options.datasets}; each has one '
      'report'
    )
  rule = 'consecutive' if options.pseudo_fakes else 'uniform'
  # All are looked at before the first is scored: a typo costs no hours.
  variants = [
    dataclasses.replace(options, margin=margin) for *_, margin in names
  ]
  splits = [
    records_lib.open_records(data_root, dataset, rule, split)
    for dataset, split, _ in names
  ]
  detector = detector_lib.load_detector(
    pathlib.Path(workdir), options.checkpoint
  )
  out = pathlib.Path(workdir) / 'eval' if out is None else pathlib.Path(out)
  results = []
  for (dataset, split, _), variant, records in zip(
    names, variants, splits, strict=True
  ):
    suffix = '-pseudo_fakes' if options.pseudo_fakes else ''
    folder = out / f'{dataset}-{split}{suffix}'
    scores = score_dataset(
      detector,
      records,
      variant,
      dataset=dataset,
      split=split,
      synthesis=blending.SynthesisConfig(**config.synthesis),
      num_threads=config.data.num_threads,
      journal_folder=folder,
      skipped=skipped_videos(data_root, dataset, rule, split),
    )
    if jax.process_index() == 0:
      report.write_scores(scores, folder)
      print(f'{report.table(scores)}\n  written to {folder}', flush=True)
    results.append(scores)
  return results


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
  skipped: Sequence[report.VideoScore] = (),
) -> report.Scores:
  """Scores all videos of a split.

  Args:
    detector: From `detector.load_detector`.
    records: Rule 'uniform', or 'consecutive' for pseudo-fakes.
    options: How; `datasets` and `checkpoint` are not read.
    dataset: Name for the report.
    split: Likewise.
    synthesis: How pseudo-fakes are made, if they are asked for; without flip,
      as in validation (METHOD 1.4).
    num_threads: Reader threads.
    journal_folder: Where finished batches are noted, so that a stopped call
      can be repeated without repeating them; None: nowhere.
    skipped: Rows of videos that have no record, to be listed too.

  Raises:
    ValueError: If a logit is not finite, or pseudo-fakes are asked for and no
      video is real.
  """
  model = detector.config.model
  synthesis = dataclasses.replace(synthesis, flip_prob=0.0)
  settings = {
    **provenance(detector),
    'margin': None if options.pseudo_fakes else options.margin,
    'flip': options.flip,
    'threshold': options.threshold,
    'num_bootstrap': options.num_bootstrap,
    'pseudo_fakes': options.pseudo_fakes,
    'rule': 'consecutive' if options.pseudo_fakes else 'uniform',
  }
  if options.pseudo_fakes:
    settings['synthesis'] = dataclasses.asdict(synthesis)
    if all(video.label for video in records.videos):
      raise ValueError(
        f'{dataset}:{split} has no real video to make pseudo-fakes of; set '
        'eval.pseudo_fakes=False'
      )
  # Each process takes the same number of clips.
  batch_size = _round_up(options.batch_size, jax.process_count())
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
    score_batch = _pair_scorer(detector, options, synthesis)
  else:
    score_batch = _crop_scorer(detector, options)
  with _Journal(journal_folder, fingerprint) as journal:
    first_batch = len(journal.finished)
    rate = _Rate(sum(num_windows) - first_batch * batch_size, dataset, split)
    for batch in clips.eval_dataset(
      records,
      num_frames=model.num_frames,
      batch_size=batch_size,
      real_only=options.pseudo_fakes,
      num_threads=num_threads,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      first_batch=first_batch,
    ):
      journal.add(batch, score_batch(batch))
      rate.add(batch_size)
  num_kinds = 2 if options.pseudo_fakes else 1
  logits = _gather(journal.finished, num_windows, num_kinds)
  journal.remove()
  rows = _rows(records, logits, num_windows, model.num_frames, options)
  rows += [r for r in skipped if not (options.pseudo_fakes and r.label)]
  return _scores(rows, dataset, split, settings, options)


def skipped_videos(
  data_root: str | os.PathLike[str], dataset: str, rule: str, split: str
) -> list[report.VideoScore]:
  """Lists what `prepare` could not make a record of, with its reasons.

  Returns:
    Rows without a score, from the report.csv beside the records.
  """
  path = pathlib.Path(data_root) / dataset / 'report.csv'
  if not path.exists():
    return []
  with path.open(newline='', encoding='utf-8') as file:
    lines = [
      line
      for line in csv.DictReader(file)
      if (line['rule'], line['split'], line['status'])
      == (rule, split, 'skipped')
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


def make_frame_scorer(
  detector: detector_lib.Detector, options: EvalConfig
) -> Callable[[UInt8[np.ndarray, 'b t 256 256 3']], HostOutputs]:
  """Returns a function that crops, normalises and scores stored frames."""
  scorer = make_scorer(detector, flip=options.flip)
  image_size = detector.config.model.image_size
  return lambda frames: scorer(
    _eval_clips(frames, margin=options.margin, image_size=image_size)
  )


def make_scorer(
  detector: detector_lib.Detector, *, flip: bool = False
) -> Scorer:
  """Readies the detector in eval mode, on all devices of this process.

  Args:
    detector: From `detector.load_detector`.
    flip: Whether to average each output with that of the mirrored clip.

  Returns:
    Function of normalised clips [b, t, h, w, 3] -> HostOutputs of b rows. The
    batch is filled up to a multiple of the number of devices; a clip's outputs
    do not depend on what else is in the batch.
  """
  # Only devices of this process: processes score different clips, and need
  # not keep in step.
  devices = jax.local_devices()
  mesh = jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )
  whole = NamedSharding(mesh, PartitionSpec())
  by_clip = NamedSharding(mesh, PartitionSpec('data'))
  weights = jax.device_put(
    jax.device_get((detector.params, detector.stats)), whole
  )
  # D4: the released code takes the token of the batch's first clip. So that a
  # score never depends on its batch mates, each clip is the first of its own.
  alone = detector.config.model.temporal_token == 'first_clip'

  def score(clip) -> HostOutputs:
    num_clips = len(clip)
    padding = _round_up(num_clips, len(devices)) - num_clips
    if padding:
      clip = np.pad(np.asarray(clip), [(0, padding)] + 4 * [(0, 0)])
    clip = jax.device_put(clip, by_clip)
    outputs = jax.device_get(
      _score_clips(detector.graphdef, *weights, clip, alone=alone)
    )
    return HostOutputs(**{name: x[:num_clips] for name, x in outputs.items()})

  def score_both(clip) -> HostOutputs:
    plain, mirrored = score(clip), score(clip[:, :, :, ::-1])
    # The mirrored map is mirrored back.
    mirrored = mirrored._replace(
      vulnerability_map=mirrored.vulnerability_map[..., ::-1]
    )
    return HostOutputs(
      *((a + b) / 2 for a, b in zip(plain, mirrored, strict=True))
    )

  return score_both if flip else score


# Jitted here and not in `make_scorer`, so that the next data set finds the
# compiled program.
_score_clips = jax.jit(steps.score_clips, static_argnames=('graphdef', 'alone'))


def provenance(detector: detector_lib.Detector) -> dict[str, Any]:
  """Says which weights scored, and which libraries ran them."""
  return {
    'checkpoint': detector.source,
    'step': int(detector.step),
    'weights': weights_digest(detector),
    'model': detector.config.model.to_dict(),
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('stormer-jax', *_PACKAGES)
      if _installed(name)
    },
  }


def weights_digest(detector: detector_lib.Detector) -> str:
  """Hashes all tensors of the detector: 16 hexadecimal digits."""
  digest = hashlib.blake2b(digest_size=8)
  tree = (detector.params, detector.stats)
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    leaf = np.ascontiguousarray(jax.device_get(leaf))
    digest.update(f'{path} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.view(np.uint8).data if leaf.size else b'')
  return digest.hexdigest()


def _installed(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


_eval_clips = jax.jit(
  pipeline.eval_clips, static_argnames=('margin', 'image_size')
)
_make_pairs = jax.jit(
  pipeline.make_pairs,
  static_argnames=('synthesis', 'image_size', 'patch_size'),
)
BatchScorer = Callable[[Mapping[str, np.ndarray]], Float[np.ndarray, 'b kinds']]


def _crop_scorer(
  detector: detector_lib.Detector, options: EvalConfig
) -> BatchScorer:
  """Returns a function: loader batch -> logits of its clips [b, 1]."""
  scorer = make_frame_scorer(detector, options)
  return lambda batch: scorer(batch['frames']).logits[:, None]


def _pair_scorer(
  detector: detector_lib.Detector,
  options: EvalConfig,
  synthesis: blending.SynthesisConfig,
) -> BatchScorer:
  """Returns a function: loader batch -> logits [b, 2], the real one first."""
  model = detector.config.model
  scorer = make_scorer(detector, flip=options.flip)

  def score(batch):
    pairs = _make_pairs(
      batch['frames'],
      batch['landmarks'],
      batch['seed'],
      synthesis=synthesis,
      image_size=model.image_size,
      patch_size=model.patch_size,
    )
    logits = scorer(pairs['clip']).logits.reshape(-1, 2)
    label = np.asarray(pairs['label']).reshape(-1, 2)
    return np.take_along_axis(logits, np.argsort(label, axis=1), axis=1)

  return score


class _Journal:
  """Finished batches of this process, on disk if there is a folder.

  A journal of other weights, settings or videos is thrown away.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str] | None,
    fingerprint: Mapping[str, Any],
  ):
    self.finished: list[dict[str, Any]] = []
    self._file = self._path = None
    if folder is None:
      return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    self._path = folder / f'journal-{jax.process_index()}.jsonl'
    text = json.dumps(fingerprint, sort_keys=True)
    head = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    lines = self._path.read_text().split('\n') if self._path.exists() else []
    if lines[:1] == [head]:
      # The last part is '' or what a kill left of a line.
      self.finished = [json.loads(line) for line in lines[1:-1]]
      logging.info('%s: %d batches done', self._path, len(self.finished))
    kept = [head, *map(json.dumps, self.finished)]
    self._path.write_text(''.join(line + '\n' for line in kept))
    self._file = self._path.open('a')

  def add(
    self, batch: Mapping[str, np.ndarray], logits: Float[np.ndarray, 'b kinds']
  ) -> None:
    """Notes a batch; what is padding is left out."""
    valid = batch['valid']
    entry = {
      'video': batch['video'][valid].tolist(),
      'window': batch['window'][valid].tolist(),
      'logits': logits[valid].tolist(),  # float32 as float64: exact in JSON
    }
    self.finished.append(entry)
    if self._file is not None:
      self._file.write(json.dumps(entry) + '\n')
      self._file.flush()

  def __enter__(self) -> '_Journal':
    return self

  def __exit__(self, *error: object) -> None:
    if self._file is not None:
      self._file.close()

  def remove(self) -> None:
    """Takes the file away: the work is done."""
    if self._path is not None:
      self._path.unlink()


def _gather(
  finished: list[dict[str, Any]], num_windows: list[int], num_kinds: int
) -> Float[np.ndarray, 'videos windows kinds']:
  """Joins the clip logits of all processes, nan where there is no clip."""
  shape = (len(num_windows), max(num_windows, default=0), num_kinds)
  logits = np.zeros(shape, np.float32)
  count = np.zeros(shape[:2], np.int32)
  for entry in finished:
    place = np.array([entry['video'], entry['window']], int)
    logits[*place] = np.reshape(entry['logits'], (-1, num_kinds))
    np.add.at(count, (*place,), 1)
  if jax.process_count() > 1:
    logits, count = multihost_utils.process_allgather((logits, count))
    logits, count = logits.sum(0), count.sum(0)
  expected = np.arange(shape[1]) < np.array(num_windows, int)[:, None]
  assert np.array_equal(count, expected), 'a clip is missing or scored twice'
  return np.where(expected[..., None], logits, np.nan)


def _rows(
  records: records_lib.Records,
  logits: Float[np.ndarray, 'videos windows kinds'],
  num_windows: list[int],
  num_frames: int,
  options: EvalConfig,
) -> list[report.VideoScore]:
  """Makes one row per video, or two: itself and its pseudo-fake."""
  rows = []
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
      mean, score = metrics.video_scores(values, np.zeros(count, int), 1)
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
        )
      )
  return rows


def _scores(
  rows: list[report.VideoScore],
  dataset: str,
  split: str,
  settings: Mapping[str, Any],
  options: EvalConfig,
) -> report.Scores:
  """Measures the scored rows."""
  scored = [row for row in rows if not row.reason]
  estimates = functools.partial(
    _estimates, options=options, paired=options.pseudo_fakes
  )
  methods = sorted({row.method for row in scored if row.label and row.method})
  return report.Scores(
    dataset=dataset,
    split=split,
    rows=tuple(rows),
    figures=estimates(scored),
    auc_by_method={
      method: estimates(
        [row for row in scored if not row.label or row.method == method]
      )['auc']
      for method in methods
      if len(methods) > 1
    },
    settings=settings,
  )


def _estimates(
  rows: list[report.VideoScore], *, options: EvalConfig, paired: bool
) -> dict[str, metrics.Estimate]:
  names = [row.video_id for row in rows]
  groups = np.unique(names, return_inverse=True)[1] if paired else None
  return metrics.estimates(
    np.array([row.label for row in rows], int),
    np.array([row.score for row in rows], float),
    threshold=options.threshold,
    num_bootstrap=options.num_bootstrap,
    groups=groups,
  )


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


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple
