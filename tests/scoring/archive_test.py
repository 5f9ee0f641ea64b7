"""Workers answer for an archive as one process does, a row a video."""

import functools
import json
import os
import pathlib
import signal
import uuid

import bright_faces
import numpy as np
import pytest
from random_detector import make_detector

from configs import tiny
from data_pipeline.engines import in_process, processes
from stormer_jax.scoring import (
  clip_scorer,
  evaluate,
  predict,
  video_detector,
)


def load(starts: pathlib.Path | None = None) -> video_detector.Detector:
  """The detector of these tests, also in a process of its own."""
  if starts:
    (starts / uuid.uuid4().hex).write_text(str(os.getpid()))
  detector = make_detector(tiny.get_config())
  ready = video_detector.Detector(
    detector,
    evaluate.EvalConfig(**detector.config.eval),
    backend=bright_faces.BrightFaces(),
  )
  ready._scorer = _by_pixels
  return ready


def _by_pixels(frames: np.ndarray) -> clip_scorer.ClipOutputs:
  """A scorer that need not be compiled in every process."""
  means = frames.astype(float).mean((2, 3, 4)).astype(np.float32)
  return clip_scorer.ClipOutputs(
    logits=means.mean(1) - 100,
    soft_label_logits=means / 100,
    vulnerability_map=np.tile(means[..., None, None], (1, 1, 4, 4)),
  )


class _Deadly(video_detector.Detector):
  """Ends its process at one video."""

  def predict(self, video, look=None, watch=lambda share: None):
    if pathlib.Path(video).name == 'b.mp4':
      os.kill(os.getpid(), signal.SIGKILL)
    return super().predict(video, look, watch)


def load_deadly() -> video_detector.Detector:
  ready = load()
  ready.__class__ = _Deadly
  return ready


@pytest.fixture(scope='module')
def ready():
  return load()


def write_archive(folder: pathlib.Path, count: int) -> pathlib.Path:
  """Videos, every seventh none and every ninth without a face."""
  folder.mkdir()
  for number in range(count):
    path = folder / f'{number:03}.mp4'
    if number % 7 == 2:
      path.write_text('no video')
    else:
      bright_faces.write_video(path, 8 + number % 5, face=number % 9 != 4)
  return folder


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_rows_are_those_of_one_process(ready, tmp_path, suffix, capsys):
  named = [str(write_archive(tmp_path / 'videos', 9)), 'gone.mp4']
  one, many = tmp_path / f'one{suffix}', tmp_path / f'many{suffix}'
  failures = predict.predict(ready, named, predict.Outputs(one))
  outputs = predict.Outputs(many, html=tmp_path / 'pages')
  elsewhere = predict.Elsewhere(in_process.InProcess(), load)
  again = predict.predict(ready, named, outputs, elsewhere=elsewhere)
  assert many.read_bytes() == one.read_bytes() and again == failures
  assert len(list((tmp_path / 'pages').iterdir())) == 10
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
    [one.name, many.name, 'pages', 'videos']
  )
  assert '10 videos, 3 without a score' in capsys.readouterr().out


def test_a_stopped_archive_is_gone_on_with(ready, tmp_path, monkeypatch):
  named = [str(write_archive(tmp_path / 'videos', 6))]
  one, many = tmp_path / 'one.csv', tmp_path / 'many.csv'
  predict.predict(ready, named, predict.Outputs(one))
  asked = []

  def stop(self, video, look=None, watch=None):
    asked.append(video)
    if len(asked) == 4:
      raise KeyboardInterrupt
    return answers(self, video, look)

  answers = video_detector.Detector.predict
  monkeypatch.setattr(video_detector.Detector, 'predict', stop)
  elsewhere = predict.Elsewhere(in_process.InProcess(), load)
  with pytest.raises(KeyboardInterrupt):
    predict.predict(ready, named, predict.Outputs(many), elsewhere=elsewhere)
  predict.predict(ready, named, predict.Outputs(many), elsewhere=elsewhere)
  assert many.read_bytes() == one.read_bytes() and len(asked) == 7


@pytest.mark.slow
def test_a_video_that_ends_its_process_is_a_row(ready, tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name in 'abc':
    bright_faces.write_video(folder / f'{name}.mp4', 8)
  out = tmp_path / 'a.jsonl'
  elsewhere = predict.Elsewhere(processes.Processes(1), load_deadly)
  predict.predict(
    ready, [str(folder)], predict.Outputs(out), elsewhere=elsewhere
  )
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert [row['status'] for row in rows] == ['ok', 'unreadable', 'ok']
  assert 'its process died' in rows[1]['message']


def test_an_engine_needs_a_table(ready, tmp_path):
  elsewhere = predict.Elsewhere(in_process.InProcess(), load)
  for out in (None, tmp_path / 'a.json'):
    with pytest.raises(ValueError, match=r'--out names a file of the form'):
      predict.predict(
        ready, ['a.mp4'], predict.Outputs(out), elsewhere=elsewhere
      )


@pytest.mark.extra
def test_beam_answers_for_two_hundred_videos_as_one_process_does(
  ready, tmp_path
):
  pytest.importorskip('apache_beam')
  from data_pipeline.engines import beam  # an extra

  named = [str(write_archive(tmp_path / 'videos', 200))]
  one, many = tmp_path / 'one.jsonl', tmp_path / 'many.jsonl'
  predict.predict(ready, named, predict.Outputs(one))
  (tmp_path / 'starts').mkdir()
  options = (
    *('runner=DirectRunner', 'direct_running_mode=in_memory'),
    'direct_num_workers=4',
  )
  predict.predict(
    ready,
    named,
    predict.Outputs(many),
    elsewhere=predict.Elsewhere(
      beam.Beam(options, tmp_path / 'names'),
      functools.partial(load, tmp_path / 'starts'),
    ),
  )
  assert many.read_bytes() == one.read_bytes()
  rows = [json.loads(line) for line in many.read_text().splitlines()]
  assert len(rows) == 200
  assert {row['status'] for row in rows} == {'ok', 'no_face', 'unreadable'}
  assert len(list((tmp_path / 'starts').iterdir())) == 1
