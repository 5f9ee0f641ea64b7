"""Celeb-DF v1, v2 and ++ (Li et al., CVPR 2020 and later).

Videos on the list are the test split, all others of the set are 'train'. In a
line of the list, 'LABEL PATH', label 1 means REAL, and there is no header.
"""

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_LIST = 'List_of_testing_videos.txt'
_REALS = ('Celeb-real', 'YouTube-real')
# Celeb-DF++: methods by scenario, as its folders are named.
SCENARIOS = {
  'FaceSwap': (
    'Celeb-DF-v2', 'BlendFace', 'GHOST', 'HifiFace', 'InSwapper',
    'MobileFaceSwap', 'SimSwap', 'UniFace',
  ),
  'FaceReenact': (
    'DaGAN', 'FSRT', 'HyperReenact', 'LIA', 'LivePortrait', 'MCNET', 'TPSMM',
  ),
  'TalkingFace': (
    'AniTalker', 'EchoMimic', 'EDTalk', 'FLOAT', 'IP_LAP', 'Real3DPortrait',
    'SadTalker',
  ),
}  # fmt: skip


def list_celebdf(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists Celeb-DF v1 or v2.

  Raises:
    ValueError: another tree, no test list, or a list that contradicts the
      folders.
  """
  base = source_lib.base_of(tree, 'Celeb-synthesis', 'Celeb-DF')
  tested = _test_list(tree, base)
  videos = [
    source_lib.video(path, 0, **_of_real(path, path in tested))
    for folder in _REALS
    for path in _named(tree, base, folder, tested)
  ]
  videos += [
    _fake(tree, base, path, path in tested, 'Celeb-synthesis')
    for path in _named(tree, base, 'Celeb-synthesis', tested)
  ]
  return videos


def list_celebdf_plus(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists Celeb-DF++; the group of a video is its scenario.

  Raises:
    ValueError: another tree, no test list, or a list that contradicts the
      folders.
  """
  base = source_lib.base_of(
    tree, 'Celeb-synthesis/FaceSwap', 'Celeb-DF++ (its fakes by scenario)'
  )
  tested = _test_list(tree, base)
  videos = [
    source_lib.video(path, 0, **_of_real(path, path in tested))
    for folder in _REALS
    for path in _named(tree, base, folder, tested)
  ]
  for scenario, methods in SCENARIOS.items():
    for method in methods:
      folder = f'Celeb-synthesis/{scenario}/{method}'
      videos += [
        _fake(tree, base, path, path in tested, method, group=scenario)
        for path in _named(tree, base, folder, tested)
      ]
  return videos


def _test_list(tree: tree_lib.Tree, base: str) -> set[str]:
  """Paths of the test videos, as they lie on disk where they do."""
  place = source_lib.join(base, _LIST)
  lines = source_lib.read_lines(
    tree, place, 'the list comes with the data set and makes the test split'
  )
  paths = set()
  for number, line in enumerate(lines, 1):
    label, _, name = line.partition(' ')
    if label not in ('0', '1') or not name:
      raise ValueError(
        f'{tree.root / place} line {number}: {line!r} is not "LABEL PATH" with '
        'label 1 (real) or 0 (fake)'
      )
    real = name.strip().startswith(_REALS)
    if real != (label == '1'):
      raise ValueError(
        f'{tree.root / place} line {number}: label {label} contradicts the '
        f'folder of {name.strip()} (1 is real in this list)'
      )
    path = source_lib.join(base, name.strip())
    paths.add(tree.find(path) or path)
  return paths


def _named(
  tree: tree_lib.Tree, base: str, folder: str, tested: set[str]
) -> list[str]:
  """Videos of a folder: those on disk, and those of the list that are not."""
  place = source_lib.join(base, folder)
  listed = {path for path in tested if path.startswith(f'{place}/')}
  return sorted(listed.union(tree.videos(place)))


def _of_real(path: str, tested: bool) -> dict[str, str]:
  (stem,) = source_lib.stems([path])
  return {
    'split': 'test' if tested else 'train',
    # Celeb-real: idN_M; YouTube-real: a number for each video.
    'identity': stem.partition('_')[0] if stem.startswith('id') else stem,
  }


def _fake(
  tree: tree_lib.Tree,
  base: str,
  path: str,
  tested: bool,
  method: str,
  group: str = '',
) -> catalogue.Video:
  """A fake idT_idS_M: the scene of T with the face of S."""
  (stem,) = source_lib.stems([path])
  target, *others = stem.split('_')
  pair = ''
  if others:  # else it is a fake of nobody that is known
    pair = source_lib.join(base, 'Celeb-real', f'{target}_{others[-1]}.mp4')
  return source_lib.video(
    path,
    1,
    split='test' if tested else 'train',
    identity=target,
    method=method,
    group=group,
    pair=tree.find(pair) or pair,
  )


_HOME = 'https://github.com/yuezunli/celeb-deepfakeforensics'
_LAYOUT = (
  'Celeb-real/*.mp4, YouTube-real/*.mp4, Celeb-synthesis/*.mp4, '
  f'{_LIST} ("LABEL PATH", 1 = real)'
)
_TRAPS = (
  'The list has no header line; a reader that expects one loses a video.',
  'In the list 1 is real; here and in most code 1 is fake.',
  'People are in both splits: an identity overlap is expected.',
)
SOURCES = {
  'celebdf_v1': source_lib.Source(
    title='Celeb-DF v1',
    home=_HOME,
    licence='on request, research only',
    size='not stated',
    layout=_LAYOUT,
    traps=_TRAPS,
    list_videos=list_celebdf,
    expected={('', ''): 158 + 250, ('', 'Celeb-synthesis'): 795},
  ),
  'celebdf_v2': source_lib.Source(
    title='Celeb-DF v2',
    home=_HOME,
    licence='on request, research only',
    size='not stated',
    layout=_LAYOUT,
    traps=_TRAPS,
    list_videos=list_celebdf,
    expected={
      ('test', ''): 178,
      ('test', 'Celeb-synthesis'): 340,
      ('train', ''): 590 + 300 - 178,
      ('train', 'Celeb-synthesis'): 5639 - 340,
    },
  ),
  'celebdf_plus': source_lib.Source(
    title='Celeb-DF++ (v3)',
    home=_HOME,
    licence='on request, research only',
    size='not stated',
    layout='Celeb-real, YouTube-real, Celeb-synthesis/SCENARIO/METHOD/*.mp4, '
    + _LIST,
    traps=(
      *_TRAPS,
      'File names repeat across methods: a video is METHOD/NAME.',
      'Talking-face fakes have 24 or 25 frames a second, reals 30: report '
      'each scenario by itself.',
    ),
    list_videos=list_celebdf_plus,
    expected={
      ('test', ''): 178,
      ('train', ''): 590 + 300 - 178,
      ('', '*'): 53196,
      **{
        ('test', method): 300
        if scenario == 'TalkingFace'
        else 340
        if method == 'Celeb-DF-v2'
        else 200
        for scenario, methods in SCENARIOS.items()
        for method in methods
      },
    },
  ),
}
