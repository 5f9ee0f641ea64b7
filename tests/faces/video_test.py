"""Exact frames out of files that are in order, and out of those that aren't."""

import pathlib
import struct

import face_videos
import numpy as np
import pytest

from data_pipeline.faces import video


@pytest.fixture
def numbered(tmp_path) -> pathlib.Path:
  return face_videos.write_numbered_video(tmp_path / 'numbered.mp4', 60)


def test_probe_counts_frames_and_knows_the_rate(numbered):
  stream = video.probe(numbered)
  assert stream == video.VideoStream(128, 64, 25.0, 60, 60)
  assert not stream.truncated


def test_decoding_gives_exactly_the_asked_frames_in_rgb(numbered):
  asked = [0, 1, 17, 18, 42, 59]
  decoded = list(video.decode_frames(numbered, asked))
  assert [index for index, _ in decoded] == asked
  assert [face_videos.read_number(frame) for _, frame in decoded] == asked
  lower = decoded[-1][1][48]
  assert lower[:, 2].max() > 150 > 50 > lower[:, 0].max()  # blue, not red


def test_decoding_stops_where_the_file_ends(numbered):
  decoded = [i for i, _ in video.decode_frames(numbered, [58, 59, 60, 99])]
  assert decoded == [58, 59]


@pytest.mark.parametrize('indices', [[3, 2], [2, 2], [-1, 4]])
def test_frames_must_be_asked_for_in_order(numbered, indices):
  with pytest.raises(ValueError, match='ascending'):
    list(video.decode_frames(numbered, indices))


def test_a_varying_frame_rate_does_not_move_frame_numbers(numbered):
  raw = numbered.read_bytes()
  varied = numbered.with_name('varied.mp4')
  varied.write_bytes(_with_frame_durations(raw, [512] * 20 + [2560] * 40))
  asked = [0, 19, 20, 21, 45, 59]
  assert video.probe(varied).num_frames == 60
  assert video.probe(varied).fps < 15  # the file really is slower
  decoded = list(video.decode_frames(varied, asked))
  assert [face_videos.read_number(frame) for _, frame in decoded] == asked


def test_the_rotation_flag_is_honoured(numbered):
  raw = bytearray(numbered.read_bytes())
  matrix = raw.find(b'tkhd') + 4 + 40  # version 0: 40 bytes lie before it
  one = 1 << 16
  quarter_turn = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
  raw[matrix : matrix + 36] = struct.pack('>9i', *quarter_turn)
  turned = numbered.with_name('turned.mp4')
  turned.write_bytes(raw)
  stream = video.probe(turned)
  assert (stream.width, stream.height) == (64, 128)
  ((_, frame),) = video.decode_frames(turned, [37])
  assert frame.shape == (128, 64, 3)
  assert face_videos.read_number(np.rot90(frame)) == 37  # turned back


def test_a_cut_off_file_gives_the_frames_it_has(numbered):
  whole = numbered.read_bytes()
  cut = numbered.with_name('cut.mp4')
  cut.write_bytes(face_videos.index_first(whole)[: len(whole) * 3 // 4])
  stream = video.probe(cut)
  assert stream.declared_frames == 60
  assert 10 < stream.num_frames < 58
  assert stream.truncated
  decoded = list(video.decode_frames(cut, range(60)))
  numbers = [face_videos.read_number(frame) for _, frame in decoded[:-1]]
  assert numbers == list(range(len(decoded) - 1))
  assert len(decoded) >= stream.num_frames - 1


def test_a_file_cut_off_before_its_index_is_an_error(numbered):
  cut = numbered.with_name('cut.mp4')
  cut.write_bytes(numbered.read_bytes()[:1000])
  with pytest.raises(ValueError, match=r'cut\.mp4 is not a video .*1000 bytes'):
    video.probe(cut)


def test_a_text_file_is_an_error_whatever_its_name(tmp_path):
  text = tmp_path / 'text.mp4'
  text.write_text('not a film\n' * 100)
  with pytest.raises(ValueError, match=r'text\.mp4 is not a video'):
    video.probe(text)
  with pytest.raises(ValueError, match=r'text\.mp4 is not a video'):
    list(video.decode_frames(text, [0]))


def test_a_missing_file_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent'):
    video.probe(tmp_path / 'absent.mp4')


def test_consecutive_takes_the_first_frames():
  np.testing.assert_array_equal(
    video.frame_indices(300, 5, 'consecutive'), [0, 1, 2, 3, 4]
  )
  assert len(video.frame_indices(3, 5, 'consecutive')) == 3


def test_uniform_goes_from_the_first_frame_to_the_last():
  indices = video.frame_indices(301, 32, 'uniform')
  np.testing.assert_array_equal(indices, np.linspace(0, 300, 32).astype(int))
  assert (indices[0], indices[-1]) == (0, 300)
  np.testing.assert_array_equal(
    video.frame_indices(5, 32, 'uniform'), np.arange(5)
  )


def test_an_unknown_spread_is_an_error():
  with pytest.raises(ValueError, match=r'spread is .random.'):
    video.frame_indices(10, 2, 'random')


def _with_frame_durations(raw: bytes, durations: list[int]) -> bytes:
  """Rewrites the table of frame durations (stts); the index must come last."""
  runs: list[list[int]] = []
  for duration in durations:
    if runs and runs[-1][1] == duration:
      runs[-1][0] += 1
    else:
      runs.append([1, duration])
  body = struct.pack('>II', 0, len(runs))
  body += b''.join(struct.pack('>II', *run) for run in runs)
  table = struct.pack('>I4s', 8 + len(body), b'stts') + body
  start = raw.find(b'stts') - 4
  (old_size,) = struct.unpack('>I', raw[start : start + 4])
  changed = bytearray(raw[:start] + table + raw[start + old_size :])
  for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl'):
    place = raw.find(name) - 4
    (size,) = struct.unpack('>I', raw[place : place + 4])
    changed[place : place + 4] = struct.pack('>I', size + len(table) - old_size)
  # The edit list ends the film after its old length: void it.
  return bytes(changed).replace(b'edts', b'free')
