"""Files, folders, patterns and lists become the videos that are meant."""

import pathlib

import pytest

from stormer_jax.scoring import video_list


@pytest.fixture
def folder(tmp_path, monkeypatch):
  for name in ('b.mp4', 'a.MKV', 'in/c.webm', 'in/d.txt', 'stills/1.png'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_a_folder_is_its_videos_at_any_depth(folder):
  assert video_list.expand(['.']) == ['a.MKV', 'b.mp4', 'in/c.webm']


def test_a_folder_of_images_is_one_video(folder):
  assert video_list.expand(['stills']) == ['stills']


def test_a_pattern_is_what_it_matches(folder):
  assert video_list.expand(['**/*.[mw]*']) == ['b.mp4', 'in/c.webm']
  with pytest.raises(ValueError, match='no file is called so'):
    video_list.expand(['*.avi'])


def test_a_name_that_looks_like_a_pattern_is_the_file(folder):
  pathlib.Path('[1].mp4').touch()
  assert video_list.expand(['[1].mp4']) == ['[1].mp4']
  assert video_list.is_single(['[1].mp4'])


def test_a_list_holds_a_name_a_line(folder):
  pathlib.Path('list.txt').write_text('b.mp4\n\n  gone.mp4\nin\n./b.mp4\n')
  assert video_list.expand(['@list.txt']) == ['b.mp4', 'gone.mp4', 'in/c.webm']
  with pytest.raises(FileNotFoundError, match='no such list'):
    video_list.expand(['@none.txt'])


def test_a_folder_without_a_video_is_named(folder):
  pathlib.Path('empty').mkdir()
  with pytest.raises(ValueError, match='empty: a folder without a video'):
    video_list.expand(['empty'])


@pytest.mark.parametrize(
  ('named', 'single'),
  [
    (['b.mp4'], True),
    (['gone.mp4'], True),
    (['in'], False),
    (['stills'], True),
    (['stills', 'b.mp4'], False),
    (['*.mp4'], False),
    (['@list.txt'], False),
    (['b.mp4', 'a.MKV'], False),
  ],
)
def test_one_file_is_told_from_many(folder, named, single):
  assert video_list.is_single(named) == single
