"""Cut-out faces are taken whole."""

import pathlib

import cv2
import face_videos
import numpy as np

from data_pipeline.faces import crops, embedded, whole_image


def test_the_crop_of_a_whole_image_is_the_image():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (256, 256, 3), np.uint8)
  backend = whole_image.WholeImageBackend(face_videos.FixedBackend())
  found = backend.detect(image)
  crop = crops.crop_face(
    image, found.boxes[0], found.keypoints[0], backend, margin=0.0
  )
  np.testing.assert_array_equal(crop.image, image)


def test_landmarks_are_those_of_the_face_in_it():
  path = pathlib.Path(__file__).parents[1] / 'golden' / 'face_carphone.png'
  portrait = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
  inner = embedded.EmbeddedBackend()
  (box,) = inner.detect(portrait).boxes
  x0, y0, x1, y1 = crops.enlarge_box(box, *portrait.shape[:2], 0.25)
  cut = np.ascontiguousarray(portrait[y0:y1, x0:x1])
  backend = whole_image.WholeImageBackend(inner)
  whole = backend.detect(cut)
  points = backend.landmarks(cut, whole.boxes[0], whole.keypoints[0])
  in_frame = inner.landmarks(portrait, box, inner.detect(portrait).keypoints[0])
  error = np.linalg.norm(points + np.array([x0, y0]) - in_frame, axis=1).mean()
  assert error < 0.03 * (x1 - x0)
