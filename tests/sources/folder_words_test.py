"""Folders name class and split, or are refused; nothing is overlooked."""

import pathlib

import pytest

from data_pipeline.sources import folder_words


def path(text: str) -> pathlib.PurePosixPath:
  return pathlib.PurePosixPath(text)


@pytest.mark.parametrize(
  ('folder', 'split'),
  [
    ('train', 'train'),
    ('Train', 'train'),
    ('TRAINING', 'train'),
    ('val', 'val'),
    ('valid', 'val'),
    ('validation', 'val'),
    ('dev', 'val'),
    ('test', 'test'),
    ('testing', 'test'),
    ('devon', ''),
    ('testimonies', ''),
  ],
)
def test_words_for_a_split_are_understood(folder, split):
  assert folder_words.split_of(path(f'{folder}/real/a.mp4')) == split
  assert folder_words.split_of(path(f'real/x/{folder}/a.mp4')) == split


@pytest.mark.parametrize(
  ('folder', 'label'),
  [
    ('real', 'real'),
    ('Original', 'real'),
    ('FAKE', 'fake'),
    ('deepfakes', 'fake'),
    ('reality', ''),
  ],
)
def test_words_for_a_class_are_understood(folder, label):
  assert folder_words.class_of(path(f'{folder}/train/a.mp4')) == label


@pytest.mark.parametrize(
  'folder', ['train_set', 'trainset', 'test1', 'val-2', 'eval', 'holdout']
)
def test_a_folder_like_a_split_is_refused(folder):
  with pytest.raises(ValueError, match=f'{folder}/ .* seems to name a split'):
    folder_words.split_of(path(f'real/{folder}/a.mp4'))
  # Where another folder says it, there is no doubt.
  assert folder_words.split_of(path(f'test/{folder}/a.mp4')) == 'test'


@pytest.mark.parametrize(
  'folder', ['real_videos', 'my-fake', 'synthetic', 'original_videos', 'fake2']
)
def test_a_folder_like_a_class_is_refused(folder):
  with pytest.raises(ValueError, match=f'{folder}/ .* seems to name a class'):
    folder_words.class_of(path(f'{folder}/a.mp4'))


def test_folders_that_contradict_each_other_are_refused():
  with pytest.raises(ValueError, match='real/ and fake/, which contradict'):
    folder_words.class_of(path('real/fake/a.mp4'))
  with pytest.raises(ValueError, match='train/ and test/, which contradict'):
    folder_words.split_of(path('train/test/a.mp4'))
  assert folder_words.class_of(path('fake/deepfakes/a.mp4')) == 'fake'


def test_a_file_name_says_nothing():
  assert folder_words.class_of(path('fake.mp4')) == ''
  assert folder_words.split_of(path('train/test.mp4')) == 'train'
