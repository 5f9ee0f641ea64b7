"""Which videos a folder or a list holds, and which split they go to."""

import dataclasses
import os
import pathlib
import re

import pytest

from data_pipeline.sources import catalogue


def _touch(root: pathlib.Path, *paths: str) -> None:
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b'')


def _video(path: str, **fields) -> catalogue.Video:
  return catalogue.Video(
    path=path, label=0, video_id=path, dataset='d', **fields
  )


def test_class_and_split_folders_are_read_in_either_order(tmp_path):
  _touch(tmp_path, 'train/real/a.mp4', 'fake/val/b.AVI', 'test/fake/x/c.mov')
  _touch(tmp_path, 'train/real/notes.txt', '.hidden/real/d.mp4')
  videos, _ = catalogue.list_videos(tmp_path, 'mine')
  assert [(v.path, v.label, v.split) for v in videos] == [
    ('fake/val/b.AVI', 1, 'val'),
    ('test/fake/x/c.mov', 1, 'test'),
    ('train/real/a.mp4', 0, 'train'),
  ]
  assert {v.dataset for v in videos} == {'mine'}


def test_a_flat_folder_is_all_real(tmp_path):
  _touch(tmp_path, 'b.mp4', 'a.mp4')
  videos, notes = catalogue.list_videos(tmp_path, 'mine')
  assert [(v.path, v.label) for v in videos] == [('a.mp4', 0), ('b.mp4', 0)]
  assert notes == (
    f'{tmp_path} has no real/ or fake/ folder: all 2 videos are taken to be '
    'real',
  )


def test_a_file_named_like_a_class_is_not_a_class_folder(tmp_path):
  _touch(tmp_path, 'fake/real')  # no suffix, not a video
  _touch(tmp_path, 'real.mp4')
  videos, _ = catalogue.list_videos(tmp_path, 'mine')
  assert [v.label for v in videos] == [0]


@pytest.mark.parametrize(
  ('paths', 'says'),
  [
    (['real/a.mp4', 'b.mp4'], 'b.mp4 is under neither real/ nor fake/'),
    (['real/train/a.mp4', 'real/b.mp4'], 'real/b.mp4 is in none of'),
    (['notes.txt'], 'no video below'),
  ],
)
def test_a_folder_that_does_not_say_enough_is_an_error(tmp_path, paths, says):
  _touch(tmp_path, *paths)
  with pytest.raises(ValueError, match=says):
    catalogue.list_videos(tmp_path, 'mine')


def test_linked_folders_are_followed_and_loops_of_links_end(tmp_path):
  _touch(tmp_path, 'store/r/a.mp4', 'store/f/b.mp4', 'root/fake/c.mp4')
  root = tmp_path / 'root'
  (root / 'real').symlink_to('../store/r')
  (root / 'fake/more').symlink_to('../../store/f')
  (tmp_path / 'store/r/back').symlink_to('../../root')
  videos, notes = catalogue.list_videos(root, 'mine')
  assert [(v.path, v.label) for v in videos] == [
    ('fake/c.mp4', 1),
    ('fake/more/b.mp4', 1),
    ('real/a.mp4', 0),
  ]
  assert not notes


def test_what_is_passed_over_is_counted_and_named(tmp_path, monkeypatch):
  _touch(tmp_path, 'real/a.mp4', 'real/b.RM', 'c.txt', 'd.txt', 'closed/e.mp4')
  _touch(tmp_path, 'README')
  (tmp_path / 'real/gone.mp4').symlink_to('nowhere.mp4')
  os.mkfifo(tmp_path / 'real/pipe.mp4')
  scandir = os.scandir

  def refuse(folder):
    if pathlib.Path(folder).name == 'closed':
      raise PermissionError(folder)
    return scandir(folder)

  monkeypatch.setattr(os, 'scandir', refuse)
  videos, notes = catalogue.list_videos(tmp_path, 'mine')
  assert [v.path for v in videos] == ['real/a.mp4']
  assert notes == (
    'left out 1 folders that cannot be opened: closed',
    'left out 2 links to nothing, pipes or devices: real/gone.mp4, '
    'real/pipe.mp4',
    'left out 1 files without an ending, which is none of videos: README',
    'left out 1 files ending in .rm, which is none of videos: real/b.RM',
    'left out 2 files ending in .txt, which is none of videos: c.txt, d.txt',
  )


def test_videos_of_many_endings_are_found(tmp_path):
  names = ['a.3gp', 'b.wmv', 'c.flv', 'd.MTS', 'e.ts', 'f.ogv', 'g.m2ts']
  _touch(tmp_path, *names)
  videos, _ = catalogue.list_videos(tmp_path, 'mine')
  assert [v.path for v in videos] == names


