"""report.csv is read as it was written, and older ones too."""

import pytest

from data_pipeline import outcome_report
from tests import quality_page_test

row = quality_page_test.row


def test_outcomes_come_back(tmp_path):
  path = tmp_path / 'report.csv'
  outcomes = [
    row('a "quoted", name.mp4', notes=('cut off', 'interlaced')),
    row('b.mp4', status='skipped', reason='no_face', num_frames=0),
  ]
  write(path, outcomes)
  before = path.read_bytes()
  read = [*outcome_report.read(path)]
  assert read[1] == outcomes[1]
  assert read[0].notes == ('cut off; interlaced',)
  write(path, outcome_report.read(path))
  assert path.read_bytes() == before
  assert [*outcome_report.Rows(path)] == read
  assert [*outcome_report.Rows(path, 1)] == read[:1]


def write(path, outcomes):
  with outcome_report.replacing(path) as draft:
    draft.add(outcomes)


def test_a_report_that_is_not_finished_leaves_the_earlier_one(tmp_path):
  path = tmp_path / 'report.csv'
  write(path, [row('a.mp4')])
  with (
    pytest.raises(OSError, match='full'),
    outcome_report.replacing(path) as draft,
  ):
    draft.add([row('b.mp4')])
    raise OSError('the disk is full')
  assert [o.video_id for o in outcome_report.read(path)] == ['a.mp4']
  assert [*tmp_path.iterdir()] == [path]


def test_a_report_of_an_older_command_has_less_to_say(tmp_path):
  path = tmp_path / 'report.csv'
  path.write_text('video_id,rule,status,num_frames\na.mp4,uniform,kept,8\n')
  (outcome,) = outcome_report.read(path)
  assert (outcome.num_frames, outcome.num_asked, outcome.looks) == (8, 0, '')
  assert not [*outcome_report.read(tmp_path / 'absent.csv')]


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('a,b\n1,2\n', 'is not a report'),
    ('video_id,rule,status,jitter\na,uniform,kept,?\n', "'a': could not"),
    ('video_id,rule,status,looks\na,uniform,kept,0f\n', "'a': looks is not"),
  ],
)
def test_another_file_is_refused_by_name(tmp_path, text, says):
  path = tmp_path / 'report.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=rf'report\.csv.*{says}'):
    outcome_report.check(path)
