"""What TFDS is told of a data set, beside its shards.

What enters: the files of a data set. What leaves: dataset_info.json and
features.json, with which `tfds.data_source` and `tfds.builder_from_directory`
read it. What is known of its videos is `record_writer`'s metadata.json, which
TFDS hands on as it is.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline import metadata, records, segments
from data_pipeline import shards as shards_lib

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


def write(
  folder: pathlib.Path,
  dataset: str,
  rule: str,
  splits: Mapping[str, Sequence[shards_lib.Shard]],
) -> None:
  """Writes both files.

  Args:
    folder: of the data set's version.
    dataset: its name.
    rule: which frames were kept.
    splits: its files.
  """
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
    features=features(),
  )
  info.set_file_format('array_record')
  info.set_splits(
    tfds.core.SplitDict(
      [
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[shard.num_records for shard in shards],
          num_bytes=sum(shard.num_bytes for shard in shards),
        )
        for split, shards in splits.items()
      ]
    )
  )
  info.write_to_directory(folder)


def features() -> tfds.features.FeaturesDict:
  """Describes a record to TFDS."""
  size = records.CROP_SIZE
  image = tfds.features.Image(shape=(size, size, 3), doc='RGB face crop')

  def per_frame(doc: str, *shape: int, dtype: type = np.float32):
    return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, doc=doc)

  texts = {name: tfds.features.Text() for name in segments.TEXTS}
  return tfds.features.FeaturesDict(
    texts
    | {
      'start': tfds.features.Scalar(
        np.int32, doc='place of the first frame among those of the video'
      ),
      'frames': tfds.features.Sequence(image),
      'landmarks': per_frame(
        'x, y in pixels of the crop; order of the dlib-81 predictor',
        records.NUM_LANDMARKS,
        2,
      ),
      'boxes': per_frame(
        'x0, y0, x1, y1 of the detected face, pixels of the source frame', 4
      ),
      'frame_indices': per_frame(
        'position in the source video', dtype=np.int32
      ),
      # float32 is what an Example holds; 0.2 ms apart after an hour.
      'times': per_frame(
        'seconds from the first frame of the video; NaN where unknown'
      ),
      'fps': tfds.features.Scalar(np.float32),
      'label': tfds.features.ClassLabel(names=list(records.LABELS)),
      'provenance': tfds.features.Text(doc='JSON'),
      'video_digest': tfds.features.Text(doc='SHA-256, first 16 hex digits'),
    }
  )
