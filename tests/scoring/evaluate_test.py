"""Data-set scoring: every clip once, no clip disturbed by another."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
from ml_collections import config_dict
import numpy as np
import pytest
from random_detector import make_detector

from configs import base, tables
from data_pipeline import clips, corruptions, pipeline, record_writer
from data_pipeline import records as records_lib
from data_pipeline.synthesis import blending
from stormer_jax import detector as detector_lib
from stormer_jax import steps
from stormer_jax.scoring import (
  calibration,
  clip_scorer,
  evaluate,
  metrics,
  report,
  study,
)

NUM_FRAMES = {'longer': 11, 'short': 2, 'other': 4, 'faked': 9, 'swapped': 8}


def _landmarks(num_frames):
  """Points on rings in the middle of the crop, in no human order."""
  angle = np.linspace(0, 2 * np.pi, 81)
  radius = 30 + 50 * (np.arange(81) % 7 > 3)
  ring = 128 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
  return np.tile(ring.astype(np.float32), (num_frames, 1, 1))


def make_record(name, num_frames, label=0, method=''):
  rng = np.random.default_rng(list(name.encode()))
  coarse = rng.integers(0, 256, (num_frames, 8, 8, 3)).astype(np.uint8)
  frames = coarse.repeat(32, axis=1).repeat(32, axis=2)
  return records_lib.VideoRecord(
    video_id=name,
    frames=tuple(records_lib.encode_frame(f, 'png') for f in frames),
    landmarks=_landmarks(num_frames),
    boxes=np.tile(np.float32([40, 40, 200, 200]), (num_frames, 1)),
    frame_indices=np.arange(num_frames, dtype=np.int32),
    times=np.arange(num_frames, dtype=np.float32) / 25,
    fps=25.0,
    label=label,
    dataset='faces',
    identity='',
    method=method,
    source_path=f'videos/{name}.mp4',
    provenance='{}',
  )


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
  """Five videos, one of them too short, under both rules."""
  root = tmp_path_factory.mktemp('records')
  labels = {'faked': (1, 'swap'), 'swapped': (1, 'other swap')}
  for rule in ('uniform', 'consecutive'):
    videos = [
      make_record(name, num, *labels.get(name, ()))
      for name, num in NUM_FRAMES.items()
    ]
    record_writer.write_records(root, 'faces', rule, {'test': videos})
  return root


@pytest.fixture
def detector(tiny_config):
  return make_detector(tiny_config)


def test_a_real_video_is_resampled_with_the_fakes_made_from_it(
  detector, tmp_path
):
  real, other = make_record('real', 8), make_record('other', 8)
  fake = dataclasses.replace(
    make_record('fake', 8, 1, 'swap'), pair=real.source_path, group='g'
  )
  record_writer.write_records(
    tmp_path, 'faces', 'uniform', {'test': [real, other, fake]}
  )
  pairs = {row.video_id: row.pair for row in _score(detector, tmp_path).rows}
  assert pairs == {
    'real': real.source_path,
    'other': '',
    'fake': real.source_path,
  }


def test_dense_clips_of_another_length_are_refused(detector, tmp_path):
  video = dataclasses.replace(
    make_record('odd', 6), provenance='{"settings": {"clip_frames": 3}}'
  )
  record_writer.write_records(tmp_path, 'faces', 'dense', {'test': [video]})
  with pytest.raises(ValueError, match='--rule dense --clip_frames'):
    _score(detector, tmp_path, frame_rule='dense')


def test_a_data_set_cut_out_by_another_backend_than_the_run_is_told(tmp_path):
  video = dataclasses.replace(
    make_record('odd', 6), provenance='{"backend": "centerface+dlib-1"}'
  )
  record_writer.write_records(tmp_path, 'faces', 'uniform', {'test': [video]})
  stored = records_lib.open_records(tmp_path, 'faces', 'uniform', 'test')
  warning = evaluate.other_backend('centerface+facemesh_v2', stored)
  assert warning.startswith('its faces were found by centerface+dlib-1, those')
  assert not evaluate.other_backend('centerface+dlib-1', stored)
  assert not evaluate.other_backend('', stored)


def test_an_unknown_frame_rule_is_an_error(detector):
  with pytest.raises(ValueError, match='choose one of'):
    _options(detector.config, frame_rule='first')


def _options(config, **changes):
  config.eval.batch_size = 5
  config.eval.num_bootstrap = 50
  return evaluate.EvalConfig(**{**config.eval, **changes})


def _score(detector, data_root, folder=None, more=(), workdir=None, **changes):
  options = _options(detector.config, **changes)
  rule = options.rule
  return evaluate.score_dataset(
    detector,
    records_lib.open_records(data_root, 'faces', rule, 'test'),
    options,
    dataset='faces',
    split='test',
    synthesis=blending.SynthesisConfig(**detector.config.synthesis),
    num_threads=2,
    journal_folder=folder,
    more=more,
    workdir=workdir,
  )


def _clip(config, num_clips, seed=0):
  size = config.model.image_size
  shape = (num_clips, config.model.num_frames, size, size, 3)
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('token', ['learned', 'first_clip'])
def test_a_clip_scores_the_same_whatever_its_batch_mates(tiny_config, token):
  tiny_config.model.temporal_token = token
  scorer = clip_scorer.make_scorer(make_detector(tiny_config))
  clip = _clip(tiny_config, 11)
  together = scorer(clip)
  assert together.logits.shape == (11,)
  assert np.ptp(together.logits) > 1e-3
  for i in (0, 4, 10):
    alone = scorer(clip[i : i + 1])
    for name in alone._fields:
      np.testing.assert_allclose(
        getattr(alone, name)[0], getattr(together, name)[i], atol=2e-5
      )
  mates = clip.copy()
  mates[:4] = 100.0
  # In the same place of a batch of the same size, to the bit.
  np.testing.assert_array_equal(scorer(mates).logits[4:], together.logits[4:])


def test_first_clip_mode_feeds_the_model_one_clip_at_a_time(tiny_config):
  tiny_config.model.temporal_token = 'first_clip'
  detector = make_detector(tiny_config)
  model = steps.merge(detector.graphdef, detector.params, detector.stats)
  model.eval()
  clip = _clip(tiny_config, 3)
  logits = jax.jit(lambda clip: model(clip).logits)
  scored = clip_scorer.make_scorer(detector)(clip)
  alone = [float(logits(one[None])[0]) for one in clip]
  np.testing.assert_allclose(scored.logits, alone, atol=2e-5)
  assert abs(float(logits(clip)[2]) - alone[2]) > 1e-4


def test_flip_averages_the_logits_of_both_mirror_images(detector):
  clip = _clip(detector.config, 3)
  scorer = clip_scorer.make_scorer(detector)
  both = clip_scorer.make_scorer(detector, flip=True)
  mirrored = clip[:, :, :, ::-1]
  want = (scorer(clip).logits + scorer(mirrored).logits) / 2
  np.testing.assert_allclose(both(clip).logits, want, atol=1e-6)
  np.testing.assert_allclose(both(mirrored).logits, want, atol=1e-6)
  assert not np.allclose(scorer(clip).logits, want, atol=1e-4)


def test_a_video_is_the_mean_of_its_clips_each_counted_once(
  detector, data_root
):
  scores = _score(detector, data_root)
  records = records_lib.open_records(data_root, 'faces', 'uniform', 'test')
  scorer = clip_scorer.make_scorer(detector)
  for index, row in enumerate(scores.rows):
    num_windows = NUM_FRAMES[row.video_id] // 4
    assert len(row.clip_logits) == num_windows
    for window, logit in enumerate(row.clip_logits):
      frames, _ = records.read(index, range(4 * window, 4 * window + 4))
      clip = pipeline.eval_clips(jnp.array(frames[None]), 15, 64)
      assert logit == pytest.approx(float(scorer(clip).logits[0]), abs=2e-5)
    if num_windows:
      mean = np.mean(row.clip_logits)
      assert row.logit == pytest.approx(mean)
      assert row.score == pytest.approx(1 / (1 + np.exp(-mean)))
  scored = [row for row in scores.rows if not row.reason]
  labels = np.array([row.label for row in scored])
  want = metrics.auc(labels, np.array([row.score for row in scored]))
  assert scores.figures['auc'].value == want


def test_a_video_too_short_for_a_clip_keeps_its_row_and_a_reason(
  detector, data_root
):
  scores = _score(detector, data_root)
  (row,) = scores.unscored
  assert row.video_id == 'short'
  assert row.reason == 'too_short: face in 2 frames; a clip needs 4'
  assert np.isnan(row.score) and row.clip_logits == ()
  assert [row.video_id for row in scores.rows] == list(NUM_FRAMES)


def test_a_video_that_prepare_skipped_is_listed_with_its_reason(
  detector, data_root, tmp_path
):
  folder = tmp_path / 'faces'
  folder.mkdir()
  (folder / 'report.csv').write_text(
    'video_id,split,label,rule,status,reason,num_frames,detail\n'
    'a.mp4,test,fake,uniform,skipped,no_face,0,face in 0 of 32 frames\n'
    'a.mp4,test,fake,consecutive,skipped,no_face,0,face in 0 of 32 frames\n'
    'b.mp4,train,real,uniform,skipped,unreadable,0,b.mp4 is not a video\n'
    'longer,test,real,uniform,kept,,11,face in 11 of 32 frames\n'
  )
  skipped = evaluate.skipped_videos(tmp_path, 'faces', 'uniform', 'test')
  (row,) = skipped
  assert (row.video_id, row.label) == ('a.mp4', 1)
  assert row.reason == 'no_face: face in 0 of 32 frames'
  scores = _score(detector, data_root, more=skipped)
  assert [row.video_id for row in scores.unscored] == ['short', 'a.mp4']
  assert not evaluate.skipped_videos(data_root, 'faces', 'uniform', 'test')


@pytest.mark.parametrize('batch_size', [1, 3, 64])
def test_scores_do_not_depend_on_the_batch_size(
  detector, data_root, batch_size
):
  want = [row.clip_logits for row in _score(detector, data_root).rows]
  scores = _score(detector, data_root, batch_size=batch_size)
  for row, logits in zip(scores.rows, want, strict=True):
    np.testing.assert_allclose(row.clip_logits, logits, atol=2e-5)


def test_margin_and_flip_reach_the_clips(detector, data_root):
  plain = _score(detector, data_root)
  for changes in ({'margin': 0}, {'flip': True}):
    other = _score(detector, data_root, **changes)
    assert abs(other.rows[0].logit - plain.rows[0].logit) > 1e-5


def test_fakes_of_each_method_are_also_measured_apart(detector, data_root):
  scores = _score(detector, data_root)
  assert list(scores.auc_by_method) == ['other swap', 'swap']
  rows = {row.video_id: row for row in scores.rows}
  real = [rows['longer'].score, rows['other'].score]
  wins = np.mean([rows['faked'].score > score for score in real])
  assert scores.auc_by_method['swap'].value == wins


def test_a_stopped_call_goes_on_and_ends_with_the_same_scores(
  detector, data_root, tmp_path, monkeypatch
):
  want = _score(detector, data_root, batch_size=2)
  scored = []

  def count_and_stop(limit, make_scorer, detector, **options):
    scorer = make_scorer(detector, **options)

    def counting(clip):
      if len(scored) == limit:
        raise KeyboardInterrupt
      scored.append(len(clip))
      return scorer(clip)

    return counting

  make_scorer = clip_scorer.make_scorer
  stop_at = functools.partial(functools.partial, count_and_stop)
  monkeypatch.setattr(clip_scorer, 'make_scorer', stop_at(2, make_scorer))
  with pytest.raises(KeyboardInterrupt):
    _score(detector, data_root, tmp_path, batch_size=2)
  with (tmp_path / 'journal-0.jsonl').open('a') as file:
    file.write('{"video": [3')  # a kill in the middle of a line
  monkeypatch.setattr(clip_scorer, 'make_scorer', stop_at(99, make_scorer))
  got = _score(detector, data_root, tmp_path, batch_size=2)
  assert got.rows[:1] == want.rows[:1]
  assert [row.clip_logits for row in got.rows] == [
    row.clip_logits for row in want.rows
  ]
  # 2 + 0 + 1 + 2 + 2 clips in batches of 2: four, and the second one twice,
  # which was under way when the call was stopped.
  assert len(scored) == 5
  # What is done stays noted until the whole call is.
  again = _score(detector, data_root, tmp_path, batch_size=2)
  assert str(again.rows) == str(got.rows) and len(scored) == 5


def test_a_device_has_its_next_batch_before_the_last_one_is_waited_for():
  happened = []

  class Logits:
    def __init__(self, number):
      self.number = number
      happened.append(f'sent {number}')

    def __array__(self, dtype=None, copy=None):
      happened.append(f'waited for {self.number}')
      return np.full((1, 1), self.number)

  batches = [{'video': np.array([number])} for number in range(3)]
  for batch, logits in evaluate._one_ahead(
    lambda batch: Logits(batch['video'][0]), batches
  ):
    np.testing.assert_array_equal(logits[0], batch['video'])
  assert happened == [
    *('sent 0', 'sent 1', 'waited for 0'),
    *('sent 2', 'waited for 1', 'waited for 2'),
  ]


def score_as_process(index, port, config_json, data_root, out):
  """Entry of one of two processes that score a split together."""
  jax.config.update('jax_num_cpu_devices', 2)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, index)
  config = config_dict.ConfigDict(json.loads(config_json))
  config.eval.datasets = tuple(config.eval.datasets)
  scores = _score(make_detector(config), data_root, out, batch_size=3)
  report.write_scores(scores, pathlib.Path(out) / str(index))


@pytest.mark.slow
def test_two_processes_score_what_one_does(detector, data_root, tmp_path):
  want = _score(detector, data_root)
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  config = detector.config.to_json_best_effort()
  here = pathlib.Path(__file__).parent
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        '-c',
        'import evaluate_test, sys; '
        'evaluate_test.score_as_process(int(sys.argv[1]), *sys.argv[2:])',
        *map(str, (index, port, config, data_root, tmp_path)),
      ],
      cwd=here,
      env={**os.environ, 'PYTHONPATH': f'{here.parents[1]}:{here.parent}'},
    )
    for index in range(2)
  ]
  assert [process.wait(300) for process in processes] == [0, 0]
  csvs = [(tmp_path / str(i) / 'scores.csv').read_text() for i in range(2)]
  assert csvs[0] == csvs[1]
  for line, row in zip(
    csv.DictReader(csvs[0].splitlines()), want.rows, strict=True
  ):
    logits = [float(logit) for logit in line['clip_logits'].split()]
    np.testing.assert_allclose(logits, row.clip_logits, atol=2e-5)


def test_a_journal_of_other_weights_is_not_used(
  tiny_config, data_root, tmp_path
):
  first, second = make_detector(tiny_config), make_detector(tiny_config, seed=1)
  _score(first, data_root, tmp_path)
  got = _score(second, data_root, tmp_path)
  want = _score(second, data_root)
  assert got.rows[0] == want.rows[0]
  assert got.settings['weights'] != clip_scorer.weights_digest(first)


def test_pseudo_fakes_stand_beside_the_real_video_they_are_made_of(
  detector, data_root
):
  scores = _score(detector, data_root, pseudo_fakes=True, batch_size=2)
  names = [(row.video_id, row.label, row.method) for row in scores.rows]
  assert names == [
    (name, label, method)
    for name in ('longer', 'short', 'other')
    for label, method in ((0, ''), (1, 'pseudo_fake'))
  ]
  assert [row.reason == '' for row in scores.rows] == [True] * 2 + [
    False
  ] * 2 + [True] * 2
  # Which of the two is the pseudo-fake is read off the pair, not its place.
  records = records_lib.open_records(data_root, 'faces', 'consecutive', 'test')
  batch = next(iter(clips.eval_dataset(records, num_frames=4, batch_size=2)))
  assert batch['video'].tolist() == [0, 0]
  synthesis = blending.SynthesisConfig(**detector.config.synthesis)
  pairs = clip_scorer._make_pairs(
    batch['frames'],
    batch['landmarks'],
    batch['seed'],
    synthesis=dataclasses.replace(synthesis, flip_prob=0.0),
    image_size=64,
    patch_size=16,
  )
  logits = clip_scorer.make_scorer(detector)(pairs['clip']).logits
  label = np.asarray(pairs['label'])
  assert label.tolist() == [1, 0, 0, 1]  # both orders
  for kind in (0, 1):
    np.testing.assert_allclose(
      scores.rows[kind].clip_logits, logits[label == kind], atol=2e-5
    )
  assert scores.rows[0].logit != scores.rows[1].logit


def test_pseudo_fakes_of_a_split_without_real_video_are_refused(
  detector, tmp_path
):
  fake = make_record('fake', 8, 1)
  record_writer.write_records(
    tmp_path, 'faces', 'consecutive', {'test': [fake]}
  )
  with pytest.raises(ValueError, match='no real video to make pseudo-fakes'):
    _score(detector, tmp_path, pseudo_fakes=True)


def test_a_split_of_real_videos_has_no_auc_but_says_so(detector, tmp_path):
  videos = [make_record(name, 4) for name in ('a', 'b')]
  record_writer.write_records(tmp_path, 'faces', 'uniform', {'test': videos})
  scores = _score(detector, tmp_path)
  assert np.isnan(scores.figures['auc'].value)
  assert scores.figures['auc'].note == 'no fake video has a score'
  assert 0 <= scores.figures['accuracy'].value <= 1


def test_damaged_weights_are_an_error_and_not_a_score(detector, data_root):
  params = {**detector.params}
  head = params['class_head']
  params['class_head'] = {**head, 'bias': head['bias'] * np.nan}
  broken = dataclasses.replace(detector, params=params)
  with pytest.raises(ValueError, match='video longer: the weights are damaged'):
    _score(broken, data_root)


def test_evaluate_writes_a_report_per_data_set(
  detector, data_root, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    detector_lib, 'load_detector', lambda workdir, which, asked: detector
  )
  config = detector.config
  config.eval.datasets = ('faces:test:5',)
  config.eval.batch_size = 5
  config.eval.num_bootstrap = 20
  evaluate.evaluate(config, tmp_path, data_root)
  folder = tmp_path / 'eval' / 'faces-test'
  text = (folder / 'scores.csv').read_text()
  rows = list(csv.DictReader(text.splitlines()))
  assert [row['video_id'] for row in rows] == list(NUM_FRAMES)
  got = json.loads((folder / 'metrics.json').read_text())
  assert got['settings']['margin'] == 5
  assert got['settings']['step'] == 7
  assert got['settings']['weights'] == clip_scorer.weights_digest(detector)
  out = capsys.readouterr().out
  assert 'faces:test: 2 real and 2 fake videos scored, 7 clips' in out
  assert '95 % interval' in out and 'short: too_short' in out
  # Every result says how it came about, and is made again from the scores.
  protocol = got['settings']['protocol']
  assert protocol['margin'] == 5 and protocol['clip_length'] == 4
  assert protocol['semantics'] == 'paper'
  assert protocol['config_hash'] == clip_scorer.config_hash(config)
  assert 'aggregation: mean_logit' in out and 'as deepfakebench: AUC' in out
  written = (tmp_path / 'eval/figures.csv').read_text()
  again = study.report([f'{tmp_path}'], tmp_path / 'again')
  assert study.figures_csv(again.rows) == written
  for name in ('report.html', 'report.md', 'roc.csv'):
    assert (tmp_path / 'eval' / name).exists()
  assert not [*tmp_path.rglob('journal*')]


def test_damage_to_the_crops_makes_a_table_that_a_stop_does_not_undo(
  detector, data_root, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    detector_lib, 'load_detector', lambda workdir, which, asked: detector
  )
  config = detector.config
  config.eval.datasets = ('faces:test',)
  config.eval.batch_size = 7
  config.eval.num_bootstrap = 20
  wanted = corruptions.select(['blur', 'h264:5'])
  scored = []
  make_scorer = clip_scorer.make_scorer

  def counting(stop_at, detector, **options):
    scorer = make_scorer(detector, **options)

    def score(clip):
      if len(scored) == stop_at:
        raise KeyboardInterrupt
      scored.append(len(clip))
      return scorer(clip)

    return score

  for stop_at in (3, 99):
    monkeypatch.setattr(
      clip_scorer, 'make_scorer', functools.partial(counting, stop_at)
    )
    if stop_at == 3:
      with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(config, tmp_path, data_root, corrupted=wanted)
    else:
      results = evaluate.evaluate(config, tmp_path, data_root, corrupted=wanted)
  # One batch of 7 clips for the set itself and each of six damages.
  assert len(scored) == 7 and not [*tmp_path.rglob('journal*')]
  names = [f'faces-crops-blur-{level}' for level in range(1, 6)]
  assert [r.dataset for r in results] == [
    *('faces', *names, 'faces-crops-h264-5')
  ]
  assert len({r.rows[0].logit for r in results}) == 7
  assert results[0].protocol.corruption == 'none'
  assert results[-1].protocol.corruption == 'h264:5 of the crops'
  # The clip of a row, damaged by hand.
  records = records_lib.open_records(data_root, 'faces', 'uniform', 'test')
  frames, _ = records.read(0, range(4, 8))
  frames = corruptions.corrupt_crops(frames, wanted[2], 'longer', 4)
  clip = pipeline.eval_clips(jnp.array(frames[None]), 15, 64)
  assert results[3].rows[0].clip_logits[1] == pytest.approx(
    float(make_scorer(detector)(clip).logits[0]), abs=2e-5
  )
  text = (tmp_path / 'eval/robustness.csv').read_text()
  lines = csv.DictReader(text.splitlines())
  assert [(x['kind'], x['level']) for x in lines] == [
    *(('blur', str(level)) for level in range(6)),
    *(('h264', level) for level in '05'),
  ]
  page = (tmp_path / 'eval/report.html').read_text()
  assert 'level of damage' in page and 'faces-crops' not in page
  assert 'Robustness: faces:test' in capsys.readouterr().out
  again = study.report([f'{tmp_path}'], tmp_path / 'again')
  assert sorted((tmp_path / 'again/robustness.csv').read_text()) == sorted(text)
  assert again.datasets == ['faces:test']


def _by_colour(batch) -> np.ndarray:
  """Logits in place of a detector's, which would be compiled for each set."""
  return batch['frames'][:, 0, 100, 100, :1] / np.float32(64) - 2


