"""One video file -> the detector's answer.

Enter: any video that FFmpeg reads. Leaves: a `report.Prediction`, with the
score of the video, of its clips and of its frames; or what it is that keeps
the file from being scored. Frames, crops and their encoding are those of
`data_pipeline.prepare` under the same frame rule, so that a file scores the
same here as in `evaluate` (METHOD section 9).
"""

import json
import math
import os
import pathlib
from typing import cast, get_args

import jax
from ml_collections import config_dict
import numpy as np

from data_pipeline import prepare, prepared_video
from data_pipeline import records as records_lib
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import embedded
from data_pipeline.sources import catalogue, file_names
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import (
  aggregation,
  calibration,
  clip_scorer,
  evaluate,
  metrics,
  report,
)


def predict(
  config: config_dict.ConfigDict,
  workdir: str | os.PathLike[str],
  video: str | os.PathLike[str],
  out: str | os.PathLike[str] | None = None,
) -> report.Prediction:
  """Scores one video file and writes the answer as JSON.

  Args:
    config: `eval` is read; the model is that of the checkpoint.
    workdir: Run whose checkpoint `config.eval.checkpoint` names.
    video: The file.
    out: JSON file, and a line on standard output; None: all of it there.

  Returns:
    The answer, also where its status is not 'ok'.

  Raises:
    FileNotFoundError: No such file, run or checkpoint.
  """
  _check_file(pathlib.Path(video))
  prepare.silence_decoder()  # the status says what matters
  options = evaluate.EvalConfig(**config.eval)
  detector = detector_lib.load_detector(
    pathlib.Path(workdir), options.checkpoint
  )
  prediction = predict_video(
    detector,
    pathlib.Path(video),
    options,
    embedded.EmbeddedBackend(),
    calibration.load(
      workdir, clip_scorer.weights_digest(detector), options.frame_rule
    ),
  )
  if out is None:
    print(report.prediction_json(prediction), end='', flush=True)
  else:
    report.write_prediction(prediction, out)
    if prediction.status == 'ok':
      notes = ''.join(
        f'; {note}' for note in (*prediction.notes, prediction.calibration)
      )
      if prediction.answer:
        notes = f'; {prediction.answer} ({prediction.probability:.3f}){notes}'
      print(
        f'{video}: score {prediction.score:.3f} (0 real, 1 fake) from'
        f' {len(prediction.clips)} clips; written to {out}{notes}',
        flush=True,
      )
  return prediction


def predict_video(
  detector: detector_lib.Detector,
  video: pathlib.Path,
  options: evaluate.EvalConfig,
  backend: backend_lib.FaceBackend,
  calibrated: calibration.Calibration | None = None,
) -> report.Prediction:
  """Scores one video file.

  Args:
    detector: From `detector.load_detector`.
    video: The file.
    options: Margin, flip, frame rule and batch size are read.
    backend: Finds faces; the one that the evaluation's records come from.
    calibrated: What the logits of the detector mean; None if nobody found out.

  Raises:
    FileNotFoundError: No such file.
    ValueError: If a logit is not finite.
  """
  _check_file(video)
  num_frames = detector.config.model.num_frames
  provenance = {
    **clip_scorer.provenance(detector),
    'margin': options.margin,
    'flip': options.flip,
    'frame_rule': options.frame_rule,
    'face_backend': backend.name,
  }
  meaning = calibration.not_calibrated(options.frame_rule)
  if calibrated:
    meaning = calibrated.said()
  kept, (outcome,) = prepared_video.prepare_video(
    video.absolute().parent,  # 12:30.mp4 by itself is a protocol to FFmpeg
    catalogue.Video(
      path=video.name, label=0, video_id=video.name, dataset='', split='test'
    ),
    [options.frame_rule],
    prepared_video.Settings(min_frames=num_frames, clip_frames=num_frames),
    backend,
  )
  if not kept:
    assert outcome.reason in get_args(report.Status), outcome
    return report.Prediction(
      video=str(video),
      status=cast(report.Status, outcome.reason),
      message=outcome.detail,
      notes=outcome.notes,
      logit=math.nan,
      score=math.nan,
      clips=(),
      frames=(),
      provenance=provenance,
      calibration=meaning,
    )
  (record,) = kept
  provenance['video'] = json.loads(record.provenance)
  outputs = _score(detector, record, options)
  if not np.isfinite(outputs.logits).all():
    raise ValueError(
      f'the detector answers {outputs.logits} to the clips of {video}: the '
      'weights are damaged'
    )
  logit, score = aggregation.video_scores(
    outputs.logits, np.zeros(len(outputs.logits), int), 1
  )
  probability = math.nan
  if calibrated:
    probability = float(calibrated.probability(logit)[0])
  return report.Prediction(
    video=str(video),
    status='ok',
    message='',
    notes=outcome.notes,
    logit=float(logit[0]),
    score=float(score[0]),
    clips=_clip_scores(record, outputs),
    frames=_frame_scores(record, outputs),
    provenance=provenance,
    calibration=meaning,
    probability=probability,
    answer=calibrated.answer(float(logit[0])) if calibrated else '',
  )


