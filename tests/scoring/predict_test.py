"""One video file gives the score that a prepared data set gives it."""

import json
import os
import pathlib

import cv2
import jax
import made_videos
import numpy as np
import pytest
from random_detector import make_detector

from data_pipeline import prepared_video, record_writer
from data_pipeline import records as records_lib
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import embedded
from data_pipeline.sources import catalogue
from data_pipeline.synthesis import blending
from stormer_jax import detector as detector_lib
from stormer_jax.scoring import (
  calibration,
  clip_scorer,
  evaluate,
  predict,
  report,
)


class BrightFaces:
  """Takes what is bright for a face: no model, and no person needed."""

  name = 'bright'

  def detect(self, frame):
    rows, columns = np.nonzero(frame.max(-1) > 90)
    found = int(len(rows) > 500)
    box = np.zeros((found, 4), np.float32)
    if found:
      box[0] = columns.min(), rows.min(), columns.max(), rows.max()
    return backend_lib.Faces(
      boxes=box,
      keypoints=np.zeros((found, 5, 2), np.float32),
      scores=np.ones(found, np.float32),
    )

  def landmarks(self, frame, box, keypoints):
    angle = np.linspace(0, 2 * np.pi, 81)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return (centre + 0.8 * half * ring).astype(np.float32)


def write_video(path, num_frames, face=True, fps=25):
  """A bright, textured, moving square on a dark ground."""
  rng = np.random.default_rng(0)
  texture = rng.integers(120, 250, (10, 10, 3)).astype(np.uint8)
  size = (320, 240)
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, size
  )
  for t in range(num_frames):
    frame = np.full((240, 320, 3), 20, np.uint8)
    if face:
      patch = np.roll(texture, t % 10, axis=0).repeat(11, 0).repeat(10, 1)
      frame[60 : 60 + 110, 80 + t : 180 + t] = patch
    writer.write(frame)
  writer.release()
  return path


@pytest.fixture
def detector(tiny_config):
  return make_detector(tiny_config)


def _predict(detector, video, **changes):
  options = evaluate.EvalConfig(**{**detector.config.eval, **changes})
  return predict.predict_video(detector, video, options, BrightFaces())


@pytest.mark.parametrize(
  'changes', [{}, {'flip': True, 'margin': 5}, {'frame_rule': 'dense'}]
)
def test_a_file_scores_as_in_the_evaluation_of_its_data_set(
  detector, tmp_path, changes
):
  rule = changes.get('frame_rule', 'uniform')
  video = write_video(tmp_path / 'a.mp4', 70)
  listed = catalogue.Video(
    path='a.mp4', label=1, video_id='a', dataset='faces', split='test'
  )
  kept, _ = prepared_video.prepare_video(
    tmp_path, listed, [rule], prepared_video.Settings(), BrightFaces()
  )
  record_writer.write_records(tmp_path, 'faces', rule, {'test': kept})
  scores = evaluate.score_dataset(
    detector,
    records_lib.open_records(tmp_path, 'faces', rule, 'test'),
    evaluate.EvalConfig(**{**detector.config.eval, **changes}),
    dataset='faces',
    split='test',
    synthesis=blending.SynthesisConfig(**detector.config.synthesis),
    num_threads=2,
  )
  (row,) = scores.rows
  prediction = _predict(detector, video, **changes)
  assert prediction.status == 'ok'
  assert len(prediction.clips) == 8
  # The same clips in batches of another size: up to rounding.
  logits = [clip.logit for clip in prediction.clips]
  np.testing.assert_allclose(logits, row.clip_logits, atol=2e-5)
  assert np.ptp(logits) > 1e-3
  assert prediction.logit == pytest.approx(row.logit, abs=2e-5)
  assert prediction.score == pytest.approx(row.score, abs=1e-5)


def test_clips_and_frames_say_where_in_the_video_they_are(detector, tmp_path):
  video = write_video(tmp_path / 'a.mp4', 63, fps=10)
  prediction = _predict(detector, video)
  indices = np.linspace(0, 62, 32).astype(int)
  assert [f.frame_index for f in prediction.frames] == indices.tolist()
  want = [tuple(of_clip) for of_clip in indices.reshape(8, 4).tolist()]
  assert [clip.frame_indices for clip in prediction.clips] == want
  assert prediction.frames[-1].time == pytest.approx(6.2)
  assert prediction.clips[-1].times[-1] == pytest.approx(6.2)
  boxes = np.array([frame.box for frame in prediction.frames])
  # Within the blur of the codec of where the square was drawn.
  np.testing.assert_allclose(boxes[:, 0], 80 + indices, atol=4)
  np.testing.assert_allclose(boxes[:, [1, 3]], [[60, 170]] * 32, atol=4)
  soft_labels = [frame.soft_label for frame in prediction.frames]
  assert 0 < min(soft_labels) < max(soft_labels) < 1


