"""Sets whose folders alone say what a video is: KoDF and SynthForensics."""

import functools

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib


def list_kodf(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists KoDF by its folders; all videos are for testing.

  Raises:
    ValueError: another tree.
  """
  base = source_lib.base_of(tree, 'original_videos', 'KoDF')
  reals = source_lib.join(base, 'original_videos')
  fakes = source_lib.join(base, 'synthesized_videos')
  videos = [
    source_lib.video(path, 0, split='test', identity=_part(path, reals, 0))
    for path in tree.videos(reals)
  ]
  videos += [
    source_lib.video(
      path,
      1,
      split='test',
      method=_part(path, fakes, 0),
      identity=_part(path, fakes, 1),
    )
    for path in tree.videos(fakes)
  ]
  return videos


def list_synthforensics(
  tree: tree_lib.Tree, compression: str
) -> list[catalogue.Video]:
  """Lists SynthForensics at one compression; a group is T2V or I2V.

  Raises:
    ValueError: another tree or compression.
  """
  videos = []
  for group in ('T2V', 'I2V'):
    for base in tree.bases(f'{group}/videos/{compression}')[:1]:
      folder = source_lib.join(base, group, 'videos', compression)
      videos += [
        source_lib.video(
          path, 1, split='test', method=_part(path, folder, 0), group=group
        )
        for path in tree.videos(folder)
      ]
  if not videos:
    raise ValueError(
      f'{tree.root} is not SynthForensics at {compression}: no '
      f'{{T2V,I2V}}/videos/{compression}/GENERATOR/ in it'
    )
  return videos


def _part(path: str, folder: str, number: int) -> str:
  """A part of a path below a folder; '' for the file itself."""
  parts = path.removeprefix(f'{folder}/').split('/')[:-1]
  return parts[number] if number < len(parts) else ''


SOURCES = {
  'kodf': source_lib.Source(
    title='KoDF',
    home='https://moneybrain-research.github.io/kodf',
    licence='on request, research only',
    size='not stated',
    layout='original_videos/ID/*.mp4, synthesized_videos/METHOD/ID/*.mp4',
    traps=(
      'Reals last 90 seconds, fakes 15: length tells them apart.',
      'There is no split here: all videos are for testing.',
    ),
    list_videos=list_kodf,
    expected={('test', ''): 62166, ('test', '*'): 175776},
  ),
  **{
    f'synthforensics_{compression}': source_lib.Source(
      title=f'SynthForensics, {compression}',
      home='not stated',
      licence='not stated',
      size='not stated',
      layout='{T2V,I2V}/videos/COMPRESSION/GENERATOR/*.mp4',
      traps=(
        'Whole frames are made up: there is no blending boundary to find.',
        'It brings fakes alone: its reals are FaceForensics++ and DFD.',
      ),
      list_videos=functools.partial(
        list_synthforensics, compression=compression
      ),
      expected={('test', '*'): 20445},
      crf={'crf23': 23, 'crf40': 40}.get(compression),
    )
    for compression in ('raw', 'canonical', 'crf23', 'crf40')
  },
}