@pytest.mark.parametrize(
  ('folder', 'name'),
  [
    ('original_sequences/youtube/c23/videos', r'FaceForensics\+\+'),
    ('manipulated_sequences/Deepfakes/c23/videos', r'FaceForensics\+\+'),
    ('Celeb-real', 'Celeb-DF'),
    ('Celeb-synthesis', 'Celeb-DF'),
    ('x/YouTube-real', 'Celeb-DF'),
    ('dfdc_train_part_0', 'DFDC'),
    ('DFDC', 'DFDC'),
  ],
)
def test_layouts_of_published_sets_are_refused_with_the_list_to_write(
  tmp_path, folder, name
):
  _touch(tmp_path, 'real/b.mp4', f'{folder}/a.mp4')
  with pytest.raises(
    ValueError, match=rf'{name} .*path,label,split.*{folder}/a\.mp4.*--csv'
  ):
    catalogue.list_videos(tmp_path, 'mine')


@pytest.mark.parametrize(
  'folder', ['fake', 'Deepfakes', 'manipulated_sequences/Deepfakes/c23']
)
def test_a_root_among_fakes_is_not_taken_to_be_real(tmp_path, folder):
  _touch(tmp_path / folder, 'a.mp4')
  with pytest.raises(ValueError, match='would be taken to be real'):
    catalogue.list_videos(tmp_path / folder, 'mine')
  _touch(tmp_path / folder, 'fake/a.mp4')
  (tmp_path / folder / 'a.mp4').unlink()
  assert catalogue.list_videos(tmp_path / folder, 'mine').videos[0].label


def test_a_name_of_any_bytes_does_not_end_the_listing(tmp_path):
  name = os.fsdecode(b'caf\xe9.mp4')
  _touch(tmp_path, name, 'b.mp4', 'c.mp4')
  videos, _ = catalogue.list_videos(tmp_path, 'mine')
  split = catalogue.assign_splits(videos, 0.5)
  assert [v.path for v in split] == ['b.mp4', 'c.mp4', name]


@pytest.mark.parametrize(
  ('video_id', 'stretch'),
  [('a.mp4', (0, None)), ('a.mp4#3-9', (3, 9)), ('a.mp4#3-', (3, None))],
)
def test_the_id_of_a_video_tells_its_stretch(video_id, stretch):
  assert catalogue.stretch_of(video_id, 'a.mp4') == stretch


def test_a_missing_root_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='no folder'):
    catalogue.list_videos(tmp_path / 'absent', 'mine')


def test_a_list_gives_persons_methods_and_stretches(tmp_path):
  list_file = tmp_path / 'list.csv'
  list_file.write_text(
    'path,label,split,identity,method,start,end\n'
    'long.mp4,real,train,ann,,0,100\n'
    'long.mp4,real,val,ann,,120,\n'
    'swap.mp4,FAKE,val,bob,FaceSwap,,\n'
  )
  videos, _ = catalogue.list_videos(tmp_path, 'mine', list_file)
  first, second, fake = videos
  assert (first.start, first.end, first.split) == (0, 100, 'train')
  assert (second.start, second.end, second.identity) == (120, None, 'ann')
  assert (fake.label, fake.method, fake.video_id) == (1, 'FaceSwap', 'swap.mp4')
  assert first.video_id != second.video_id


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('file,label\na.mp4,real\n', 'it needs path and label'),
    ('path,label\na.mp4,genuine\n', 'line 2: label is .genuine.'),
    ('path,label,split\na.mp4,real,dev\n', 'split is .dev.'),
    ('path,label\n../a.mp4,real\n', 'not below the root'),
    ('path,label,start,end\na.mp4,real,9,5\n', 'frames 9 to 5 are none'),
    ('path,label,start\na.mp4,real,x\n', 'are frame numbers'),
    ('path,label\na.mp4,real\na.mp4,fake\n', 'listed twice'),
    ('path,label\n', 'lists no video'),
    ('path,label\nreal\\a.mp4,real\n', 'line 2: path .* has backslashes'),
    ('path,label\na.mp4,real,x\n', 'line 2 has 3 cells'),
  ],
)
def test_a_wrong_list_is_an_error_that_names_the_fault(tmp_path, text, says):
  list_file = tmp_path / 'list.csv'
  list_file.write_text(text)
  with pytest.raises(ValueError, match=says):
    catalogue.list_videos(tmp_path, 'mine', list_file)


def test_a_person_stays_on_one_side_of_the_split():
  videos = [
    _video(f'{person}-{i}.mp4', identity=person)
    for person in 'abcdefghijklmnop'
    for i in range(3)
  ]
  split = catalogue.assign_splits(videos, 0.3)
  sides = {(v.identity, v.split) for v in split}
  assert len(sides) == 16
  assert {side for _, side in sides} == {'train', 'val'}


def test_the_split_stays_when_videos_are_added():
  few = [_video(f'{i}.mp4') for i in range(40)]
  more = few + [_video(f'new{i}.mp4') for i in range(40)]
  before = {v.path: v.split for v in catalogue.assign_splits(few, 0.2)}
  after = {v.path: v.split for v in catalogue.assign_splits(more, 0.2)}
  assert {path: after[path] for path in before} == before
  assert 2 <= sum(split == 'val' for split in before.values()) <= 16


