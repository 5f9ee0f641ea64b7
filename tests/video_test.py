"""Exact frames out of files that are in order, and out of those that aren't."""

import pathlib
import struct

import cv2
import numpy as np
import pytest

from data_pipeline import video

_BITS = 8


def write_numbered_video(
  path: pathlib.Path, num_frames: int, size: tuple[int, int] = (128, 64)
) -> pathlib.Path:
  """Writes a video whose frames carry their number as eight bright bars."""
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25.0, size
  )
  assert writer.isOpened()
  for number in range(num_frames):
    writer.write(_numbered_frame(number, size)[..., ::-1])
  writer.release()
  return path


def _numbered_frame(number: int, size: tuple[int, int]) -> np.ndarray:
  width, height = size
  bits = [(number >> bit) & 1 for bit in range(_BITS)]
  bars = np.repeat(np.array(bits, np.uint8) * 200, width // _BITS)
  frame = np.zeros((height, width, 3), np.uint8)
  frame[: height // 2, :, 0] = bars  # red in the upper half
  frame[height // 2 :, :, 2] = bars  # blue in the lower
  return frame


def read_number(frame: np.ndarray) -> int:
  row = frame[frame.shape[0] // 4, :, 0].reshape(_BITS, -1).mean(1)
  return int(sum(int(value > 100) << bit for bit, value in enumerate(row)))


@pytest.fixture
def numbered(tmp_path) -> pathlib.Path:
  return write_numbered_video(tmp_path / 'numbered.mp4', 60)


def test_probe_counts_frames_and_knows_the_rate(numbered):
  stream = video.probe(numbered)
  assert stream == video.VideoStream(128, 64, 25.0, 60, 60)
  assert not stream.truncated


def test_decoding_gives_exactly_the_asked_frames_in_rgb(numbered):
  asked = [0, 1, 17, 18, 42, 59]
  decoded = list(video.decode_frames(numbered, asked))
  assert [index for index, _ in decoded] == asked
  assert [read_number(frame) for _, frame in decoded] == asked
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
  assert [read_number(frame) for _, frame in decoded] == asked


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
  assert read_number(np.rot90(frame)) == 37  # turned back


def test_a_cut_off_file_gives_the_frames_it_has(numbered):
  whole = numbered.read_bytes()
  cut = numbered.with_name('cut.mp4')
  cut.write_bytes(_index_first(whole)[: len(whole) * 3 // 4])
  stream = video.probe(cut)
  assert stream.declared_frames == 60
  assert 10 < stream.num_frames < 58
  assert stream.truncated
  decoded = list(video.decode_frames(cut, range(60)))
  numbers = [read_number(frame) for _, frame in decoded[:-1]]
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


def _boxes(raw: bytes) -> dict[bytes, tuple[int, int]]:
  """Start and size of the outermost boxes of an MP4 file."""
  boxes, position = {}, 0
  while position < len(raw):
    size, kind = struct.unpack('>I4s', raw[position : position + 8])
    boxes[kind] = (position, size)
    position += size
  return boxes


def _index_first(raw: bytes) -> bytes:
  """Moves the index (moov) before the frames, as files made to stream do."""
  boxes = _boxes(raw)
  start, size = boxes[b'moov']
  moov = bytearray(raw[start : start + size])
  offsets = moov.find(b'stco')
  (count,) = struct.unpack('>I', moov[offsets + 8 : offsets + 12])
  for entry in range(count):
    place = offsets + 12 + 4 * entry
    (offset,) = struct.unpack('>I', moov[place : place + 4])
    moov[place : place + 4] = struct.pack('>I', offset + size)
  head = boxes[b'ftyp'][1]
  return raw[:head] + bytes(moov) + raw[head:start] + raw[start + size :]


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
