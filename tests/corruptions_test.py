"""Each kind of damage against what its parameter says."""

import av
import cv2
import face_videos
import numpy as np
import pytest

from data_pipeline import corruptions


@pytest.fixture
def frame() -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (96, 128, 3), np.uint8)


def damage(frame, kind, level=3, name='a', index=0):
  corruption = corruptions.Corruption(kind, level)
  return corruptions.corrupt_frame(frame, corruption, name, index)


FRAME_KINDS = [
  kind
  for kind in corruptions.PARAMETERS
  if not corruptions.Corruption(kind, 1).of_files
]


def test_saturation_scales_the_distance_from_grey(frame):
  grey = frame.astype(float) @ [0.299, 0.587, 0.114]
  for level, share in zip((1, 3, 5), (0.4, 0.2, 0.0), strict=True):
    want = grey[..., None] + share * (frame - grey[..., None])
    np.testing.assert_allclose(
      damage(frame, 'saturation', level), want, atol=0.51
    )


def test_contrast_darkens_to_a_share(frame):
  for level, share in enumerate((0.85, 0.725, 0.6, 0.475, 0.35), 1):
    np.testing.assert_allclose(
      damage(frame, 'contrast', level), frame * share, atol=0.51
    )


@pytest.mark.parametrize('level, count', [(1, 16), (5, 80)])
def test_blocks_are_grey_squares_in_proportion_to_the_shorter_side(
  level, count
):
  white = np.full((512, 600, 3), 255, np.uint8)
  changed = (damage(white, 'blocks', level) != 255).all(-1)
  assert (damage(white, 'blocks', level)[changed] == 128).all()
  # Twice as many at 512 px; a few of them overlap.
  assert 0.9 * 2 * count * 64 < changed.sum() <= 2 * count * 64


@pytest.mark.parametrize('level', (1, 2, 3, 4))  # the fifth is clipped
def test_noise_has_the_variance_it_says(level):
  grey = np.full((256, 256, 3), 128, np.uint8)
  noisy = damage(grey, 'noise', level).astype(float) / 255
  luma = noisy @ [0.299, 0.587, 0.114]
  variance = corruptions.PARAMETERS['noise'][level - 1]
  assert luma.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize('level', corruptions.LEVELS)
def test_blur_spreads_a_point_as_a_gaussian_of_a_sixth_of_its_width(level):
  width = corruptions.PARAMETERS['blur'][level - 1]
  point = np.zeros((41, 41, 3), np.uint8)
  point[20, 20] = 255
  blurred = damage(point, 'blur', level)[..., 0].astype(float)
  axis = np.arange(-(width // 2), width // 2 + 1)
  kernel = np.exp(-(axis**2) / (2 * (width / 6) ** 2))
  kernel /= kernel.sum()
  want = np.zeros((41, 41))
  half = int(width) // 2
  want[20 - half : 21 + half, 20 - half : 21 + half] = 255 * np.outer(
    kernel, kernel
  )
  np.testing.assert_allclose(blurred, want, atol=1)


def test_downscaling_leaves_no_detail_finer_than_its_factor(frame):
  height, width = frame.shape[:2]
  small = cv2.resize(frame, (width // 4, height // 4))
  want = cv2.resize(small, (width, height))
  np.testing.assert_array_equal(damage(frame, 'downscale', 3), want)


@pytest.mark.parametrize('kind', FRAME_KINDS)
def test_damage_depends_on_name_and_number_alone(frame, kind):
  np.testing.assert_array_equal(damage(frame, kind), damage(frame, kind))
  if kind in ('noise', 'blocks'):
    assert (damage(frame, kind) != damage(frame, kind, index=1)).any()
    assert (damage(frame, kind) != damage(frame, kind, name='b')).any()


@pytest.mark.parametrize('kind', FRAME_KINDS)
def test_a_higher_level_does_more(frame, kind):
  smooth = cv2.GaussianBlur(frame, (9, 9), 2)
  errors = [
    np.abs(damage(smooth, kind, level).astype(int) - smooth).mean()
    for level in corruptions.LEVELS
  ]
  assert errors == sorted(errors)


def properties(path) -> tuple[int, int, float, int]:
  with av.open(str(path)) as file:
    stream = file.streams.video[0]
    frames = sum(1 for _ in file.decode(stream))
    return stream.width, stream.height, float(stream.average_rate), frames


def test_compression_keeps_size_and_frames_and_makes_files_smaller(tmp_path):
  path = face_videos.write_face_video(tmp_path / 'a.mp4', 20)
  sizes = []
  for level in (1, 5):
    corruption = corruptions.Corruption('h264', level)
    with corruptions.compressed_file(path, corruption) as copy:
      assert properties(copy) == (160, 144, 30.0, 20)
      sizes.append(copy.stat().st_size)
  assert sizes[1] < sizes[0]
  assert not copy.exists()


def test_a_social_network_takes_size_and_frames_away(tmp_path):
  path = tmp_path / 'a.mp4'
  face_videos.write_numbered_video(path, 25, size=(1024, 512))
  corruption = corruptions.Corruption('social', 5)
  with corruptions.compressed_file(path, corruption) as copy:
    width, height, rate, frames = properties(copy)
  assert (width, height, rate) == (480, 240, 15.0)
  assert frames == 15  # a second


@pytest.fixture
def crops() -> np.ndarray:
  """Four frames of a smooth picture that moves."""
  noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
  smooth = cv2.GaussianBlur(noise, (0, 0), 6)
  smooth = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)
  return np.stack([smooth[3 * i : 3 * i + 256, :256] for i in range(4)])


def test_crops_are_damaged_as_the_frames_at_their_places(crops):
  for kind in FRAME_KINDS:
    corruption = corruptions.Corruption(kind, 2)
    got = corruptions.corrupt_crops(crops, corruption, 'a', 8)
    for i, crop in enumerate(crops):
      want = corruptions.corrupt_frame(crop, corruption, 'a', 8 + i)
      np.testing.assert_array_equal(got[i], want)


@pytest.mark.parametrize('num_frames', (1, 4))
def test_compressed_crops_are_the_same_frames_the_worse_the_higher_the_level(
  crops, num_frames
):
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


def test_all_damage_to_crops_is_seven_kinds_at_five_levels():
  chosen = corruptions.select(['all'])
  assert len(chosen) == len(set(chosen)) == 35
  assert corruptions.select(['blur', 'blur:2', 'noise:1']) == [
    *(corruptions.Corruption('blur', level) for level in corruptions.LEVELS),
    corruptions.Corruption('noise', 1),
  ]
  assert corruptions.select([]) == []


def test_what_crops_cannot_be_given_says_where_it_can():
  with pytest.raises(ValueError, match='prepare --corrupt=social:3'):
    corruptions.select(['social:3'])
  with pytest.raises(ValueError, match='with a kind of saturation'):
    corruptions.select(['fog'])


@pytest.mark.parametrize('text', ['fog:3', 'blur:0', 'blur:6', 'blur', ''])
def test_an_unknown_kind_or_level_lists_those_there_are(text):
  with pytest.raises(ValueError, match='KIND:LEVEL with a kind of saturation'):
    corruptions.parse(text)


def test_a_file_that_is_no_video_is_one_sentence(tmp_path):
  (tmp_path / 'a.mp4').write_text('no film')
  corruption = corruptions.Corruption('h264', 1)
  with (
    pytest.raises(ValueError, match='cannot be compressed anew'),
    corruptions.compressed_file(tmp_path / 'a.mp4', corruption),
  ):
    pass