def test_fakes_without_reals_stand_beside_those_of_another_set(
  detector, data_root, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    detector_lib, 'load_detector', lambda workdir, which, asked: detector
  )
  monkeypatch.setattr(
    clip_scorer, 'crop_scorer', lambda *detector, **how: _by_colour
  )
  fakes = [make_record(name, 8, 1, 'swap') for name in ('f', 'g')]
  record_writer.write_records(data_root, 'new', 'uniform', {'test': fakes})
  config = detector.config
  config.eval.num_bootstrap = 0
  config.eval.datasets = ('faces:test', 'new:test')
  config.eval.reals = ('new:faces',)
  faces, new = evaluate.evaluate(config, tmp_path, data_root)
  scores = {row.video_id: row.score for row in (*faces.rows, *new.rows)}
  assert [row.video_id for row in new.rows] == [
    *('f', 'g', 'faces/longer', 'faces/short', 'faces/other')
  ]
  assert scores['faces/longer'] == scores['longer']
  wins = [
    scores[fake] > scores[real] for fake in 'fg' for real in ('longer', 'other')
  ]
  assert new.figures['auc'].value == np.mean(wins)
  config.eval.datasets = ('new:test', 'faces:test')
  with pytest.raises(ValueError, match='name faces:test before new:test'):
    evaluate.evaluate(config, tmp_path, data_root)
  with pytest.raises(ValueError, match='write NAME:OTHER'):
    _options(config, reals=('new',))


