"""Records on disk: what goes in comes out, and damage has a name."""

from concurrent import futures
import dataclasses
import errno
import hashlib
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_pipeline import (
  metadata,
  record_writer,
  records,
  shard_cache,
  shards,
  staging,
)


def make_record(
  name: str, num_frames: int, encoding: str = 'png', label: int = 0
) -> records.VideoRecord:
  """A record of random smooth frames; the same for the same arguments."""
  rng = np.random.default_rng(list(name.encode()))
  coarse = rng.integers(0, 255, (num_frames, 8, 8, 3), dtype=np.uint8)
  frames = coarse.repeat(32, 1).repeat(32, 2)
  return records.VideoRecord(
    video_id=f'{name}.mp4',
    frames=tuple(records.encode_frame(frame, encoding) for frame in frames),
    landmarks=rng.uniform(0, 256, (num_frames, 81, 2)).astype(np.float32),
    boxes=rng.uniform(0, 99, (num_frames, 4)).astype(np.float32),
    frame_indices=np.arange(0, 3 * num_frames, 3, dtype=np.int32),
    times=3600 + rng.uniform(0, 9, num_frames).astype(np.float32),
    fps=29.97,
    label=label,
    dataset='mine',
    identity='ann',
    method='swap' if label else '',
    source_path=f'{name}.mp4',
    provenance='{"made": "up"}',
  )


def write_example(out: pathlib.Path) -> pathlib.Path:
  """Twenty training videos (two shards), most cut unevenly, two to test on."""
  train = [make_record(f'train{i}', 3 + i) for i in range(20)]
  test = [make_record(f'test{i}', 6, label=i) for i in range(2)]
  return record_writer.write_records(
    out, 'mine', 'consecutive', {'train': train, 'test': test}
  )


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> pathlib.Path:
  out = tmp_path_factory.mktemp('records')
  write_example(out)
  return out


@pytest.fixture
def train(written) -> records.Records:
  return records.open_records(written, 'mine', 'consecutive', 'train')


def test_videos_are_known_without_reading_frames(train, monkeypatch):
  monkeypatch.setattr(records.Records, '_segments', None)  # would fail
  assert len(train) == len(train.videos) == 20
  assert [video.num_frames for video in train.videos] == list(range(3, 23))
  assert train.videos[7] == make_record('train7', 10).info


def test_what_was_written_is_read(written, train):
  for index in (0, 15, 16, 19):
    expected = make_record(f'train{index}', 3 + index)
    stored = train.read_record(index)
    for field in (
      'frames',
      'fps',
      'label',
      'dataset',
      'identity',
      'provenance',
    ):
      assert getattr(stored, field) == getattr(expected, field)
    for field in ('landmarks', 'boxes', 'frame_indices', 'times'):
      np.testing.assert_array_equal(
        getattr(stored, field), getattr(expected, field)
      )
  test = records.open_records(written, 'mine', 'consecutive', 'test')
  assert [(v.label, v.method) for v in test.videos] == [(0, ''), (1, 'swap')]


def test_asked_frames_come_in_the_order_asked_with_their_landmarks(train):
  frames, landmarks = train.read(9, [4, 0, 11])
  record = make_record('train9', 12)
  assert frames.shape == (3, 256, 256, 3)
  for frame, points, slot in zip(frames, landmarks, [4, 0, 11], strict=True):
    np.testing.assert_array_equal(
      frame, records.decode_frame(record.frames[slot])
    )
    np.testing.assert_array_equal(points, record.landmarks[slot])


def test_only_the_asked_frames_are_decoded(train, monkeypatch):
  decoded = []
  decode = records.decode_frame
  monkeypatch.setattr(
    records, 'decode_frame', lambda b: decoded.append(b) or decode(b)
  )
  train.read(19, [5, 6, 7, 8])
  assert decoded == list(make_record('train19', 22).frames[5:9])


@pytest.mark.parametrize('num_frames', [1, 2, 4, 8, 16])
def test_a_clip_of_any_length_at_any_offset_is_that_of_the_video(
  train, num_frames
):
  record = make_record('train19', 22)
  for start in range(22 - num_frames + 1):
    slots = range(start, start + num_frames)
    frames, landmarks = train.read(19, slots)
    np.testing.assert_array_equal(
      landmarks, record.landmarks[start:][:num_frames]
    )
    np.testing.assert_array_equal(
      frames, [records.decode_frame(record.frames[slot]) for slot in slots]
    )


