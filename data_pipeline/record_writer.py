"""Writes prepared videos as a TFDS dataset of ArrayRecord files.

What enters: `records.VideoRecord`s, whose frames are encoded already. What
leaves: a folder that `records.open_records` reads, and so do
`tfds.data_source` and `tfds.builder_from_directory`, without TensorFlow.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import errno
import os
import pathlib
import shutil

from array_record.python import array_record_module
import tensorflow_datasets as tfds

from data_pipeline import metadata, segments
from data_pipeline import records as records_lib
from data_pipeline import shards as shards_lib

_VIDEOS_PER_SHARD = 16  # about 0.13 GB, as the field advises
_RELEASE_NOTES = {
  '1.0.0': 'First release.',
  '1.1.0': 'The time of every frame.',
  '2.0.0': 'A record is a few frames of a video; checksums of the files.',
}
_RULES = {
  'consecutive': 'The first frames (training).',
  'uniform': 'Frames spread evenly (scoring).',
  'dense': 'Clips of consecutive frames, spread evenly (scoring).',
}


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
  if rule not in records_lib.RULES:
    raise ValueError(f'rule is {rule!r}; choose one of {records_lib.RULES}')
  final = metadata.dataset_dir(out, dataset, rule)
  building = pathlib.Path(out) / dataset / f'.building-{rule}'
  folder = building / final.name
  shutil.rmtree(building, ignore_errors=True)
  folder.mkdir(parents=True)
  try:
    written = {
      split: _write_split(folder, dataset, split, videos)
      for split, videos in splits.items()
    }
    _write_metadata(folder, dataset, rule, written)
    replaced = building / 'replaced'
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
      final.rename(replaced)
    folder.rename(final)
  finally:
    shutil.rmtree(building, ignore_errors=True)
  return final


@dataclasses.dataclass(frozen=True)
class _Split:
  """What has been written of a split."""

  shards: tuple[shards_lib.Shard, ...]
  videos: tuple[metadata.VideoInfo, ...]


def _write_split(
  folder: pathlib.Path,
  dataset: str,
  split: str,
  videos: Sequence[records_lib.VideoRecord],
) -> _Split:
  num_shards = -(-len(videos) // _VIDEOS_PER_SHARD)
  shards: list[shards_lib.Shard] = []
  infos: list[metadata.VideoInfo] = []
  for index in range(num_shards):
    first = index * _VIDEOS_PER_SHARD
    stop = min(first + _VIDEOS_PER_SHARD, len(videos))
    shard, of_shard = write_shard(
      folder / _shard_name(dataset, split, index, num_shards),
      (videos[place] for place in range(first, stop)),
    )
    shards.append(shard)
    infos.extend(of_shard)
  return _Split(tuple(shards), tuple(infos))


def _shard_name(dataset: str, split: str, index: int, count: int) -> str:
  """TFDS's default template."""
  return f'{dataset}-{split}.array_record-{index:05d}-of-{count:05d}'


def write_shard(
  path: pathlib.Path, videos: Iterator[records_lib.VideoRecord]
) -> tuple[shards_lib.Shard, list[metadata.VideoInfo]]:
  """Writes videos to one file; the same bytes for the same videos.

  Raises:
    OSError: no space left (ENOSPC), or what the writer says.
  """
  infos = []
  num_records = 0
  try:
    # Frames are compressed already: to inflate them once more would take
    # longer than to decode them.
    writer = array_record_module.ArrayRecordWriter(
      os.fspath(path), 'group_size:1,uncompressed'
    )
    try:
      for video in videos:
        info = video.info
        for segment in _cut(video, info.digest):
          writer.write(segments.serialize(segment))
          num_records += 1
        infos.append(info)
    finally:
      writer.close()
  except RuntimeError as error:  # what the writer makes of any errno
    if os.strerror(errno.ENOSPC) not in str(error):
      raise
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
  return shards_lib.Shard.of_file(path, num_records), infos


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


def _write_metadata(
  folder: pathlib.Path, dataset: str, rule: str, splits: Mapping[str, _Split]
) -> None:
  """Writes what TFDS and `records.open_records` ask for before reading."""
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=dataset,
      version=tfds.core.Version(metadata.VERSION),
      data_dir=os.fspath(folder),
      module_name=__name__,
      config_name=rule,
      config_description=_RULES[rule],
      release_notes=_RELEASE_NOTES,
    ),
    description='Face crops and landmarks of videos, a few frames a record.',
    features=segments.features(
      records_lib.CROP_SIZE, records_lib.NUM_LANDMARKS, records_lib.LABELS
    ),
    metadata=tfds.core.MetadataDict(
      segment_frames=segments.SEGMENT_FRAMES,
      splits={
        split: dataclasses.asdict(written) for split, written in splits.items()
      },
    ),
  )
  info.set_file_format('array_record')
  info.set_splits(
    tfds.core.SplitDict(
      [
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[shard.num_records for shard in written.shards],
          num_bytes=sum(shard.num_bytes for shard in written.shards),
        )
        for split, written in splits.items()
      ]
    )
  )
  info.write_to_directory(folder)
