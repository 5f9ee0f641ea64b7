"""The only owner of bytes on disk: one record per video, in ArrayRecord.

What enters: `VideoRecord`s, whose frames are already encoded as JPEG or PNG.
What leaves: `Records`, which decodes the frames it is asked for, RGB uint8 in
[0, 255], with their 81 landmarks in pixels of the 256 x 256 crop.

On disk lies a TFDS dataset, `<root>/<dataset>/<rule>/<version>`, that
`tfds.data_source` and `tfds.builder_from_directory` read without TensorFlow.
What a program needs to know before it reads a frame (identifiers, labels,
numbers of frames) is the dataset's `metadata.json`.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any, NamedTuple

from array_record.python import array_record_data_source
import cv2
from google.protobuf import message
from jaxtyping import Float32, Int32, UInt8
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

VERSION = '1.1.0'
RULES = ('consecutive', 'uniform')
SPLITS = ('train', 'val', 'test')
CROP_SIZE = 256  # px (METHOD 1.1)
NUM_LANDMARKS = 81
LABELS = ('real', 'fake')
ENCODINGS = ('jpeg', 'png')

# Choice: 95 with full chroma. At 4:2:0 the colour of a blending boundary, the
# very thing to be learned, would be stored at half the resolution.
_JPEG_OPTIONS = (
  cv2.IMWRITE_JPEG_QUALITY,
  95,
  cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
  cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
# Choice: level 3; level 9 takes ten times as long for 3 % fewer bytes.
_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 3)


@dataclasses.dataclass(frozen=True)
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
  """

  video_id: str
  label: int
  num_frames: int
  fps: float
  identity: str
  method: str
  source_path: str


@dataclasses.dataclass(frozen=True)
class VideoRecord:
  """One prepared video; see the features of `FaceVideos` for units."""

  video_id: str
  frames: tuple[bytes, ...]  # encoded RGB 256 x 256 images
  landmarks: Float32[np.ndarray, 'n 81 2']
  boxes: Float32[np.ndarray, 'n 4']
  frame_indices: Int32[np.ndarray, 'n']
  times: Float32[np.ndarray, 'n']  # s from the video's first frame, or NaN
  fps: float
  label: int
  dataset: str
  identity: str
  method: str
  source_path: str
  provenance: str  # JSON

  @property
  def info(self) -> VideoInfo:
    """What is known of it without its frames."""
    return VideoInfo(
      video_id=self.video_id,
      label=self.label,
      num_frames=len(self.frames),
      fps=self.fps,
      identity=self.identity,
      method=self.method,
      source_path=self.source_path,
    )


def encode_frame(
  frame: UInt8[np.ndarray, 'h w 3'], encoding: str = 'jpeg'
) -> bytes:
  """Returns an RGB frame as the bytes of a JPEG (quality 95, 4:4:4) or PNG."""
  if encoding not in ENCODINGS:
    raise ValueError(f'encoding is {encoding!r}; choose one of {ENCODINGS}')
  suffix, options = {
    'jpeg': ('.jpg', _JPEG_OPTIONS),
    'png': ('.png', _PNG_OPTIONS),
  }[encoding]
  bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
  encoded, buffer = cv2.imencode(suffix, bgr, options)
  assert encoded, f'OpenCV could not encode a frame of shape {frame.shape}'
  return buffer.tobytes()


def decode_frame(encoded: bytes) -> UInt8[np.ndarray, 'h w 3']:
  """Returns the RGB frame of JPEG or PNG bytes."""
  bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
  if bgr is None:
    raise ValueError(
      f'{len(encoded)} bytes of a stored frame are not a JPEG or PNG image'
    )
  return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def open_records(
  data_root: str | os.PathLike, dataset: str, rule: str, split: str
) -> 'Records':
  """Opens one split of a prepared dataset.

  Raises:
    ValueError: no such dataset, rule or split, or records of another version
      only, with the command that makes it.
  """
  folder = dataset_dir(data_root, dataset, rule)
  if not (folder / 'dataset_info.json').is_file():
    others = sorted(
      path.parent.name for path in folder.parent.glob('*/dataset_info.json')
    )
    found = (
      f'{folder.parent} holds records of version {", ".join(others)}, this'
      f' release reads {VERSION}; make them anew'
      if others
      else f'no prepared dataset in {folder}; make it'
    )
    raise ValueError(
      f'{found} with `python -m data_pipeline.prepare --root VIDEOS --out'
      f' {data_root} --dataset {dataset} --rule {rule}`'
    )
  builder = tfds.builder_from_directory(os.fspath(folder))
  if split not in builder.info.splits:
    raise ValueError(
      f'{folder} has no split {split!r}; it has {sorted(builder.info.splits)}'
    )
  videos = builder.info.metadata[split]
  files = tuple(
    os.fspath(path) for path in builder.info.splits[split].filepaths
  )
  lengths = tuple(builder.info.splits[split].shard_lengths)
  return Records(files, lengths, tuple(VideoInfo(**v) for v in videos))


class _WholeShard(NamedTuple):
  """All records of a file, in the words of array_record."""

  filename: str
  take: int
  skip: int = 0
  examples_in_shard: int = -1  # not looked at


