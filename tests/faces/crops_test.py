"""The crop of a face: where it lies, and its landmarks in it."""

import face_videos
import numpy as np

from data_pipeline.faces import crops


def test_the_crop_is_a_quarter_wider_on_every_side():
  box = np.array([100, 100, 200, 240], np.float32)
  assert crops.enlarge_box(box, 480, 640, 0.25) == (75, 65, 225, 275)


def test_the_crop_ends_where_the_frame_does():
  box = np.array([-10, 5, 50, 65], np.float32)
  assert crops.enlarge_box(box, 60, 640, 0.25) == (0, 0, 65, 60)
  outside = np.array([700, 10, 760, 50], np.float32)
  assert crops.enlarge_box(outside, 480, 640, 0.25) is None


def test_landmarks_move_with_the_pixels_of_the_crop():
  frame = np.zeros((300, 400, 3), np.uint8)
  frame[119:122, 179:182] = 255  # a dot around (180, 120)
  found = face_videos.make_faces((140, 80, 240, 180))
  crop = crops.crop_face(
    frame, found.boxes[0], found.keypoints[0], face_videos.FixedBackend()
  )
  assert crop.image.shape == (256, 256, 3)
  assert crop.corners == (115, 55, 265, 205)
  ys, xs = np.nonzero(crop.image[..., 0] > 127)
  dot = np.tile(np.float32([180, 120]), (81, 1))
  moved = crops.to_crop_pixels(dot, crop.corners)[0]
  np.testing.assert_allclose(moved, [xs.mean(), ys.mean()], atol=0.3)


def test_whole_pixels_of_a_crop_come_back_from_far_into_a_large_frame():
  # In float32 a pixel of a 4K frame is known to 0.0002 px only, and 127.9999
  # is cut off to 127 where hulls are drawn.
  points = np.arange(162).reshape(81, 2) + 1
  corners = (3503, 1917, 3764, 2046)
  in_frame = crops.to_frame_pixels(points.astype(float), corners)
  again = crops.to_crop_pixels(in_frame, corners)
  assert again.dtype == np.float32
  np.testing.assert_array_equal(again, points)
  rounded = crops.to_crop_pixels(in_frame.astype(np.float32), corners)
  assert (rounded.astype(int) != points).any()
