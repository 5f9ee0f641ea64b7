"""One video: rules, stretches, the followed face, damage."""

import av
import cv2
import face_videos
import made_videos
import numpy as np
import pytest

from data_pipeline import prepared_video, records
from data_pipeline.faces import extraction


def test_rules_choose_the_first_frames_or_frames_spread_evenly(tmp_path):
  face_videos.write_numbered_video(tmp_path / 'a.mp4', 100)
  kept, _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), train_frames=40
  )
  first, spread = kept
  np.testing.assert_array_equal(first.frame_indices, np.arange(40))
  np.testing.assert_array_equal(
    spread.frame_indices, np.linspace(0, 99, 32).astype(int)
  )
  (val,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4', 'val'), ['consecutive']
  )
  assert len(val.frames) == 32


def test_a_rule_gives_the_same_bytes_alone_and_beside_another(tmp_path):
  face_videos.write_numbered_video(tmp_path / 'a.mp4', 50)
  (_, beside), _ = face_videos.prepare_one(tmp_path, face_videos.video('a.mp4'))
  (alone,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['uniform']
  )
  assert alone.frames == beside.frames
  assert alone.provenance == beside.provenance
  np.testing.assert_array_equal(alone.landmarks, beside.landmarks)


def test_a_stretch_of_a_video_uses_its_frames_only(tmp_path):
  face_videos.write_numbered_video(tmp_path / 'a.mp4', 100)
  stretch = face_videos.video('a.mp4', start=60, end=80)
  (first, spread), _ = face_videos.prepare_one(tmp_path, stretch)
  np.testing.assert_array_equal(first.frame_indices, np.arange(60, 80))
  np.testing.assert_array_equal(spread.frame_indices, np.arange(60, 80))


def test_frames_without_landmarks_are_left_out_unless_they_are_few(tmp_path):
  class Blinking(face_videos.FixedBackend):
    """Sees no face in the frames 5, 20, 21, 22 and 23."""

    def landmarks(self, frame, box, keypoints):
      if face_videos.read_number(frame) in (5, 20, 21, 22, 23):
        return None
      return super().landmarks(frame, box, keypoints)

  face_videos.write_numbered_video(tmp_path / 'a.mp4', 30)
  (record,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['consecutive'], Blinking()
  )
  np.testing.assert_array_equal(
    record.frame_indices, [*range(20), *range(24, 30)]
  )


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
  """Frame numbers in the order in which they are decoded."""
  numbers = []
  decode = extraction.video_lib.decode_frames

  def note(path, indices):
    decoding = decode(path, indices)
    step = decoding._frames

    def noted():
      for frame in step:
        numbers.append(frame.index)
        yield frame

    decoding._frames = noted()
    return decoding

  monkeypatch.setattr(extraction.video_lib, 'decode_frames', note)
  return numbers


def test_a_face_alone_is_cut_out_while_its_frame_is_at_hand(tmp_path, decoded):
  class Counting(face_videos.FixedBackend):
    """Counts how often landmarks are placed."""

    count = 0

    def landmarks(self, frame, box, keypoints):
      self.count += 1
      return super().landmarks(frame, box, keypoints)

  face_videos.write_numbered_video(tmp_path / 'a.mp4', 30)
  backend = Counting()
  kept, _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), backend=backend
  )
  assert [len(record.frames) for record in kept] == [30, 30]
  assert decoded == list(range(30))  # once, for both rules
  assert backend.count == 30


def test_the_followed_face_is_cut_out_where_another_one_is_larger(
  tmp_path, decoded
):
  class TwoPeople(face_videos.FixedBackend):
    """The right one is larger but in frames 3 and 4, and not seen in 7."""

    def detect(self, frame):
      number = face_videos.read_number(frame)
      left = (2, 2, 50, 60) if number in (3, 4) else (2, 2, 14, 14)
      right = [] if number == 7 else [(60, 10, 100, 50)]
      return face_videos.make_faces(left, *right)

  face_videos.write_numbered_video(tmp_path / 'a.mp4', 12)
  (record,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['consecutive'], TwoPeople()
  )
  np.testing.assert_array_equal(record.frame_indices, np.arange(12))
  np.testing.assert_array_equal(record.boxes, [[60, 10, 100, 50]] * 12)
  # The corner of the box, where that backend puts all landmarks.
  np.testing.assert_allclose(
    record.landmarks[:, 0], [[10.5 * 256 / 60 - 0.5] * 2] * 12, rtol=1e-5
  )
  for number, encoded in zip(range(12), record.frames, strict=True):
    # Bars 3 to 6 of the eight lie in the crop, one in 16 px.
    crop = records.decode_frame(encoded)
    red = crop[60, :, 0].astype(int)
    bars = [red[round((8 + 16 * bar - 50) * 256 / 60)] > 100 for bar in (3, 4)]
    assert bars == [bool(number >> bar & 1) for bar in (3, 4)]
  assert decoded == [*range(12), 3, 4, 7]