def test_times_are_those_of_the_file_and_oddities_are_noted(detector, tmp_path):
  image = np.full((240, 320, 3), 20, np.uint8)
  image[60:170, 80:180] = np.arange(120, 230, dtype=np.uint8)[:, None, None]
  pts = [*range(10), *range(100, 110)]
  matrix = [-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]
  video = made_videos.write(
    tmp_path / 'a.mp4',
    [image] * 20,
    pts=pts,
    adjust=lambda stream: stream.set_display_matrix(matrix),
  )
  prediction = _predict(detector, video)
  times = [frame.time for frame in prediction.frames]
  np.testing.assert_allclose(times, np.array(pts) / 25, rtol=1e-6)
  np.testing.assert_allclose(
    [clip.times for clip in prediction.clips], np.reshape(times, (5, 4))
  )
  assert prediction.notes == ('mirrored by its display matrix',)
  boxes = np.array([frame.box for frame in prediction.frames])
  np.testing.assert_allclose(boxes[:, 0], 320 - 180, atol=4)


def test_batches_of_clips_do_not_change_the_answer(detector, tmp_path):
  video = write_video(tmp_path / 'a.mp4', 40)
  whole, parts = (
    _predict(detector, video),
    _predict(detector, video, batch_size=3),
  )
  assert parts.logit == pytest.approx(whole.logit, abs=2e-5)
  assert len(parts.clips) == len(whole.clips) == 8


def test_the_answer_names_weights_libraries_and_file(detector, tmp_path):
  video = write_video(tmp_path / 'a.mp4', 12)
  prediction = _predict(detector, video)
  got = json.loads(report.prediction_json(prediction))['provenance']
  assert got['weights'] == clip_scorer.weights_digest(detector)
  assert got['step'] == 7 and got['checkpoint'] == 'here'
  assert got['versions']['jax'] == jax.__version__
  assert got['model']['num_frames'] == 4
  assert got['face_backend'] == 'bright'
  assert len(got['video']['source']['sha256']) == 64


def test_an_answer_says_what_its_score_means_or_that_nobody_knows(
  detector, tmp_path
):
  video = write_video(tmp_path / 'a.mp4', 12)
  plain = _predict(detector, video)
  assert plain.calibration.startswith('not calibrated for uniform frames')
  assert np.isnan(plain.probability) and plain.answer == ''
  made = calibration.Calibration(
    method='platt',
    slope=2.0,
    intercept=5.0,
    threshold=0.5,
    at_fpr={'1': None},
    uncertain=(0.2, 0.3),
    frame_rule='uniform',
    weights=clip_scorer.weights_digest(detector),
    fitted_on='faces:val',
    num_real=20,
    num_fake=20,
    ece_before=0.2,
    ece_after=0.1,
    brier_before=0.2,
    brier_after=0.1,
  )
  options = evaluate.EvalConfig(**detector.config.eval)
  answer = predict.predict_video(detector, video, options, BrightFaces(), made)
  assert answer.score == plain.score
  want = 1 / (1 + np.exp(-2 * plain.logit - 5))
  assert answer.probability == pytest.approx(want) and want > 0.3
  assert answer.answer == 'likely fake'
  assert 'faces:val' in answer.calibration


def test_a_video_without_a_face_gets_no_score(detector, tmp_path):
  video = write_video(tmp_path / 'a.mp4', 12, face=False)
  prediction = _predict(detector, video)
  assert prediction.status == 'no_face'
  assert np.isnan(prediction.score) and not prediction.clips
  assert prediction.message == 'face in 0 of 12 frames'


def test_a_video_of_two_frames_is_too_short(detector, tmp_path):
  prediction = _predict(detector, write_video(tmp_path / 'a.mp4', 2))
  assert prediction.status == 'too_short'
  assert 'a clip needs 4' in prediction.message
  assert np.isnan(prediction.score)


def test_a_text_file_named_mp4_is_unreadable(detector, tmp_path):
  video = tmp_path / 'a.mp4'
  video.write_text('no video')
  prediction = _predict(detector, video)
  assert prediction.status == 'unreadable'
  assert 'a.mp4 is not a video' in prediction.message


def test_a_file_that_is_not_there_is_named(tiny_config, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'a\.mp4: no such video file'):
    predict.predict(tiny_config, tmp_path, tmp_path / 'a.mp4')


def test_the_program_writes_json_to_the_file_or_to_standard_output(
  detector, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    detector_lib, 'load_detector', lambda workdir, which: detector
  )
  monkeypatch.setattr(embedded, 'EmbeddedBackend', BrightFaces)
  video = write_video(tmp_path / 'a.mp4', 12)
  prediction = predict.predict(
    detector.config, tmp_path, video, tmp_path / 'answers' / 'a.json'
  )
  written = json.loads((tmp_path / 'answers' / 'a.json').read_text())
  assert written['score'] == prediction.score
  said = capsys.readouterr().out
  assert f'a.mp4: score {prediction.score:.3f} ' in said and 'a.json' in said
  predict.predict(detector.config, tmp_path, video)
  assert json.loads(capsys.readouterr().out) == written


def test_a_name_that_ffmpeg_takes_for_a_protocol_is_read(
  detector, tmp_path, monkeypatch
):
  name = '2024-05-01T12:30:05 [x].mp4'
  write_video(tmp_path / 'a.mp4', 12).rename(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  assert _predict(detector, pathlib.Path(name)).status == 'ok'


def test_what_is_no_file_with_a_name_of_text_is_refused(tiny_config, tmp_path):
  with pytest.raises(ValueError, match='a folder; name one video file'):
    predict.predict(tiny_config, tmp_path, tmp_path)
  video = tmp_path / os.fsdecode(b'caf\xe9.mp4')
  video.touch()
  with pytest.raises(ValueError, match='not UTF-8; rename'):
    predict.predict(tiny_config, tmp_path, video)
