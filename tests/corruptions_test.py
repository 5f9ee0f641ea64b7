"""Each kind of damage against what its parameter says."""

import cv2
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


# The levels 1 to 5 of DeeperForensics-1.0, written down a second time.
def test_saturation_scales_the_distance_from_grey(frame):
  grey = frame.astype(float) @ [0.299, 0.587, 0.114]
  for level, share in enumerate((0.4, 0.3, 0.2, 0.1, 0.0), 1):
    want = grey[..., None] + share * (frame - grey[..., None])
    np.testing.assert_allclose(
      damage(frame, 'saturation', level), want, atol=0.51
    )


def test_contrast_darkens_to_a_share(frame):
  for level, share in enumerate((0.85, 0.725, 0.6, 0.475, 0.35), 1):
    np.testing.assert_allclose(
      damage(frame, 'contrast', level), frame * share, atol=0.51
    )


@pytest.mark.parametrize(
  ('level', 'count'), list(enumerate((16, 32, 48, 64, 80), 1))
)
def test_blocks_are_grey_squares_in_proportion_to_the_shorter_side(
  level, count
):
  white = np.full((512, 600, 3), 255, np.uint8)
  changed = (damage(white, 'blocks', level) != 255).all(-1)
  assert (damage(white, 'blocks', level)[changed] == 128).all()
  # Twice as many at 512 px; a few of them overlap.
  assert 0.9 * 2 * count * 64 < changed.sum() <= 2 * count * 64


@pytest.mark.parametrize(
  ('level', 'variance'), list(enumerate((0.001, 0.002, 0.005, 0.01), 1))
)
def test_noise_has_the_variance_it_says_in_each_channel(level, variance):
  grey = np.full((256, 256, 3), 128, np.uint8)
  noisy = damage(grey, 'noise', level).astype(float) / 255
  luma = noisy @ [0.299, 0.587, 0.114]
  blue = (noisy[..., 2] - luma) / 1.772
  red = (noisy[..., 0] - luma) / 1.402
  for channel in (luma, blue, red):
    assert channel.var() == pytest.approx(variance, rel=0.1)


def test_the_most_noise_is_clipped_where_luma_ends():
  """Its variance is that of a normal one cut off at both ends."""
  grey = np.full((256, 256, 3), 128, np.uint8)
  corruption = corruptions.Corruption('noise', 5)
  assert corruption.parameter == 0.05
  noisy = damage(grey, 'noise', 5).astype(float) / 255
  drawn = np.random.default_rng(0).normal(128 / 255, 0.05**0.5, (256, 256, 3))
  luma, blue, red = np.moveaxis(np.clip(drawn, 0, 1), -1, 0)
  blue, red = 1.772 * (blue - 128 / 255), 1.402 * (red - 128 / 255)
  green = luma - (0.299 * red + 0.114 * blue) / 0.587
  want = np.clip(np.stack([luma + red, green, luma + blue], -1), 0, 1)
  np.testing.assert_allclose(noisy.std((0, 1)), want.std((0, 1)), rtol=0.03)


@pytest.mark.parametrize(
  ('level', 'width'), list(enumerate((7, 9, 13, 17, 21), 1))
)
def test_blur_spreads_a_point_as_a_gaussian_of_a_sixth_of_its_width(
  level, width
):
  point = np.zeros((41, 41, 3), np.uint8)
  point[20, 20] = 255
  blurred = damage(point, 'blur', level)[..., 0].astype(float)
  half = width // 2
  axis = np.arange(-half, half + 1)
  kernel = np.exp(-(axis**2) / (2 * (width / 6) ** 2))
  kernel /= kernel.sum()
  want = np.zeros((41, 41))
  want[20 - half : 21 + half, 20 - half : 21 + half] = 255 * np.outer(
    kernel, kernel
  )
  np.testing.assert_allclose(blurred, want, atol=1)


@pytest.mark.parametrize(
  ('level', 'times'), list(enumerate((2, 3, 4, 5, 6), 1))
)
def test_downscaling_leaves_no_detail_finer_than_its_factor(level, times):
  frame = np.random.default_rng(0).integers(0, 256, (120, 180, 3), np.uint8)
  small = cv2.resize(frame, (180 // times, 120 // times))
  want = cv2.resize(small, (180, 120))
  np.testing.assert_array_equal(damage(frame, 'downscale', level), want)


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