@pytest.mark.parametrize(
  ('table', 'methods', 'sets'),
  [
    (
      'leave_one_method_out',
      ('Deepfakes', 'Face2Face', 'FaceShifter'),
      {'ffpp_c0': 'both', 'ffpp_c23': 'both', 'ffpp_c40': 'both'},
    ),
    (
      'df40',
      ('simswap', 'sadtalker', 'sd2.1'),
      {
        'ffpp_c23': 'both',
        'celebdf_v2': 'both',
        'df40_ff': 'fakes',
        'df40_cdf': 'fakes',
      },
    ),
  ],
)
def test_a_table_of_the_field_has_a_row_a_method_and_names_the_worst(
  detector, tmp_path, monkeypatch, table, methods, sets
):
  for name, holds in sets.items():
    videos = [
      make_record(f'{method}{i}', 8, 1, method)
      for method in methods
      for i in range(2)
    ]
    if holds == 'both':
      videos += [make_record(f'real{i}', 8) for i in range(3)]
    record_writer.write_records(tmp_path, name, 'uniform', {'test': videos})
  monkeypatch.setattr(
    detector_lib, 'load_detector', lambda workdir, which, asked: detector
  )
  monkeypatch.setattr(
    clip_scorer, 'crop_scorer', lambda *detector, **how: _by_colour
  )
  config = tables.get_config(table)
  config.eval.num_bootstrap = 20
  results = evaluate.evaluate(config, tmp_path / 'run', tmp_path)
  assert [result.dataset for result in results] == list(sets)
  page = (tmp_path / 'run/eval/report.md').read_text()
  for result in results:
    title = f'## By method: {result.dataset}:test'
    rows = page.split(title)[1].split('\n## ')[0]
    assert all(f'| {method} | 3 | 2 |' in rows for method in methods)
  assert page.count('worst method, AUC') == len(sets)


