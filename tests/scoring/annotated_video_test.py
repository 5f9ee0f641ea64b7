"""An annotated video shows the boxes, the clips and the map, frame by frame."""

import bright_faces
import made_videos
import numpy as np
import pytest

from data_pipeline.faces import video as video_lib
from stormer_jax.scoring import (
  annotated_video,
  heat,
)


@pytest.fixture(scope='module')
def ready():
  return bright_faces.make_ready()


def test_every_frame_is_there_with_a_box_and_a_map(ready, tmp_path):
  video = bright_faces.write_squares(
    tmp_path / 'a.mp4', 40, lambda t: [(100 + t, 100, False)]
  )
  out = tmp_path / 'new' / 'b.mp4'
  annotated_video.write(ready.predict(video), video, out)
  frames = list(video_lib.decode_frames(out, range(50)))
  assert len(frames) == 40
  assert frames[-1].time == pytest.approx(39 / 25, abs=1e-3)
  for frame in frames[::13]:
    plain = np.array(annotated_video._COLOURS['plain'])
    left = frame.image[80:150, 100 + frame.index].astype(int)
    assert np.abs(left - plain).mean() < 60  # the left edge of the box
    # The map of the stand-in glows at the lower right alone.
    face = frame.image[65:155, 105 + frame.index : 195 + frame.index]
    upper, lower = face[20:40, 20:40], face[70:, 70:]
    assert np.abs(upper.astype(int) - 200).mean() < 12
    assert np.abs(lower.astype(int) - 200).mean() > 20
  assert [p.name for p in out.parent.iterdir()] == ['b.mp4']


def test_a_person_who_left_has_no_box(ready, tmp_path):
  def squares(t):
    return [(20, 120, False)] + ([(200, 80, False)] if t < 25 else [])

  video = bright_faces.write_squares(tmp_path / 'a.mp4', 100, squares)
  out = tmp_path / 'b.mp4'
  annotated_video.write(ready.predict(video), video, out)
  last = next(iter(video_lib.decode_frames(out, [95]))).image
  np.testing.assert_allclose(last[60:140, 190:300], 20, atol=12)


def test_large_frames_are_made_smaller_and_times_kept(ready, tmp_path):
  image = np.full((1080, 1922, 3), 20, np.uint8)
  image[300:800, 500:1000] = 200
  pts = [*range(6), *range(50, 56)]
  video = made_videos.write(tmp_path / 'a.mp4', [image] * 12, pts=pts)
  out = tmp_path / 'b.mp4'
  annotated_video.write(ready.predict(video), video, out)
  frames = list(video_lib.decode_frames(out, range(20)))
  assert frames[0].image.shape == (720, 1280, 3)
  np.testing.assert_allclose([f.time for f in frames], np.array(pts) / 25, 1e-3)


def test_what_has_no_score_is_not_drawn(ready, tmp_path):
  (tmp_path / 'a.mp4').write_text('no video')
  said = ready.predict(tmp_path / 'a.mp4')
  with pytest.raises(ValueError, match='unreadable: there is nothing to draw'):
    annotated_video.write(said, tmp_path / 'a.mp4', tmp_path / 'b.mp4')
  assert not (tmp_path / 'b.mp4').exists()


def test_heat_leaves_a_flat_map_alone_and_marks_a_peak():
  image = np.full((64, 64, 3), 100, np.uint8)
  np.testing.assert_array_equal(heat.overlay(image, np.zeros((4, 4))), image)
  values = np.zeros((4, 4))
  values[0, 0] = 2
  painted = heat.overlay(image, values)
  assert np.abs(painted[:8, :8].astype(int) - 100).mean() > 20
  np.testing.assert_array_equal(painted[40:, 40:], image[40:, 40:])
