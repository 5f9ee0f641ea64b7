"""From a folder of films to records: what is kept, skipped, and resumed."""

import csv
import errno
import io
import json
import os
import pathlib
import tempfile

import av
import cv2
import face_videos
import handmade_onnx
import made_videos
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipeline import (
  folder_lock,
  metadata,
  prepare,
  prepared_video,
  recompression,
  records,
  shard_work,
)
from data_pipeline.engines import in_process, processes
from tests.faces import scrfd_test
from tests.sources import published_test


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path, int]:
  """The command's root, output and exit code on good and bad files."""
  root = tmp_path_factory.mktemp('videos')
  out = tmp_path_factory.mktemp('out')
  face_videos.write_face_video(root / 'train/real/face.mp4', 12)
  face_videos.write_face_video(root / 'val/fake/other.mp4', 9)
  face_videos.write_face_video(root / 'train/real/short.mp4', 2)
  made_videos.write(
    root / 'train/real/bars.mp4',
    made_videos.numbered(range(6)),
    adjust=lambda stream: stream.set_display_rotation(0, hflip=True),
  )
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
  assert report['face', 'uniform']['notes'] == ''
  assert 'mirrored' in report['bars', 'uniform']['notes']
  reasons = {name: row['reason'] for (name, _), row in report.items()}
  assert reasons == {
    'face': '',
    'other': '',
    'short': 'too_short',
    'bars': 'no_face',
    'text': 'unreadable',
  }


def test_the_command_leaves_a_page_of_how_well_faces_were_cut_out(run):
  _, out, _ = run
  report = _report(out)
  face = report['face', 'consecutive']
  assert (face['num_asked'], len(face['source_digest'])) == ('12', 16)
  assert 30 < float(face['face_size']) < 70
  assert 0 < float(face['jitter']) < 20
  assert report['bars', 'uniform']['num_asked'] == '6'
  page = (out / 'mine' / 'quality.html').read_text()
  assert '1 no_face, 1 too_short, 1 unreadable' in page


def test_a_sheet_of_crops_is_drawn_with_or_without_preparing(run, capsys):
  _, out, _ = run
  code = prepare.main(f'--inspect=2 --out={out} --dataset=mine'.split())
  assert code == 0
  assert 'inspect-uniform.png' in capsys.readouterr().err
  for rule in ('consecutive', 'uniform'):
    sheet = cv2.imread(str(out / 'mine' / f'inspect-{rule}.png'))
    assert sheet is not None and len(sheet) == 2 * (18 + 148)
  code = prepare.main(f'--inspect=2 --out={out} --dataset=absent'.split())
  assert code == 2
  assert 'no prepared dataset' in capsys.readouterr().err


def test_kept_videos_are_records_in_their_splits(run):
  _, out, _ = run
  for rule in ('consecutive', 'uniform'):
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
  monkeypatch.setattr(processes, '_Worker', None)  # would fail
  code = prepare.main(
    ['--root', str(root), '--out', str(out), '--dataset', 'mine']
  )
  assert code == 0
  assert '5 of 5 videos were finished before' in capsys.readouterr().err
  after = {p: p.stat().st_mtime_ns for p in out.rglob('*.array_record*')}
  assert after == before
  assert not list(out.rglob('*.npz'))


class Here:
  """An engine that works in this process and finds made-up faces."""

  def __init__(self):
    self.done = []
    self.killed_after = None
    self.deadly = None

  def run(self, work, tasks, tick=lambda: None):
    if isinstance(work, shard_work.ShardWork):
      in_process.InProcess().run(work, tasks, tick)
      return
    for task in tasks:
      self.done.append(task.video.path)
      if task.video.path == self.deadly:
        continue  # as if its process had died
      work.finish(face_videos.FixedBackend(), task)
      if len(self.done) == self.killed_after:
        raise KeyboardInterrupt


