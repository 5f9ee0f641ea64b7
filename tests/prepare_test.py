"""From a folder of films to records: what is kept, skipped, and resumed."""

import csv
import errno
import pathlib

import cv2
import faces_test
import numpy as np
import pytest
import video_test

from data_pipeline import catalogue, prepare, records


def write_face_video(path: pathlib.Path, num_frames: int) -> pathlib.Path:
  """A film of the still face of tests/golden, panned 1 px a frame."""
  path.parent.mkdir(parents=True, exist_ok=True)
  golden = pathlib.Path(__file__).parent / 'golden' / 'face_carphone.png'
  still = cv2.imread(str(golden))
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30.0, (160, 144)
  )
  for t in range(num_frames):
    writer.write(np.ascontiguousarray(still[:, t % 16 : t % 16 + 160]))
  writer.release()
  return path


def _video(path: str, split: str = 'train', **fields) -> catalogue.Video:
  return catalogue.Video(
    path=path, label=0, video_id=path, dataset='d', split=split, **fields
  )


def _prepare_one(root, video, rules=records.RULES, backend=None, **settings):
  return prepare.prepare_video(
    root,
    video,
    rules,
    prepare.Settings(**settings),
    backend or faces_test.FixedBackend(),
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, int]:
  """The command's root, output and exit code on good and bad files."""
  root = tmp_path_factory.mktemp('videos')
  out = tmp_path_factory.mktemp('out')
  write_face_video(root / 'train/real/face.mp4', 12)
  write_face_video(root / 'val/fake/other.mp4', 9)
  write_face_video(root / 'train/real/short.mp4', 2)
  video_test.write_numbered_video(root / 'train/real/bars.mp4', 6)
  (root / 'train/real/text.mp4').write_text('no film')
  code = prepare.main(
    f'--root={root} --out={out} --dataset=mine --workers=1'.split()
  )
  return root, out, code


def _report(out: pathlib.Path) -> dict[tuple[str, str], dict[str, str]]:
  with (out / 'mine' / 'report.csv').open() as file:
    rows = list(csv.DictReader(file))
  return {(pathlib.Path(r['video_id']).stem, r['rule']): r for r in rows}


def test_the_command_says_per_file_what_was_kept_and_why_not(run):
  _, out, code = run
  report = _report(out)
  assert code == 0
  assert len(report) == 10
  assert report['face', 'consecutive']['num_frames'] == '12'
  assert report['other', 'uniform']['label'] == 'fake'
  reasons = {name: row['reason'] for (name, _), row in report.items()}
  assert reasons == {
    'face': '',
    'other': '',
    'short': 'too_short',
    'bars': 'no_face',
    'text': 'unreadable',
  }


def test_kept_videos_are_records_in_their_splits(run):
  _, out, _ = run
  for rule in records.RULES:
    train = records.open_records(out, 'mine', rule, 'train')
    val = records.open_records(out, 'mine', rule, 'val')
    assert [v.source_path for v in train.videos] == ['train/real/face.mp4']
    assert [(v.label, v.num_frames) for v in val.videos] == [(1, 9)]
  record = train.read_record(0)
  np.testing.assert_array_equal(record.frame_indices, np.arange(12))
  # The picture pans to the left, so the face does.
  centre = record.boxes[:, [0, 2]].mean(1)
  assert -13 < centre[11] - centre[0] < -9
  # The landmarks lie around the middle of the 25 % wider crop.
  assert np.abs(record.landmarks.mean((0, 1)) - 128).max() < 30


def test_the_same_command_again_does_no_work_and_changes_nothing(
  run, monkeypatch, capsys
):
  root, out, _ = run
  before = {p: p.stat().st_mtime_ns for p in out.rglob('*.array_record*')}
  monkeypatch.setattr(prepare.futures, 'ProcessPoolExecutor', None)
  code = prepare.main(
    ['--root', str(root), '--out', str(out), '--dataset', 'mine']
  )
  assert code == 0
  assert '5 of 5 videos were finished before' in capsys.readouterr().err
  after = {p: p.stat().st_mtime_ns for p in out.rglob('*.array_record*')}
  assert after == before
  assert not list(out.rglob('*.npz'))


