"""Exact frames out of files that are in order, and out of those that aren't."""

import gc
import io
import os
import pathlib

import av
import face_videos
import made_videos
import numpy as np
import pytest

from data_pipeline.faces import video


@pytest.fixture
def numbered(tmp_path) -> pathlib.Path:
  return face_videos.write_numbered_video(tmp_path / 'numbered.mp4', 60)


def read_all(path, indices=range(1000)):
  """The frames of a file, and the pass that gave them."""
  decoding = video.decode_frames(path, indices)
  return list(decoding), decoding


def numbers(frames) -> list[int]:
  return [face_videos.read_number(frame.image) for frame in frames]


def test_probe_counts_frames_and_knows_the_rate(numbered):
  stream = video.probe(numbered)
  assert stream == video.VideoStream('mpeg4', 128, 64, 25.0, 60, 2.4, ())


def test_decoding_gives_exactly_the_asked_frames_in_rgb(numbered):
  asked = [0, 1, 17, 18, 42, 59]
  frames, decoding = read_all(numbered, asked)
  assert [frame.index for frame in frames] == asked
  assert numbers(frames) == asked
  lower = frames[-1].image[48]
  assert lower[:, 2].max() > 150 > 50 > lower[:, 0].max()  # blue, not red
  assert not decoding.notes and not decoding.missing and not decoding.errors


def test_decoding_stops_where_the_file_ends(numbered):
  frames, decoding = read_all(numbered, [58, 59, 60, 99])
  assert [frame.index for frame in frames] == [58, 59]
  assert decoding.num_frames == 60
  assert read_all(numbered, [3])[1].num_frames is None  # not read so far


def test_a_frame_that_was_used_is_freed_at_once(numbered):
  def frames_held() -> int:
    return sum(isinstance(held, av.VideoFrame) for held in gc.get_objects())

  gc.collect()
  before = frames_held()
  gc.disable()
  try:
    read_all(numbered)
    assert frames_held() - before < 10
  finally:
    gc.enable()


@pytest.mark.parametrize('indices', [[3, 2], [2, 2], [-1, 4]])
def test_frames_must_be_asked_for_in_order(numbered, indices):
  with pytest.raises(ValueError, match='ascending'):
    video.decode_frames(numbered, indices)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'mov', 'ts', 'avi', 'flv'])
def test_times_are_the_timestamps_of_a_varying_rate(tmp_path, suffix):
  pts = [*range(10), *range(13, 40, 3), 100]
  path = made_videos.write(
    tmp_path / f'a.{suffix}', made_videos.numbered(range(20)), pts=pts
  )
  frames, decoding = read_all(path)
  assert numbers(frames) == list(range(20))
  times = [frame.time for frame in frames]
  np.testing.assert_allclose(times, np.array(pts) / 25, atol=6e-4)
  stream = video.probe(path)
  assert stream.num_frames == 20
  assert stream.fps == pytest.approx(20 / stream.duration)
  # A container that keeps no lengths takes the last frame's as it can.
  assert 4.0 <= stream.duration <= 6.5
  assert not stream.notes and not decoding.notes


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'avi', 'ts'])
def test_reordered_frames_come_in_order_with_their_times(tmp_path, suffix):
  path = made_videos.write(
    tmp_path / f'a.{suffix}',
    made_videos.numbered(range(30)),
    options={'preset': 'fast', 'bf': '3', 'crf': '10'},
  )
  frames, _ = read_all(path)
  assert numbers(frames) == list(range(30))
  times = [frame.time for frame in frames]
  np.testing.assert_allclose(times, np.arange(30) / 25, atol=6e-4)


def test_a_frame_without_a_timestamp_has_no_time(tmp_path):
  path = made_videos.write(tmp_path / 'a.h264', made_videos.numbered(range(6)))
  frames, _ = read_all(path)
  assert numbers(frames) == list(range(6))
  assert np.isnan([frame.time for frame in frames]).all()
  assert video.probe(path).duration == 0


def test_a_late_start_is_no_time_and_no_damage(tmp_path):
  path = made_videos.write(
    tmp_path / 'late.mkv', made_videos.numbered(range(9)), pts=range(500, 509)
  )
  frames, decoding = read_all(path)
  assert [frame.time for frame in frames[:2]] == [0, 0.04]
  assert video.probe(path).fps == 25
  assert not decoding.notes


def test_what_an_edit_list_leaves_out_is_no_frame_and_no_damage(tmp_path):
  path = made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(20)),
    pts=range(-8, 12),
    container_options={'avoid_negative_ts': 'disabled'},
  )
  frames, decoding = read_all(path)
  assert numbers(frames) == list(range(8, 20))
  assert frames[0].time == 0
  stream = video.probe(path)
  assert (stream.num_frames, decoding.num_frames) == (12, 12)
  assert not stream.notes and not decoding.notes


