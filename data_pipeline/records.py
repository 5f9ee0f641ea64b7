"""Prepared videos: what is known of each, and its frames by their place.

What enters: `VideoRecord`s, whose frames are already encoded as JPEG or PNG.
What leaves: `Records`, which decodes the frames it is asked for, RGB uint8 in
[0, 255], with their 81 landmarks in pixels of the 256 x 256 crop.

On disk lies a TFDS dataset, `<root>/<dataset>/<rule>/<version>`, that
`tfds.data_source` and `tfds.builder_from_directory` read without TensorFlow: a
video is cut into `segments`, which lie in `shards`. What a program needs to
know before it reads a frame (identifiers, labels, numbers of frames, checksums
of files) is the dataset's `metadata.json`.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os

import cv2
from jaxtyping import Float32, Int32, Int64, UInt8
import numpy as np

from data_pipeline import metadata as metadata_lib
from data_pipeline import places, segments, shard_cache
from data_pipeline import shards as shards_lib
from data_pipeline.faces import whole_image

RULES = ('consecutive', 'uniform', 'dense')
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
class VideoRecord:
  """One prepared video; see `tfds_info.features` for units."""

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
  group: str = ''
  pair: str = ''

  @property
  def info(self) -> metadata_lib.VideoInfo:
    """What is known of it without its frames."""
    return metadata_lib.VideoInfo(
      video_id=self.video_id,
      label=self.label,
      num_frames=len(self.frames),
      fps=self.fps,
      identity=self.identity,
      method=self.method,
      source_path=self.source_path,
      digest=self._digest(),
      group=self.group,
      pair=self.pair,
      backend=json.loads(self.provenance).get('backend', ''),
    )

  def _digest(self) -> str:
    digest = hashlib.sha256(repr([len(f) for f in self.frames]).encode())
    arrays = (self.landmarks, self.boxes, self.frame_indices, self.times)
    for content in (*self.frames, *(array.tobytes() for array in arrays)):
      digest.update(content)
    return digest.hexdigest()[:16]


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
  frame = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
  if frame is None:
    raise ValueError(
      f'{len(encoded)} bytes of a stored frame are not a JPEG or PNG image'
    )
  return frame


def empty_frames(
  *shape: int,
) -> tuple[UInt8[np.ndarray, '*n 256 256 3'], Float32[np.ndarray, '*n 81 2']]:
  """Arrays of a shape of frames to read into, with their landmarks."""
  return (
    np.empty((*shape, CROP_SIZE, CROP_SIZE, 3), np.uint8),
    np.empty((*shape, NUM_LANDMARKS, 2), np.float32),
  )


def open_records(
  data_root: str | os.PathLike,
  dataset: str,
  rule: str,
  split: str,
  cache: shard_cache.ShardCache | None = None,
) -> 'Records':
  """Opens one split of a prepared dataset.

  Args:
    data_root: Folder that `prepare` wrote, or its copy in a bucket, gs://...
    dataset: Its name.
    rule: One of RULES.
    split: One of SPLITS.
    cache: Where shards are copied to before they are read, or None.

  Raises:
    ValueError: no such dataset, rule or split, or records of another version
      only, with the command that makes it; or metadata that cannot be read.
  """
  metadata = metadata_lib.read(
    data_root,
    dataset,
    rule,
    lambda name, videos: list(videos) if name == split else [],
  )
  if split not in metadata.splits:
    raise ValueError(
      f'{metadata.folder} has no split {split!r}; it has'
      f' {sorted(metadata.splits)}'
    )
  shards, videos = metadata.splits[split]
  return Records(
    metadata.folder, shards, videos, metadata.segment_frames, cache
  )


def num_segments(
  folder: str | os.PathLike,
  shards: Sequence[shards_lib.Shard],
  num_frames: Sequence[int],
  segment_frames: int,
) -> Int64[np.ndarray, 'v']:
  """In how many records each video of a split lies, given its frames.

  Raises:
    ValueError: the shards hold other numbers of records than the videos.
  """
  lengths = -(-np.asarray(num_frames, np.int64) // segment_frames)
  num_records = sum(shard.num_records for shard in shards)
  if lengths.sum() != num_records:
    raise ValueError(
      f'{folder} holds {num_records} records but describes {len(lengths)}'
      f' videos of {lengths.sum()}; prepare it again'
    )
  return lengths


class Records:
  """Random access to the stored videos of one split.

  Threads may read at the same time, and a pickled copy opens its own files.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    shards: Sequence[shards_lib.Shard],
    videos: Sequence[metadata_lib.VideoInfo],
    segment_frames: int = segments.SEGMENT_FRAMES,
    cache: shard_cache.ShardCache | None = None,
  ):
    """Takes shard files, every video in their order, how it is cut, a cache.

    Raises:
      ValueError: the shards hold other numbers of records than the videos.
    """
    self.folder = places.path(folder)
    self.shards = tuple(shards)
    self.videos = tuple(videos)
    self._segment_frames = segment_frames
    self._reader = shards_lib.ShardReader(
      self.folder, shards, cache.hold(shards) if cache else None
    )
    segments.load_format()  # here, and not in the threads that read
    lengths = num_segments(
      folder, shards, [info.num_frames for info in self.videos], segment_frames
    )
    # Of each video: the number of its shard, and the place of its first record.
    ends = np.cumsum([shard.num_records for shard in shards])
    firsts = np.cumsum(lengths) - lengths
    self._shard_of = np.searchsorted(ends, firsts, side='right')
    self._first_place = firsts - np.array([0, *ends])[self._shard_of]

  def __len__(self) -> int:
    return len(self.videos)

  def shard_of(self, video_index: int) -> int:
    """Which of `shards` a video lies in; all of it lies in one."""
    return int(self._shard_of[video_index])

  def backends(self) -> set[str]:
    """Full names of what found the faces, as far as it was written down."""
    names = {whole_image.inner_name(info.backend) for info in self.videos}
    return names - {''}

  def fingerprint(self) -> str:
    """Names the videos and their lengths, in order, in 16 hex digits.

    A stream of clips is a function of these and a seed; a run that goes on
    with other videos is another run.
    """
    listing = [(v.video_id, v.label, v.num_frames) for v in self.videos]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]

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
    frames, landmarks = empty_frames(len(frame_slots))
    self.read_into(frames, landmarks, video_index, frame_slots)
    return frames, landmarks

  def read_into(
    self,
    frames: UInt8[np.ndarray, 't 256 256 3'],
    landmarks: Float32[np.ndarray, 't 81 2'],
    video_index: int,
    frame_slots: Sequence[int],
  ) -> None:
    """Does what `read` does, into arrays; what they hold after an error is
    undefined.
    """
    info = self._info(video_index)
    for slot in frame_slots:
      if not 0 <= slot < info.num_frames:
        raise IndexError(
          f'{info.video_id} has {info.num_frames} frames, no frame {slot}'
        )
    places = [divmod(slot, self._segment_frames) for slot in frame_slots]
    numbers = sorted({number for number, _ in places})
    of_number = dict(
      zip(numbers, self._segments(video_index, numbers), strict=True)
    )
    for row, (number, place) in enumerate(places):
      with self._naming(video_index, number):
        frames[row] = decode_frame(of_number[number].frames[place])
        landmarks[row] = of_number[number].landmarks[place]

  def read_record(self, video_index: int) -> VideoRecord:
    """Reads a whole video, its frames still encoded; raises like `read`."""
    info = self._info(video_index)
    parts = self._segments(
      video_index, range(-(-info.num_frames // self._segment_frames))
    )

    def joined(name: str) -> np.ndarray:
      return np.concatenate([getattr(part, name) for part in parts])

    known = parts[0]
    return VideoRecord(
      video_id=known.video_id,
      frames=tuple(frame for part in parts for frame in part.frames),
      landmarks=joined('landmarks'),
      boxes=joined('boxes'),
      frame_indices=joined('frame_indices'),
      times=joined('times'),
      fps=info.fps,
      label=known.label,
      dataset=known.dataset,
      identity=known.identity,
      method=known.method,
      group=known.group,
      pair=known.pair,
      source_path=known.source_path,
      provenance=known.provenance,
    )

  def _info(self, video_index: int) -> metadata_lib.VideoInfo:
    if not 0 <= video_index < len(self):
      raise IndexError(f'video {video_index} of {len(self)}')
    return self.videos[video_index]

  def _segments(
    self, video_index: int, numbers: Sequence[int]
  ) -> list[segments.Segment]:
    """Reads segments of a video by their number, in one call."""
    shard = self.shard_of(video_index)
    first = int(self._first_place[video_index])
    try:
      read = self._reader.read(shard, [first + number for number in numbers])
    except ValueError:
      for number in numbers:  # which of them it is
        with self._naming(video_index, number):
          self._reader.read(shard, [first + number])
      raise
    parsed = []
    for number, serialized in zip(numbers, read, strict=True):
      with self._naming(video_index, number):
        parsed.append(self._parse(video_index, number, serialized))
    return parsed

  def _parse(
    self, video_index: int, number: int, serialized: bytes
  ) -> segments.Segment:
    """Parses a segment and compares it with what the data set lists."""
    info, start = self.videos[video_index], number * self._segment_frames
    segment = segments.parse(serialized)
    if (segment.video_id, segment.start) != (info.video_id, start):
      raise ValueError(
        f'it holds frames from {segment.start} on of {segment.video_id!r},'
        f' not from {start} on'
      )
    if segment.video_digest != info.digest:
      raise ValueError(
        f'it is of another preparation: its video is {segment.video_digest},'
        f' the data set lists {info.digest}'
      )
    expected = min(self._segment_frames, info.num_frames - start)
    if len(segment.frames) != expected:
      raise ValueError(f'it holds {len(segment.frames)} frames of {expected}')
    return segment

  @contextlib.contextmanager
  def _naming(self, video_index: int, number: int) -> Iterator[None]:
    """Names shard, index and video in whatever a damaged record raises."""
    try:
      yield
    except ValueError as error:
      path = self._reader.path(self.shard_of(video_index))
      raise ValueError(
        f'damaged record {int(self._first_place[video_index]) + number} of'
        f' {path} (video {self.videos[video_index].video_id!r}): {error}'
      ) from error