def _check_file(video: pathlib.Path) -> None:
  if video.is_dir():
    raise ValueError(f'{video}: a folder; name one video file')
  if not video.is_file():
    raise FileNotFoundError(f'{video}: no such video file')
  if not file_names.is_text(str(video)):
    raise ValueError(f'{video}: its name is not UTF-8; rename the file')


def _score(
  detector: detector_lib.Detector,
  record: records_lib.VideoRecord,
  options: evaluate.EvalConfig,
) -> clip_scorer.HostOutputs:
  """Cuts a record into clips and scores them, a batch at a time."""
  num_frames = detector.config.model.num_frames
  num_clips = len(record.frames) // num_frames
  frames = np.stack([records_lib.decode_frame(f) for f in record.frames])
  clips = frames[: num_clips * num_frames].reshape(
    num_clips, num_frames, *frames.shape[1:]
  )
  scorer = clip_scorer.make_frame_scorer(
    detector, margin=options.margin, flip=options.flip
  )
  outputs = [
    scorer(clips[start : start + options.batch_size])
    for start in range(0, num_clips, options.batch_size)
  ]
  return jax.tree.map(lambda *rows: np.concatenate(rows), *outputs)


def _clip_scores(
  record: records_lib.VideoRecord, outputs: clip_scorer.HostOutputs
) -> tuple[report.ClipScore, ...]:
  num_clips, num_frames = outputs.soft_label_logits.shape
  shape = num_clips, num_frames
  indices = record.frame_indices[: num_clips * num_frames].reshape(shape)
  times = record.times[: num_clips * num_frames].reshape(shape)
  return tuple(
    report.ClipScore(
      frame_indices=tuple(of_clip),
      times=tuple(times_of_clip),
      logit=logit,
      score=score,
    )
    for of_clip, times_of_clip, logit, score in zip(
      indices.tolist(),
      times.tolist(),
      outputs.logits.tolist(),
      metrics.sigmoid(outputs.logits).tolist(),
      strict=True,
    )
  )


def _frame_scores(
  record: records_lib.VideoRecord, outputs: clip_scorer.HostOutputs
) -> tuple[report.FrameScore, ...]:
  soft_labels = metrics.sigmoid(outputs.soft_label_logits.reshape(-1))
  # Frames after the last whole clip were not scored.
  return tuple(
    report.FrameScore(
      frame_index=index,
      time=time,
      soft_label=soft_label,
      box=tuple(box),
    )
    for index, time, soft_label, box in zip(
      record.frame_indices.tolist(),
      record.times.tolist(),
      soft_labels.tolist(),
      record.boxes.tolist(),
      strict=False,
    )
  )