def test_many_packets_of_another_track_do_not_end_a_video(tmp_path):
  path = tmp_path / 'gap.mkv'
  with av.open(str(path), 'w') as out:
    film = made_videos.add_stream(out, (64, 128))
    audio = made_videos.add_silence(out)
    packets = list(
      made_videos.encode(
        film, made_videos.numbered(range(6)), [0, 1, 2, 300, 301, 302]
      )
    )
    out.mux(packets[:3])
    for packet in made_videos.silence(audio, 0.1, 5000):
      out.mux(packet)
    out.mux(packets[3:])
  assert video.probe(path).num_frames == 6
  frames, decoding = read_all(path)
  assert numbers(frames) == list(range(6))
  assert frames[3].time == 12
  assert not decoding.notes


def test_of_two_tracks_the_default_one_is_counted_and_decoded(tmp_path):
  path = tmp_path / 'two.mkv'
  with av.open(str(path), 'w') as out:
    large = made_videos.add_stream(out, (128, 256))
    default = made_videos.add_stream(out, (64, 128))
    default.disposition = av.stream.Disposition.default
    large.disposition = av.stream.Disposition(0)
    films = (
      (large, made_videos.numbered(range(100, 120), (256, 128))),
      (default, made_videos.numbered(range(9))),
    )
    for packet in [p for film in films for p in made_videos.encode(*film)]:
      out.mux(packet)
  stream = video.probe(path)
  assert (stream.width, stream.num_frames) == (128, 9)
  assert numbers(read_all(path)[0]) == list(range(9))


def test_a_cover_is_not_the_film(tmp_path):
  with av.open(str(tmp_path / 'cover.jpg'), 'w', format='image2') as out:
    still = made_videos.add_stream(out, (256, 256), 'mjpeg')
    still.pix_fmt = 'yuvj420p'
    image = np.full((256, 256, 3), 90, np.uint8)
    out.mux(made_videos.encode(still, [image]))
  cover = (tmp_path / 'cover.jpg').read_bytes()
  path = tmp_path / 'film.mkv'
  with av.open(str(path), 'w') as out:
    out.add_attachment('cover.jpg', 'image/jpeg', cover)
    film = made_videos.add_stream(out, (64, 128))
    for packet in list(made_videos.encode(film, made_videos.numbered([4, 5]))):
      out.mux(packet)
  assert video.probe(path).num_frames == 2
  assert numbers(read_all(path)[0]) == [4, 5]


@pytest.mark.parametrize(
  'suffix, codec', [('webm', 'libvpx'), ('ts', 'libx264')]
)
def test_a_size_that_changes_changes_the_frames(tmp_path, suffix, codec):
  path = made_videos.write_changing(
    tmp_path / f'a.{suffix}', [{}, {'size': (64, 96)}], 6, codec
  )
  frames, decoding = read_all(path)
  assert numbers(frames) == list(range(12))
  assert {frame.image.shape for frame in frames[:6]} == {(64, 128, 3)}
  assert {frame.image.shape for frame in frames[6:]} == {(96, 64, 3)}
  assert decoding.notes == ('resized in mid-stream: 128x64, 64x96',)


def test_a_pixel_shape_that_changes_holds_from_its_frame_on(tmp_path):
  path = made_videos.write_changing(
    tmp_path / 'a.ts', [{}, {'aspect': 2}], 6, 'libx264'
  )
  frames, decoding = read_all(path)
  assert numbers(frames) == list(range(12))
  assert [frame.image.shape[1] for frame in frames] == [128] * 6 + [256] * 6
  assert 'pixels of 2:1, made square' in decoding.notes


@pytest.mark.parametrize('sign', [1, -1])
def test_a_display_matrix_turns_frame_and_size(tmp_path, sign):
  one = 1 << 16
  matrix = (0, one, 0, sign * one, 0, 0, 0, 0, 1 << 30)

  path = made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(3)),
    adjust=lambda stream: stream.set_display_matrix(matrix),
  )
  stream = video.probe(path)
  assert (stream.width, stream.height) == (64, 128)
  (frame,), decoding = read_all(path, [2])
  # Transposed, and mirrored from left to right where c is negative.
  image = frame.image[:, ::sign].swapaxes(0, 1)
  assert face_videos.read_number(image) == 2
  mirrored = ('mirrored by its display matrix',) if sign == 1 else ()
  assert decoding.notes == mirrored