@pytest.mark.parametrize(
  ('slots', 'asked'), [((4, 5, 6, 7), 1), ((5, 6, 7, 8), 2), ((21, 0), 2)]
)
def test_a_clip_reads_the_segments_it_lies_in_and_no_others(
  train, monkeypatch, slots, asked
):
  calls = []
  read = shards.ShardReader.read
  monkeypatch.setattr(
    shards.ShardReader,
    'read',
    lambda *args: calls.append(args[2]) or read(*args),
  )
  train.read(19, slots)
  (places,) = calls  # one call, however many segments
  assert len(places) == asked


_PLAIN_PROGRAM = """
import sys
import numpy as np
import tensorflow_datasets as tfds

folder, truth = sys.argv[1:]
builder = tfds.builder_from_directory(folder)
assert builder.info.features['label'].names == ['real', 'fake']
examples = [dict(example) for example in builder.as_data_source('test')]
frames = np.concatenate([example['frames'] for example in examples[:2]])
np.savez(
  truth,
  frames=frames,
  **{
    name: np.concatenate([example[name] for example in examples[:2]])
    for name in ('landmarks', 'boxes', 'frame_indices', 'times')
  },
)
assert [example['start'] for example in examples] == [0, 4, 0, 4]
assert [example['label'] for example in examples] == [0, 0, 1, 1]
assert examples[2]['video_id'] == b'test1.mp4'
assert examples[2]['method'] == b'swap'
loaded = [name for name in sys.modules if name.startswith('data_pipeline')]
assert not loaded and 'tensorflow' not in sys.modules
"""


def test_plain_tfds_reads_the_records_in_a_process_without_our_code(
  written, tmp_path
):
  folder = written / 'mine' / 'consecutive' / metadata.VERSION
  subprocess.run(
    [sys.executable, '-c', _PLAIN_PROGRAM, folder, tmp_path / 'read.npz'],
    check=True,
    cwd=tmp_path,
  )
  read, expected = np.load(tmp_path / 'read.npz'), make_record('test0', 6)
  np.testing.assert_array_equal(
    read['frames'], [records.decode_frame(f) for f in expected.frames]
  )
  for field in ('landmarks', 'boxes', 'frame_indices', 'times'):
    np.testing.assert_array_equal(read[field], getattr(expected, field))


def test_the_same_videos_give_the_same_bytes_in_another_process(
  written, tmp_path
):
  program = (
    'import pathlib, sys\n'
    'sys.path.insert(0, sys.argv[1])\n'
    'import records_test\n'
    'records_test.write_example(pathlib.Path(sys.argv[2]))\n'
  )
  here = pathlib.Path(__file__).parent
  subprocess.run(
    [sys.executable, '-c', program, str(here), str(tmp_path)],
    check=True,
    cwd=here.parent,
  )
  assert _digests(written / 'mine') == _digests(tmp_path / 'mine')


def test_a_pickled_copy_and_many_threads_read_the_same(train):
  expected = train.read(3, [1])[0]
  copy = pickle.loads(pickle.dumps(train))
  np.testing.assert_array_equal(copy.read(3, [1])[0], expected)
  with futures.ThreadPoolExecutor(8) as threads:
    for frames, _ in threads.map(lambda _: copy.read(3, [1]), range(50)):
      np.testing.assert_array_equal(frames, expected)


def test_a_jpeg_frame_is_close_in_brightness_and_colour():
  y, x = np.mgrid[:256, :256]
  frame = np.stack([x, y, 255 - x], -1).astype(np.uint8)
  frame[:, 128:129] = (255, 0, 0)  # a red line, one pixel wide
  decoded = records.decode_frame(records.encode_frame(frame)).astype(int)
  assert np.abs(decoded - frame).mean() < 1.0
  # At 4:2:0 the line's red would bleed into half the neighbouring column.
  assert np.abs(decoded[:, 130] - frame[:, 130].astype(int)).mean() < 6.0


def test_an_unknown_encoding_is_an_error():
  with pytest.raises(ValueError, match='webp'):
    records.encode_frame(np.zeros((256, 256, 3), np.uint8), 'webp')


@pytest.mark.parametrize(
  ('dataset', 'rule', 'split', 'says'),
  [
    ('other', 'consecutive', 'train', 'other.*data_pipeline.prepare'),
    ('mine', 'uniform', 'train', 'uniform.*--rule uniform'),
    ('mine', 'consecutive', 'val', r"no split 'val'; it has .'test', 'train'."),
  ],
)
def test_what_is_not_there_is_named_with_the_fix(
  written, dataset, rule, split, says
):
  with pytest.raises(ValueError, match=says):
    records.open_records(written, dataset, rule, split)


