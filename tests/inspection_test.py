"""A sheet shows crops of videos with their landmarks."""

import cv2
import numpy as np
import pytest

from data_pipeline import inspection
from tests.conftest import make_video


def test_landmarks_are_drawn_where_they_lie_in_the_crop():
  crop = np.full((256, 256, 3), 100, np.uint8)
  points = np.full((81, 2), 20.0, np.float32)
  points[70] = (200, 100)  # forehead
  drawn = inspection.draw_landmarks(crop, points)
  x, y = round(200.5 * 144 / 256 - 0.5), round(100.5 * 144 / 256 - 0.5)
  np.testing.assert_array_equal(drawn[y, x], (160, 160, 255))
  assert (drawn[y - 4 : y + 5, x + 4] == 100).all()


def test_a_video_is_a_row_of_frames_spread_over_it():
  short = inspection.draw_video(make_video('a', 3), 'val')
  long = inspection.draw_video(make_video('b', 30, label=1), 'test')
  assert short.shape == long.shape
  assert (short[40, -60] == 255).all() and (long[40, -60] != 255).any()


def test_a_sheet_takes_videos_of_all_splits(data_root, tmp_path):
  rules = inspection.stored_rules(
    data_root, 'demo', ['consecutive', 'uniform', 'dense']
  )
  assert rules == ['consecutive', 'uniform']
  path = inspection.write_sheet(data_root, 'demo', 'uniform', 3)
  try:
    sheet = cv2.imread(str(path))
    one = inspection.draw_video(make_video('a', 3), 'val')
    assert sheet.shape == (3 * len(one), one.shape[1], 3)
  finally:
    path.unlink()
  with pytest.raises(ValueError, match='no prepared dataset'):
    inspection.write_sheet(data_root, 'absent', 'uniform', 3)
