"""dlib's landmarks are those that dlib itself places on the crop."""

import importlib.util
import pathlib

import cv2
import numpy as np
import pytest

from data_pipeline.faces import (
  backends,
  crops,
  dlib_points,
  embedded,
  whole_image,
)

dlib = pytest.importorskip('dlib')

pytestmark = pytest.mark.extra


@pytest.fixture(scope='module')
def folder() -> pathlib.Path:
  """Predictors that a package carries, of 68 points and of 5."""
  # Not imported: it wants a setuptools of before 2025.
  spec = importlib.util.find_spec('face_recognition_models')
  if spec is None:
    pytest.skip('face_recognition_models is not installed')
  return pathlib.Path(spec.submodule_search_locations[0]) / 'models'


@pytest.fixture(scope='module')
def file68(folder) -> str:
  return str(folder / 'shape_predictor_68_face_landmarks.dat')


@pytest.fixture(scope='module')
def portrait() -> np.ndarray:
  """The man of the carphone sequence, enlarged: dlib wants 80 px a face."""
  path = pathlib.Path(__file__).parents[1] / 'golden' / 'face_carphone.png'
  small = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
  return cv2.resize(small, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def place(portrait) -> tuple[np.ndarray, np.ndarray]:
  """Box and keypoints of the man's face."""
  found = embedded.CenterFace().detect(portrait)
  return found.boxes[0], found.keypoints[0]


def by_dlib(file: str, crop: np.ndarray) -> np.ndarray:
  """What METHOD 1.2 says, word by word."""
  grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
  first = dlib.get_frontal_face_detector()(grey, 1)[0]
  parts = dlib.shape_predictor(file)(grey, first).parts()
  return np.array([[part.x, part.y] for part in parts])


def train_81(path: pathlib.Path, portrait, box, points) -> str:
  """A predictor of 81 points that has learned one face by heart."""
  options = dlib.shape_predictor_training_options()
  options.oversampling_amount = 2
  options.cascade_depth = 2
  options.tree_depth = 2
  options.num_trees_per_cascade_level = 5
  options.be_verbose = False
  corners = crops.enlarge_box(box, *portrait.shape[:2], 0.25)
  grey = cv2.cvtColor(crops.cut(portrait, corners), cv2.COLOR_RGB2GRAY)
  in_crop = crops.to_crop_pixels(points, corners)
  shape = dlib.full_object_detection(
    dlib.get_frontal_face_detector()(grey, 1)[0],
    dlib.points([dlib.point(*map(round, p)) for p in in_crop.tolist()]),
  )
  dlib.train_shape_predictor([grey], [[shape]], options).save(str(path))
  return str(path)


def test_an_81_point_file_gives_what_dlib_gives_to_the_pixel(
  tmp_path, portrait, place
):
  mesh = embedded.FaceMesh().landmarks(portrait, *place)
  file = train_81(tmp_path / 'p81.dat', portrait, place[0], mesh)
  backend = backends.open_backend(backends.Choice('dlib', (file,)))
  crop = crops.crop_face(portrait, *place, backend)
  stored = crops.to_crop_pixels(crop.landmarks, crop.corners)
  # Not nearly: a point is cut off to whole pixels when hulls are drawn.
  np.testing.assert_array_equal(stored, by_dlib(file, crop.image))


def test_a_68_point_file_gives_dlibs_points_and_the_forehead_of_the_mesh(
  file68, portrait, place
):
  backend = backends.open_backend(backends.Choice('dlib', (file68,)))
  crop = crops.crop_face(portrait, *place, backend)
  stored = crops.to_crop_pixels(crop.landmarks, crop.corners)
  np.testing.assert_array_equal(stored[:68], by_dlib(file68, crop.image))
  mesh = embedded.FaceMesh().landmarks(portrait, *place)
  np.testing.assert_allclose(
    stored[68:], crops.to_crop_pixels(mesh, crop.corners)[68:], atol=1e-3
  )
  # Two ways to find the same face.
  width = np.ptp(stored[:17, 0])
  error = np.linalg.norm(
    stored[17:68] - crops.to_crop_pixels(mesh, crop.corners)[17:68], axis=1
  )
  assert error.mean() < 0.05 * width


def test_the_crops_of_others_are_looked_at_whole(file68, portrait, place):
  backend = backends.open_backend(backends.Choice('dlib', (file68,)))
  cut = crops.crop_face(portrait, *place, backend).image
  around = whole_image.WholeImageBackend(backend)
  found = around.detect(cut)
  crop = crops.crop_face(
    cut, found.boxes[0], found.keypoints[0], around, margin=0.0
  )
  stored = crops.to_crop_pixels(crop.landmarks, crop.corners)
  np.testing.assert_array_equal(stored[:68], by_dlib(file68, cut))


def test_where_dlib_sees_no_face_there_are_no_landmarks(file68):
  points = dlib_points.DlibPoints(file68)
  blank = np.zeros((200, 200, 3), np.uint8)
  box = np.array([50, 50, 150, 150], np.float32)
  assert points.landmarks(blank, box, np.zeros((5, 2), np.float32)) is None


def test_another_file_is_refused_with_what_it_is(tmp_path, folder):
  text = tmp_path / 'a.dat'
  text.write_text('no model')
  with pytest.raises(
    ValueError, match=r'a\.dat: not a shape predictor of dlib'
  ):
    dlib_points.DlibPoints(str(text))
  with pytest.raises(ValueError, match=r'predictor of 5 points; .* 68 or 81'):
    dlib_points.DlibPoints(str(folder / 'shape_predictor_5_face_landmarks.dat'))