def test_mirrored_and_turned_frames_of_one_angle_may_alternate(tmp_path):
  """H.264 says both itself; the angle of both is -180 degrees."""

  def encode(orientation: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, 'w', format='h264') as film:
      stream = film.add_stream('libx264', 25, options={'crf': '10'})
      stream.height, stream.width, _ = image.shape
      stream.pix_fmt = 'yuv420p'
      oriented = av.BitStreamFilterContext(
        f'h264_metadata=display_orientation=insert:{orientation}', stream
      )
      pictures = [av.VideoFrame.from_ndarray(image), None]
      packets = [p for picture in pictures for p in stream.encode(picture)]
      for packet in [*packets, None]:
        film.mux(oriented.filter(packet))
    return out.getvalue()

  image = np.zeros((64, 128, 3), np.uint8)
  image[:16, :32] = 255  # in the upper left corner
  path = tmp_path / 'a.h264'
  path.write_bytes((encode('flip=horizontal') + encode('rotate=180')) * 3)
  frames, decoding = read_all(path)
  corners = [
    (bool(frame.image[8, -16, 0] > 128), bool(frame.image[-8, -16, 0] > 128))
    for frame in frames
  ]
  assert corners == [(True, False), (False, True)] * 3
  assert 'mirrored by its display matrix' in decoding.notes


def test_interlaced_frames_are_made_whole_and_others_left_alone(tmp_path):
  def edges(frame: np.ndarray) -> float:
    """How much a line differs from those above and below."""
    grey = frame.astype(int).mean(-1)
    return np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean()

  # A bar that moves between the two fields of a frame.
  x = np.arange(128)
  moments = np.stack([np.abs(x - 20 - 4 * t) < 12 for t in range(24)])
  fields = np.repeat(moments[:, None, :, None] * np.uint8(200), 3, -1)
  images = [np.repeat(field, 64, 0) for field in fields[::2]]
  for image, second in zip(images, fields[1::2], strict=True):
    image[1::2] = second
  options = {'flags': '+ildct+ilme', 'x264-params': 'tff=1'}
  flagged = made_videos.write(
    tmp_path / 'flagged.mp4', images, options=made_videos.PLAIN | options
  )
  plain = made_videos.write(tmp_path / 'plain.mp4', images)
  whole, decoding = read_all(flagged)
  combed, of_plain = read_all(plain)
  assert len(whole) == 12
  assert [frame.index for frame in whole] == list(range(12))
  assert max(edges(frame.image) for frame in whole) < 2
  assert min(edges(frame.image) for frame in combed) > 10
  assert decoding.notes == ('interlaced, deinterlaced',)
  assert not of_plain.notes
  # A frame is the same alone, first, last or among others.
  for frame in read_all(flagged, [0, 5, 11])[0]:
    np.testing.assert_array_equal(frame.image, whole[frame.index].image)


@pytest.mark.parametrize(
  'matrix, name',
  [('ictcp', 'ICtCp'), ('ycgco', 'YCgCo'), ('bt2020c', 'constant luminance')],
)
def test_what_cannot_be_converted_is_missing_and_says_why(
  tmp_path, matrix, name
):
  path = made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(4)),
    options=made_videos.PLAIN | {'x264-params': f'colormatrix={matrix}'},
  )
  frames, decoding = read_all(path)
  assert not frames
  assert sorted(decoding.missing) == [0, 1, 2, 3]
  assert all(name in reason for reason in decoding.missing.values())
  assert 'ffmpeg -i' in decoding.missing[0]
  assert decoding.notes == ('4 of 4 frames cannot be converted',)


def test_decoding_goes_on_behind_a_damaged_stretch(tmp_path):
  path = made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(60)),
    options=made_videos.PLAIN | {'g': '10'},
  )
  whole, _ = read_all(path)
  with av.open(str(path)) as container:
    places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
  raw = bytearray(path.read_bytes())
  for place, size in places[22:25]:
    raw[place : place + size] = b'\xff' * size
  path.write_bytes(raw)
  frames, decoding = read_all(path)
  assert video.probe(path).num_frames == 60
  by_time = {round(25 * frame.time): frame.image for frame in frames}
  assert {*range(22), *range(30, 60)} <= set(by_time)
  for number in (*range(22), *range(30, 60)):
    np.testing.assert_array_equal(by_time[number], whole[number].image)
  assert decoding.num_frames == len(frames) == 57
  assert len(decoding.errors) == 3
  assert decoding.notes == ('3 of 60 frames damaged',)


