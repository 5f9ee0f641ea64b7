"""One face through time, among others and through gaps."""

import face_videos
import numpy as np

from data_pipeline.faces import tracks


def test_the_track_keeps_to_one_person_when_sizes_swap():
  # Two people; each is larger than the other every second frame.
  left, right = (10, 10, 60, 60), (200, 10, 250, 60)
  grown = (5, 5, 65, 65), (195, 5, 255, 65)
  frames = [
    face_videos.make_faces(grown[0], right)
    if t % 2
    else face_videos.make_faces(left, grown[1])
    for t in range(11)  # the right one is larger in six of eleven
  ]
  track = tracks.main_track(frames, np.arange(11))
  assert track.seen.all()
  assert (track.boxes[:, 0] > 150).all()


def test_the_track_is_the_larger_face():
  frames = [
    face_videos.make_faces((0, 0, 20, 20), (50, 0, 110, 60)) for _ in range(5)
  ]
  track = tracks.main_track(frames, np.arange(5))
  assert (track.boxes[:, 0] == 50).all()


def test_a_track_survives_missed_frames_and_a_small_move():
  frames = [face_videos.make_faces((10, 10, 60, 60))] * 4 + [
    face_videos.make_faces()
  ] * 5
  frames += [face_videos.make_faces((25, 10, 75, 60))] * 4
  track = tracks.main_track(frames, np.arange(13))
  np.testing.assert_array_equal(track.seen, [1] * 4 + [0] * 5 + [1] * 4)


def test_a_cut_to_another_place_starts_another_track():
  frames = [face_videos.make_faces((10, 10, 60, 60))] * 6
  frames += [face_videos.make_faces((200, 10, 250, 60))] * 4
  track = tracks.main_track(frames, np.arange(10))
  np.testing.assert_array_equal(track.seen, [1] * 6 + [0] * 4)


def test_a_video_without_faces_has_an_empty_track():
  track = tracks.main_track([face_videos.make_faces()] * 3, np.arange(3))
  assert not track.seen.any()


def test_short_gaps_are_filled_on_a_line_and_long_ones_left():
  missing = np.nan
  points = np.array([0, missing, missing, 3, missing, 5, missing], np.float32)
  filled = tracks.interpolate_landmarks(
    points[:, None], np.array([0, 1, 2, 3, 10, 20, 21])
  )[:, 0]
  np.testing.assert_allclose(filled, [0, 1, 2, 3, missing, 5, missing])
  assert np.isnan(points[1])  # the input is left alone


def test_a_gap_of_three_frames_is_too_long_to_fill():
  points = np.array([[0], [np.nan], [np.nan], [np.nan], [4]], np.float32)
  filled = tracks.interpolate_landmarks(points, np.arange(5))
  assert np.isnan(filled[1:4]).all()


def test_the_official_rule_wants_a_face_larger_and_surer_than_the_one_before():
  faces = face_videos.make_faces((0, 0, 20, 20), (50, 0, 110, 60))
  faces.scores[:] = (0.9, 0.8)  # best first, as a backend gives them
  track = tracks.official_track([faces, face_videos.make_faces()], np.arange(2))
  np.testing.assert_array_equal(track.boxes[0], [0, 0, 20, 20])
  assert not track.seen[1]
  faces.scores[:] = (0.8, 0.9)
  track = tracks.official_track([faces], np.arange(1))
  np.testing.assert_array_equal(track.boxes[0], [50, 0, 110, 60])