def test_finished_videos_survive_a_kill_and_are_not_done_again(tmp_path):
  root, out = tmp_path / 'videos', tmp_path / 'out'
  videos = [face_videos.video('a.mp4'), face_videos.video('b.mp4')]
  for video in videos:
    face_videos.write_face_video(root / video.path, 6)
  engine = Here()
  console = prepare.rich.console.Console(quiet=True)
  arguments = (
    root,
    out,
    videos,
    ['uniform'],
    prepared_video.Settings(),
    engine,
    console,
  )
  engine.killed_after = 1
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(*arguments)
  engine.killed_after = None
  outcomes = prepare.prepare(*arguments)
  assert engine.done == ['a.mp4', 'b.mp4']
  assert [o.status for o in outcomes] == ['kept', 'kept']
  # A third video is added: the two are taken from the dataset.
  face_videos.write_face_video(root / 'c.mp4', 6)
  more = [*videos, face_videos.video('c.mp4')]
  prepare.prepare(root, out, more, *arguments[3:])
  assert engine.done == ['a.mp4', 'b.mp4', 'c.mp4']
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert [v.video_id for v in stored.videos] == ['a.mp4', 'b.mp4', 'c.mp4']
  # A video that changed is done again.
  face_videos.write_face_video(root / 'a.mp4', 7)
  prepare.prepare(root, out, more, *arguments[3:])
  assert engine.done == ['a.mp4', 'b.mp4', 'c.mp4', 'a.mp4']
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
  root, out = str(tmp_path / 'videos'), str(tmp_path / 'out')
  monkeypatch.setattr(prepare, 'prepare', lambda *_: [outcome])
  line = _complain(capsys, '--root', root, '--out', out)
  assert 'no video could be kept' in line


ROUGH = prepared_video.Settings(uniform_frames=4)


@pytest.fixture
def add(tmp_path):
  """Prepares videos of a root into one data set, in this process."""
  engine = Here()
  console = prepare.rich.console.Console(quiet=True)

  def add_videos(root, videos, rules=('uniform',), replace=False):
    for video in videos:
      path = root / video.path
      if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # OpenCV's writer ends the process at a name that is not UTF-8.
        face_videos.write_face_video(tmp_path / '_.mp4', 6).rename(path)
    rows = prepare.prepare(
      *(root, tmp_path / 'out', videos, rules, ROUGH, engine, console, replace)
    )
    return list(rows)

  add_videos.done = engine.done
  add_videos.engine = engine
  return add_videos


def _stored(out: pathlib.Path, rule: str = 'uniform') -> dict[str, str]:
  read = metadata.read(out, 'd', rule)
  return {
    video.video_id: split
    for split, (_, videos) in read.splits.items()
    for video in videos
  }


def _rows(out: pathlib.Path) -> list[tuple[str, str, str]]:
  with (out / 'd' / 'report.csv').open() as file:
    return [
      (r['video_id'], r['rule'], r['status']) for r in csv.DictReader(file)
    ]


def test_other_videos_join_those_of_an_earlier_command(tmp_path, add):
  out = tmp_path / 'out'
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  add(tmp_path / 'two', [face_videos.video('b.mp4', 'val')])
  assert _stored(out) == {'a.mp4': 'train', 'b.mp4': 'val'}
  assert [row[0] for row in _rows(out)] == ['b.mp4', 'a.mp4']
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  assert _stored(out) == {'a.mp4': 'train', 'b.mp4': 'val'}
  assert add.done == ['a.mp4', 'b.mp4']


def _shards(out: pathlib.Path) -> dict[str, int]:
  """Number of records by the number of the shard."""
  read = metadata.read(out, 'd', 'uniform')
  return {
    shard.name.rpartition('array_record-')[2]: shard.num_records
    for shard in read.splits['train'][0]
  }