def test_a_cut_off_video_is_kept_as_far_as_it_goes_and_says_so(tmp_path):
  whole = face_videos.write_numbered_video(tmp_path / 'whole.mp4', 60)
  raw = face_videos.index_first(whole.read_bytes())
  (tmp_path / 'cut.mp4').write_bytes(raw[: len(raw) * 3 // 4])
  kept, outcomes = face_videos.prepare_one(
    tmp_path, face_videos.video('cut.mp4')
  )
  assert len(kept) == 2
  assert 'of 60 frames are there' in outcomes[0].notes[0]
  assert kept[1].frame_indices[-1] > 20


def test_a_record_keeps_the_time_of_each_frame(tmp_path):
  pts = [*range(20), *range(40, 60)]
  made_videos.write(
    tmp_path / 'a.mp4', made_videos.numbered(range(40)), pts=pts
  )
  kept, outcomes = face_videos.prepare_one(tmp_path, face_videos.video('a.mp4'))
  for record in kept:
    np.testing.assert_allclose(
      record.times, np.array(pts)[record.frame_indices] / 25, rtol=1e-5
    )
    assert record.fps == pytest.approx(40 / 60 * 25)
  assert [outcome.notes for outcome in outcomes] == [(), ()]


def test_frames_are_spread_over_those_that_decode(tmp_path):
  path = made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(100)),
    options=made_videos.PLAIN | {'g': '10'},
  )
  with av.open(str(path)) as container:
    places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
  raw = bytearray(path.read_bytes())
  for place, size in places[50:60]:
    raw[place : place + size] = b'\xff' * size
  path.write_bytes(raw)
  (record,), (outcome,) = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['uniform']
  )
  assert len(record.frames) == 32
  assert record.frame_indices[-1] == 89
  assert record.times[-1] == pytest.approx(99 / 25)
  assert outcome.notes == ('10 of 100 frames damaged',)


def test_a_video_that_cannot_be_converted_is_unreadable(tmp_path):
  made_videos.write(
    tmp_path / 'a.mp4',
    made_videos.numbered(range(9)),
    options=made_videos.PLAIN | {'x264-params': 'colormatrix=ycgco'},
  )
  kept, outcomes = face_videos.prepare_one(tmp_path, face_videos.video('a.mp4'))
  assert not kept
  assert [outcome.reason for outcome in outcomes] == ['unreadable'] * 2
  assert 'YCgCo' in outcomes[0].detail


def test_faces_that_are_cut_out_already_are_kept_whole(tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, 256, 256, 3), np.uint8)
  (tmp_path / 'seq').mkdir()
  for number, image in enumerate(images):
    cv2.imwrite(str(tmp_path / f'seq/{number}.png'), image[..., ::-1])
  video = face_videos.video('seq', is_crop=True, group='g', pair='seq2')
  (record,), (outcome,) = face_videos.prepare_one(
    tmp_path, video, ['uniform'], encoding='png'
  )
  stored = [records.decode_frame(frame) for frame in record.frames]
  np.testing.assert_array_equal(stored, images)
  assert (record.group, record.pair) == ('g', 'seq2')
  assert np.isnan(record.times).all()
  assert outcome.status == 'kept'


