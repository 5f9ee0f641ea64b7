"""Pictures side by side."""

import numpy as np
import pytest

from data_pipeline import sheet


def test_a_picture_is_the_same_from_bytes_and_from_floats():
  levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  np.testing.assert_array_equal(
    sheet.picture(levels, 32), sheet.picture(levels / 255, 32)
  )
  grey = sheet.picture(np.eye(4), 32)
  assert set(np.unique(grey)) == {0, 255}  # a small map keeps its edges


def test_a_row_has_white_between_its_pictures():
  black = np.zeros((8, 8, 3), np.uint8)
  row = sheet.row([black, black])
  assert row.shape == (12, 24, 3)
  assert (row[:8, 8:12] == 255).all() and (row[:8, 12:20] == 0).all()


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path):
  image = np.zeros((4, 4, 3), np.uint8)
  sheet.write_text(image, 'é', (0, 4))
  sheet.save(tmp_path / 'new' / 'a.png', image)
  (tmp_path / 'b.png').mkdir()
  with pytest.raises(OSError, match=r'b\.png could not be written'):
    sheet.save(tmp_path / 'b.png', image)
