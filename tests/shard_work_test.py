"""Files of records are written apart from each other, and listed together."""

import json

import pytest

from data_pipeline import record_writer, shard_work, staging
from tests import conftest


@pytest.fixture
def work(tmp_path):
  """Three shards of four videos, written."""
  for name, num_frames in (('a', 4), ('b', 5), ('c', 6), ('d', 7)):
    video = conftest.make_video(name, num_frames)
    staging.save_record(tmp_path / f'{name}.npz', video)
  written = tmp_path / 'shards'
  written.mkdir()
  return shard_work.ShardWork(written, tmp_path, tmp_path, 'demo', 'uniform')


TASKS = [
  shard_work.ShardTask('one', ('a.npz', 'b.npz')),
  shard_work.ShardTask('two', ('c.npz',)),
  shard_work.ShardTask('three', ('d.npz',)),
]


def test_the_list_of_all_videos_is_plain_json_written_piece_by_piece(work):
  write = work.start()
  for task in TASKS:
    write(task)
  splits = {
    'train': shard_work.Notes(work, ['one', 'two']),
    'val': shard_work.Notes(work, ['three']),
    'test': shard_work.Notes(work, []),
  }
  record_writer.write_metadata(work.folder, 'demo', 'uniform', splits)
  text = (work.folder / 'metadata.json').read_text()
  stored = json.loads(text)
  assert text == json.dumps(stored)
  assert list(stored) == ['segment_frames', 'preparations', 'splits']
  assert stored['preparations'] == [{'num_videos': 4}]
  found = {
    split: (
      [shard['name'] for shard in known['shards']],
      [(video['video_id'], video['num_frames']) for video in known['videos']],
    )
    for split, known in stored['splits'].items()
  }
  assert found == {
    'train': (['one', 'two'], [('a', 4), ('b', 5), ('c', 6)]),
    'val': (['three'], [('d', 7)]),
    'test': ([], []),
  }


def test_a_shard_that_nobody_wrote_is_named(work):
  work.start()(TASKS[0])
  with pytest.raises(ChildProcessError, match='two was not written'):
    list(shard_work.Notes(work, ['one', 'two', 'three']))
