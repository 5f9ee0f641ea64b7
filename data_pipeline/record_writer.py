"""Writes prepared videos as a TFDS dataset of ArrayRecord files.

What enters: `records.VideoRecord`s, whose frames are encoded already. What
leaves: a folder that `records.open_records` reads, and so do
`tfds.data_source` and `tfds.builder_from_directory`, without TensorFlow.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import errno
import functools
import io
import os
import pathlib
import shutil
from typing import Any

from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline import records as records_lib

_VIDEOS_PER_SHARD = 16  # TFDS holds a shard in memory: about 0.15 GB


class FaceVideos(  # type: ignore[call-arg]  # TFDS's own, untyped keyword
  tfds.core.ShardBasedBuilder, skip_registration=True
):
  """Schema, version and writer of prepared videos; the rule is its config."""

  name = 'face_videos'  # replaced by the dataset's own name per instance
  code_path = None  # no checksums beside the code: nothing is downloaded
  VERSION = tfds.core.Version(records_lib.VERSION)
  RELEASE_NOTES = {  # noqa: RUF012 TFDS's name
    '1.0.0': 'First release.',
    '1.1.0': 'The time of every frame.',
  }
  BUILDER_CONFIGS = [  # noqa: RUF012 TFDS's name
    tfds.core.BuilderConfig(
      name='consecutive', description='The first frames (training).'
    ),
    tfds.core.BuilderConfig(
      name='uniform', description='Frames spread evenly (scoring).'
    ),
  ]

  def __init__(
    self,
    dataset: str,
    rule: str,
    data_dir: str,
    splits: Mapping[str, Sequence[records_lib.VideoRecord]],
  ):
    """Readies a builder that writes `splits` when asked to prepare."""
    self.name = dataset
    self._records = splits
    super().__init__(data_dir=data_dir, config=rule)

  def _info(self) -> tfds.core.DatasetInfo:
    image = tfds.features.Image(
      shape=(records_lib.CROP_SIZE, records_lib.CROP_SIZE, 3),
      doc='RGB face crop',
    )
    per_frame = {
      'landmarks': tfds.features.Tensor(
        shape=(None, records_lib.NUM_LANDMARKS, 2),
        dtype=np.float32,
        doc='x, y in pixels of the crop; order of the dlib-81 predictor',
      ),
      'boxes': tfds.features.Tensor(
        shape=(None, 4),
        dtype=np.float32,
        doc='x0, y0, x1, y1 of the detected face, pixels of the source frame',
      ),
      'frame_indices': tfds.features.Tensor(
        shape=(None,), dtype=np.int32, doc='position in the source video'
      ),
      # float32 is what an Example holds; 0.2 ms apart after an hour.
      'times': tfds.features.Tensor(
        shape=(None,),
        dtype=np.float32,
        doc='seconds from the first frame of the video; NaN where unknown',
      ),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description='Face crops and landmarks of videos, one record a video.',
      features=tfds.features.FeaturesDict(
        {
          'video_id': tfds.features.Text(),
          'frames': tfds.features.Sequence(image),
          **per_frame,
          'fps': tfds.features.Scalar(np.float32),
          'label': tfds.features.ClassLabel(names=list(records_lib.LABELS)),
          'dataset': tfds.features.Text(),
          'identity': tfds.features.Text(),
          'method': tfds.features.Text(),
          'source_path': tfds.features.Text(),
          'provenance': tfds.features.Text(doc='JSON'),
        }
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {
      split: [
        functools.partial(self._shard, split, first)
        for first in range(0, len(records), _VIDEOS_PER_SHARD)
      ]
      for split, records in self._records.items()
    }

  def _shard(
    self, split: str, first: int
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields a shard's examples; notes each one's VideoInfo as metadata."""
    records = self._records[split]
    infos = self.info.metadata.setdefault(split, [])
    for index in range(first, min(first + _VIDEOS_PER_SHARD, len(records))):
      record = records[index]
      example = {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
      }
      example['frames'] = [io.BytesIO(frame) for frame in record.frames]
      infos.append(dataclasses.asdict(record.info))
      yield index, example

  def _example_writer(self):
    return _RecordWriter(self.info.file_format)

  def _as_dataset(self, split, decoders=None, read_config=None, **_):
    raise ValueError(
      'these records are read without TensorFlow: use builder.as_data_source'
    )


class _RecordWriter(tfds.core.ExampleWriter):
  """Writes records that are cheap to read and the same bytes every time."""

  def write(self, path, examples) -> None:
    # Frames are compressed already: to inflate a record of 10 MB once more
    # would take 15 times as long as to decode the four frames of a clip.
    writer = array_record_module.ArrayRecordWriter(
      os.fspath(path), 'group_size:1,uncompressed'
    )
    try:
      try:
        for _, serialized in examples:
          # A protobuf map has no order of its own.
          example = tf_example_pb2.Example.FromString(serialized)
          writer.write(example.SerializeToString(deterministic=True))
      finally:
        writer.close()
    except RuntimeError as error:  # what the writer makes of any errno
      if os.strerror(errno.ENOSPC) not in str(error):
        raise
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error


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
      no more than a shard's worth is held.

  Returns:
    The folder of the dataset.
  """
  if rule not in records_lib.RULES:
    raise ValueError(f'rule is {rule!r}; choose one of {records_lib.RULES}')
  final = records_lib.dataset_dir(out, dataset, rule)
  building = pathlib.Path(out) / dataset / f'.building-{rule}'
  shutil.rmtree(building, ignore_errors=True)
  building.mkdir(parents=True)
  try:
    builder = FaceVideos(dataset, rule, os.fspath(building), splits)
    with contextlib.redirect_stdout(io.StringIO()):  # talk of downloads
      builder.download_and_prepare(file_format='array_record')
    replaced = building / 'replaced'
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
      final.rename(replaced)
    pathlib.Path(builder.data_dir).rename(final)
  finally:
    shutil.rmtree(building, ignore_errors=True)
  return final
