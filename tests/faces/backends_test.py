"""Backends by name, and found again by the name that records keep."""

import pathlib
import sys

import cv2
import handmade_onnx
import numpy as np
import pytest

from data_pipeline.faces import backends, embedded
from tests.faces import retinaface_test, scrfd_test


@pytest.fixture
def scrfd_file(tmp_path) -> str:
  path = tmp_path / 'scrfd_bnkps.onnx'
  outputs = scrfd_test.make_outputs([scrfd_test.FACE])
  return str(handmade_onnx.write_constants(path, outputs))


def test_the_default_is_the_embedded_one_under_the_name_of_before():
  backend = backends.open_backend(backends.Choice())
  assert isinstance(backend, embedded.EmbeddedBackend)
  assert backend.name == 'centerface+facemesh_v2'
  assert backends.Choice().full_name == backend.name


def test_a_name_tells_its_files_and_leads_back_to_them(scrfd_file):
  choice = backends.Choice('scrfd', (scrfd_file,))
  backend = backends.open_backend(choice)
  assert backend.name == choice.full_name
  assert backend.name.startswith('scrfd-')
  assert backend.name.endswith('+facemesh_v2')
  assert backends.choose_again(backend.name, [scrfd_file]) == choice
  assert backends.choose_again(backend.name, [scrfd_file], 'scrfd') == choice


def test_boxes_of_one_and_landmarks_of_another_are_one_backend(tmp_path):
  path = pathlib.Path(__file__).parents[1] / 'golden' / 'face_carphone.png'
  portrait = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
  own = backends.open_backend(backends.Choice())
  (box,), (points,) = own.detect(portrait).boxes, own.detect(portrait).keypoints
  # A made SCRFD that sees the face where it is.
  scale = scrfd_test.SIDE / portrait.shape[1]
  middle = (box[:2] + box[2:]) / 2 * scale // 16
  low, high = middle - box[:2] * scale / 16, box[2:] * scale / 16 - middle
  column, row = middle.astype(int)
  file = handmade_onnx.write_constants(
    tmp_path / 'a.onnx',
    scrfd_test.make_outputs(
      [(0.9, 16, row, column, 0, (*low, *high), points * scale / 16 - middle)]
    ),
  )
  backend = backends.open_backend(backends.Choice('scrfd', (str(file),)))
  found = backend.detect(portrait)
  np.testing.assert_allclose(found.boxes[0], box, atol=0.1)
  np.testing.assert_allclose(
    backend.landmarks(portrait, found.boxes[0], found.keypoints[0]),
    own.landmarks(portrait, box, points),
    atol=0.3,
  )


def test_every_name_opens_by_its_own_full_name(tmp_path, scrfd_file):
  retina = handmade_onnx.write_constants(
    tmp_path / 'retina.onnx', retinaface_test.make_outputs()
  )
  choice = backends.Choice('retinaface', (str(retina),))
  backend = backends.open_backend(choice)
  assert backend.name == choice.full_name
  assert backend.name.startswith('retinaface-')
  # Without dlib the names alone: they lead back to their files in any order.
  for name, first in (('scrfd+dlib', scrfd_file), ('retinaface+dlib', retina)):
    predictor = tmp_path / 'points.dat'
    predictor.write_bytes(b'points')
    files = (str(first), str(predictor))
    choice = backends.Choice(name, files)
    again = backends.choose_again(choice.full_name, files[::-1])
    assert again == choice


@pytest.mark.parametrize(
  ('name', 'files', 'says'),
  [
    ('mtcnn', (), "--backend is 'mtcnn'; it is one of embedded, dlib, scrfd"),
    ('embedded', ('a.dat',), '--backend=embedded takes no --face_model; 1 giv'),
    ('dlib', (), '--face_model=FILE, a shape predictor of dlib'),
    ('scrfd+dlib', ('a',), 'five points, .onnx and --face_model=FILE, a shape'),
    ('scrfd', ('/nowhere/a.onnx',), 'cannot be read .No such file'),
  ],
)
def test_a_wrong_choice_is_one_sentence(name, files, says):
  with pytest.raises(ValueError, match=says):
    backends.Choice(name, files)


def test_dlib_without_its_package_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'dlib', None)
  file = tmp_path / 'points.dat'
  file.write_bytes(b'points')
  with pytest.raises(ValueError, match='needs the package dlib: pip install'):
    backends.open_backend(backends.Choice('dlib', (str(file),)))


def test_what_found_the_faces_of_a_run_is_asked_for_and_no_other_taken(
  tmp_path, scrfd_file
):
  name = backends.Choice('scrfd', (scrfd_file,)).full_name
  digest = name.partition('-')[2].partition('+')[0]
  with pytest.raises(ValueError, match=f'found by scrfd; give the .*{digest}'):
    backends.choose_again(name)
  other = tmp_path / 'other.onnx'
  other.write_bytes(b'other')
  with pytest.raises(ValueError, match=r'other\.onnx is [0-9a-f]{16}'):
    backends.choose_again(name, [other])
  with pytest.raises(ValueError, match='leave the flag out'):
    backends.choose_again(name, [scrfd_file], 'embedded')
  with pytest.raises(ValueError, match='given 2 times'):
    backends.choose_again(name, [scrfd_file, other])
  with pytest.raises(ValueError, match='found by mtcnn-1, which this version'):
    backends.choose_again('mtcnn-1')
  assert backends.choose_again('') == backends.Choice()
