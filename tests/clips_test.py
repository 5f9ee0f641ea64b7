"""The host's stream of clips."""

import itertools
import logging
import shutil

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

  def read_into(self, frames, landmarks, video, slots):
    seen.append((video, int(slots[0]) // 4))

  monkeypatch.setattr(records.Records, 'read_into', read_into)
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


def test_the_stream_continues_with_another_number_of_clips_a_batch(
  train_records,
):
  smaller = OPTIONS | {'batch_size': OPTIONS['batch_size'] // 2}
  resumed = clips.train_dataset(train_records, **smaller)
  take(resumed, 1)  # a place that no larger batch begins at
  assert resumed.get_state()['global_next_index'] == smaller['batch_size']
  whole = clips.train_dataset(train_records, **OPTIONS)
  whole.set_state(resumed.get_state())
  first, second = take(resumed, 2)
  (batch,) = take(whole, 1)
  for name, rows in batch.items():
    np.testing.assert_array_equal(
      rows, np.concatenate([first[name], second[name]])
    )


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
    # Block by block, as the devices of the hosts hold them: no row moves.
    for name, rows in batch.items():
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, rows)


def test_seeds_differ_between_epochs_and_windows(train_records):
  batches = take(clips.train_dataset(train_records, **OPTIONS), 20)
  seeds = np.concatenate([batch['seed'] for batch in batches])
  assert len(set(seeds.tolist())) == len(seeds)


def test_fakes_are_refused_for_training(data_root):
  test = records.open_records(data_root, 'demo', 'uniform', 'test')
  with pytest.raises(ValueError, match=r'2 videos are labelled fake.*fake0'):
    clips.train_dataset(test, **OPTIONS)


@pytest.mark.parametrize(
  'name, value', [('batch_size', 0), ('max_offset', -2), ('corrupt_budget', -1)]
)
def test_numbers_out_of_range_are_named(train_records, name, value):
  with pytest.raises(ValueError, match=f'data.{name} is {value}; at least'):
    clips.train_dataset(train_records, **{**OPTIONS, name: value})


def test_videos_shorter_than_a_clip_are_refused(train_records):
  with pytest.raises(ValueError, match='no video has 64 frames'):
    clips.train_dataset(train_records, **OPTIONS | {'num_frames': 64})


@pytest.fixture
def damaged(data_root, tmp_path):
  """Copies the training records and flips bytes of some videos' frames."""

  def damage(*videos, frames=slice(None)):
    shutil.copytree(
      data_root / 'demo/consecutive', tmp_path / 'demo/consecutive'
    )
    whole = records.open_records(data_root, 'demo', 'consecutive', 'train')
    (shard,) = (tmp_path / 'demo').rglob('*train.array_record*')
    raw = bytearray(shard.read_bytes())
    for video in videos:
      for frame in whole.read_record(video).frames[frames]:
        place = raw.find(frame[2000:2200])  # their headers are alike
        assert place > 0
        raw[place : place + 200] = bytes(
          b ^ 255 for b in raw[place : place + 200]
        )
    shard.write_bytes(raw)
    return records.open_records(tmp_path, 'demo', 'consecutive', 'train')

  return damage


def test_a_damaged_record_stops_the_stream_by_name(damaged):
  iterator = clips.train_dataset(damaged(2), **OPTIONS)
  with pytest.raises(
    ValueError,
    match=r"damaged record \d+ of .*demo-train.*'train2'.*corrupt_records",
  ):
    take(iterator, 20)


SUBSTITUTE = OPTIONS | {'corrupt_records': 'substitute', 'corrupt_budget': 2}


def test_a_clip_of_the_next_readable_video_takes_the_place(
  damaged, train_records, caplog
):
  iterator = clips.train_dataset(damaged(2, 3), **SUBSTITUTE)
  with caplog.at_level(logging.WARNING):
    stream = take(iterator, 20)
  assert iterator.num_corrupt == 2
  # Told of once each, however often they were met.
  told = [r.getMessage() for r in caplog.records if 'damaged' in r.getMessage()]
  assert sorted(t.split("'")[1] for t in told) == ['train2', 'train3']
  whole = take(clips.train_dataset(train_records, **OPTIONS), 20)
  windows = clips.list_windows(train_records, 4, -1)
  readable = {
    train_records.read(w.video, range(first, first + 4))[0].tobytes(): w.video
    for w in windows
    for first in range(
      4 * w.index,
      min(4 * w.index + 4, train_records.videos[w.video].num_frames - 3),
    )
  }
  replaced = 0
  for ours, theirs in zip(stream, whole, strict=True):
    np.testing.assert_array_equal(ours['seed'], theirs['seed'])
    for clip, original in zip(ours['frames'], theirs['frames'], strict=True):
      video, was = readable[clip.tobytes()], readable[original.tobytes()]
      assert video == (was if was < 2 else 0)  # 2 -> 3 -> 0
      replaced += was != video
  assert replaced > 20


def test_only_clips_that_touch_the_damaged_frames_are_replaced(
  damaged, train_records
):
  broken = damaged(2, frames=slice(4, 8))
  iterator = clips.train_dataset(broken, **SUBSTITUTE)
  stream = take(iterator, 20)
  assert iterator.num_corrupt == 1
  whole = take(clips.train_dataset(train_records, **OPTIONS), 20)
  ours = np.concatenate([batch['landmarks'] for batch in stream])
  theirs = np.concatenate([batch['landmarks'] for batch in whole])
  points = train_records.read_record(2).landmarks
  kept = replaced = 0
  for clip, original in zip(ours, theirs, strict=True):
    touched = any(np.array_equal(p, q) for p in original for q in points[4:8])
    assert touched != np.array_equal(clip, original)
    of_video = any(np.array_equal(original[0], q) for q in points)
    kept += of_video and not touched
    replaced += touched
  assert kept > 10 and replaced > 10


def test_a_substitute_is_a_function_of_its_place(damaged):
  broken = damaged(1)
  iterator = clips.train_dataset(broken, **SUBSTITUTE)
  take(iterator, 4)
  state = iterator.get_state()
  rest = take(iterator, 4)
  # Another process, with none of the first one's memories.
  resumed = clips.train_dataset(broken, **SUBSTITUTE)
  resumed.set_state(state)
  assert_equal_batches(rest, take(resumed, 4))
  hosts = [
    clips.train_dataset(broken, **SUBSTITUTE, process_index=i, process_count=2)
    for i in range(2)
  ]
  for host in hosts:
    host.set_state(state)
  for batch, *parts in zip(rest, *(take(h, 4) for h in hosts), strict=True):
    joined = np.concatenate([part['frames'] for part in parts])
    np.testing.assert_array_equal(joined, batch['frames'])


def test_more_damage_than_the_budget_names_the_newest_and_the_count(damaged):
  options = SUBSTITUTE | {'corrupt_budget': 1}
  iterator = clips.train_dataset(damaged(0, 2), **options)
  with pytest.raises(
    ValueError,
    match=r"damaged record [02] of .*'train[02]'.*2 damaged records"
    r'.*corrupt_budget is 1.*train0, train2',
  ):
    take(iterator, 20)


def test_nothing_readable_is_an_error_and_no_endless_search(damaged):
  iterator = clips.train_dataset(
    damaged(0, 1, 2, 3), **SUBSTITUTE | {'corrupt_budget': 9}
  )
  with pytest.raises(ValueError, match=r'none of the 4 videos.*train0, train1'):
    next(iterator)


def test_an_unknown_policy_is_refused_with_the_choices(train_records):
  with pytest.raises(ValueError, match=r"'skip'; it is one of.*'substitute'"):
    clips.train_dataset(train_records, **OPTIONS, corrupt_records='skip')


def test_synthetic_batches_read_nothing_and_keep_the_seeds(
  train_records, monkeypatch
):
  real = take(clips.train_dataset(train_records, **OPTIONS), 5)
  monkeypatch.setattr(records.Records, '_segments', None)  # would fail
  iterator = clips.train_dataset(train_records, **OPTIONS, synthetic=True)
  assert isinstance(iterator, clips.ClipIterator)
  batches = take(iterator, 5)
  for ours, theirs in zip(batches, real, strict=True):
    for name in theirs:
      assert ours[name].shape == theirs[name].shape
      assert ours[name].dtype == theirs[name].dtype
    np.testing.assert_array_equal(ours['seed'], theirs['seed'])
    np.testing.assert_array_equal(ours['frames'], batches[0]['frames'])
  assert (batches[0]['frames'][0] != batches[0]['frames'][1]).any()


def test_a_synthetic_stream_continues_on_another_number_of_hosts(
  train_records,
):
  options = OPTIONS | {'synthetic': True}
  iterator = clips.train_dataset(train_records, **options)
  take(iterator, 3)
  state = iterator.get_state()
  whole = next(iterator)
  for i in range(2):
    host = clips.train_dataset(
      train_records, **options, process_index=i, process_count=2
    )
    host.set_state(state)
    part = next(host)
    for name in whole:
      half = np.split(whole[name], 2)[i]
      np.testing.assert_array_equal(part[name], half)


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
