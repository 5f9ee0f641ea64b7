"""Tables, JSON and CSV say what was scored and what was not."""

import csv
import io
import json
import math

import pytest

from stormer_jax.scoring import bootstrap, report


def _row(name, label, logits, reason='', method=''):
  logit = sum(logits) / len(logits) if logits else math.nan
  score = 1 / (1 + math.exp(-logit)) if logits else math.nan
  return report.VideoScore(
    video_id=name,
    label=label,
    method=method,
    identity='',
    source_path=f'real, or not/{name}.mp4',
    num_frames=8,
    clip_logits=tuple(logits),
    logit=logit,
    score=score,
    reason=reason,
  )


@pytest.fixture
def scores():
  return report.Scores(
    dataset='faces',
    split='val',
    rows=(
      _row('a', 0, [0.1, -0.3]),
      _row('b', 1, [1.25], method='swap'),
      _row('c', 1, [], 'too short: 2 frames with a face; a clip needs 4'),
    ),
    figures={
      'auc': bootstrap.Estimate(0.9241, 0.902, 0.943),
      'eer': bootstrap.Estimate(math.nan, math.nan, math.nan, 'no fake video'),
      'accuracy': bootstrap.Estimate(1.0, math.nan, math.nan, 'one video only'),
    },
    auc_by_method={'swap': bootstrap.Estimate(0.5, 0.25, 0.75)},
    settings={'margin': 15, 'digest': 'abc'},
  )


def test_table_puts_an_interval_or_a_reason_beside_each_number(scores):
  text = report.table(scores)
  lines = text.split('\n')
  assert lines[0] == 'faces:val: 1 real and 1 fake videos scored, 3 clips'
  assert ['AUC', '92.41', '90.2', 'to', '94.3'] == lines[2].split()
  assert lines[3].split(maxsplit=2) == ['EER', '-', 'no fake video']
  assert lines[4].endswith('100.00   -   (one video only)')
  assert lines[5].split() == ['AUC', 'swap', '50.00', '25.0', 'to', '75.0']


def test_table_names_each_video_it_has_no_score_for(scores):
  text = report.table(scores)
  assert 'not scored: 1 videos' in text
  assert 'c: too short: 2 frames with a face; a clip needs 4' in text


def test_csv_gives_back_every_row_and_every_bit(scores):
  rows = list(csv.DictReader(io.StringIO(report.scores_csv(scores))))
  assert [row['video_id'] for row in rows] == ['a', 'b', 'c']
  for row, want in zip(rows, scores.rows, strict=True):
    assert int(row['label']) == want.label
    assert row['source_path'] == want.source_path
    logits = tuple(map(float, row['clip_logits'].split()))
    assert logits == want.clip_logits
  assert float(rows[0]['score']) == scores.rows[0].score
  assert rows[2]['score'] == rows[2]['logit'] == ''
  assert rows[2]['reason'].startswith('too short')


def test_json_is_strict_and_has_null_for_nan(scores, tmp_path):
  report.write_scores(scores, tmp_path / 'eval')
  text = (tmp_path / 'eval' / 'metrics.json').read_text()
  assert 'NaN' not in text
  got = json.loads(text)
  assert got['num_real'] == 1 and got['num_fake'] == 1
  assert got['num_clips'] == 3
  assert got['figures']['auc'] == {
    'value': 0.9241,
    'low': 0.902,
    'high': 0.943,
    'note': '',
  }
  assert got['figures']['eer']['value'] is None
  assert got['not_scored'] == [
    {'video_id': 'c', 'label': 1, 'reason': scores.rows[2].reason}
  ]
  assert got['settings'] == {'margin': 15, 'digest': 'abc'}
  names = sorted(path.name for path in (tmp_path / 'eval').iterdir())
  assert names == ['metrics.json', 'scores.csv']