def test_a_videos_shard_is_a_function_of_the_list_alone(tmp_path, add):
  root, out = tmp_path / 'one', tmp_path / 'out'
  videos = [face_videos.video(f'{i:02}.mp4') for i in range(36)]
  root.mkdir()
  for video in (videos[0], *videos[16:32]):
    (root / video.path).write_text('no film')
  add(root, videos)
  names = [f'0000{i}-of-00003' for i in range(3)]
  assert _shards(out) == dict(zip(names, [15, 0, 4], strict=True))
  stored = records.open_records(out, 'd', 'uniform', 'train')
  assert stored.read_record(15).video_id == '32.mp4'
  assert list(stored.videos) == [
    stored.read_record(i).info for i in range(len(stored))
  ]
  plain = tfds.data_source(
    'd/uniform', split='train', data_dir=out, try_gcs=False
  )
  assert plain[15]['video_id'] == b'32.mp4'
  # What is mended takes the place that was left for it.
  (root / '00.mp4').unlink()
  add(root, videos)
  assert _shards(out) == dict(zip(names, [16, 0, 4], strict=True))


def test_the_manifest_says_how_the_videos_were_prepared(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video(n) for n in ('a.mp4', 'b.mp4')])
  folder = metadata.dataset_dir(tmp_path / 'out', 'd', 'uniform')
  (made,) = json.loads((folder / 'metadata.json').read_text())['preparations']
  assert made['num_videos'] == 2
  assert made['backend'] == 'centerface+facemesh_v2'
  assert made['settings']['uniform_frames'] == 4
  assert set(made['versions']) == {'av', 'opencv', 'onnxruntime'}


def test_what_a_library_raises_at_a_video_is_a_line(tmp_path, add, monkeypatch):
  prepared = prepared_video.prepare_video

  def raise_at_b(root, video, *rest):
    if video.path == 'b.mp4':
      raise cv2.error('(-215:Assertion failed)\n in function')
    return prepared(root, video, *rest)

  monkeypatch.setattr(prepared_video, 'prepare_video', raise_at_b)
  videos = [face_videos.video(n) for n in ('a.mp4', 'b.mp4', 'c.mp4')]
  outcomes = add(tmp_path / 'one', videos)
  assert [o.reason for o in outcomes] == ['', 'unreadable', '']
  assert outcomes[1].detail.startswith('error: (-215:Assertion failed)')


def test_a_video_that_ends_its_process_is_a_line_and_is_tried_again(
  tmp_path, add
):
  videos = [face_videos.video(n) for n in ('a.mp4', 'b.mp4')]
  add.engine.deadly = 'a.mp4'
  outcomes = add(tmp_path / 'one', videos)
  assert [o.reason for o in outcomes] == ['crashed', '']
  assert ('a.mp4', 'uniform', 'skipped') in _rows(tmp_path / 'out')
  add.engine.deadly = None
  outcomes = add(tmp_path / 'one', videos)
  assert [o.status for o in outcomes] == ['kept', 'kept']
  assert add.done == ['a.mp4', 'b.mp4', 'a.mp4']