def test_finished_videos_survive_a_kill_and_are_not_done_again(
  tmp_path, monkeypatch
):
  root, out = tmp_path / 'videos', tmp_path / 'out'
  videos = [_video('a.mp4'), _video('b.mp4')]
  for video in videos:
    write_face_video(root / video.path, 6)
  staging = prepare.Staging(out / 'd' / '.staging', root, prepare.Settings())
  staging.folder.mkdir(parents=True)
  worked_on = []

  def run_here(root, staging, todo, settings, num_workers, console):
    for video, rules in todo:
      worked_on.append(video.path)
      kept, outcomes = _prepare_one(root, video, rules)
      staging.finish(video, kept, outcomes)
      yield from outcomes

  def run_until_killed(*args):
    yield from list(run_here(*args))[:1]
    raise KeyboardInterrupt

  console = prepare.rich.console.Console(quiet=True)
  arguments = (root, out, videos, ['uniform'], prepare.Settings(), 1, console)
  monkeypatch.setattr(
    prepare, '_run', lambda r, s, todo, *rest: run_until_killed(
      r, s, todo[:1], *rest
    )
  )  # fmt: skip
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(*arguments)
  monkeypatch.setattr(prepare, '_run', run_here)
  outcomes = prepare.prepare(*arguments)
  assert worked_on == ['a.mp4', 'b.mp4']
  assert [o.status for o in outcomes] == ['kept', 'kept']
  # A third video is added: the two are taken from the dataset.
  write_face_video(root / 'c.mp4', 6)
  more = [*videos, _video('c.mp4')]
  prepare.prepare(root, out, more, *arguments[3:])
  assert worked_on == ['a.mp4', 'b.mp4', 'c.mp4']
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert [v.video_id for v in stored.videos] == ['a.mp4', 'b.mp4', 'c.mp4']
  # A video that changed is done again.
  write_face_video(root / 'a.mp4', 7)
  prepare.prepare(root, out, more, *arguments[3:])
  assert worked_on == ['a.mp4', 'b.mp4', 'c.mp4', 'a.mp4']
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert stored.videos[0].num_frames == 7


def test_rules_choose_the_first_frames_or_frames_spread_evenly(tmp_path):
  video_test.write_numbered_video(tmp_path / 'a.mp4', 100)
  kept, _ = _prepare_one(tmp_path, _video('a.mp4'), train_frames=40)
  first, spread = kept
  np.testing.assert_array_equal(first.frame_indices, np.arange(40))
  np.testing.assert_array_equal(
    spread.frame_indices, np.linspace(0, 99, 32).astype(int)
  )
  (val,), _ = _prepare_one(tmp_path, _video('a.mp4', 'val'), ['consecutive'])
  assert len(val.frames) == 32


def test_a_rule_gives_the_same_bytes_alone_and_beside_another(tmp_path):
  video_test.write_numbered_video(tmp_path / 'a.mp4', 50)
  (_, beside), _ = _prepare_one(tmp_path, _video('a.mp4'))
  (alone,), _ = _prepare_one(tmp_path, _video('a.mp4'), ['uniform'])
  assert alone.frames == beside.frames
  assert alone.provenance == beside.provenance
  np.testing.assert_array_equal(alone.landmarks, beside.landmarks)


def test_a_stretch_of_a_video_uses_its_frames_only(tmp_path):
  video_test.write_numbered_video(tmp_path / 'a.mp4', 100)
  stretch = _video('a.mp4', start=60, end=80)
  (first, spread), _ = _prepare_one(tmp_path, stretch)
  np.testing.assert_array_equal(first.frame_indices, np.arange(60, 80))
  np.testing.assert_array_equal(spread.frame_indices, np.arange(60, 80))


def test_frames_without_landmarks_are_left_out_unless_they_are_few(tmp_path):
  class Blinking(faces_test.FixedBackend):
    """Sees no face in the frames 5, 20, 21, 22 and 23."""

    def landmarks(self, frame, box, keypoints):
      if video_test.read_number(frame) in (5, 20, 21, 22, 23):
        return None
      return super().landmarks(frame, box, keypoints)

  video_test.write_numbered_video(tmp_path / 'a.mp4', 30)
  (record,), _ = _prepare_one(
    tmp_path, _video('a.mp4'), ['consecutive'], Blinking()
  )
  np.testing.assert_array_equal(
    record.frame_indices, [*range(20), *range(24, 30)]
  )


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
  """Frame numbers in the order in which they are decoded."""
  numbers = []
  decode = prepare.video_lib.decode_frames

  def note(path, indices):
    for index, frame in decode(path, indices):
      numbers.append(index)
      yield index, frame

  monkeypatch.setattr(prepare.video_lib, 'decode_frames', note)
  return numbers


