"""Anybody's scores are read, and what is wrong with them has a line."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow
from pyarrow import csv, parquet
import pytest

from stormer_jax.scoring import score_file

PLAIN = 'video,label,score,method\na,real,0.1,\nb,fake,0.9,swap\nc,1,,swap\n'


def write(folder, text, name='mine.csv'):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def test_a_plain_table_is_read(tmp_path):
  (scores,) = score_file.read(write(tmp_path, PLAIN))
  assert (scores.system, scores.dataset) == ('mine', '')
  assert scores.video == ('a', 'b', 'c')
  assert scores.labels.tolist() == [0, 1, 1]
  assert scores.scores[:2].tolist() == [0.1, 0.9]
  assert scores.reason == ('', '', 'no score in the file')
  assert scores.scored.tolist() == [True, True, False]
  assert scores.method == ('', 'swap', 'swap')
  assert scores.clip_logits == ((), (), ())


def test_every_way_to_write_a_label_is_read_to_the_last_bit(tmp_path):
  text = 'video,label,score\n' + ''.join(
    f'{i},{label},{0.1 + i / 7!r}\n'
    for i, label in enumerate(('0', '1', 'real', 'FAKE', '1.0', 'Real'))
  )
  (scores,) = score_file.read(write(tmp_path, text))
  assert scores.labels.tolist() == [0, 1, 0, 1, 1, 0]
  assert scores.scores.tolist() == [0.1 + i / 7 for i in range(6)]


def test_gzip_and_parquet_hold_the_same(tmp_path):
  plain = write(tmp_path, PLAIN)
  (want,) = score_file.read(plain)
  with gzip.open(tmp_path / 'mine.csv.gz', 'wt') as file:
    file.write(PLAIN)
  parquet.write_table(csv.read_csv(plain), tmp_path / 'mine.parquet')
  for name in ('mine.csv.gz', 'mine.parquet'):
    (got,) = score_file.read(tmp_path / name)
    assert got.system == 'mine'
    assert got.keys == want.keys and got.reason == want.reason
    np.testing.assert_array_equal(got.scores, want.scores)
  logits = pyarrow.array([[0.5, -1.0], [2.0]])
  table = {'video': ['a', 'b'], 'label': [0, 1], 'score': [0.2, 0.8]}
  table = pyarrow.table(table | {'clip_logits': logits})
  parquet.write_table(table, tmp_path / 'clips.parquet')
  (got,) = score_file.read(tmp_path / 'clips.parquet')
  assert got.clip_logits == ((0.5, -1.0), (2.0,))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  path = write(tmp_path, '', 'a.parquet')
  with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'stormer"):
    score_file.read(path)


@pytest.mark.parametrize(
  'line, message',
  [
    ('d,real,nan,', r"mine.csv, line 5: score 'nan' is not a finite number"),
    ('d,real,inf,', "line 5: score 'inf'"),
    ('d,real,high,', "line 5: score 'high'"),
    ('d,2,0.5,', "line 5: label '2'; expected 0 or real, 1 or fake"),
    ('d,,0.5,', "line 5: label ''"),
    ('a,0,0.3,', "line 5: video 'a' stands in line 2 already"),
    ('d,real,0.5', 'line 5: 3 cells; the first line names 4 columns'),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
  with pytest.raises(ValueError, match=message):
    score_file.read(write(tmp_path, PLAIN + line + '\n'))


@pytest.mark.parametrize(
  'text, message',
  [
    ('video,label\na,0\n', "no column 'score'; there are video, label"),
    ('video,label,score\n', 'no video in this file'),
    ('', 'no video in this file'),
    ('video,label,score\n"a,0,0.5\n', 'mine.csv'),
    ('video;label;score\na;0;0.5\n', "separated by ';'; a comma is expected"),
  ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    score_file.read(write(tmp_path, text))
  with pytest.raises(FileNotFoundError, match=r'none\.csv: no such score file'):
    score_file.read(tmp_path / 'none.csv')


def test_bytes_that_are_no_text_are_refused(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes(b'\xff\xfe\x00video')
  with pytest.raises(ValueError, match='not a CSV file'):
    score_file.read(path)
  with pytest.raises(ValueError, match='not a CSV file'):
    score_file.read(path.rename(tmp_path / 'a.csv.gz'))


def test_one_name_under_two_methods_is_two_videos(tmp_path):
  text = 'video,label,score,method\na,1,0.1,swap\na,1,0.9,talk\na,0,0.2,\n'
  (scores,) = score_file.read(write(tmp_path, text))
  assert len(set(scores.keys)) == 3
  assert len(set(scores.clusters('video').tolist())) == 3


def test_a_wide_matrix_of_others_is_several_systems_and_sets(tmp_path):
  text = (
    'id,modality,label,generator,prob_a,prob_b\n'
    'x,video,real,,0.25,0.5\n'
    'y,image,fake,sora,0.75,\n'
    'z,video,fake,sora,1,0\n'
  )
  columns = {
    'video': 'id',
    'dataset': 'modality',
    'method': 'generator',
    'score': 'prob_*',
  }
  got = score_file.read(write(tmp_path, text), columns=columns)
  assert [(s.system, s.dataset, s.video) for s in got] == [
    ('prob_a', 'video', ('x', 'z')),
    ('prob_a', 'image', ('y',)),
    ('prob_b', 'video', ('x', 'z')),
  ]
  assert got[0].scores.tolist() == [0.25, 1.0]
  with pytest.raises(ValueError, match=r"no column 'prob_c' \(for score\)"):
    score_file.read(
      tmp_path / 'mine.csv', columns=columns | {'score': 'prob_c'}
    )
  with pytest.raises(ValueError, match="--columns names 'file'; it is one of"):
    score_file.read(tmp_path / 'mine.csv', columns={'file': 'id'})


def test_scores_of_ours_carry_their_data_set_and_settings(tmp_path):
  folder = tmp_path / 'run' / 'eval' / 'faces-test'
  text = (
    'video_id,label,method,clip_logits,logit,score,reason\n'
    'a,0,,0.5 -1.5,-0.5,0.3775,\n'
    'b,1,swap,,,,no_face: none\n'
  )
  write(folder, text, 'scores.csv')
  about = {'dataset': 'faces', 'split': 'test', 'settings': {'margin': 15}}
  write(folder, json.dumps(about), 'metrics.json')
  (scores,) = score_file.read(folder / 'scores.csv')
  assert (scores.system, scores.dataset) == ('run', 'faces:test')
  assert scores.clip_logits == ((0.5, -1.5), ())
  assert scores.reason == ('', 'no_face: none')
  assert scores.settings == {'margin': 15}
  # The run's folder stands for all that it has scored.
  (same,) = score_file.read_all([f'mine={tmp_path / "run"}'])
  assert (same.system, same.dataset) == ('mine', 'faces:test')


def test_two_files_of_one_name_are_to_be_named_apart(tmp_path):
  path, other = write(tmp_path, PLAIN), write(tmp_path, PLAIN, 'b/mine.csv')
  with pytest.raises(ValueError, match='name the systems: --scores=A=FILE'):
    score_file.read_all([str(path), str(other)])
  names = [s.system for s in score_file.read_all([f'a={path}', f'b={other}'])]
  assert names == ['a', 'b']


def test_what_is_drawn_together_is_numbered_alike(tmp_path):
  text = (
    'video,label,score,method,pair,identity\n'
    'a,0,.1,,p,ann\nb,1,.2,swap,p,bob\nc,0,.3,,,ann\nc,1,.4,pseudo_fake,,ann\n'
  )
  (scores,) = score_file.read(write(tmp_path, text))
  assert scores.clusters().tolist() == [0, 0, 1, 1]
  assert scores.clusters('video').tolist() == [0, 1, 2, 2]
  assert scores.clusters('identity').tolist() == [0, 1, 0, 0]
  with pytest.raises(ValueError, match='choose auto, video, pair or identity'):
    scores.clusters('group')


def test_nothing_here_needs_jax():
  code = (
    'import sys; import stormer_jax.scoring.score_file,'
    ' stormer_jax.scoring.bootstrap, stormer_jax.scoring.delong;'
    " assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)
