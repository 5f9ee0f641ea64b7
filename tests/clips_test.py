"""The host's stream of clips."""

import itertools

import numpy as np
import pytest

from data_pipeline import clips, records

OPTIONS = {
  'num_frames': 4,
  'batch_size': 4,
  'max_offset': -1,
  'seed': 7,
  'num_threads': 2,
  'prefetch': 2,
}


@pytest.fixture(scope='module')
def train_records(data_root):
  return records.open_records(data_root, 'demo', 'consecutive', 'train')


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_equal_batches(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_every_window_is_seen_once_an_epoch(train_records, monkeypatch):
  windows = clips.list_windows(train_records, 4, -1)
  seen = []

  def read(self, video, slots):
    seen.append((video, int(slots[0]) // 4))
    return np.zeros((4, 256, 256, 3), np.uint8), np.zeros((4, 81, 2), 'f')

  monkeypatch.setattr(records.Records, 'read', read)
  options = OPTIONS | {'batch_size': 1, 'num_threads': 0, 'prefetch': 1}
  take(clips.train_dataset(train_records, **options), len(windows))
  # Offsets below T cannot carry a window into the place of the next one.
  assert sorted(seen[: len(windows)]) == [(w.video, w.index) for w in windows]


def test_windows_take_every_offset_over_the_epochs(train_records):
  window = clips.Window(3, 0)  # 23 frames: room for all four
  offsets = {
    clips.window_offset(train_records, window, 4, -1, (0, epoch))
    for epoch in range(50)
  }
  assert offsets == {0, 1, 2, 3}


def test_a_window_never_leaves_its_video(train_records):
  for window, epoch in itertools.product(
    clips.list_windows(train_records, 4, -1), range(20)
  ):
    offset = clips.window_offset(train_records, window, 4, -1, (0, epoch))
    end = offset + 4 * (window.index + 1)
    assert end <= train_records.videos[window.video].num_frames


def test_the_stream_is_a_function_of_the_seed(train_records):
  first = take(clips.train_dataset(train_records, **OPTIONS), 6)
  again = take(clips.train_dataset(train_records, **OPTIONS), 6)
  assert_equal_batches(first, again)
  other = take(clips.train_dataset(train_records, **OPTIONS | {'seed': 8}), 1)
  assert (other[0]['seed'] != first[0]['seed']).any()


def test_the_stream_continues_where_its_state_was_taken(train_records):
  iterator = clips.train_dataset(train_records, **OPTIONS)
  take(iterator, 3)
  state = iterator.get_state()
  rest = take(iterator, 3)
  resumed = clips.train_dataset(train_records, **OPTIONS)
  resumed.set_state(state)
  assert_equal_batches(rest, take(resumed, 3))


def test_two_hosts_see_together_what_one_sees(train_records):
  whole = take(clips.train_dataset(train_records, **OPTIONS), 5)
  hosts = [
    take(
      clips.train_dataset(
        train_records, **OPTIONS, process_index=i, process_count=2
      ),
      5,
    )
    for i in range(2)
  ]
  for batch, *parts in zip(whole, *hosts, strict=True):
    seeds = np.concatenate([part['seed'] for part in parts])
    assert sorted(seeds) == sorted(batch['seed'])


def test_seeds_differ_between_epochs_and_windows(train_records):
  batches = take(clips.train_dataset(train_records, **OPTIONS), 20)
  seeds = np.concatenate([batch['seed'] for batch in batches])
  assert len(set(seeds.tolist())) == len(seeds)


def test_fakes_are_refused_for_training(data_root):
  test = records.open_records(data_root, 'demo', 'uniform', 'test')
  with pytest.raises(ValueError, match=r'2 videos are labelled fake.*fake0'):
    clips.train_dataset(test, **OPTIONS)


@pytest.mark.parametrize('name, value', [('batch_size', 0), ('max_offset', -2)])
def test_numbers_out_of_range_are_named(train_records, name, value):
  with pytest.raises(ValueError, match=f'data.{name} is {value}; at least'):
    clips.train_dataset(train_records, **{**OPTIONS, name: value})


def test_videos_shorter_than_a_clip_are_refused(train_records):
  with pytest.raises(ValueError, match='no video has 64 frames'):
    clips.train_dataset(train_records, **OPTIONS | {'num_frames': 64})


def test_evaluation_sees_every_clip_once(data_root):
  val = records.open_records(data_root, 'demo', 'consecutive', 'val')
  seen = []
  for batch in clips.eval_dataset(val, num_frames=4, batch_size=4):
    assert len(batch['frames']) == 4
    valid = batch['valid']
    seen += list(
      zip(batch['video'][valid], batch['window'][valid], strict=True)
    )
  expected = [(w.video, w.index) for w in clips.list_windows(val, 4)]
  assert seen == expected


def test_evaluation_of_pairs_leaves_out_fakes(data_root):
  test = records.open_records(data_root, 'demo', 'uniform', 'test')
  labels = {
    test.videos[video].label
    for batch in clips.eval_dataset(
      test, num_frames=4, batch_size=2, real_only=True
    )
    for video in batch['video']
  }
  assert labels == {0}


def test_evaluation_seeds_are_of_the_video_and_not_of_its_place(data_root):
  val = records.open_records(data_root, 'demo', 'uniform', 'val')
  test = records.open_records(data_root, 'demo', 'uniform', 'test')

  def seeds(split):
    return {
      (split.videos[video].video_id, int(window)): int(seed)
      for batch in clips.eval_dataset(split, num_frames=4, batch_size=2)
      for video, window, seed in zip(
        batch['video'], batch['window'], batch['seed'], strict=True
      )
    }

  of_val, of_test = seeds(val), seeds(test)
  assert {name: of_test[name] for name in of_val} == of_val