@pytest.mark.parametrize('corruption', ['contrast:5', 'h264:5', 'social:5'])
def test_a_corrupted_video_is_prepared_in_place_of_the_one_listed(
  tmp_path, corruption
):
  face_videos.write_face_video(tmp_path / 'a.mp4', 8)
  video = face_videos.video('a.mp4')
  (plain,), _ = face_videos.prepare_one(tmp_path, video, ['uniform'])
  (damaged,), _ = face_videos.prepare_one(
    tmp_path, video, ['uniform'], corruption=corruption
  )
  before, after = (
    records.decode_frame(record.frames[0]).astype(float)
    for record in (plain, damaged)
  )
  assert damaged.video_id == plain.video_id
  if corruption == 'contrast:5':
    np.testing.assert_allclose(after, 0.35 * before, atol=8)
  else:
    assert 0.5 < np.abs(after - before).mean() < 30
  assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']


def test_a_corrupted_video_that_is_none_is_a_row(tmp_path):
  (tmp_path / 'a.mp4').write_text('no film')
  for name, reason in (('a.mp4', 'unreadable'), ('b.mp4', 'missing')):
    kept, (outcome,) = face_videos.prepare_one(
      tmp_path, face_videos.video(name), ['uniform'], corruption='h264:1'
    )
    assert not kept and outcome.reason == reason


def test_dense_clips_are_consecutive_frames_from_start_to_end(tmp_path):
  face_videos.write_numbered_video(tmp_path / 'a.mp4', 100)
  (record,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4', start=10), ['dense']
  )
  clips = record.frame_indices.reshape(8, 4)
  np.testing.assert_array_equal(np.diff(clips), 1)
  assert (clips[0, 0], clips[-1, -1]) == (10, 99)
  spacing = np.diff(clips[:, 0])
  assert spacing.min() >= spacing.max() - 1 >= 4


def test_a_dense_clip_with_a_frame_without_a_face_is_left_out(tmp_path):
  class Blinking(face_videos.FixedBackend):
    """Sees no face in the middle of the video."""

    def landmarks(self, frame, box, keypoints):
      if 13 <= face_videos.read_number(frame) <= 22:
        return None
      return super().landmarks(frame, box, keypoints)

  face_videos.write_numbered_video(tmp_path / 'a.mp4', 32)
  (record,), (outcome,) = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['dense'], Blinking()
  )
  # The clips of frames 12 to 23 are the third to the fifth of eight.
  np.testing.assert_array_equal(
    record.frame_indices, [*range(12), *range(24, 32)]
  )
  assert outcome.detail == 'face in 20 of 32 frames'


class Brightest(face_videos.FixedBackend):
  """Takes the one brightest spot of a frame for a face."""

  def detect(self, frame):
    rows, columns = np.nonzero(frame.max(-1) > 150)
    if not len(rows):
      return face_videos.make_faces()
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max(), rows.max()
    return face_videos.make_faces((x0, y0, x1 + 1, y1 + 1))


def _write_spot(path, places, size=(128, 64)):
  """A video of a bright square, by frame its (x, y); None for no square."""
  images = []
  for place in places:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    if place is not None:
      x, y = place
      image[y : y + 16, x : x + 16] = 250
    images.append(image)
  made_videos.write(path, images)


def test_a_fake_may_be_cut_out_where_its_original_shows_the_face(tmp_path):
  _write_spot(tmp_path / 'real.mp4', [(8 + 4 * t, 16) for t in range(10)])
  _write_spot(tmp_path / 'fake.mp4', [(96, 32)] * 8)
  fake = prepared_video.dataclasses.replace(
    face_videos.video('fake.mp4', 'test', pair='real.mp4'), label=1
  )
  options = {'rules': ['uniform'], 'backend': Brightest()}
  (own,), _ = face_videos.prepare_one(tmp_path, fake, **options)
  np.testing.assert_allclose(own.boxes[:, 0], 96, atol=1)
  (shared,), (outcome,) = face_videos.prepare_one(
    tmp_path, fake, boxes_of='pair', **options
  )
  # The eight frames of the fake, at the places in the original.
  np.testing.assert_array_equal(shared.frame_indices, np.arange(8))
  np.testing.assert_allclose(shared.boxes[:, 0], 8 + 4 * np.arange(8), atol=1.5)
  pixels = [records.decode_frame(frame).max() for frame in shared.frames]
  assert max(pixels[:6]) < 60  # what lies there in the fake: nothing
  assert outcome.notes == ()
  assert '"boxes_of": "pair"' in shared.provenance


