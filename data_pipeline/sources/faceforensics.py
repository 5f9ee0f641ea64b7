"""FaceForensics++, and the two sets that lie in its tree or build on it.

FaceForensics++ (Roessler et al., ICCV 2019): 1,000 originals and five methods;
the splits are lists of pairs of originals, and each pair gives one fake in each
direction. DeepFakeDetection (DFD, Google and Jigsaw) lies in the same tree.
DeeperForensics-1.0 (Jiang et al., CVPR 2020) swaps faces into the originals.
"""

from collections.abc import Sequence
import functools

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

METHODS = (
  'Deepfakes', 'Face2Face', 'FaceSwap', 'NeuralTextures', 'FaceShifter'
)  # fmt: skip
COMPRESSIONS = {'raw': 0, 'c23': 23, 'c40': 40}  # and their rate factor
VARIANTS = (
  'end_to_end', 'end_to_end_level_1', 'end_to_end_level_2',
  'end_to_end_level_3', 'end_to_end_level_4', 'end_to_end_level_5',
  'end_to_end_mix_2_distortions', 'end_to_end_mix_3_distortions',
  'end_to_end_mix_4_distortions', 'end_to_end_random_level',
  'reenact_postprocess',
)  # fmt: skip
_SPLITS = {'train': 720, 'val': 140, 'test': 140}


def list_faceforensics(
  tree: tree_lib.Tree, compression: str, methods: Sequence[str] = METHODS
) -> list[catalogue.Video]:
  """Lists originals and fakes by the official lists of pairs.

  Raises:
    ValueError: another tree, another compression, or no lists.
  """
  base = source_lib.base_of(tree, 'original_sequences', 'FaceForensics++')
  _check_compression(tree, base, 'original_sequences/youtube', compression)
  videos = []
  for split in catalogue.SPLITS:
    for first, second in _pairs(tree, base, split):
      for target, origin in ((first, second), (second, first)):
        original = _place(
          tree, base, 'original_sequences/youtube', compression, target
        )
        videos.append(
          source_lib.video(original, 0, split=split, identity=target)
        )
        for method in methods:
          fake = _place(
            tree,
            base,
            f'manipulated_sequences/{method}',
            compression,
            f'{target}_{origin}',
          )
          videos.append(
            source_lib.video(
              fake,
              1,
              split=split,
              identity=target,
              method=method,
              pair=original,
            )
          )
  return videos


def list_dfd(tree: tree_lib.Tree, compression: str) -> list[catalogue.Video]:
  """Lists DeepFakeDetection; all of it is for testing.

  Raises:
    ValueError: another tree or compression.
  """
  base = source_lib.base_of(tree, 'original_sequences/actors', 'DFD')
  _check_compression(tree, base, 'original_sequences/actors', compression)
  actors = source_lib.join(
    base, 'original_sequences/actors', compression, 'videos'
  )
  fakes = source_lib.join(
    base, 'manipulated_sequences/DeepFakeDetection', compression, 'videos'
  )
  videos = []
  originals = {}
  for path in tree.videos(actors):
    (stem,) = source_lib.stems([path])
    originals[stem] = path
    videos.append(
      source_lib.video(path, 0, split='test', identity=stem.split('__')[0])
    )
  for path in tree.videos(fakes):
    (stem,) = source_lib.stems([path])
    people, _, rest = stem.partition('__')
    target = people.partition('_')[0]
    original = originals.get(f'{target}__{rest.rpartition("__")[0]}', '')
    videos.append(
      source_lib.video(
        path,
        1,
        split='test',
        identity=target,
        method='DeepFakeDetection',
        pair=original,
      )
    )
  return videos