@pytest.mark.parametrize('val_fraction', [0.001, 0.999])
def test_two_videos_give_one_to_each_side(val_fraction):
  split = catalogue.assign_splits([_video('a'), _video('b')], val_fraction)
  assert {v.split for v in split} == {'train', 'val'}


def test_given_splits_are_kept():
  videos = (_video('a', split='test'), _video('b', split='train'))
  assert catalogue.assign_splits(videos, 0.5) == videos


@pytest.mark.parametrize('link', ['symlink_to', 'hardlink_to'])
def test_one_file_under_two_names_is_on_one_side_alone(tmp_path, link):
  film = tmp_path / 'train/real/a.mp4'
  _touch(tmp_path, 'train/real/a.mp4')
  twin = tmp_path / 'val/real/b.mp4'
  twin.parent.mkdir(parents=True)
  getattr(twin, link)(film)
  videos = catalogue.list_videos(tmp_path, 'mine').videos
  with pytest.raises(
    ValueError, match=r'a.mp4 \(train real\) and .*b.mp4 \(val real\) are one'
  ):
    catalogue.refuse_shared_files(tmp_path, videos)
  both = [dataclasses.replace(video, split='val') for video in videos]
  catalogue.refuse_shared_files(tmp_path, both)
  stretches = catalogue.split_in_time(videos[0], 40)
  catalogue.refuse_shared_files(tmp_path, stretches)


def test_a_single_video_is_cut_in_time_with_a_gap():
  train, val = catalogue.split_in_time(_video('a.mp4'), 400)
  assert (train.start, train.end, train.split) == (0, 300, 'train')
  assert (val.start, val.end, val.split) == (310, 400, 'val')
  assert len({train.video_id, val.video_id, 'a.mp4'}) == 3


def test_fakes_without_a_split_are_kept_from_training():
  videos = [_video(name) for name in 'abcd']
  fakes = [dataclasses.replace(_video(f'f{n}'), label=1) for n in 'abcd']
  split = catalogue.assign_splits([*videos, *fakes], 0.3)
  assert {v.split for v in split if v.label} == {'val'}
  assert {v.split for v in split if not v.label} == {'train', 'val'}


def test_group_and_pair_are_read_and_unknown_columns_named(tmp_path):
  (tmp_path / 'list.csv').write_text(
    'path,label,group,pair,mood\na.mp4,fake,g1,b.mp4,happy\n'
  )
  videos, notes = catalogue.list_videos(tmp_path, 'mine', tmp_path / 'list.csv')
  assert (videos[0].group, videos[0].pair) == ('g1', 'b.mp4')
  assert 'not read are the columns mood' in notes[0]


def _plain(tmp_path, name: str, text: str) -> catalogue.Listing:
  (tmp_path / name).write_text(text)
  return catalogue.list_videos(tmp_path, 'd', tmp_path / name)


def test_lines_of_path_and_label_are_a_list_too(tmp_path):
  videos, notes = _plain(
    tmp_path, 'gend_test.txt', 'ff/a b.mp4 0\n\nff/c.mp4\t1\nd/e.mp4  fake\n'
  )
  assert [(v.path, v.label, v.split) for v in videos] == [
    ('ff/a b.mp4', 0, 'test'),
    ('ff/c.mp4', 1, 'test'),
    ('d/e.mp4', 1, 'test'),
  ]
  assert notes == (
    f'{tmp_path}/gend_test.txt: no header; read as lines of "path label", 1 for'
    ' fake: 1 real, 2 fake, all of test by its name',
  )
  ((video,), _) = _plain(tmp_path, 'mine.txt', 'a.mp4 0')
  assert video.split == ''
  ((video,), notes) = _plain(tmp_path, 'train.txt', 'a.mp4 0\nb.mp4 1')
  assert (video.path, video.split) == ('a.mp4', 'train')
  assert 'left out 1 fakes of the training split' in notes[1]


@pytest.mark.parametrize('lowest', [0, 1])
def test_lines_with_frames_count_as_their_lowest_does(tmp_path, lowest):
  text = f'a/b {lowest} {lowest + 9} 0\na/c 5 14 1\n'
  videos, notes = _plain(tmp_path, 'list.txt', text)
  assert [(v.start, v.end) for v in videos] == [
    (0, 10),
    (5 - lowest, 15 - lowest),
  ]
  assert videos[0].video_id == 'a/b#0-10'
  assert f'frames count from {lowest}, the last one included' in notes[1]


@pytest.mark.parametrize(
  'text, says',
  [
    ('a.mp4 0\nb.mp4\n', 'line 2: \'b.mp4\' is not "path label"'),
    ('a 1 9 0\nb.mp4 0\n', 'is not "path start end label"'),
    ('1 Celeb-real/a.mp4\n', 'it needs path and label'),
    ('/data/a.mp4 0\n', "'/data/a.mp4' is not below the root"),
    ('a 9 1 0\n', 'frames 8 to 1 are none'),
  ],
)
def test_lines_of_another_form_are_named(tmp_path, text, says):
  with pytest.raises(ValueError, match=re.escape(says)):
    _plain(tmp_path, 'list.txt', text)
