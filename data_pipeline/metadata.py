"""What is known of a prepared data set before a frame is read.

Enters: the folder that `prepare` wrote, here or in a bucket. Leaves: of each
split its shards and videos, as `record_writer` noted them in `metadata.json`.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import json
import os
import pathlib
import sys
from typing import Any

from data_pipeline import json_stream, places
from data_pipeline import shards as shards_lib

VERSION = '2.0.0'  # of the records, and of the folder that they lie in


@dataclasses.dataclass(frozen=True, slots=True)
class VideoInfo:
  """What is known of a stored video without reading its frames.

  Attributes:
    video_id: unique within the dataset and rule.
    label: 0 real, 1 fake.
    num_frames: stored frames (those of the rule in which a face was found).
    fps: frames a second of the source video.
    identity: the person, or '' where the list of videos does not say.
    method: how the fake was made, or ''.
    source_path: the video file, relative to the root it was prepared from.
    digest: first 16 hex digits of the SHA-256 of frames, landmarks, boxes,
      indices and times; every record of the video carries it.
    group: videos that are compared with each other alone; '' where all are.
    pair: path of the real video that a fake was made from, or ''.
    backend: full name of what found its face; '' where nobody wrote it down.
  """

  video_id: str
  label: int
  num_frames: int
  fps: float
  identity: str
  method: str
  source_path: str
  digest: str
  group: str = ''
  pair: str = ''
  backend: str = ''

  @classmethod
  def of(cls, stored: Mapping[str, Any]) -> 'VideoInfo':
    """Takes what was stored. Of 100,000 videos most fields say the same."""
    fields = dict(stored)
    for name in _SHARED:
      if name in fields:
        fields[name] = sys.intern(fields[name])
    if fields['source_path'] == fields['video_id']:
      fields['source_path'] = fields['video_id']
    return cls(**fields)


_SHARED = ('identity', 'method', 'group', 'pair', 'backend')


def list_splits(
  data_root: str | os.PathLike, dataset: str, rule: str
) -> tuple[str, ...]:
  """The splits of a prepared dataset; raises like `read`."""
  return tuple(read(data_root, dataset, rule, lambda *_: []).splits)


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What `record_writer` noted of a dataset."""

  folder: pathlib.Path
  segment_frames: int
  splits: dict[str, tuple[list[shards_lib.Shard], list[VideoInfo]]]


def read(
  data_root: str | os.PathLike,
  dataset: str,
  rule: str,
  gather: Callable[[str, Iterator[VideoInfo]], list[VideoInfo]] = (
    lambda split, videos: list(videos)
  ),
) -> Metadata:
  """Reads what is known of a prepared dataset.

  Args:
    data_root: folder that `prepare` wrote, or its copy in a bucket.
    dataset: its name.
    rule: which frames were kept.
    gather: is given each split and its videos as they are read, and returns
      those that are to be kept in memory.

  Raises:
    ValueError: no such dataset or rule, or records of another version only,
      with the command that makes it; or metadata that cannot be read.
    OSError: a bucket cannot be read.
  """
  folder = dataset_dir(data_root, dataset, rule)
  path = folder / 'metadata.json'
  command = (
    f'`python -m data_pipeline.prepare --root VIDEOS --out {data_root}'
    f' --dataset {dataset} --rule {rule}`'
  )
  try:
    with places.naming(path), path.open(encoding='utf-8') as file:
      return _parse(folder, json_stream.JsonStream(file), gather)
  except (
    json.JSONDecodeError,
    UnicodeDecodeError,
    KeyError,
    TypeError,
    OverflowError,  # a label that no array of labels holds
  ) as error:
    raise ValueError(
      f'{path} is damaged ({error!r}); make it anew with {command}'
    ) from error
  except FileNotFoundError:
    others = sorted(
      path.parent.name for path in folder.parent.glob('*/dataset_info.json')
    )
  if others:
    raise ValueError(
      f'{folder.parent} holds records of version {", ".join(others)}, this'
      f' release reads {VERSION}; make them anew with {command}'
    )
  raise ValueError(f'no prepared dataset in {folder}; make it with {command}')


def _parse(
  folder: pathlib.Path,
  stream: json_stream.JsonStream,
  gather: Callable[[str, Iterator[VideoInfo]], list[VideoInfo]],
) -> Metadata:
  """Reads the text of metadata.json."""
  known: dict[str, Any] = {}
  splits: dict[str, dict[str, list]] = {}
  for key in stream.keys():
    if key != 'splits':
      known[key] = stream.value()
      continue
    for split in stream.keys():
      of_split = splits[split] = {}
      for part in stream.keys():
        if part == 'shards':
          of_split[part] = [
            shards_lib.Shard(**shard) for shard in stream.items()
          ]
        elif part == 'videos':
          videos = (VideoInfo.of(video) for video in stream.items())
          of_split[part] = gather(split, videos)
          for _ in videos:  # that it did not ask for
            pass
        else:
          stream.value()
  stream.end()
  return Metadata(
    folder,
    known['segment_frames'],
    {
      split: (of_split['shards'], of_split['videos'])
      for split, of_split in splits.items()
    },
  )


def dataset_dir(
  data_root: str | os.PathLike, dataset: str, rule: str
) -> pathlib.Path:
  """Where a prepared dataset lies."""
  return places.path(data_root) / dataset / rule / VERSION
