"""Everybody in a video is cut out as the file is read."""

import bright_faces
import face_videos
import numpy as np
import pytest

from data_pipeline.faces import extraction, people
from data_pipeline.faces import video as video_lib


class Blinking(bright_faces.BrightFaces):
  """Misses the frames of these numbers, counted as they are asked for."""

  def __init__(self, *missed):
    self.missed, self.asked = missed, -1

  def detect(self, frame):
    self.asked += 1
    found = super().detect(frame)
    return face_videos.make_faces() if self.asked in self.missed else found


def walk(video, num_frames, rule, backend=None, count=32):
  indices = video_lib.frame_indices(num_frames, count, rule, 4)
  passing = people.Walk(
    video,
    indices,
    backend or bright_faces.BrightFaces(),
    clip_frames=4,
    whole=rule == 'dense',
  )
  return passing, list(passing)


@pytest.mark.parametrize('rule', ['uniform', 'dense'])
@pytest.mark.parametrize('num_frames', [9, 33, 70])
@pytest.mark.parametrize('missed', [(), (2,), (5, 6), (3, 4, 5, 6)])
def test_one_person_is_cut_out_as_for_a_record(
  tmp_path, rule, num_frames, missed
):
  video = bright_faces.write_video(tmp_path / 'a.mp4', num_frames)
  _, clips = walk(video, num_frames, rule, Blinking(*missed))
  indices = video_lib.frame_indices(num_frames, 32, rule, 4)
  kept, _ = extraction.extract_faces(video, {rule: indices}, Blinking(*missed))
  of_record = kept[rule]
  if rule == 'dense':
    planned = indices.reshape(-1, 4)
    whole = planned[np.isin(planned, of_record.frame_indices).all(1)]
    chosen = np.isin(of_record.frame_indices, whole)
  else:
    chosen = np.arange(len(of_record.frames) // 4 * 4)
  if not clips:
    assert not np.any(chosen)
    return
  frames = np.concatenate([clip.frames for clip in clips])
  np.testing.assert_array_equal(frames, np.array(of_record.frames)[chosen])
  np.testing.assert_array_equal(
    np.concatenate([clip.boxes for clip in clips]), of_record.boxes[chosen]
  )
  np.testing.assert_array_equal(
    np.concatenate([clip.times for clip in clips]), of_record.times[chosen]
  )


def test_two_people_are_two_and_one_who_comes_late_is_a_third(tmp_path):
  def squares(t):
    late = [(120, 60, False)] if t >= 20 else []
    return [(10, 80, False), (230, 70, True), *late]

  video = bright_faces.write_squares(tmp_path / 'a.mp4', 40, squares)
  passing, clips = walk(video, 40, 'dense')
  assert passing.most_faces == 3 and len(passing.people) == 3
  assert sorted({clip.person for clip in clips}) == [0, 1, 2]
  late = max(passing.people.values(), key=lambda p: p.first_time)
  assert late.first_time == pytest.approx(20 / 25, abs=0.11)
  assert late.num_frames == 16 and passing.num_with_face == 32


def test_of_a_crowd_those_who_fill_the_film_most_are_cut_out(tmp_path):
  sides = [30, 60, 40, 50, 35, 26]
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4',
    8,
    lambda t: [(5 + 52 * n, min(s, 48), False) for n, s in enumerate(sides)],
  )
  passing = people.Walk(
    video,
    np.arange(8),
    bright_faces.BrightFaces(),
    clip_frames=4,
    whole=True,
    max_people=2,
  )
  clips = list(passing)
  assert passing.most_faces == 6
  assert {round(float(clip.boxes[0, 0])) for clip in clips} == {57, 161}