class Records:
  """Random access to the stored videos of one split.

  Threads may read at the same time, and a pickled copy opens its own files.
  """

  def __init__(
    self,
    files: tuple[str, ...],
    shard_lengths: tuple[int, ...],
    videos: tuple[VideoInfo, ...],
  ):
    """Takes shard files, their numbers of records, and every video in order."""
    if sum(shard_lengths) != len(videos):
      raise ValueError(
        f'{os.path.dirname(files[0]) if files else "a dataset"} holds '
        f'{sum(shard_lengths)} records but describes {len(videos)} videos; '
        'prepare it again'
      )
    self.videos = videos
    self._files = files
    self._ends = tuple(itertools.accumulate(shard_lengths))
    self._source: array_record_data_source.ArrayRecordDataSource | None = None

  def __len__(self) -> int:
    return len(self.videos)

  def fingerprint(self) -> str:
    """Names the videos and their lengths, in order, in 16 hex digits.

    A stream of clips is a function of these and a seed; a run that goes on
    with other videos is another run.
    """
    listing = [(v.video_id, v.label, v.num_frames) for v in self.videos]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_source': None}

  def read(
    self, video_index: int, frame_slots: Sequence[int]
  ) -> tuple[UInt8[np.ndarray, 't 256 256 3'], Float32[np.ndarray, 't 81 2']]:
    """Decodes the asked frames of a video, and only those.

    Args:
      video_index: index into `videos`.
      frame_slots: positions among the video's stored frames, in any order.

    Returns:
      RGB frames and their landmarks (x, y in pixels of the crop).

    Raises:
      IndexError: no such video or frame.
      ValueError: a damaged record; the message names shard, index and video.
    """
    slots = list(frame_slots)
    with self._naming(video_index):
      fields = self._fields(video_index)
      encoded = fields['frames'].bytes_list.value
      frames = np.stack([decode_frame(encoded[slot]) for slot in slots])
      landmarks = _floats(fields['landmarks'], NUM_LANDMARKS, 2)[slots]
    return frames, landmarks

  def read_record(self, video_index: int) -> VideoRecord:
    """Reads a whole record, its frames still encoded; raises like `read`."""
    with self._naming(video_index):
      fields = self._fields(video_index)
      info = self.videos[video_index]
      return VideoRecord(
        video_id=info.video_id,
        frames=tuple(fields['frames'].bytes_list.value),
        landmarks=_floats(fields['landmarks'], NUM_LANDMARKS, 2),
        boxes=_floats(fields['boxes'], 4),
        frame_indices=np.asarray(
          fields['frame_indices'].int64_list.value, np.int32
        ),
        times=_floats(fields['times']),
        fps=info.fps,
        label=info.label,
        dataset=_text(fields['dataset']),
        identity=info.identity,
        method=info.method,
        source_path=info.source_path,
        provenance=_text(fields['provenance']),
      )

  def _fields(self, video_index: int) -> Mapping[str, Any]:
    """Parses a record as far as its encoded frames."""
    if self._source is None:
      # Told how many records there are, it opens a shard when that is read:
      # a damaged one does not hide the others.
      starts = (0, *self._ends)
      self._source = array_record_data_source.ArrayRecordDataSource(
        [
          _WholeShard(file, stop - start)
          for file, start, stop in zip(
            self._files, starts, self._ends, strict=False
          )
        ]
      )
    example = tf_example_pb2.Example.FromString(self._source[video_index])
    fields = example.features.feature
    stored = _text(fields['video_id'])
    info = self.videos[video_index]
    if stored != info.video_id:
      raise ValueError(f'it holds video {stored!r} instead')
    num_frames = len(fields['frames'].bytes_list.value)
    if num_frames != info.num_frames:
      raise ValueError(f'it holds {num_frames} frames of {info.num_frames}')
    return fields

  @contextlib.contextmanager
  def _naming(self, video_index: int) -> Iterator[None]:
    """Names shard, index and video in whatever a damaged record raises."""
    if not 0 <= video_index < len(self):
      raise IndexError(f'video {video_index} of {len(self)}')
    try:
      yield
    except IndexError as error:
      raise IndexError(
        f'{self.videos[video_index].video_id} has '
        f'{self.videos[video_index].num_frames} frames: {error}'
      ) from error
    except (ValueError, RuntimeError, message.DecodeError) as error:
      shard = bisect.bisect_right(self._ends, video_index)
      index = video_index - (self._ends[shard - 1] if shard else 0)
      raise ValueError(
        f'damaged record {index} of {self._files[shard]} (video '
        f'{self.videos[video_index].video_id!r}): {error}'
      ) from error


def _floats(field: Any, *shape: int) -> Float32[np.ndarray, 'n *shape']:
  return np.asarray(field.float_list.value, np.float32).reshape(-1, *shape)


def _text(field: Any) -> str:
  return field.bytes_list.value[0].decode()


def dataset_dir(
  data_root: str | os.PathLike, dataset: str, rule: str
) -> pathlib.Path:
  """Where a prepared dataset lies."""
  return pathlib.Path(data_root) / dataset / rule / VERSION