def test_a_face_alone_is_cut_out_while_its_frame_is_at_hand(tmp_path, decoded):
  class Counting(faces_test.FixedBackend):
    """Counts how often landmarks are placed."""

    count = 0

    def landmarks(self, frame, box, keypoints):
      self.count += 1
      return super().landmarks(frame, box, keypoints)

  video_test.write_numbered_video(tmp_path / 'a.mp4', 30)
  backend = Counting()
  kept, _ = _prepare_one(tmp_path, _video('a.mp4'), backend=backend)
  assert [len(record.frames) for record in kept] == [30, 30]
  assert decoded == list(range(30))  # once, for both rules
  assert backend.count == 30


def test_the_followed_face_is_cut_out_where_another_one_is_larger(
  tmp_path, decoded
):
  class TwoPeople(faces_test.FixedBackend):
    """The right one is larger but in frames 3 and 4, and not seen in 7."""

    def detect(self, frame):
      number = video_test.read_number(frame)
      left = (2, 2, 50, 60) if number in (3, 4) else (2, 2, 14, 14)
      right = [] if number == 7 else [(60, 10, 100, 50)]
      return faces_test.make_faces(left, *right)

  video_test.write_numbered_video(tmp_path / 'a.mp4', 12)
  (record,), _ = _prepare_one(
    tmp_path, _video('a.mp4'), ['consecutive'], TwoPeople()
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
  whole = video_test.write_numbered_video(tmp_path / 'whole.mp4', 60)
  raw = video_test._index_first(whole.read_bytes())
  (tmp_path / 'cut.mp4').write_bytes(raw[: len(raw) * 3 // 4])
  kept, outcomes = _prepare_one(tmp_path, _video('cut.mp4'))
  assert len(kept) == 2
  assert 'of 60 declared frames' in outcomes[0].detail
  assert kept[1].frame_indices[-1] > 20


def _complain(capsys, *arguments: str) -> str:
  """Runs the command, which must fail with one line, and returns that."""
  assert prepare.main([*arguments, '--workers', '1']) == 2
  lines = capsys.readouterr().err.splitlines()
  errors = [line for line in lines if line.startswith('error: ')]
  assert len(errors) == 1
  return errors[0]


def test_bad_roots_are_one_line_and_a_failure(tmp_path, capsys):
  out = ('--out', str(tmp_path / 'out'))
  missing = _complain(capsys, '--root', str(tmp_path / 'absent'), *out)
  assert 'no folder' in missing
  (tmp_path / 'empty').mkdir()
  empty = _complain(capsys, '--root', str(tmp_path / 'empty'), *out)
  assert 'no video below' in empty


def test_nothing_kept_is_a_failure(tmp_path, capsys, monkeypatch):
  (tmp_path / 'videos').mkdir()
  (tmp_path / 'videos' / 'a.mp4').write_text('no film')
  outcome = prepare.Outcome('a', 'train', 'real', 'uniform', 'skipped', 'x')
  monkeypatch.setattr(prepare, '_run', lambda *_: iter([outcome]))
  root, out = str(tmp_path / 'videos'), str(tmp_path / 'out')
  monkeypatch.setattr(prepare, 'prepare', lambda *_: [outcome])
  (tmp_path / 'out' / 'videos').mkdir(parents=True)
  line = _complain(capsys, '--root', root, '--out', out)
  assert 'no video could be kept' in line


def test_a_full_disk_is_one_line_and_a_failure(tmp_path, capsys, monkeypatch):
  def fill(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  (tmp_path / 'a.mp4').write_bytes(b'')
  monkeypatch.setattr(prepare, 'prepare', fill)
  line = _complain(capsys, '--root', str(tmp_path), '--out', str(tmp_path))
  assert 'no space left' in line
  assert 'finished videos are kept' in line


def test_a_place_that_cannot_be_written_is_one_line_and_a_failure(
  tmp_path, capsys
):
  (tmp_path / 'a.mp4').write_bytes(b'')
  out = tmp_path / 'file'
  out.write_text('in the way')
  line = _complain(capsys, '--root', str(tmp_path), '--out', str(out))
  assert 'Not a directory' in line and str(out) in line
