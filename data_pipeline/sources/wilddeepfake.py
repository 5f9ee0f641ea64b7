"""WildDeepfake (Zi et al., ACM MM 2020): face sequences, cut already.

Each part N.tar.gz of {real,fake}_{train,test} holds folders of PNG faces; a
folder is what is scored. Parts are read as they are or unpacked beside.
"""

import tarfile

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_FOLDERS = ('real_train', 'fake_train', 'real_test', 'fake_test')


def list_wilddeepfake(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists the sequences of all parts, packed or unpacked.

  A packed part has to be read through to know what is in it.

  Raises:
    ValueError: another tree, or a damaged archive.
  """
  base = source_lib.base_of(tree, 'real_test', 'WildDeepfake')
  videos = []
  for folder in _FOLDERS:
    place = source_lib.join(base, folder)
    if not tree.has(place):
      continue
    word, _, split = folder.partition('_')
    sequences = tree.sequences(place)
    unpacked = {
      path.removeprefix(f'{place}/').split('/')[0] for path in sequences
    }
    for archive in tree.below(place, ('.tar.gz', '.tar')):
      part = archive.removeprefix(f'{place}/').partition('.tar')[0]
      if part not in unpacked:
        sequences += _packed(tree, archive)
    videos += [
      source_lib.video(
        path,
        catalogue.LABELS[word],
        split=split,
        method='' if word == 'real' else 'wild',
        is_crop=True,
      )
      for path in sequences
    ]
  return videos


def _packed(tree: tree_lib.Tree, archive: str) -> list[str]:
  """Folders of images inside of an archive, as 'ARCHIVE/FOLDER'."""
  try:
    with tarfile.open(tree.root / archive) as file:
      names = [member.name for member in file if member.isfile()]
  except (tarfile.TarError, EOFError, OSError) as error:
    raise ValueError(f'{tree.root / archive}: damaged ({error})') from error
  images = [n for n in names if n.lower().endswith(tree_lib.IMAGE_SUFFIXES)]
  folders = dict.fromkeys(name.rpartition('/')[0] for name in images)
  return [source_lib.join(archive, folder) for folder in folders]


SOURCES = {
  'wilddeepfake': source_lib.Source(
    title='WildDeepfake (DFW)',
    home='https://github.com/deepfakeinthewild/deepfake-in-the-wild',
    licence='on request, research only',
    size='not stated',
    layout='{real,fake}_{train,test}/N.tar.gz, each with folders of PNG faces',
    traps=(
      'Faces are cut already: no detector, margin 0.',
      'A sequence (folder) is scored, not a part; test has about 800.',
    ),
    list_videos=list_wilddeepfake,
    margin=0,
  ),
}
