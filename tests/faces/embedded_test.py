"""The embedded face backend on a real face."""

import pathlib

import cv2
import face_videos
import numpy as np
import pytest

from data_pipeline.faces import embedded


@pytest.fixture(scope='module')
def backend() -> embedded.EmbeddedBackend:
  return embedded.EmbeddedBackend()


@pytest.fixture(scope='module')
def portrait() -> np.ndarray:
  """A frame of the carphone sequence: one man, 176 x 144."""
  path = pathlib.Path(__file__).parents[1] / 'golden' / 'face_carphone.png'
  return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_the_detector_finds_the_face_of_a_photograph(backend, portrait):
  found = backend.detect(portrait)
  assert found.boxes.shape == (1, 4)
  assert found.scores[0] > 0.7
  # Eyes, nose and mouth as a person sees them in the picture, px.
  x0, y0, x1, y1 = found.boxes[0]
  eyes, mouth = found.keypoints[0, :2].mean(0), found.keypoints[0, 3:].mean(0)
  assert x0 < eyes[0] < x1
  assert y0 < eyes[1] < mouth[1] < y1
  assert 40 < x1 - x0 < 70


def test_landmarks_sit_where_dlib_puts_them(backend, portrait):
  found = backend.detect(portrait)
  points = backend.landmarks(portrait, found.boxes[0], found.keypoints[0])
  left_eye, right_eye = points[36:42].mean(0), points[42:48].mean(0)
  nose_tip, mouth, chin = points[30], points[48:60].mean(0), points[8]
  between_eyes = np.linalg.norm(right_eye - left_eye)
  # The detector, another network, agrees on eyes and mouth corners; its nose
  # point lies lower, between the nostrils.
  ours = np.array([left_eye, right_eye, points[48], points[54]])
  error = np.linalg.norm(ours - found.keypoints[0, [0, 1, 3, 4]], axis=1)
  assert error.max() < 0.12 * between_eyes
  # dlib's order: image left first, jaw 0-16, forehead above the brows.
  assert left_eye[0] < right_eye[0]
  assert points[0, 0] < points[8, 0] < points[16, 0]
  assert left_eye[1] < nose_tip[1] < mouth[1] < chin[1]
  # Above is along the face, which is tilted here; the forehead's arc ends at
  # the temples, and its middle stands above the brows.
  up = (left_eye + right_eye) / 2 - chin
  height = (points - chin) @ (up / np.linalg.norm(up))
  assert height[[70, 71, 80, 72]].min() > height[17:27].max()


def test_landmarks_follow_the_face_when_the_picture_is_enlarged(
  backend, portrait
):
  found = backend.detect(portrait)
  points = backend.landmarks(portrait, found.boxes[0], found.keypoints[0])
  large = cv2.resize(portrait, None, fx=3, fy=3)
  again = backend.detect(large)
  points_large = backend.landmarks(large, again.boxes[0], again.keypoints[0])
  between_eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
  expected = (points + 0.5) * 3 - 0.5
  error = np.linalg.norm(points_large - expected, axis=1).mean()
  assert error < 0.06 * 3 * between_eyes


def test_no_face_is_found_where_there_is_none(backend):
  y, x = np.mgrid[:144, :176]
  stripes = np.repeat((((x + y) // 8 % 2) * 255)[..., None], 3, 2)
  found = backend.detect(stripes.astype(np.uint8))
  assert found.boxes.shape == (0, 4)
  assert found.keypoints.shape == (0, 5, 2)


def test_the_mesh_refuses_what_is_no_face(backend):
  grey = np.full((200, 200, 3), 128, np.uint8)
  claimed = face_videos.make_faces((50, 50, 150, 150))
  points = backend.landmarks(grey, claimed.boxes[0], claimed.keypoints[0])
  assert points is None


def test_every_landmark_is_a_weighted_mean_of_mesh_vertices():
  weights = embedded.mesh_to_landmarks()
  assert weights.shape == (81, 478)
  np.testing.assert_allclose(weights.sum(1), 1, atol=1e-3)