def test_pseudo_fakes_of_damaged_frames_are_refused(detector, tmp_path):
  detector.config.eval.pseudo_fakes = True
  with pytest.raises(ValueError, match='ask for one of the two'):
    evaluate.evaluate(
      detector.config,
      tmp_path,
      tmp_path,
      corrupted=corruptions.select(['blur']),
    )


def test_a_calibrated_run_is_measured_at_the_threshold_of_validation(
  detector, data_root, tmp_path
):
  logits = np.linspace(-2, 3, 40)
  made = calibration.calibrate(
    logits,
    np.r_[np.arange(20) > 15, np.arange(20) > 3].astype(int),
    method='platt',
    clusters=np.arange(40),
    frame_rule='uniform',
    weights=clip_scorer.weights_digest(detector),
    fitted_on='faces:val',
  )
  calibration.save(tmp_path, made)
  raw = _score(detector, data_root)
  scores = _score(detector, data_root, workdir=tmp_path)
  assert str(scores.rows) == str(raw.rows)  # as saved: no nan equals nan
  assert scores.protocol.calibration == (made.slope, made.intercept)
  assert scores.protocol.threshold == made.threshold
  assert scores.protocol.threshold_from.endswith('faces:val')
  assert scores.figures['auc'] == raw.figures['auc']
  assert scores.figures['brier'] != raw.figures['brier']
  given = _score(detector, data_root, workdir=tmp_path, calibrated=False)
  assert given.protocol.threshold == 0.5 and not given.protocol.calibration