def test_records_of_another_version_are_refused_with_the_command(tmp_path):
  folder = write_example(tmp_path)
  folder.rename(folder.with_name('1.0.0'))
  with pytest.raises(
    ValueError,
    match=rf'version 1\.0\.0, .* reads {re.escape(metadata.VERSION)}; make them'
    r' anew with `python -m data_pipeline\.prepare .*--dataset mine',
  ) as error:
    records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  assert '\n' not in str(error.value)


def test_a_fingerprint_tells_other_videos_or_lengths_apart(train):
  def fingerprint(*videos):
    counts = [-(-video.num_frames // 4) for video in videos]
    shard = shards.Shard('file', sum(counts), 0, '')
    return records.Records('folder', [shard], videos).fingerprint()

  first, second, *_ = train.videos
  same = fingerprint(first, second)
  assert len(same) == 16
  # Where it lies and what else is known of it does not matter.
  moved = dataclasses.replace(first, source_path='elsewhere.mp4')
  assert fingerprint(moved, second) == same
  longer = dataclasses.replace(first, num_frames=first.num_frames + 1)
  others = [(second, first), (first,), (longer, second), (first, second, moved)]
  assert same not in {fingerprint(*videos) for videos in others}


def test_there_are_no_negative_videos_and_no_frames_past_the_end(train):
  with pytest.raises(IndexError, match='video -1 of 20'):
    train.read(-1, [0])
  for slot in (5, -1):
    with pytest.raises(
      IndexError, match=rf'train2\.mp4 has 5 frames, no frame {slot}'
    ):
      train.read(2, [slot])


def test_a_damaged_record_is_named_by_shard_index_and_video(tmp_path):
  folder = write_example(tmp_path)
  (shard,) = folder.glob('mine-train*-00001-of-00002')
  raw = bytearray(shard.read_bytes())
  place = raw.find(make_record('train18', 21).frames[4][:200])
  assert place > 0
  raw[place : place + 200] = bytes(200)
  shard.write_bytes(raw)
  train = records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  train.read(18, [0, 8, 20])
  with pytest.raises(
    ValueError, match=r"damaged record 11 of .*00001-of-00002.*'train18\.mp4'"
  ):
    train.read(18, [0, 4, 8])


def test_a_missing_shard_does_not_hide_the_others(tmp_path):
  folder = write_example(tmp_path)
  (shard,) = folder.glob('mine-train*-00001-of-00002')
  shard.unlink()
  train = records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  train.read(15, [4])
  with pytest.raises(ValueError, match=r"record 1 of .*00001.*'train16\.mp4'"):
    train.read(16, [4])


def test_a_record_of_another_length_than_described_is_damaged(tmp_path):
  folder = write_example(tmp_path)
  described = folder / 'metadata.json'
  text = described.read_text()
  assert '"num_frames": 10' in text
  described.write_text(text.replace('"num_frames": 10', '"num_frames": 11'))
  train = records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  with pytest.raises(ValueError, match=r'damaged.*holds 2 frames of 3'):
    train.read(7, [8])


def test_a_shard_of_another_preparation_is_noticed_when_it_is_read(tmp_path):
  """As when a copy was stopped and taken up again from a newer data set."""
  folder, other = write_example(tmp_path / 'a'), tmp_path / 'b'
  changed = make_record('train16', 19)
  changed = dataclasses.replace(changed, landmarks=changed.landmarks + 1)
  videos = [make_record(f'train{i}', 3 + i) for i in range(20)]
  videos[16] = changed
  newer = record_writer.write_records(
    other, 'mine', 'consecutive', {'train': videos}
  )
  name = 'mine-train.array_record-00001-of-00002'
  assert (folder / name).stat().st_size == (newer / name).stat().st_size
  shutil.copy(newer / name, folder / name)
  train = records.open_records(tmp_path / 'a', 'mine', 'consecutive', 'train')
  train.read(17, [0])
  with pytest.raises(
    ValueError,
    match=r"damaged record 0 of .*'train16\.mp4'.*another preparation",
  ):
    train.read(16, [0])


def test_shards_in_each_others_place_are_noticed_when_they_are_read(tmp_path):
  folder = write_example(tmp_path)
  first, second = sorted(folder.glob('mine-train*'))
  first.rename(folder / 'aside')
  second.rename(first)
  (folder / 'aside').rename(second)
  train = records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  for video in range(20):
    with pytest.raises(ValueError, match='damaged record'):
      train.read(video, [0])


@pytest.mark.parametrize(
  'text', [b'{', b'{}', b'{"splits": {"train": {}}}', b'{"splits\xff": 1}']
)
def test_metadata_that_cannot_be_read_is_named(tmp_path, text):
  folder = write_example(tmp_path)
  (folder / 'metadata.json').write_bytes(text)
  with pytest.raises(ValueError, match=r'metadata\.json is damaged .*prepare'):
    records.open_records(tmp_path, 'mine', 'consecutive', 'train')


def test_a_failed_rewrite_leaves_the_old_dataset(tmp_path, monkeypatch):
  folder = write_example(tmp_path)
  before = _digests(folder)

  def burn(_):
    raise OSError('disk on fire')

  monkeypatch.setattr(record_writer.segments, 'serialize', burn)
  with pytest.raises(OSError, match='disk on fire'):
    record_writer.write_records(
      tmp_path, 'mine', 'consecutive', {'train': [make_record('new', 4)]}
    )
  assert _digests(folder) == before
  assert [path.name for path in (tmp_path / 'mine').iterdir()] == [
    'consecutive'
  ]


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_used_up_quota_are_known_by_their_number(
  tmp_path, monkeypatch, number
):
  """The writer says of either only what the system says, in words."""

  class Full(record_writer.array_record_module.ArrayRecordWriter):
    def close(self):
      raise RuntimeError(f'INTERNAL: {os.strerror(number)} writing a chunk')

  monkeypatch.setattr(
    record_writer.array_record_module, 'ArrayRecordWriter', Full
  )
  with pytest.raises(OSError, match='shard') as error:
    record_writer.write_shard(tmp_path / 'shard', iter([make_record('new', 4)]))
  assert error.value.errno == number
  assert not [*tmp_path.iterdir()]


def test_a_rewrite_replaces_the_dataset(tmp_path):
  folder = write_example(tmp_path)
  record_writer.write_records(
    tmp_path, 'mine', 'consecutive', {'train': [make_record('only', 4)]}
  )
  train = records.open_records(tmp_path, 'mine', 'consecutive', 'train')
  assert [video.video_id for video in train.videos] == ['only.mp4']
  assert [path.name for path in folder.parents[1].iterdir()] == ['consecutive']


def test_a_staged_record_comes_back_whole(tmp_path):
  record = make_record('staged', 5)
  staging.save_record(tmp_path / 'a.npz', record)
  loaded = staging.load_record(tmp_path / 'a.npz')
  assert loaded.frames == record.frames
  assert loaded.info == record.info
  for field in ('landmarks', 'boxes', 'frame_indices', 'times'):
    np.testing.assert_array_equal(
      getattr(loaded, field), getattr(record, field)
    )
  assert [path.name for path in tmp_path.iterdir()] == ['a.npz']


def _digests(folder: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_records_read_through_a_cache_are_the_same_without_the_disk(
  written, train, tmp_path
):
  far = shutil.copytree(written, tmp_path / 'far')
  cache = shard_cache.ShardCache(tmp_path / 'cache', 2**30)
  cached = records.open_records(far, 'mine', 'consecutive', 'train', cache)
  for index in range(len(train)):
    cached.read_record(index)
  for path in far.rglob('*.array_record*'):
    path.unlink()  # all is read from copies, by another process too
  again = pickle.loads(pickle.dumps(cached))
  for index in range(len(train)):
    for ours, theirs in zip(
      again.read(index, [0, 2]), train.read(index, [0, 2]), strict=True
    ):
      np.testing.assert_array_equal(ours, theirs)


def test_no_thread_that_reads_has_to_import_what_reads(data_root):
  """Two that import TFDS at once wait for each other for ever."""
  program = (
    'import pathlib, sys\n'
    'from data_pipeline import records\n'
    f'root = pathlib.Path({str(data_root)!r})\n'
    "records.open_records(root, 'demo', 'consecutive', 'train')\n"
    "print('tensorflow_datasets.proto' in sys.modules)\n"
  )
  root = pathlib.Path(__file__).parent.parent
  said = subprocess.run(
    [sys.executable, '-c', program],
    cwd=root,
    check=True,
    capture_output=True,
    text=True,
  )
  assert said.stdout.strip() == 'True'