def test_blocks_that_the_decoder_guessed_are_damage_too(tmp_path):
  rng = np.random.default_rng(0)
  images = list(rng.integers(0, 255, (12, 64, 128, 3), np.uint8))
  path = made_videos.write(
    tmp_path / 'a.mp4', images, options=made_videos.PLAIN | {'g': '1'}
  )
  with av.open(str(path)) as container:
    places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
  place, size = places[7]
  raw = bytearray(path.read_bytes())
  raw[place + size // 2 : place + size - 9] = bytes(size - 9 - size // 2)
  path.write_bytes(raw)
  frames, decoding = read_all(path)
  assert len(frames) == 12
  assert decoding.notes == ('1 of 12 frames damaged',)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'avi'])
def test_a_cut_off_file_gives_the_frames_it_has(tmp_path, suffix):
  path = made_videos.write(
    tmp_path / f'a.{suffix}',
    made_videos.numbered(range(60)),
    codec='mpeg4',
    container_options={'movflags': 'faststart'} if suffix == 'mp4' else {},
  )
  assert not video.probe(path).notes
  raw = path.read_bytes()
  cut = tmp_path / f'cut.{suffix}'
  cut.write_bytes(raw[: len(raw) * 3 // 4])
  stream = video.probe(cut)
  assert 10 < stream.num_frames < 58
  (note,) = stream.notes
  if suffix == 'mkv':
    assert note == f'cut off: {len(raw) - len(raw) * 3 // 4} bytes are missing'
  else:
    assert note == f'cut off: {stream.num_frames} of 60 frames are there'
  frames, _ = read_all(cut)
  assert numbers(frames[:-1]) == list(range(len(frames) - 1))
  assert len(frames) >= stream.num_frames - 1


def test_bytes_behind_the_last_box_are_not_cut_off(numbered):
  numbered.write_bytes(numbered.read_bytes() + bytes(1000))
  assert not video.probe(numbered).notes


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


def test_a_list_of_files_is_no_video(numbered):
  playlist = numbered.with_name('list.mp4')
  playlist.write_text(f'ffconcat version 1.0\nfile {numbered.name}\n')
  with pytest.raises(ValueError, match=r'list\.mp4 is a list of other'):
    video.probe(playlist)


def test_a_missing_file_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent'):
    video.probe(tmp_path / 'absent.mp4')


def test_a_file_of_sound_alone_is_an_error(tmp_path):
  path = tmp_path / 'sound.mkv'
  with av.open(str(path), 'w') as out:
    audio = made_videos.add_silence(out)
    for packet in made_videos.silence(audio, 0, 20):
      out.mux(packet)
  with pytest.raises(ValueError, match=r'sound\.mkv holds no video'):
    video.probe(path)


@pytest.mark.parametrize(
  'suffix, codec, old, new',
  [
    ('mp4', 'libx264', b'avc1', b'zzzz'),
    ('mkv', 'libx264', b'V_MPEG4/ISO/AVC', b'V_MPEG4/ISO/XXX'),
    ('avi', 'mpeg4', b'FMP4', b'zzzz'),
  ],
)
def test_an_unknown_codec_is_named_with_a_way_out(
  tmp_path, suffix, codec, old, new
):
  path = made_videos.write(
    tmp_path / f'a.{suffix}', made_videos.numbered(range(9)), codec
  )
  path.write_bytes(path.read_bytes().replace(old, new))
  with pytest.raises(ValueError, match='ffmpeg -i') as error:
    video.probe(path)
  assert new.decode() in str(error.value)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  'name', [b'caf\xe9.mp4', b'2026-11-27T10:30:00.mp4', b'a[b]\n%d.mp4']
)
def test_any_name_will_do(numbered, name, monkeypatch):
  monkeypatch.chdir(numbered.parent)
  path = pathlib.Path(os.fsdecode(name))
  numbered.rename(path)
  assert video.probe(path).num_frames == 60
  assert numbers(read_all(path, [3, 4])[0]) == [3, 4]


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


@pytest.mark.parametrize('num_frames', [4, 5, 8, 31, 32, 33, 100, 10_000])
@pytest.mark.parametrize('clip_frames', [1, 2, 4, 8])
def test_dense_frames_are_whole_clips_that_share_no_frame(
  num_frames, clip_frames
):
  found = video.frame_indices(num_frames, 32, 'dense', clip_frames)
  assert len(set(found.tolist())) == len(found) <= 32
  assert found.min() >= 0 and found.max() < num_frames
  if num_frames >= clip_frames:
    clips = found.reshape(-1, clip_frames)
    assert (np.diff(clips) == 1).all()
    assert len(clips) == min(32, num_frames) // clip_frames