def test_semantics_are_read_off_the_configuration(tiny_config):
  assert clip_scorer.semantics(tiny_config) == 'paper'
  official = base.get_config('official')
  assert clip_scorer.semantics(official) == 'official'
  tiny_config.model.map_layout = 'scrambled'
  assert clip_scorer.semantics(tiny_config).startswith('mixed: learned, scram')


def test_the_hash_of_a_configuration_leaves_evaluation_out(tiny_config):
  before = clip_scorer.config_hash(tiny_config)
  tiny_config.eval.threshold = 0.7
  assert clip_scorer.config_hash(tiny_config) == before
  tiny_config.seed = 3
  assert clip_scorer.config_hash(tiny_config) != before


def test_the_run_of_an_older_version_can_be_evaluated(tiny_config):
  with tiny_config.unlocked():
    for name in ('level', 'margins', 'conventions'):
      del tiny_config.eval[name]
  config = evaluate.complete(tiny_config)
  assert config.is_locked and config.eval.level == 'video'
  evaluate.EvalConfig(**config.eval)


@pytest.mark.parametrize('entry', ['dfdcp', ':5', 'dfdcp:five'])
def test_a_malformed_margin_is_explained(tiny_config, entry):
  with pytest.raises(ValueError, match='write NAME:MARGIN'):
    _options(tiny_config, margins=(entry,))


