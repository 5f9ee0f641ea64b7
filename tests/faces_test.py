"""The embedded detector on a real face; tracks and crops on made-up ones."""

import pathlib

import cv2
import numpy as np
import pytest

from data_pipeline import faces


def make_faces(*boxes: tuple[float, ...], score: float = 0.9) -> faces.Faces:
  """Faces with the given x0, y0, x1, y1, and keypoints in their middles."""
  array = np.array(boxes, np.float32).reshape(-1, 4)
  centres = (array[:, :2] + array[:, 2:]) / 2
  return faces.Faces(
    boxes=array,
    keypoints=np.repeat(centres[:, None], 5, 1),
    scores=np.full(len(array), score, np.float32),
  )


class FixedBackend:
  """Puts all landmarks of a face at its box's upper left corner."""

  name = 'fixed'

  def detect(self, frame):
    return make_faces((10, 10, 30, 30))

  def landmarks(self, frame, box, keypoints):
    return np.tile(box[:2], (81, 1)).astype(np.float32)


@pytest.fixture(scope='module')
def backend() -> faces.EmbeddedBackend:
  return faces.EmbeddedBackend()


@pytest.fixture(scope='module')
def portrait() -> np.ndarray:
  """A frame of the carphone sequence: one man, 176 x 144."""
  path = pathlib.Path(__file__).parent / 'golden' / 'face_carphone.png'
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
  claimed = make_faces((50, 50, 150, 150))
  points = backend.landmarks(grey, claimed.boxes[0], claimed.keypoints[0])
  assert points is None


def test_every_landmark_is_a_weighted_mean_of_mesh_vertices():
  weights = faces.mesh_to_landmarks()
  assert weights.shape == (81, 478)
  np.testing.assert_allclose(weights.sum(1), 1, atol=1e-3)


def test_the_track_keeps_to_one_person_when_sizes_swap():
  # Two people; each is larger than the other every second frame.
  left, right = (10, 10, 60, 60), (200, 10, 250, 60)
  grown = (5, 5, 65, 65), (195, 5, 255, 65)
  frames = [
    make_faces(grown[0], right) if t % 2 else make_faces(left, grown[1])
    for t in range(11)  # the right one is larger in six of eleven
  ]
  track = faces.main_track(frames, np.arange(11))
  assert track.seen.all()
  assert (track.boxes[:, 0] > 150).all()


def test_the_track_is_the_larger_face():
  frames = [make_faces((0, 0, 20, 20), (50, 0, 110, 60)) for _ in range(5)]
  track = faces.main_track(frames, np.arange(5))
  assert (track.boxes[:, 0] == 50).all()


def test_a_track_survives_missed_frames_and_a_small_move():
  frames = [make_faces((10, 10, 60, 60))] * 4 + [make_faces()] * 5
  frames += [make_faces((25, 10, 75, 60))] * 4
  track = faces.main_track(frames, np.arange(13))
  np.testing.assert_array_equal(track.seen, [1] * 4 + [0] * 5 + [1] * 4)


def test_a_cut_to_another_place_starts_another_track():
  frames = [make_faces((10, 10, 60, 60))] * 6
  frames += [make_faces((200, 10, 250, 60))] * 4
  track = faces.main_track(frames, np.arange(10))
  np.testing.assert_array_equal(track.seen, [1] * 6 + [0] * 4)


def test_a_video_without_faces_has_an_empty_track():
  track = faces.main_track([make_faces()] * 3, np.arange(3))
  assert not track.seen.any()


def test_short_gaps_are_filled_on_a_line_and_long_ones_left():
  missing = np.nan
  points = np.array([0, missing, missing, 3, missing, 5, missing], np.float32)
  filled = faces.interpolate_landmarks(
    points[:, None], np.array([0, 1, 2, 3, 10, 20, 21])
  )[:, 0]
  np.testing.assert_allclose(filled, [0, 1, 2, 3, missing, 5, missing])
  assert np.isnan(points[1])  # the input is left alone


def test_a_gap_of_three_frames_is_too_long_to_fill():
  points = np.array([[0], [np.nan], [np.nan], [np.nan], [4]], np.float32)
  filled = faces.interpolate_landmarks(points, np.arange(5))
  assert np.isnan(filled[1:4]).all()


def test_the_crop_is_a_quarter_wider_on_every_side():
  box = np.array([100, 100, 200, 240], np.float32)
  assert faces.enlarge_box(box, 480, 640, 0.25) == (75, 65, 225, 275)


def test_the_crop_ends_where_the_frame_does():
  box = np.array([-10, 5, 50, 65], np.float32)
  assert faces.enlarge_box(box, 60, 640, 0.25) == (0, 0, 65, 60)
  outside = np.array([700, 10, 760, 50], np.float32)
  assert faces.enlarge_box(outside, 480, 640, 0.25) is None


def test_landmarks_move_with_the_pixels_of_the_crop():
  frame = np.zeros((300, 400, 3), np.uint8)
  frame[119:122, 179:182] = 255  # a dot around (180, 120)
  found = make_faces((140, 80, 240, 180))
  crop = faces.crop_face(
    frame, found.boxes[0], found.keypoints[0], FixedBackend()
  )
  assert crop.image.shape == (256, 256, 3)
  assert crop.corners == (115, 55, 265, 205)
  ys, xs = np.nonzero(crop.image[..., 0] > 127)
  dot = np.tile(np.float32([180, 120]), (81, 1))
  moved = faces.to_crop_pixels(dot, crop.corners)[0]
  np.testing.assert_allclose(moved, [xs.mean(), ys.mean()], atol=0.3)
