"""Landmarks that came with images are found by the image's name."""

import json

import cv2
import numpy as np
import pytest

from data_pipeline.faces import given_landmarks

POINTS = np.arange(162).reshape(81, 2)


@pytest.fixture
def images(tmp_path):
  folder = tmp_path / 'test' / 'Swap' / 'a'
  folder.mkdir(parents=True)
  for name in ('2.png', '10.png', '11.png', '12.png'):
    cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
  return folder


def test_arrays_lie_under_the_names_of_the_images(tmp_path, images):
  np.save(tmp_path / '2.npy', POINTS)
  np.save(tmp_path / '10.npy', POINTS + 1.0)
  np.save(tmp_path / '11.npy', POINTS[:68])
  (tmp_path / '12.npy').write_bytes(b'')
  given = given_landmarks.GivenLandmarks(images, tmp_path)
  np.testing.assert_array_equal(given(0), POINTS)
  np.testing.assert_array_equal(given(1), POINTS + 1)
  assert given.notes == ()
  assert given(2) is None and given(3) is None
  assert given.notes == ('2 of 4 frames without landmarks of their own',)


def test_the_json_of_the_released_code_names_images_of_another_machine(
  tmp_path, images
):
  def entry(name, points):
    path = f'/elsewhere/test/Swap/{name}'
    return {'image_path': path, 'label': 1, 'orig_lms': points}

  entries = [
    entry('a/2.png', POINTS.tolist()),
    entry('b/10.png', POINTS.tolist()),  # of another video
    entry('a/11.png', []),
    entry('a/12.png', [[1, 2], [3]]),
    {'label': 0},
  ]
  file = tmp_path / 'test.json'
  file.write_text(json.dumps({'data': entries}))
  given = given_landmarks.GivenLandmarks(images, file)
  np.testing.assert_array_equal(given(0), POINTS)
  assert [given(index) for index in (1, 2, 3)] == [None] * 3
  assert given.notes == ('3 of 4 frames without landmarks of their own',)
