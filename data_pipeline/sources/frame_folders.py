"""Sets of image folders: a folder is a video, its images in natural order.

DF40 (Yan et al., NeurIPS 2024), DiffSwap as FakeSTormer tests it, and the
crops that FakeSTormer's own preprocessing leaves (METHOD 1.1).
"""

import functools
from typing import NamedTuple

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_REAL_WORDS = ('real', 'original', 'youtube', 'actors')


def list_df40(tree: tree_lib.Tree, domain: str) -> list[catalogue.Video]:
  """Lists DF40's fakes of one domain, and the sets with reals of their own.

  Args:
    tree: of the folder that holds the METHOD folders.
    domain: 'ff' or 'cdf', whose faces were forged.

  Raises:
    ValueError: no METHOD/DOMAIN/frames in the tree.
  """
  videos = []
  for method in tree.folders(''):
    for path in tree.sequences(source_lib.join(method, domain)):
      videos.append(
        source_lib.video(path, 1, split='test', method=method, is_crop=True)
      )
    # Nine sets come with reals of their own.
    if domain == 'ff' and tree.has(source_lib.join(method, 'fake')):
      for word, label in catalogue.LABELS.items():
        for path in tree.sequences(source_lib.join(method, word)):
          videos.append(
            source_lib.video(
              path,
              label,
              split='test',
              method=method if label else '',
              group=method,
              is_crop=True,
            )
          )
  if not videos:
    raise ValueError(
      f'{tree.root} is not DF40: it holds no METHOD/{domain}/frames/VIDEO/*.png'
    )
  return videos


def list_diffswap(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists DiffSwap's test frames; what has Real in its name is real.

  Raises:
    ValueError: another tree.
  """
  base = source_lib.base_of(tree, 'test/frames', 'DiffSwap as prepared')
  videos = []
  for path in tree.sequences(source_lib.join(base, 'test/frames')):
    kind = path.removeprefix(source_lib.join(base, 'test/frames') + '/')
    label = int('Real' not in kind.partition('/')[0])
    videos.append(
      source_lib.video(
        path,
        label,
        split='test',
        method='DiffSwap' if label else '',
        is_crop=True,
      )
    )
  return videos


def list_fakestormer(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists crops as FakeSTormer's own preprocessing writes them.

  ROOT/{train,val,test}/{frames,videos}/TYPE/VIDEO/000.png. The label is told by
  TYPE, or by its landmark JSON files where they lie beside; their landmarks
  (orig_lms, those that it trains on) come with the images.

  Raises:
    ValueError: another tree.
  """
  told = _told_by_json(tree)
  videos = []
  for split in catalogue.SPLITS:
    for mode in ('frames', 'videos'):
      folder = f'{split}/{mode}'
      for path in tree.sequences(folder):
        kind, _, name = path.removeprefix(f'{folder}/').partition('/')
        entry = told.get(f'{kind}/{name}')
        if entry is not None:
          label = entry.label
        else:
          label = int(not any(w in kind.lower() for w in _REAL_WORDS))
        videos.append(
          source_lib.video(
            path,
            label,
            split=split,
            method=kind if label else '',
            is_crop=True,
            landmarks=entry.landmarks if entry else '',
          )
        )
  if not videos:
    raise ValueError(
      f'{tree.root} holds no {{train,val,test}}/{{frames,videos}}/TYPE/VIDEO/ '
      'of FakeSTormer'
    )
  return videos


class _Told(NamedTuple):
  """What its JSON files say of a video."""

  label: int
  landmarks: str  # the file that holds them, or ''


def _told_by_json(tree: tree_lib.Tree) -> dict[str, _Told]:
  """By TYPE/VIDEO; the paths inside begin on another machine."""
  told: dict[str, _Told] = {}
  for path in tree.below('', ('.json',)):
    content = source_lib.read_json(tree, path, 'it holds the landmarks', _slim)
    entries = content.get('data', []) if isinstance(content, dict) else []
    for entry in entries if isinstance(entries, list) else ():
      if not isinstance(entry, dict):
        continue
      parts = str(entry.get('image_path', '')).replace('\\', '/').split('/')
      if len(parts) >= 3 and str(entry.get('label')) in ('0', '1'):
        name = '/'.join(parts[-3:-1])
        before = told.get(name, _Told(0, ''))
        told[name] = _Told(
          int(entry['label']),
          path if entry.get('orig_lms') else before.landmarks,
        )
  return told


def _slim(item: dict) -> dict:
  """Keeps whether there are landmarks, not the 81 of every frame."""
  return {
    name: bool(value) if name.endswith('_lms') else value
    for name, value in item.items()
  }


_DF40 = functools.partial(
  source_lib.Source,
  home='https://github.com/YZY-stack/DF40',
  licence='on request, research only',
  size='not stated',
  layout='METHOD/{ff,cdf}/frames/VIDEO/*.png; nine sets with fake/ and real/',
  traps=(
    'Real faces of ff and cdf are those of FaceForensics++ and Celeb-DF.',
    'The folder is whichfaceisreal, its list whichisreal.',
    'Known to be missing: the test set of e4s, training videos of uniface, '
    'frames of heygen, reals of CollabDiff; rddm and sd2.1 have empty folders.',
    'Its README leaves out deepfacelab, hyperreenact and rddm.',
    'Its four protocols: other types of forgery in the same domain; the same '
    'types on Celeb-DF; nine unknown sets; one method against all.',
    'A JSON per set (simswap_ff, FSAll_ff, heygen) in the style of '
    'DeepfakeBench is read by the source deepfakebench.',
  ),
)
SOURCES = {
  'df40_ff': _DF40(
    title='DF40, faces of FaceForensics++',
    list_videos=functools.partial(list_df40, domain='ff'),
  ),
  'df40_cdf': _DF40(
    title='DF40, faces of Celeb-DF',
    list_videos=functools.partial(list_df40, domain='cdf'),
  ),
  'diffswap': source_lib.Source(
    title='DiffSwap, as FakeSTormer tests it',
    home='no public list',
    licence='not stated',
    size='not stated',
    layout='test/frames/{Real_DiffSwap1,DiffSwap_1}/VIDEO/*.png',
    traps=('There is no public list: nobody knows that two copies agree.',),
    list_videos=list_diffswap,
  ),
  'fakestormer': source_lib.Source(
    title='Crops of the original FakeSTormer',
    home='https://github.com/10Ring/FakeSTormer',
    licence='that of the videos they come from',
    size='not stated',
    layout='{train,val,test}/{frames,videos}/TYPE/VIDEO/000.png, JSON beside',
    traps=(
      'Paths in its JSON begin with a folder of another machine.',
      'Crops of DFDC lie in frames/0 and frames/1.',
      'Its landmarks (orig_lms) are taken where its JSON files lie in the same '
      'tree; a frame without any is then left out.',
    ),
    list_videos=list_fakestormer,
  ),
}