def test_what_killed_processes_left_half_written_is_removed(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  staging = tmp_path / 'out/d/.staging'
  (staging / 'x.npz.0f.partial').touch()
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  assert {path.suffix for path in staging.iterdir()} == {'.json'}


def test_replace_leaves_out_what_is_not_listed(tmp_path, add):
  out = tmp_path / 'out'
  add(
    tmp_path / 'one', [face_videos.video('a.mp4')], ('consecutive', 'uniform')
  )
  add(tmp_path / 'two', [face_videos.video('b.mp4')], replace=True)
  assert _stored(out) == {'b.mp4': 'train'}
  assert _stored(out, 'consecutive') == {'a.mp4': 'train'}  # not asked for
  assert _rows(out) == [
    ('b.mp4', 'uniform', 'kept'),
    ('a.mp4', 'consecutive', 'kept'),
  ]


def test_one_rule_leaves_the_lines_of_the_other(tmp_path, add):
  video = face_videos.video('a.mp4')
  add(tmp_path / 'one', [video], ('consecutive',))
  add(tmp_path / 'one', [video], ('uniform',))
  assert _rows(tmp_path / 'out') == [
    ('a.mp4', 'uniform', 'kept'),
    ('a.mp4', 'consecutive', 'kept'),
  ]
  assert _stored(tmp_path / 'out', 'consecutive')


def test_another_file_of_the_same_name_is_refused(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  face_videos.write_face_video(tmp_path / 'two/a.mp4', 9)
  with pytest.raises(ValueError, match=r'a\.mp4 is .*one, .*--replace'):
    add(tmp_path / 'two', [face_videos.video('a.mp4')])
  assert _stored(tmp_path / 'out') and add.done == ['a.mp4']
  add(tmp_path / 'two', [face_videos.video('a.mp4')], replace=True)
  assert add.done == ['a.mp4', 'a.mp4']


def test_a_folder_that_moved_is_the_same_folder(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  (tmp_path / 'one').rename(tmp_path / 'two')
  add(tmp_path / 'two', [face_videos.video('a.mp4')])
  assert add.done == ['a.mp4']


def test_the_same_frames_under_two_names_are_refused(tmp_path, add):
  root = tmp_path / 'one'
  part = face_videos.video('a.mp4', start=0, end=6)
  part = prepare.dataclasses.replace(part, video_id='a.mp4#0-6')
  add(root, [part])
  with pytest.raises(ValueError, match=r'a\.mp4 is .* as a\.mp4#0-6 \(train\)'):
    add(root, [face_videos.video('a.mp4', 'val')])
  add(root, [face_videos.video('a.mp4', 'val')], replace=True)
  assert _stored(tmp_path / 'out') == {'a.mp4': 'val'}


def test_a_record_outlives_its_file(tmp_path, add):
  root, video = tmp_path / 'one', face_videos.video('a.mp4')
  add(root, [video])
  (root / 'a.mp4').write_text('damaged since')
  (outcome,) = add(root, [video])
  assert outcome.status == 'kept' and outcome.num_frames == 4
  assert 'as prepared before; now unreadable: ' in outcome.detail
  assert _stored(tmp_path / 'out') == {'a.mp4': 'train'}
  (outcome,) = add(root, [video], replace=True)
  assert outcome.status == 'skipped'


def test_a_damaged_data_set_is_not_written_over(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  (info,) = (tmp_path / 'out').glob('d/uniform/*/metadata.json')
  info.unlink()
  with pytest.raises(ValueError, match='--replace makes the data set anew'):
    add(tmp_path / 'two', [face_videos.video('b.mp4')])
  add(tmp_path / 'two', [face_videos.video('b.mp4')], replace=True)
  assert _stored(tmp_path / 'out') == {'b.mp4': 'train'}


def test_a_replacement_that_was_killed_half_way_loses_nothing(tmp_path, add):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  final = metadata.dataset_dir(tmp_path / 'out', 'd', 'uniform')
  building = tmp_path / 'out/d/.building-uniform'
  building.mkdir()
  final.rename(building / 'replaced')
  add(tmp_path / 'two', [face_videos.video('b.mp4')])
  assert sorted(_stored(tmp_path / 'out')) == ['a.mp4', 'b.mp4']


def test_a_report_that_is_none_is_not_written_over(tmp_path, add):
  report = tmp_path / 'out/d/report.csv'
  report.parent.mkdir(parents=True)
  report.write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match=r'report\.csv is not a report'):
    add(tmp_path / 'one', [face_videos.video('a.mp4')])
  assert report.read_text() == 'a,b\n1,2\n' and not add.done


def test_a_name_that_is_not_utf8_is_one_refused_video(tmp_path, add):
  name = os.fsdecode(b'caf\xe9.mp4')
  root = tmp_path / 'one'
  odd = [face_videos.video(n) for n in (name, 'a[/b] 12:30\n.mp4', 'c.mp4')]
  outcomes = add(root, odd)
  assert [o.status for o in outcomes] == ['skipped', 'kept', 'kept']
  assert outcomes[0].video_id == r'caf\xe9.mp4'
  assert 'not UTF-8' in outcomes[0].detail
  assert sorted(_stored(tmp_path / 'out')) == ['a[/b] 12:30\n.mp4', 'c.mp4']
  console = prepare.rich.console.Console(
    record=True, markup=False, width=200, file=io.StringIO()
  )
  prepare._show(outcomes, console)
  shown = console.export_text()
  assert r'caf\xe9.mp4' in shown and r'a[/b] 12:30\n.mp4' in shown


def test_of_a_long_list_what_was_skipped_is_shown_and_of_that_not_all():
  console = prepare.rich.console.Console(file=io.StringIO(), width=200)
  videos = [face_videos.video(f'{i}.mp4') for i in range(1600)]
  rows = [
    prepared_video.skip(video, ['uniform'], 'missing', 'no such file')[0]
    if i % 4
    else prepare.dataclasses.replace(
      prepared_video.skip(video, ['uniform'], '', '')[0], status='kept'
    )
    for i, video in enumerate(videos)
  ]
  assert prepare._show(rows, console)
  said = console.file.getvalue()
  assert said.count('no such file') == 1000
  assert 'and 200 more rows in report.csv' in said
  assert '400 kept, 1200 missing' in said
  assert '0 frames' not in said


def test_two_commands_at_once_the_second_is_told_of_the_first(tmp_path, capsys):
  face_videos.write_face_video(tmp_path / 'videos/a.mp4', 6)
  arguments = ('--root', str(tmp_path / 'videos'), '--out', str(tmp_path))
  with folder_lock.hold(tmp_path / 'd'):
    line = _complain(capsys, *arguments, '--dataset=d')
  assert f'is being written by process {os.getpid()} on ' in line
  assert not list((tmp_path / 'd').iterdir())


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--num_frames=0'], '--num_frames is 0; it is 1 or more'),
    (['--num_frames=-3'], '--num_frames is -3'),
    (['--num_frames=3'], 'no video could be kept'),
    (['--min_frames=0'], '--min_frames is 0'),
    (['--workers=0'], '--workers is 0'),
    (['--beam_pipeline_options=runner=X'], 'are of --engine=beam'),
    (['--val_fraction=1'], '--val_fraction is 1.0'),
    (['--val_fraction=nan'], '--val_fraction is nan'),
    (['--dataset=a/b'], "'a/b' cannot be the name"),
    (['--dataset=..'], "'..' cannot be the name"),
    (['--dataset=a:b'], "'a:b' cannot be the name"),
    (['--dataset= a'], "' a' cannot be the name"),
    (['--dataset', 'a\nb'], 'cannot be the name'),
    (['--dataset', 'a' * 201], 'cannot be the name'),
  ],
)
def test_flags_out_of_range_are_one_line_and_leave_nothing(
  tmp_path, capsys, flags, says
):
  (tmp_path / 'videos').mkdir()
  (tmp_path / 'videos/a.mp4').touch()
  arguments = ('--root', str(tmp_path / 'videos'), '--out', str(tmp_path / 'o'))
  if not any(flag.startswith('--workers') for flag in flags):
    flags = [*flags, '--workers=1']
  assert prepare.main([*arguments, *flags]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ') and says in line
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
  'flags', [[], ['--rule=all'], ['--num_frames=x'], ['--nonsense']]
)
def test_flags_that_cannot_be_parsed_are_one_line(capsys, flags):
  given = ['--root=a', '--out=b', *flags] if flags else []
  with pytest.raises(SystemExit) as status:
    prepare.main(given)
  assert status.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ')


def test_one_lone_fake_is_no_training_video(tmp_path, capsys):
  face_videos.write_face_video(tmp_path / 'videos/a.mp4', 12)
  listing = tmp_path / 'list.csv'
  listing.write_text('path,label\na.mp4,fake\n')
  args = prepare._parse(
    ['--root', str(tmp_path / 'videos'), '--out=x', '--csv', str(listing)]
  )
  console = prepare.rich.console.Console(record=True, file=io.StringIO())
  (video,) = prepare._list_videos(args, console)
  assert (video.split, video.label) == ('val', 1)
  assert 'not to train on' in console.export_text()


@pytest.mark.parametrize(
  ('number', 'says'),
  [(errno.ENOSPC, 'MB free'), (errno.EDQUOT, 'your quota there is used up')],
)
def test_a_full_disk_is_one_line_and_a_failure(
  tmp_path, capsys, monkeypatch, number, says
):
  def fill(*_):
    raise OSError(number, os.strerror(number))

  (tmp_path / 'a.mp4').write_bytes(b'')
  monkeypatch.setattr(prepare, 'prepare', fill)
  line = _complain(capsys, '--root', str(tmp_path), '--out', str(tmp_path))
  assert f'no space left below {tmp_path} (' in line and says in line
  assert 'finished videos are kept' in line


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_temporary_files_is_the_one_named(
  tmp_path, capsys, monkeypatch, number
):
  face_videos.write_face_video(tmp_path / 'in/a.mp4', 12)
  monkeypatch.setattr(
    recompression,
    '_compress',
    lambda *_: av.error.err_check(-number),
  )
  flags = [
    '--corrupt=h264:1',
    '--engine=in_process',
    '--out',
    str(tmp_path / 'out'),
  ]
  line = _complain(capsys, '--root', str(tmp_path / 'in'), *flags)
  assert f'no space left below {tempfile.gettempdir()} ' in line
  assert 'TMPDIR' in line


def test_a_place_that_cannot_be_written_is_one_line_and_a_failure(
  tmp_path, capsys
):
  (tmp_path / 'a.mp4').write_bytes(b'')
  out = tmp_path / 'file'
  out.write_text('in the way')
  line = _complain(capsys, '--root', str(tmp_path), '--out', str(out))
  assert 'Not a directory' in line and str(out) in line


def test_a_published_set_is_prepared_by_its_name(tmp_path, capsys):
  root = published_test.celebdf_tree(tmp_path / 'Celeb')
  for name in ('Celeb-real/id1_0003', 'Celeb-synthesis/id1_id0_0003'):
    face_videos.write_face_video(root / f'{name}.mp4', 6)
  arguments = f'--root={root} --source=celebdf_v2 --rule=uniform --workers=1'
  out = tmp_path / 'out'
  assert prepare.main([*arguments.split(), f'--out={out}']) == 0
  said = capsys.readouterr().err
  assert 'left out 1 fakes of the training split' in said
  stored = records.open_records(out, 'celebdf_v2', 'uniform', 'test')
  assert [(v.video_id, v.label, v.pair) for v in stored.videos] == [
    ('Celeb-real/id1_0003.mp4', 0, ''),
    ('Celeb-synthesis/id1_id0_0003.mp4', 1, 'Celeb-real/id1_0003.mp4'),
  ]
  assert stored.videos[1].method == 'Celeb-synthesis'


def test_damaged_videos_make_a_set_of_their_own(tmp_path):
  root = tmp_path / 'mine'
  face_videos.write_face_video(root / 'test/real/a.mp4', 6)
  arguments = f'--root={root} --out={tmp_path} --rule=uniform --workers=1'
  assert prepare.main([*arguments.split(), '--corrupt=blur:2']) == 0
  stored = records.open_records(tmp_path, 'mine-blur-2', 'uniform', 'test')
  assert stored.videos[0].video_id == 'test/real/a.mp4'


@pytest.mark.parametrize(
  'flags, words',
  [
    ('--source=celebdf', 'no source'),
    ('--source=celebdf_v2 --csv=a.csv', 'both say which videos'),
    ('--corrupt=fog:1', 'KIND:LEVEL'),
  ],
)
def test_unknown_sets_and_damage_are_one_line(tmp_path, capsys, flags, words):
  (tmp_path / 'videos').mkdir()
  arguments = [f'--root={tmp_path / "videos"}', f'--out={tmp_path / "out"}']
  assert prepare.main([*arguments, *flags.split()]) == 2
  said = capsys.readouterr().err
  assert words in said and said.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_faces_of_two_backends_are_not_put_into_one_data_set(
  tmp_path, add, monkeypatch
):
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  monkeypatch.setattr(face_videos.FixedBackend, 'name', 'other')
  choice = prepare.backends.Choice
  monkeypatch.setattr(choice, 'full_name', property(lambda self: 'other'))
  with pytest.raises(
    ValueError, match=r'a\.mp4 .*centerface\+facemesh_v2; oth'
  ):
    add(tmp_path / 'two', [face_videos.video('b.mp4')])
  # The one that is there already is done again, and then all are of one.
  add(tmp_path / 'one', [face_videos.video('a.mp4')])
  add(tmp_path / 'two', [face_videos.video('b.mp4')])
  assert add.done == ['a.mp4', 'a.mp4', 'b.mp4']
  stored = records.open_records(tmp_path / 'out', 'd', 'uniform', 'train')
  assert stored.backends() == {'other'}


@pytest.mark.parametrize(
  'flags, words',
  [
    ('--backend=dlib', '--face_model=FILE, a shape predictor of dlib'),
    ('--face_model=a.dat', '--backend=embedded takes no --face_model'),
    ('--backend=scrfd --face_model=absent.onnx', 'absent.onnx: cannot be read'),
    (
      '--backend=scrfd --face_model={text}',
      'not an ONNX model that can be run',
    ),
    ('--backend=retina', "invalid choice: 'retina'"),
  ],
)
def test_a_wrong_backend_is_one_line_before_any_work(
  tmp_path, capsys, flags, words
):
  (tmp_path / 'text.onnx').write_text('no model')
  face_videos.write_face_video(tmp_path / 'videos/a.mp4', 2)
  arguments = [f'--root={tmp_path / "videos"}', f'--out={tmp_path / "out"}']
  flags = flags.format(text=tmp_path / 'text.onnx')
  try:
    code = prepare.main([*arguments, *flags.split()])
  except SystemExit as stop:
    code = stop.code
  assert code == 2
  said = capsys.readouterr().err
  assert words in said and said.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_the_users_scrfd_prepares_a_video(tmp_path):
  # A made file that sees a face in the middle of every frame.
  middle = scrfd_test.make_outputs(
    [
      (
        0.9,
        32,
        9,
        9,
        0,
        (5, 7, 5, 7),
        [[-2, -2], [2, -2], [0, 0], [-2, 3], [2, 3]],
      )
    ]
  )
  file = handmade_onnx.write_constants(tmp_path / 'scrfd.onnx', middle)
  face_videos.write_face_video(tmp_path / 'videos/test/real/a.mp4', 6)
  code = prepare.main(
    f'--root={tmp_path / "videos"} --out={tmp_path / "out"} --workers=1'
    f' --rule=uniform --backend=scrfd --face_model={file}'.split()
  )
  assert code == 0
  stored = records.open_records(tmp_path / 'out', 'videos', 'uniform', 'test')
  (name,) = stored.backends()
  assert name == prepare.backends.Choice('scrfd', (str(file),)).full_name
  assert 'scrfd.onnx' not in stored.read_record(0).provenance
  np.testing.assert_allclose(
    stored.read_record(0).boxes[0], np.array([128, 64, 448, 512]) / 4, atol=0.1
  )