def test_a_data_set_that_is_not_there_is_named_before_any_scoring(
  tiny_config, tmp_path
):
  tiny_config.eval.datasets = ('nowhere:test',)
  with pytest.raises(ValueError, match='nowhere'):
    evaluate.evaluate(tiny_config, tmp_path, tmp_path)


def test_a_split_named_twice_is_refused(tiny_config, tmp_path):
  tiny_config.eval.datasets = ('faces:test', 'faces:test:5')
  with pytest.raises(ValueError, match='names a split twice'):
    evaluate.evaluate(tiny_config, tmp_path, tmp_path)


@pytest.mark.parametrize('entry', ['faces', ':test', 'a:b:c', 'a:b:1:2', 'a:'])
def test_a_malformed_data_set_entry_is_explained(entry):
  with pytest.raises(ValueError, match='write NAME:SPLIT'):
    evaluate.parse_dataset(entry, 15)


def test_settings_out_of_range_are_named(tiny_config):
  with pytest.raises(ValueError, match=r'eval\.batch_size is 0'):
    _options(tiny_config, batch_size=0)
  with pytest.raises(ValueError, match=r'eval\.datasets is empty'):
    _options(tiny_config, datasets=())
  with pytest.raises(ValueError, match=r'eval\.margin is 128 px .* nothing'):
    _options(tiny_config, margin=128)


def test_a_margin_that_leaves_nothing_is_named_before_any_scoring(
  tiny_config, tmp_path
):
  tiny_config.eval.datasets = ('faces:test', 'nowhere:test:200')
  with pytest.raises(ValueError, match=r'eval\.margin is 200'):
    evaluate.evaluate(tiny_config, tmp_path, tmp_path)
