"""What the folders of a path say: class, split, or a published data set.

What enters: paths relative to the root of a folder of videos. What leaves: the
class and the split that their folders name. A folder that seems to name one, in
words that are not known here, is an error: taken for nothing it would put fakes
among the real videos, or a test set into training.
"""

import pathlib
import re

# Words in lower case.
CLASS_WORDS = {
  **dict.fromkeys(
    ('real', 'reals', 'original', 'originals', 'genuine', 'pristine', '0_real'),
    'real',
  ),
  **dict.fromkeys(
    ('fake', 'fakes', 'deepfake', 'deepfakes', 'manipulated', '1_fake'), 'fake'
  ),
}
SPLIT_WORDS = {
  **dict.fromkeys(('train', 'training', 'trn'), 'train'),
  **dict.fromkeys(('val', 'valid', 'validation', 'dev', 'development'), 'val'),
  **dict.fromkeys(('test', 'testing', 'tst'), 'test'),
}
_LIKE_CLASS = re.compile(
  r'(real|fake|deepfake|original|genuine|pristine|authentic|manipulated'
  r'|synthetic|forged)s?(?![a-z])|.*[^a-z](real|fake)s?$'
)
_LIKE_SPLIT = re.compile(
  r'(train|training|val|valid|validation|dev|test|testing|eval|evaluation'
  r'|holdout)(?![a-z])|(train|val|valid|dev|test|eval)(set|data|split|videos)'
)
# Folders of published data sets, whose splits stand in lists of their own.
_PUBLISHED = {
  'original_sequences': 'FaceForensics++',
  'manipulated_sequences': 'FaceForensics++',
  'celeb-real': 'Celeb-DF',
  'celeb-synthesis': 'Celeb-DF',
  'youtube-real': 'Celeb-DF',
  'deeperforensics-1.0': 'DeeperForensics-1.0',
  'fakeavceleb': 'FakeAVCeleb',
  'realvideo-realaudio': 'FakeAVCeleb',
}
# Of these, the folders that hold fakes alone.
FAKE_SETS = ('manipulated_sequences', 'celeb-synthesis')
_DFDC = re.compile(r'dfdc($|[_-])')


def class_of(path: pathlib.PurePosixPath) -> str:
  """The class that a folder of the path names: 'real', 'fake' or ''.

  Raises:
    ValueError: two folders contradict each other, or one seems to name a class.
  """
  return _said(path, CLASS_WORDS, _LIKE_CLASS, 'a class', 'real/ or fake/')


def split_of(path: pathlib.PurePosixPath) -> str:
  """The split that a folder of the path names: 'train', 'val', 'test' or ''.

  Raises:
    ValueError: two folders contradict each other, or one seems to name a split.
  """
  return _said(
    path, SPLIT_WORDS, _LIKE_SPLIT, 'a split', 'train/, val/ or test/'
  )


def published_set(folder: str) -> str:
  """The published data set that a folder of this name belongs to, or ''."""
  word = folder.lower()
  return 'DFDC' if _DFDC.match(word) else _PUBLISHED.get(word, '')


def _said(
  path: pathlib.PurePosixPath,
  words: dict[str, str],
  like: re.Pattern,
  kind: str,
  known: str,
) -> str:
  folders = path.parent.parts
  meant = {folder: words.get(folder.lower(), '') for folder in folders}
  said = {word for word in meant.values() if word}
  if len(said) > 1:
    named = ' and '.join(f'{folder}/' for folder, word in meant.items() if word)
    raise ValueError(
      f'{path} lies under {named}, which contradict each other; rename one, or '
      'list the videos in a CSV (--csv)'
    )
  if said:
    return said.pop()
  for folder in folders:
    if like.match(folder.lower()):
      raise ValueError(
        f'the folder {folder}/ of {path} seems to name {kind}; call it '
        f'{known}, or list the videos in a CSV (--csv)'
      )
  return ''