def list_deeperforensics(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists the fakes of DeeperForensics; its reals are FaceForensics++'s.

  Raises:
    ValueError: another tree, or no lists of the splits.
  """
  base = source_lib.base_of(tree, 'manipulated_videos', 'DeeperForensics-1.0')
  by_split = {
    split: source_lib.read_lines(
      tree,
      source_lib.join(base, f'lists/splits/{split}.txt'),
      'the lists of the splits come with the data set (lists/splits)',
    )
    for split in catalogue.SPLITS
  }
  folder = source_lib.join(base, 'manipulated_videos')
  videos = []
  for variant in VARIANTS:
    if not tree.has(source_lib.join(folder, variant)):
      continue
    for split, names in by_split.items():
      for name in names:
        path = source_lib.join(folder, variant, name.rpartition('/')[2])
        videos.append(
          source_lib.video(
            tree.find(path) or path,
            1,
            split=split,
            identity=name.rpartition('/')[2].partition('_')[0],
            method=variant,
          )
        )
  return videos


def _pairs(tree: tree_lib.Tree, base: str, split: str) -> list[tuple[str, str]]:
  pairs = source_lib.read_json(
    tree,
    source_lib.join(base, f'splits/{split}.json'),
    'put train.json, val.json and test.json of the official repository '
    '(dataset/splits) into the folder splits: the download does not bring them',
  )
  wrong = f'{tree.root}/{base}splits/{split}.json: not a list of pairs'
  try:
    pairs = [(str(first), str(second)) for first, second in pairs]
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{wrong}; it reads [["071", "054"], ...] as published'
    ) from error
  return pairs


def _place(
  tree: tree_lib.Tree, base: str, folder: str, compression: str, stem: str
) -> str:
  path = source_lib.join(base, folder, compression, 'videos', f'{stem}.mp4')
  return tree.find(path) or path


def _check_compression(
  tree: tree_lib.Tree, base: str, folder: str, compression: str
) -> None:
  folder = source_lib.join(base, folder)
  there = [name for name in COMPRESSIONS if tree.has(f'{folder}/{name}')]
  if compression not in there:
    raise ValueError(
      f'{tree.root / folder} has no {compression}; it has '
      f'{", ".join(there) or "no compression at all"}: name the source of that'
    )


def _ffpp(compression: str) -> source_lib.Source:
  return source_lib.Source(
    title=f'FaceForensics++, {compression}',
    home='https://github.com/ondyari/FaceForensics',
    licence='on request, research only',
    size='not stated',
    layout='original_sequences/youtube/C/videos/NNN.mp4, '
    'manipulated_sequences/METHOD/C/videos/T_S.mp4, splits/SPLIT.json',
    traps=(
      'raw, c23 and c40 are easily mixed up: the name says which is meant.',
      'The split lists hold pairs of originals, not videos: 360 pairs are 720 '
      'videos.',
      'T_S.mp4 shows the scene of T with the face of S.',
    ),
    list_videos=functools.partial(list_faceforensics, compression=compression),
    expected=source_lib.split_counts(_SPLITS, ('', *METHODS)),
    crf=COMPRESSIONS[compression],
  )


def _dfd(compression: str) -> source_lib.Source:
  return source_lib.Source(
    title=f'DeepFakeDetection (DFD), {compression}',
    home='https://github.com/ondyari/FaceForensics',
    licence='on request, research only',
    size='not stated',
    layout='original_sequences/actors/C/videos/NN__scene.mp4, '
    'manipulated_sequences/DeepFakeDetection/C/videos/T_S__scene__ID.mp4',
    traps=(
      'There is no split: all videos are for testing.',
      'Two people are in some shots: only the masks say whose face is fake.',
    ),
    list_videos=functools.partial(list_dfd, compression=compression),
    expected={('test', ''): 363, ('test', 'DeepFakeDetection'): 3068},
    margin=13,
    crf=COMPRESSIONS[compression],
  )


SOURCES = {
  **{f'ffpp_{c}': _ffpp(c) for c in COMPRESSIONS},
  **{f'dfd_{c}': _dfd(c) for c in COMPRESSIONS},
  'deeperforensics': source_lib.Source(
    title='DeeperForensics-1.0',
    home='https://github.com/EndlessSora/DeeperForensics-1.0',
    licence='on request, research only',
    size='119 GB (manipulated videos)',
    layout='manipulated_videos/VARIANT/*.mp4, lists/splits/SPLIT.txt',
    traps=(
      'It brings fakes alone: the reals are those of FaceForensics++.',
      'Variants but end_to_end are the same fakes, distorted.',
    ),
    list_videos=list_deeperforensics,
    expected={('', variant): 1000 for variant in VARIANTS},
  ),
}
