"""Sets in which sound and picture are forged apart.

FakeAVCeleb (Khalid et al., NeurIPS 2021), LAV-DF (Cai et al., DICTA 2022) and
AV-Deepfake1M (Cai et al., ACM MM 2024). A face detector judges the picture: a
video of which the sound alone is forged counts as real, in a group of its own.
"""

import csv
import functools

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_SOUND_ONLY = 'sound-only'
_LEAST_REAL_SECONDS = 1.0
_SPLITS = {'train': 'train', 'dev': 'val', 'val': 'val', 'test': 'test'}


def list_fakeavceleb(tree: tree_lib.Tree) -> list[catalogue.Video]:
  """Lists FakeAVCeleb by its meta_data.csv; it has no split, all are 'test'.

  Raises:
    ValueError: another tree, or a list without the columns.
  """
  base = source_lib.base_of(tree, 'RealVideo-RealAudio', 'FakeAVCeleb')
  path = source_lib.join(base, 'meta_data.csv')
  lines = source_lib.read_lines(tree, path, 'it comes with the data set')
  reader = csv.DictReader(lines)
  needed = {'source', 'method', 'type', 'path'}
  if not needed <= set(reader.fieldnames or ()):
    raise ValueError(
      f'{tree.root / path} has the columns {reader.fieldnames}; it needs '
      f'{sorted(needed)}'
    )
  videos = []
  for number, row in enumerate(reader, 1):
    if not row['path'] or not row['type']:
      raise ValueError(f'{tree.root / path} entry {number}: no path or no type')
    # The column `path` holds the file in one release and the folder in
    # another, where the file's name is in a column without a name.
    name = row['path'].strip().strip('/')
    if not name.lower().endswith(tree_lib.VIDEO_SUFFIXES):
      name = source_lib.join(name, (row.get('filename') or row.get('') or ''))
    name = name.partition('FakeAVCeleb/')[2] or name
    place = source_lib.join(base, name)
    fake = row['type'].startswith('FakeVideo')
    sound_only = row['type'] == 'RealVideo-FakeAudio'
    videos.append(
      source_lib.video(
        tree.find(place) or place,
        int(fake),
        split='test',
        identity=row['source'],
        method=row['method'] if fake else '',
        group=_SOUND_ONLY if sound_only else '',
      )
    )
  return videos


def list_lavdf(
  tree: tree_lib.Tree, segments: bool = False
) -> list[catalogue.Video]:
  """Lists LAV-DF or AV-Deepfake1M by metadata.json.

  Args:
    tree: of the data set.
    segments: whether a video that is fake in part becomes several, the forged
      periods and the real stretches between them, instead of one that is fake.

  Raises:
    ValueError: no metadata, or damaged.
  """
  lists = [
    path
    for path in tree.below('', ('metadata.json',))
    if path.rpartition('/')[2] in ('metadata.json', 'metadata.min.json')
  ]
  lists += tree.below('', ('train_metadata.json', 'val_metadata.json'))
  if not lists:
    raise ValueError(f'{tree.root}: no metadata.json, which lists the videos')
  videos = []
  for path in dict.fromkeys(lists):
    folder = path.rpartition('/')[0]
    entries = source_lib.read_json(tree, path, 'it lists the videos')
    if not isinstance(entries, list) or not all(
      isinstance(entry, dict) for entry in entries
    ):
      raise ValueError(
        f'{tree.root / path}: another JSON than the published one, which'
        ' reads [{...}, ...]'
      )
    for entry in entries:
      videos += _entry(tree, folder, path, entry, segments)
  return videos