def test_a_fake_without_a_usable_original_says_so(tmp_path):
  _write_spot(tmp_path / 'fake.mp4', [(96, 32)] * 8)
  _write_spot(tmp_path / 'small.mp4', [(9, 9)] * 8, (64, 64))
  (tmp_path / 'text.mp4').write_text('no film')
  said = {}
  for pair in ('', 'small.mp4', 'absent.mp4', 'text.mp4'):
    fake = prepared_video.dataclasses.replace(
      face_videos.video('fake.mp4', 'test', pair=pair), label=1
    )
    _, (said[pair],) = face_videos.prepare_one(
      tmp_path, fake, ['uniform'], Brightest(), boxes_of='pair'
    )
  assert said[''].status == 'kept'
  assert said[''].notes == ('no original is listed: boxes of its own',)
  assert {o.reason for name, o in said.items() if name} == {'no_original'}
  assert said['small.mp4'].detail == (
    'its original small.mp4 is 64 x 64 px, it is 128 x 64'
  )
  assert said['absent.mp4'].detail == 'its original absent.mp4 is missing'
  # A real video has no original.
  _, (real,) = face_videos.prepare_one(
    tmp_path,
    face_videos.video('fake.mp4', 'test'),
    ['uniform'],
    Brightest(),
    boxes_of='pair',
  )
  assert (real.status, real.notes) == ('kept', ())


def test_the_official_rule_takes_the_best_face_of_every_frame(tmp_path):
  class TwoPeople(face_videos.FixedBackend):
    """The right one is always larger; in odd frames the left one is surer."""

    def detect(self, frame):
      left, right = (2, 2, 22, 22), (60, 10, 100, 50)
      order = (left, right) if face_videos.read_number(frame) % 2 else (right,)
      found = face_videos.make_faces(*order)
      found.scores[:] = np.linspace(0.9, 0.8, len(order))
      return found

  face_videos.write_numbered_video(tmp_path / 'a.mp4', 8)
  video = face_videos.video('a.mp4')
  (followed,), _ = face_videos.prepare_one(
    tmp_path, video, ['uniform'], TwoPeople()
  )
  (official,), _ = face_videos.prepare_one(
    tmp_path, video, ['uniform'], TwoPeople(), track='official'
  )
  assert (followed.boxes[:, 0] == 60).all()
  np.testing.assert_array_equal(official.boxes[:, 0], [60, 2] * 4)


def test_a_record_says_what_found_its_face(tmp_path):
  face_videos.write_numbered_video(tmp_path / 'a.mp4', 6)
  (record,), _ = face_videos.prepare_one(
    tmp_path, face_videos.video('a.mp4'), ['uniform']
  )
  assert record.info.backend == face_videos.FixedBackend.name


def test_landmarks_that_came_with_the_images_are_those_of_the_record(tmp_path):
  for folder in ('frames', 'landmarks'):
    (tmp_path / folder).mkdir()
  rng = np.random.default_rng(0)
  points = rng.integers(0, 128, (9, 81, 2))
  for number in range(9):
    image = rng.integers(0, 256, (128, 128, 3), np.uint8)
    cv2.imwrite(str(tmp_path / f'frames/{number:03d}.png'), image)
    if number not in (3, 4, 5):
      np.save(tmp_path / f'landmarks/{number:03d}.npy', points[number])
  np.save(tmp_path / 'landmarks/008.npy', points[8, :68])

  class Blind(face_videos.FixedBackend):
    """Is not asked."""

    def landmarks(self, frame, box, keypoints):
      raise AssertionError

  video = face_videos.video('frames', is_crop=True, landmarks='landmarks')
  (record,), (outcome,) = face_videos.prepare_one(
    tmp_path, video, ['uniform'], Blind()
  )
  np.testing.assert_array_equal(record.frame_indices, [0, 1, 2, 6, 7])
  # The image of 128 px becomes a crop of 256: a pixel's middle, doubled.
  np.testing.assert_allclose(
    record.landmarks, 2 * points[[0, 1, 2, 6, 7]] + 0.5
  )
  assert outcome.notes == ('4 of 9 frames without landmarks of their own',)
  assert record.info.backend == 'whole image, landmarks as they came'
