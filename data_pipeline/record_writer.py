"""Writes prepared videos as a TFDS dataset of ArrayRecord files.

What enters: `records.VideoRecord`s, whose frames are encoded already. What
leaves: a folder that `records.open_records` reads, and so do
`tfds.data_source` and `tfds.builder_from_directory`, without TensorFlow.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import uuid

from array_record.python import array_record_module

from data_pipeline import metadata, places, segments
from data_pipeline import records as records_lib
from data_pipeline import shards as shards_lib

_VIDEOS_PER_SHARD = 16  # about 0.13 GB, as the field advises


@dataclasses.dataclass(frozen=True)
class WrittenShard:
  """What is to be known of a shard that has been written.

  Attributes:
    shard: the file.
    videos: in it, in order.
    preparations: JSON of settings, face backend and versions -> how many of
      the videos were prepared so.
  """

  shard: shards_lib.Shard
  videos: tuple[metadata.VideoInfo, ...]
  preparations: dict[str, int]

  def to_json(self) -> str:
    """Returns all of it as text."""
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, text: str) -> 'WrittenShard':
    """Reads what `to_json` returned."""
    stored = json.loads(text)
    return cls(
      shards_lib.Shard(**stored['shard']),
      tuple(metadata.VideoInfo(**video) for video in stored['videos']),
      stored['preparations'],
    )


def write_records(
  out: str | os.PathLike,
  dataset: str,
  rule: str,
  splits: Mapping[str, Sequence[records_lib.VideoRecord]],
) -> pathlib.Path:
  """Writes a dataset, replacing an older one only once the new one is whole.

  Args:
    out: the data root; the dataset goes to `<out>/<dataset>/<rule>/<version>`.
    dataset: name of the dataset.
    rule: 'consecutive' or 'uniform'.
    splits: videos by split name. A sequence that loads a video when it is
      indexed keeps memory flat: it is asked for one after the other, and
      no more than one is held.

  Returns:
    The folder of the dataset.
  """
  with building(out, dataset, rule) as folder:
    write_metadata(
      folder,
      dataset,
      rule,
      {
        split: [
          write_shard(
            folder / shard_name(dataset, split, index, num_shards(len(videos))),
            (videos[place] for place in shard_range(len(videos), index)),
          )
          for index in range(num_shards(len(videos)))
        ]
        for split, videos in splits.items()
      },
    )
  return metadata.dataset_dir(out, dataset, rule)


@contextlib.contextmanager
def building(
  out: str | os.PathLike, dataset: str, rule: str
) -> Iterator[pathlib.Path]:
  """Gives a folder to write a dataset to, which then takes its place.

  If the block raises, what lay there stays. The folder is another one each
  time: what a worker of a killed command still writes goes nowhere.
  """
  if rule not in records_lib.RULES:
    raise ValueError(f'rule is {rule!r}; choose one of {records_lib.RULES}')
  final = metadata.dataset_dir(out, dataset, rule)
  place = pathlib.Path(out) / dataset / f'.building-{rule}'
  folder = place / uuid.uuid4().hex
  shutil.rmtree(place, ignore_errors=True)
  folder.mkdir(parents=True)
  try:
    yield folder
    replaced = place / 'replaced'
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
      final.rename(replaced)
    folder.rename(final)
  finally:
    shutil.rmtree(place, ignore_errors=True)


def num_shards(num_videos: int) -> int:
  """How many files so many videos lie in."""
  return -(-num_videos // _VIDEOS_PER_SHARD)


def shard_range(num_videos: int, index: int) -> range:
  """The positions of the videos of a file."""
  first = index * _VIDEOS_PER_SHARD
  return range(first, min(first + _VIDEOS_PER_SHARD, num_videos))


def shard_name(dataset: str, split: str, index: int, count: int) -> str:
  """TFDS's default template."""
  return f'{dataset}-{split}.array_record-{index:05d}-of-{count:05d}'


