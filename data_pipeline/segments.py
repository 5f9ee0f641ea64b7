"""One record on disk: a few kept frames of a video that follow each other.

Enters and leaves: a `Segment`, or the bytes of a tf.train.Example whose
features TFDS knows by `tfds_info`. A clip of T frames reads the one or two
segments it lies in, not the whole video.
"""

import dataclasses
import functools
from typing import Any

from google.protobuf import message
from jaxtyping import Float32, Int32
import numpy as np

# Choice: 4, the length of a clip. At any offset it then reads 1.8 times the
# bytes that it uses, 8 would read 3.2 times as many, and 1 would ask a network
# disk four times as often (measured in docs/loader.md).
SEGMENT_FRAMES = 4


@dataclasses.dataclass(frozen=True)
class Segment:
  """Some frames of a video, and what is known of the video.

  Attributes:
    start: place of the first frame among the video's kept frames.
    video_digest: of all of the video, `metadata.VideoInfo.digest`.
  Of the others see `tfds_info.features` and `records.VideoRecord`.
  """

  video_id: str
  video_digest: str
  start: int
  frames: tuple[bytes, ...]
  landmarks: Float32[np.ndarray, 'n 81 2']
  boxes: Float32[np.ndarray, 'n 4']
  frame_indices: Int32[np.ndarray, 'n']
  times: Float32[np.ndarray, 'n']
  fps: float
  label: int
  dataset: str
  identity: str
  method: str
  group: str
  pair: str
  source_path: str
  provenance: str


TEXTS = (
  'video_id', 'video_digest', 'dataset', 'identity', 'method', 'group', 'pair',
  'source_path', 'provenance',
)  # fmt: skip


@functools.cache
def load_format() -> Any:
  """Returns TFDS's copy of tf.train.Example, with which all of TFDS comes.

  Imported when the first record is written or records are opened: the workers
  of `prepare`, which do neither, are smaller by it. Not when one is read:
  readers are threads, and two that import TFDS at once wait for each other for
  ever.
  """
  from tensorflow_datasets.proto import tf_example_pb2

  return tf_example_pb2.Example


def serialize(segment: Segment) -> bytes:
  """Returns a record; the same bytes for the same segment."""
  example = load_format()()
  feature = example.features.feature
  feature['frames'].bytes_list.value.extend(segment.frames)
  for name in ('landmarks', 'boxes', 'times'):
    feature[name].float_list.value.extend(getattr(segment, name).ravel())
  feature['frame_indices'].int64_list.value.extend(segment.frame_indices)
  feature['fps'].float_list.value.append(segment.fps)
  for name in ('label', 'start'):
    feature[name].int64_list.value.append(getattr(segment, name))
  for name in TEXTS:
    feature[name].bytes_list.value.append(getattr(segment, name).encode())
  # A protobuf map has no order of its own.
  return example.SerializeToString(deterministic=True)


def parse(serialized: bytes) -> Segment:
  """Returns the segment of a record, its frames still encoded.

  Raises:
    ValueError: the bytes are no segment.
  """
  try:
    feature = load_format().FromString(serialized).features.feature
  except message.DecodeError as error:
    raise ValueError(f'{len(serialized)} bytes are no tf.train.Example') from (
      error
    )
  frames = tuple(feature['frames'].bytes_list.value)

  def floats(name: str, *shape: int) -> np.ndarray:
    flat = np.asarray(feature[name].float_list.value, np.float32)
    return flat.reshape(len(frames), *shape)

  def first(values: Any, name: str) -> Any:
    if not values:
      raise ValueError(f'it has no field {name!r}')
    return values[0]

  texts = {
    name: first(feature[name].bytes_list.value, name).decode() for name in TEXTS
  }
  return Segment(
    start=first(feature['start'].int64_list.value, 'start'),
    frames=frames,
    landmarks=floats('landmarks', -1, 2),
    boxes=floats('boxes', 4),
    frame_indices=np.asarray(
      feature['frame_indices'].int64_list.value, np.int32
    ),
    times=floats('times'),
    fps=first(feature['fps'].float_list.value, 'fps'),
    label=first(feature['label'].int64_list.value, 'label'),
    **texts,
  )
