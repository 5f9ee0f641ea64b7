"""From a folder of films to records: what is kept, skipped, and resumed."""

import csv
import errno
import pathlib

import face_videos
import numpy as np
import pytest

from data_pipeline import prepare, prepared_video, records
from data_pipeline import staging as staging_lib


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, int]:
  """The command's root, output and exit code on good and bad files."""
  root = tmp_path_factory.mktemp('videos')
  out = tmp_path_factory.mktemp('out')
  face_videos.write_face_video(root / 'train/real/face.mp4', 12)
  face_videos.write_face_video(root / 'val/fake/other.mp4', 9)
  face_videos.write_face_video(root / 'train/real/short.mp4', 2)
  face_videos.write_numbered_video(root / 'train/real/bars.mp4', 6)
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
  videos = [face_videos.video('a.mp4'), face_videos.video('b.mp4')]
  for video in videos:
    face_videos.write_face_video(root / video.path, 6)
  staging = staging_lib.Staging(
    out / 'd' / '.staging', root, prepared_video.Settings()
  )
  staging.folder.mkdir(parents=True)
  worked_on = []

  def run_here(root, staging, todo, settings, num_workers, console):
    for video, rules in todo:
      worked_on.append(video.path)
      kept, outcomes = face_videos.prepare_one(root, video, rules)
      staging.finish(video, kept, outcomes)
      yield from outcomes

  def run_until_killed(*args):
    yield from list(run_here(*args))[:1]
    raise KeyboardInterrupt

  console = prepare.rich.console.Console(quiet=True)
  arguments = (
    root,
    out,
    videos,
    ['uniform'],
    prepared_video.Settings(),
    1,
    console,
  )
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
  face_videos.write_face_video(root / 'c.mp4', 6)
  more = [*videos, face_videos.video('c.mp4')]
  prepare.prepare(root, out, more, *arguments[3:])
  assert worked_on == ['a.mp4', 'b.mp4', 'c.mp4']
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert [v.video_id for v in stored.videos] == ['a.mp4', 'b.mp4', 'c.mp4']
  # A video that changed is done again.
  face_videos.write_face_video(root / 'a.mp4', 7)
  prepare.prepare(root, out, more, *arguments[3:])
  assert worked_on == ['a.mp4', 'b.mp4', 'c.mp4', 'a.mp4']
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert stored.videos[0].num_frames == 7


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
  outcome = prepared_video.Outcome(
    'a', 'train', 'real', 'uniform', 'skipped', 'x'
  )
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