def _entry(
  tree: tree_lib.Tree, folder: str, path: str, entry: dict, segments: bool
) -> list[catalogue.Video]:
  try:
    name, split = entry['file'], _SPLITS[entry['split']]
  except KeyError as error:
    raise ValueError(
      f'{tree.root / path}: an entry without {error}; each has file and split'
    ) from error
  kind = entry.get('modify_type', '')
  changed = (
    kind in ('visual_modified', 'both_modified')
    if kind
    else bool(entry.get('modify_video'))
  )
  sound_only = not changed and (
    kind == 'audio_modified' or bool(entry.get('modify_audio'))
  )
  place = source_lib.join(folder, name)
  if tree.find(place) is None and split:
    place = source_lib.join(folder, split, name)
  original = entry.get('original') or ''
  make = functools.partial(
    source_lib.video,
    tree.find(place) or source_lib.join(folder, name),
    split=split,
    group=_SOUND_ONLY if sound_only else '',
  )
  fake = functools.partial(
    make,
    1,
    method='forged' if changed else '',
    pair=source_lib.join(folder, original) if original else '',
  )
  periods = (
    entry.get('visual_fake_segments')
    or entry.get('fake_segments')
    or entry.get('fake_periods')
    or []
  )
  if not (segments and changed and periods):
    return [fake() if changed else make(0)]
  return _segments(tree, path, entry, periods, fake, make)


def _segments(tree, path, entry, periods, fake, make) -> list[catalogue.Video]:
  """Cuts a video into forged periods and the real stretches between them."""
  num_frames = entry.get('video_frames')
  if not num_frames:
    raise ValueError(
      f'{tree.root / path}: {entry["file"]} has no video_frames, without which '
      'seconds are no frames'
    )
  # Both sets are 25 frames a second where no duration is given.
  rate = num_frames / entry['duration'] if entry.get('duration') else 25.0
  videos, done = [], 0
  edges = [
    (round(start * rate), min(round(end * rate), num_frames))
    for start, end in sorted(periods)
  ]
  for start, end in [*edges, (num_frames, num_frames)]:
    if start - done >= _LEAST_REAL_SECONDS * rate:
      videos.append(_stretch(make(0), done, start))
    if end > start:
      videos.append(_stretch(fake(), start, end))
    done = max(done, end)
  return videos


def _stretch(video: catalogue.Video, start: int, end: int) -> catalogue.Video:
  return catalogue.stretch(video, video.split, start, end)


_LAVDF_TRAPS = (
  'Part of a video is fake: a score of the whole says less than one of the '
  'segments (the source NAME_segments).',
  'Videos whose sound alone is forged count as real, in the group sound-only.',
)
_COUNTED = (
  'Cai et al. (ACM MM 2024, table 1) count {:,} real and {:,} forged videos in'
  ' it, those of forged sound among them.'
)
_LAVDF = functools.partial(
  source_lib.Source,
  home='https://github.com/ControlNet/LAV-DF',
  licence='on request, research only',
  size='not stated',
  layout='{train,dev,test}/*.mp4, metadata.json',
  traps=(*_LAVDF_TRAPS, _COUNTED.format(36_431, 99_873)),
)
_MILLION = functools.partial(
  _LAVDF,
  home='https://github.com/ControlNet/AV-Deepfake1M',
  traps=(*_LAVDF_TRAPS, _COUNTED.format(286_721, 860_039)),
)
SOURCES = {
  'fakeavceleb': source_lib.Source(
    title='FakeAVCeleb',
    home='https://github.com/DASH-Lab/FakeAVCeleb',
    licence='on request, research only',
    size='not stated',
    layout='TYPE/RACE/SEX/ID/*.mp4, meta_data.csv',
    traps=(
      'A real video with forged sound counts as real here, in the group '
      'sound-only.',
      'There are 500 real videos; the number of fakes differs between sources '
      '(19,500 to 21,044).',
      'There is no official split.',
    ),
    list_videos=list_fakeavceleb,
  ),
  'lavdf': _LAVDF(title='LAV-DF', list_videos=list_lavdf),
  'lavdf_segments': _LAVDF(
    title='LAV-DF, forged periods apart',
    list_videos=functools.partial(list_lavdf, segments=True),
  ),
  'av_deepfake1m': _MILLION(title='AV-Deepfake1M', list_videos=list_lavdf),
  'av_deepfake1m_segments': _MILLION(
    title='AV-Deepfake1M, forged periods apart',
    list_videos=functools.partial(list_lavdf, segments=True),
  ),
}
