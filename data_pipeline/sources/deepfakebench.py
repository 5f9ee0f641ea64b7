"""Sets prepared by DeepfakeBench (Yan et al., NeurIPS 2023) and its kin.

A JSON file, {SET: {LABEL: {SPLIT: {[COMPRESSION:] VIDEO: {label, frames}}}}},
lists the frames of every video; frames/, landmarks/ and masks/ are siblings.
"""

from collections.abc import Iterator
import functools

from data_pipeline.sources import catalogue
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib


def list_deepfakebench(
  tree: tree_lib.Tree, compression: str = 'c23'
) -> list[catalogue.Video]:
  """Lists the videos of all its JSON files below the root.

  Args:
    tree: of the folder that holds the JSON files and the frames.
    compression: which one is taken where a set has several.

  Raises:
    ValueError: no such JSON file, or one that names no frames.
  """
  videos: dict[str, catalogue.Video] = {}
  for path in tree.below('', ('.json',)):
    content = source_lib.read_json(tree, path, '')
    for label, split, video_id, entry in _entries(content, compression):
      frames = entry.get('frames') or []
      if not frames:
        raise ValueError(f'{tree.root / path}: {video_id} lists no frames')
      folder = _on_disk(tree, str(frames[0]).replace('\\', '/'))
      fake = not label.lower().endswith('real')
      video = source_lib.video(
        folder,
        int(fake),
        # The same names stand in several methods: a video is LABEL/NAME.
        video_id=f'{label}/{video_id}',
        split=split,
        method=label if fake else '',
        is_crop=True,
        landmarks=_landmarks_of(tree, folder),
      )
      # Its 'val' repeats 'test' in several sets: the test split is kept.
      known = videos.get(video.video_id)
      if known is None or known.split == 'val':
        videos[video.video_id] = video
  if not videos:
    raise ValueError(
      f'{tree.root}: no JSON file of DeepfakeBench '
      '({SET: {LABEL: {SPLIT: {VIDEO: ...}}}}) in it or below'
    )
  return list(videos.values())


def _entries(
  content: object, compression: str
) -> Iterator[tuple[str, str, str, dict]]:
  """Yields (label, split, video, entry); nothing where it is another JSON."""
  if not isinstance(content, dict):
    return
  for labels in content.values():
    if not isinstance(labels, dict):
      return
    for label, splits in labels.items():
      if not isinstance(splits, dict):
        return
      for split, videos in splits.items():
        if split not in catalogue.SPLITS or not isinstance(videos, dict):
          continue
        inner = videos.get(compression, videos)
        for video_id, entry in inner.items():
          if isinstance(entry, dict) and 'frames' in entry:
            yield label, split, video_id, entry


def _on_disk(tree: tree_lib.Tree, frame: str) -> str:
  """The folder of a frame; the path in the list may begin elsewhere."""
  parts = frame.split('/')
  for first in range(len(parts) - 1):
    found = tree.find('/'.join(parts[first:]))
    if found is not None:
      return found.rpartition('/')[0]
  return '/'.join(part for part in parts[:-1] if part not in ('', '.', '..'))


def _landmarks_of(tree: tree_lib.Tree, folder: str) -> str:
  """The folder of landmarks beside a folder of frames; '' without one."""
  before, found, after = folder.rpartition('frames/')
  place = f'{before}landmarks/{after}'
  return place if found and tree.below(place, ('.npy',)) else ''


SOURCES = {
  f'deepfakebench_{compression}': source_lib.Source(
    title=f'A set prepared by DeepfakeBench, {compression}',
    home='https://github.com/SCLBD/DeepfakeBench',
    licence='that of the set',
    size='not stated',
    layout='*.json beside frames/, landmarks/, masks/',
    traps=(
      'Its own reader groups videos by the name of their folder: the same '
      'names of four methods of FaceForensics++ become one.',
      'Its "evenly spaced" frames are the first 32.',
      'For several sets its val split is the test split: it is left out here.',
      'Its landmarks (landmarks/, 81 points of dlib) are taken where they lie '
      'beside the frames; a frame without any is then left out.',
    ),
    list_videos=functools.partial(list_deepfakebench, compression=compression),
    margin=0,
  )
  for compression in ('c23', 'c40', 'raw')
}
