"""A copy that is compressed anew shows what the video shows, only worse."""

import errno
import tempfile

import av
import cv2
import face_videos
import made_videos
import numpy as np
import pytest

from data_pipeline import corruptions, recompression
from data_pipeline.faces import encoder_note, video


def compressed(path, kind, level):
  of = corruptions.Corruption(kind, level)
  return recompression.compressed_file(
    path, int(of.parameter), of.most_side, of.most_rate
  )


def properties(path) -> tuple[int, int, float, int]:
  with av.open(str(path)) as file:
    stream = file.streams.video[0]
    frames = sum(1 for _ in file.decode(stream))
    return stream.width, stream.height, float(stream.average_rate), frames


@pytest.mark.parametrize(
  ('level', 'rate_factor'), list(enumerate((30, 32, 35, 38, 40), 1))
)
def test_h264_has_the_rate_factor_of_its_level(tmp_path, level, rate_factor):
  path = face_videos.write_face_video(tmp_path / 'a.mp4', 4)
  with compressed(path, 'h264', level) as copy:
    assert encoder_note.read_crf(copy) == rate_factor


def test_compression_keeps_size_and_frames_and_makes_files_smaller(tmp_path):
  path = face_videos.write_face_video(tmp_path / 'a.mp4', 20)
  sizes = []
  for level in (1, 5):
    with compressed(path, 'h264', level) as copy:
      assert properties(copy) == (160, 144, 30.0, 20)
      sizes.append(copy.stat().st_size)
  assert sizes[1] < sizes[0]
  assert not copy.exists()


@pytest.mark.parametrize(
  ('level', 'want'),
  [
    (1, (1024, 512, 25.0, 25, 28)),
    (2, (960, 480, 25.0, 25, 30)),
    (4, (640, 320, 25.0, 25, 36)),
    (5, (480, 240, 15.0, 15, 40)),  # a second
  ],
)
def test_a_social_network_takes_size_and_frames_away(tmp_path, level, want):
  path = tmp_path / 'a.mp4'
  face_videos.write_numbered_video(path, 25, size=(1024, 512))
  with compressed(path, 'social', level) as copy:
    *size, rate, frames = properties(copy)
    assert (*size, round(rate), frames, encoder_note.read_crf(copy)) == want


def test_what_stays_is_the_first_frame_at_or_after_each_moment(tmp_path):
  path = face_videos.write_numbered_video(tmp_path / 'a.mp4', 20)
  with recompression.compressed_file(path, 10, most_rate=10.0) as copy:
    frames = list(video.decode_frames(copy, range(8)))
  kept = [face_videos.read_number(frame.image) for frame in frames]
  assert kept == [0, 3, 5, 8, 10, 13, 15, 18]


def test_a_pause_is_not_made_up_for(tmp_path):
  pts = [*range(30), *range(300, 360)]  # 1 s, 9 s of nothing, 2 s
  path = made_videos.write(
    tmp_path / 'a.mp4', made_videos.numbered(range(90)), pts=pts, rate=30
  )
  with recompression.compressed_file(path, 30, most_rate=5.0) as copy:
    times = [frame.time for frame in video.decode_frames(copy, range(90))]
  moments = [*range(5), *range(50, 60)]
  np.testing.assert_allclose(times, np.divide(moments, 5), atol=1e-4)


def test_a_time_rounded_to_milliseconds_is_not_before_its_moment(tmp_path):
  path = made_videos.write(
    tmp_path / 'a.mkv', made_videos.numbered(range(30)), rate=30
  )
  with recompression.compressed_file(path, 10, most_rate=15.0) as copy:
    frames = list(video.decode_frames(copy, range(30)))
  kept = [face_videos.read_number(frame.image) for frame in frames]
  assert kept == [*range(0, 30, 2)]


def test_a_turned_film_of_oblong_pixels_is_upright_and_square(tmp_path):
  def adjust(stream):
    one = 1 << 16
    stream.set_display_matrix((0, one, 0, -one, 0, 0, 0, 0, 1 << 30))
    stream.codec_context.sample_aspect_ratio = 2

  path = made_videos.write(
    tmp_path / 'a.mp4', made_videos.numbered(range(3)), adjust=adjust
  )
  wanted = list(video.decode_frames(path, range(3)))
  with recompression.compressed_file(path, 10) as copy:
    got = list(video.decode_frames(copy, range(3)))
  for want, frame in zip(wanted, got, strict=True):
    assert frame.image.shape == want.image.shape == (256, 64, 3)
    assert np.abs(frame.image.astype(int) - want.image).mean() < 8


def test_frames_keep_their_times(tmp_path):
  path = made_videos.write(
    tmp_path / 'a.mp4', made_videos.numbered(range(4)), pts=[0, 1, 10, 30]
  )
  with recompression.compressed_file(path, 30) as copy:
    times = [frame.time for frame in video.decode_frames(copy, range(4))]
  np.testing.assert_allclose(times, [0, 0.04, 0.4, 1.2], atol=1e-4)


@pytest.mark.parametrize('num_frames', (1, 4))
def test_compressed_crops_are_the_same_frames_the_worse_the_higher_the_level(
  num_frames,
):
  noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
  smooth = cv2.GaussianBlur(noise, (0, 0), 6)
  smooth = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)
  crops = np.stack([smooth[3 * i : 3 * i + 256, :256] for i in range(4)])
  errors = []
  for level in corruptions.LEVELS:
    corruption = corruptions.Corruption('h264', level)
    got = corruptions.corrupt_crops(crops[:num_frames], corruption, 'a', 0)
    assert got.shape == crops[:num_frames].shape and got.dtype == np.uint8
    again = corruptions.corrupt_crops(crops[:num_frames], corruption, 'b', 9)
    np.testing.assert_array_equal(got, again)
    error = got.astype(int) - crops[:num_frames]
    errors.append(np.abs(error).mean((1, 2, 3)))
  means = [error.mean() for error in errors]
  assert means == sorted(means) and 0.3 < means[0] < 6
  # Each frame stands at its own place: none is that of a neighbour.
  moved = np.abs(crops[1:].astype(int) - crops[:-1]).mean()
  assert max(errors[0]) < moved


def test_a_file_that_is_no_video_is_one_sentence(tmp_path):
  (tmp_path / 'a.mp4').write_text('no film')
  with (
    pytest.raises(ValueError, match='is not a video that can be read'),
    recompression.compressed_file(tmp_path / 'a.mp4', 30),
  ):
    pass


def test_a_full_disk_is_no_fault_of_the_video(tmp_path, monkeypatch):
  path = face_videos.write_face_video(tmp_path / 'a.mp4', 2)

  def fill(*_):
    av.error.err_check(-errno.ENOSPC)

  monkeypatch.setattr(recompression, '_compress', fill)
  with (
    pytest.raises(OSError, match='No space left') as error,
    recompression.compressed_file(path, 30),
  ):
    pass
  assert error.value.errno == errno.ENOSPC
  assert error.value.filename == tempfile.gettempdir()