def write_shard(
  path: pathlib.Path, videos: Iterator[records_lib.VideoRecord]
) -> WrittenShard:
  """Writes videos to one file; the same bytes for the same videos.

  The file takes its name when it is whole, so it may be written twice at once.

  Raises:
    OSError: no space left (`places.NO_SPACE`), or what the writer says.
  """
  infos: list[metadata.VideoInfo] = []
  preparations: collections.Counter[str] = collections.Counter()
  num_records = 0
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')
  try:
    # Frames are compressed already: to inflate them once more would take
    # longer than to decode them.
    writer = array_record_module.ArrayRecordWriter(
      os.fspath(partial), 'group_size:1,uncompressed'
    )
    try:
      for video in videos:
        info = video.info
        for segment in _cut(video, info.digest):
          writer.write(segments.serialize(segment))
          num_records += 1
        infos.append(info)
        preparations[_preparation(video)] += 1
    finally:
      writer.close()
    partial.replace(path)
  except RuntimeError as error:  # what the writer makes of any errno
    for number in places.NO_SPACE:
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number), path) from error
    raise
  finally:
    partial.unlink(missing_ok=True)
  return WrittenShard(
    shards_lib.Shard.of_file(path, num_records),
    tuple(infos),
    dict(preparations),
  )


def _preparation(video: records_lib.VideoRecord) -> str:
  """The part of a video's provenance that others share."""
  provenance = json.loads(video.provenance)
  provenance.pop('source', None)
  return json.dumps(provenance, sort_keys=True)


def _cut(
  video: records_lib.VideoRecord, digest: str
) -> Iterator[segments.Segment]:
  """Yields a video's segments, in order."""
  for start in range(0, len(video.frames), segments.SEGMENT_FRAMES):
    part = slice(start, start + segments.SEGMENT_FRAMES)
    yield segments.Segment(
      video_id=video.video_id,
      video_digest=digest,
      start=start,
      frames=video.frames[part],
      landmarks=video.landmarks[part],
      boxes=video.boxes[part],
      frame_indices=video.frame_indices[part],
      times=video.times[part],
      fps=video.fps,
      label=video.label,
      dataset=video.dataset,
      identity=video.identity,
      method=video.method,
      group=video.group,
      pair=video.pair,
      source_path=video.source_path,
      provenance=video.provenance,
    )


def write_metadata(
  folder: pathlib.Path,
  dataset: str,
  rule: str,
  splits: Mapping[str, Iterable[WrittenShard]],
) -> None:
  """Writes what TFDS and `records.open_records` ask for before reading.

  Its metadata.json is the manifest: shards with their checksums, videos, and
  with which settings and versions how many of them were prepared.

  Args:
    folder: where the shards lie.
    dataset: name of the dataset.
    rule: which frames were kept.
    splits: by name; gone through twice, and no more than one shard is held.
  """
  preparations: collections.Counter[str] = collections.Counter()
  shards: dict[str, list[shards_lib.Shard]] = {}
  for split, of_split in splits.items():
    shards[split] = []
    for written in of_split:
      shards[split].append(written.shard)
      preparations.update(written.preparations)
  with (folder / 'metadata.json').open('w', encoding='utf-8') as file:
    file.writelines(_manifest(preparations, shards, splits))
  # TFDS is large, and the workers of `prepare` import this file.
  from data_pipeline import tfds_info

  tfds_info.write(folder, dataset, rule, shards)


def _manifest(
  preparations: Mapping[str, int],
  shards: Mapping[str, Sequence[shards_lib.Shard]],
  splits: Mapping[str, Iterable[WrittenShard]],
) -> Iterator[str]:
  """Yields the text of metadata.json: of 100,000 videos it is 40 MB."""
  known = {
    'segment_frames': segments.SEGMENT_FRAMES,
    'preparations': [
      {'num_videos': count, **json.loads(text)}
      for text, count in sorted(preparations.items())
    ],
  }
  yield f'{json.dumps(known)[:-1]}, "splits": {{'
  for number, (split, of_split) in enumerate(splits.items()):
    yield ', ' if number else ''
    yield f'{json.dumps(split)}: {{"shards": ['
    yield from _joined(json.dumps(dataclasses.asdict(s)) for s in shards[split])
    yield '], "videos": ['
    videos = (video for written in of_split for video in written.videos)
    yield from _joined(json.dumps(dataclasses.asdict(v)) for v in videos)
    yield ']}'
  yield '}}'


def _joined(texts: Iterable[str]) -> Iterator[str]:
  """Yields texts with commas between them."""
  for number, text in enumerate(texts):
    yield f', {text}' if number else text
