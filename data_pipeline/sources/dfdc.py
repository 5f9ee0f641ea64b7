"""DFDC and its preview (Dolhansky et al., 2019 and 2020)."""

import csv

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_METHOD = 'dfdc'  # which of its eight methods made a fake is not published


def list_dfdc(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists the parts of the training set and the test set, those there are.

  Raises:
    ValueError: neither a part of the training set nor the test set, or a
      damaged list.
  """
  videos = []
  for metadata in tree.below('', ('/metadata.json', 'metadata.json')):
    folder, _, name = metadata.rpartition('/')
    part = folder.rpartition('/')[2]
    if name == 'metadata.json' and part.startswith('dfdc_train_part_'):
      videos += _train_part(tree, folder)
  videos += _test(tree)
  if not videos:
    raise ValueError(
      f'{tree.root} is not DFDC: neither dfdc_train_part_N/metadata.json nor '
      'test/ with labels.csv is in it'
    )
  return videos


def _train_part(tree: tree_lib.Tree, folder: str) -> list[catalogue.Video]:
  path = source_lib.join(folder, 'metadata.json')
  entries = source_lib.read_entries(tree, path, 'it labels a training part')
  videos = []
  for name, entry in sorted(entries.items()):
    label = _label(entry.get('label', ''), tree, path, name)
    original = entry.get('original') or ''
    videos.append(
      source_lib.video(
        tree.find(f'{folder}/{name}') or f'{folder}/{name}',
        label,
        split='train',
        identity=(original or name) if label else name,
        method=_METHOD if label else '',
        pair=f'{folder}/{original}' if label and original else '',
      )
    )
  return videos


def _test(tree: tree_lib.Tree) -> list[catalogue.Video]:
  lists = [
    path
    for path in tree.below('', ('labels.csv',))
    if path.rpartition('/')[2] == 'labels.csv'
  ]
  videos = []
  for path in lists:
    folder = path.rpartition('/')[0]
    lines = source_lib.read_lines(tree, path, 'it labels the test set')
    for row in csv.DictReader(lines):
      if not {'filename', 'label'} <= set(row):
        raise ValueError(
          f'{tree.root / path} has the columns {sorted(row)}; the published '
          'list has filename and label (1 = fake)'
        )
      label = _label(row['label'], tree, path, row['filename'])
      places = (
        source_lib.join(folder, *middle, row['filename'])
        for middle in ((), ('videos',), ('test',), ('test', 'videos'))
      )
      found = next(filter(None, map(tree.find, places)), None)
      videos.append(
        source_lib.video(
          found or source_lib.join(folder, row['filename']),
          label,
          split='test',
          method=_METHOD if label else '',
        )
      )
  return videos


def list_dfdcp(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists the preview of DFDC by its dataset.json.

  Raises:
    ValueError: no list, or a damaged one.
  """
  base = source_lib.base_of(tree, 'original_videos', 'DFDC preview')
  path = source_lib.join(base, 'dataset.json')
  entries = source_lib.read_entries(
    tree, path, 'it comes with the data set and says label and split'
  )
  videos = []
  for name, entry in sorted(entries.items()):
    label = _label(entry.get('label', ''), tree, path, name)
    place = source_lib.join(base, name)
    people = entry.get('target_id') or name.split('/')[-1].partition('_')[0]
    videos.append(
      source_lib.video(
        tree.find(place) or place,
        label,
        split=str(entry.get('set', '')),
        identity=str(people),
        method=name.partition('/')[0] if label else '',
      )
    )
  return videos


def _label(word: str, tree: tree_lib.Tree, path: str, name: str) -> int:
  words = {'real': 0, 'fake': 1, '0': 0, '1': 1}
  if str(word).lower() not in words:
    raise ValueError(
      f'{tree.root / path}: {name} has the label {word!r}; it is real or fake'
    )
  return words[str(word).lower()]


_HOME = 'https://ai.meta.com/datasets/dfdc/'
SOURCES = {
  'dfdc': source_lib.Source(
    title='DFDC',
    home=_HOME,
    licence='on registration',
    size='not stated',
    layout='dfdc_train_part_N/{*.mp4,metadata.json}, '
    'test/{,videos/}*.mp4 with labels.csv (filename,label; 1 = fake)',
    traps=(
      'The test videos lie in test/ or in test/videos/.',
      'Which method made a fake is not published.',
      'Some videos show two people, of whom one is swapped.',
    ),
    list_videos=list_dfdc,
    expected={('test', ''): 2500, ('test', '*'): 2500},
  ),
  'dfdcp': source_lib.Source(
    title='DFDC preview (DFDCP)',
    home=_HOME,
    licence='on registration',
    size='not stated',
    layout='dataset.json, original_videos/, method_A/, method_B/',
    traps=(
      'There is no validation split.',
      'Some tools score all 5,250 videos, others 652 of the 777 of the test '
      'split: compare like with like.',
    ),
    list_videos=list_dfdcp,
    expected={('test', ''): 276, ('test', '*'): 501},
    margin=5,
  ),
}
