"""Records -> batches of clips on the host, by Grain.

Enters: `records.Records`. Leaves: dicts of NumPy arrays; `frames` are uint8
RGB [b, t, h, w, 3] of the 256 crop, `landmarks` float32 [b, t, 81, 2] in its
pixels. Nothing random is left to the device but what it draws from `seed`.

A training clip is T consecutive kept frames (METHOD 1.3). Which one stands at
place i of the endless stream is a function of (run seed, i) alone, so any
number of hosts and readers sees the same global batches, and the position in
the stream is one integer. A clip of a damaged record is replaced, where the
run allows it, by one that the place and the disk alone decide.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import threading
from typing import Protocol, runtime_checkable

from absl import logging
import grain
from jaxtyping import UInt32
import numpy as np

from data_pipeline import corruptions
from data_pipeline import records as records_lib

CORRUPT_POLICIES = ('fail', 'substitute')


@runtime_checkable
class ClipIterator(Protocol):
  """An endless iterator of batches whose place can be saved."""

  @property
  def num_corrupt(self) -> int:
    """Videos with damage that this process has met and gone around."""

  def __next__(self) -> dict[str, np.ndarray]: ...

  def get_state(self) -> dict[str, int]:
    """The place of the next batch."""

  def set_state(self, state: dict[str, int]) -> None:
    """Goes to a place that `get_state` returned."""


@dataclasses.dataclass(frozen=True)
class Window:
  """T successive kept frames of one video.

  Attributes:
    video: Index into `records.videos`.
    index: Place among the windows of its video.
  """

  video: int
  index: int


def list_windows(
  records: records_lib.Records, num_frames: int, max_offset: int = 0
) -> list[Window]:
  """Cuts every video into windows of `num_frames` without overlap.

  A video has as many windows as fit behind the largest offset, so that their
  number is the same in every epoch; a short video has at least one.

  Args:
    records: Videos.
    num_frames: T.
    max_offset: Largest first frame of a first window; -1 is T - 1.
  """
  max_offset = num_frames - 1 if max_offset == -1 else max_offset
  windows: list[Window] = []
  for video, info in enumerate(records.videos):
    count = max(
      (info.num_frames - max_offset) // num_frames,
      int(info.num_frames >= num_frames),
    )
    windows.extend(Window(video, index) for index in range(count))
  return windows


def window_offset(
  records: records_lib.Records,
  window: Window,
  num_frames: int,
  max_offset: int,
  seed: tuple[int, ...],
) -> int:
  """Draws the offset that all windows of a video share in one epoch."""
  if max_offset == -1:
    max_offset = num_frames - 1
  length = records.videos[window.video].num_frames
  count = max((length - max_offset) // num_frames, 1)
  largest = min(max_offset, length - count * num_frames)
  draw = np.random.default_rng((*seed, window.video))
  return int(draw.integers(largest + 1))


def train_dataset(
  records: records_lib.Records,
  *,
  num_frames: int,
  batch_size: int,
  max_offset: int,
  seed: int,
  num_threads: int,
  prefetch: int,
  process_index: int = 0,
  process_count: int = 1,
  corrupt_records: str = 'fail',
  corrupt_budget: int = 0,
  synthetic: bool = False,
) -> ClipIterator:
  """Streams shuffled training clips without end.

  Args:
    records: Consecutive-rule records of real videos.
    num_frames: T.
    batch_size: Clips a batch over all processes.
    max_offset: See `list_windows`.
    seed: Of the run.
    num_threads: Reader threads; decoding releases the GIL.
    prefetch: Batches read ahead.
    process_index: This process.
    process_count: Number of processes; divides `batch_size`.
    corrupt_records: What a damaged record does: 'fail' stops, 'substitute'
      takes a clip of the next video that can be read.
    corrupt_budget: Videos with damaged records that 'substitute' tolerates in
      this process.
    synthetic: Read no record: the same noise in every batch, the seeds alone
      are those of the stream. What is left of a step's time is not input's.

  Returns:
    Iterator of {'frames', 'landmarks', 'seed' (uint32 [b])}, this process's
    share of each global batch.

  Raises:
    ValueError: If no video has `num_frames` frames, a video is not real, the
      batch does not divide over the processes, or a field is out of range.
      From the iterator: a damaged record, named with its shard and video.
  """
  for name, value, least in (
    ('batch_size', batch_size, 1),
    ('max_offset', max_offset, -1),
    ('corrupt_budget', corrupt_budget, 0),
  ):
    if value < least:
      raise ValueError(f'data.{name} is {value}; at least {least}')
  if corrupt_records not in CORRUPT_POLICIES:
    raise ValueError(
      f'data.corrupt_records is {corrupt_records!r}; it is one of'
      f' {CORRUPT_POLICIES}'
    )
  windows = list_windows(records, num_frames, max_offset)
  if not windows:
    raise ValueError(
      f'training data: no video has {num_frames} frames, the length of'
      ' a clip (model.num_frames); prepare longer videos'
    )
  fakes = [v.video_id for v in records.videos if v.label]
  if fakes:
    raise ValueError(
      f'training data: {len(fakes)} videos are labelled fake, first'
      f' {fakes[0]}; training takes real videos only (it makes its own fakes),'
      ' choose a split without fakes'
    )
  if batch_size % process_count:
    raise ValueError(
      f'data.batch_size is {batch_size}; it must be a multiple of the'
      f' {process_count} processes'
    )

  if synthetic:
    return _NoiseIterator(
      num_frames, batch_size, seed, process_index, process_count
    )
  corrupt = _CorruptRecords(
    records, corrupt_budget if corrupt_records == 'substitute' else None
  )
  shuffled = grain.MapDataset.source(windows).seed(seed).shuffle().repeat()

  def read_clip(place: int, frames: np.ndarray, landmarks: np.ndarray) -> None:
    """Reads the clip at a place of the stream into the rows given."""
    window, epoch = shuffled[place], place // len(windows)
    for choice in _neighbours(windows, window):
      offset = window_offset(
        records, choice, num_frames, max_offset, (seed, epoch)
      )
      start = offset + choice.index * num_frames
      slots = range(start, start + num_frames)
      try:
        records.read_into(frames, landmarks, choice.video, slots)
      except ValueError as error:
        corrupt.add(choice.video, error)
      else:
        return
    raise ValueError(
      f'training data: none of the {len(records.videos)} videos can be read,'
      f' {corrupt.names()}; prepare them again'
    )

  share = batch_size // process_count

  def read_batch(place: int) -> dict[str, np.ndarray]:
    """Reads this process's block of rows of the global batch at a place."""
    first = place + process_index * share
    # Each frame is copied once, to its place in the batch: fresh memory costs
    # as much as a third of decoding.
    frames, landmarks = records_lib.empty_frames(share, num_frames)
    for row in range(share):
      read_clip(first + row, frames[row], landmarks[row])
    seeds = [_clip_seed(seed, first + row) for row in range(share)]
    return {
      'frames': frames,
      'landmarks': landmarks,
      'seed': np.array(seeds, np.uint32),
    }

  return _RecordIterator(
    read_batch,
    range(0, len(shuffled) - batch_size + 1, batch_size),
    grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch),
    corrupt,
  )


def _clip_seed(seed: int, place: int) -> UInt32[np.ndarray, '']:
  """The seed of the pair that is made of the clip at a place."""
  draw = np.random.SeedSequence((seed, place)).generate_state(1, np.uint32)
  return draw.reshape(())


def _neighbours(windows: list[Window], window: Window) -> Iterator[Window]:
  """Yields a window, then one of each other video, next videos first."""
  yield window
  of_video = {
    video: tuple(own)
    for video, own in itertools.groupby(windows, lambda w: w.video)
  }
  videos = [*of_video]
  start = videos.index(window.video)
  for video in (*videos[start + 1 :], *videos[:start]):
    own = of_video[video]
    yield own[window.index % len(own)]


class _CorruptRecords:
  """The videos with damaged records met so far, each told of once."""

  def __init__(self, records: records_lib.Records, budget: int | None):
    """Takes how many are tolerated; None where the first one ends the run."""
    self._records = records
    self._budget = budget
    self._videos: set[int] = set()
    self._lock = threading.Lock()  # readers are threads

  def __len__(self) -> int:
    return len(self._videos)

  def add(self, video: int, error: ValueError) -> None:
    """Counts a damaged record.

    Raises:
      ValueError: It is one too many; with the error's shard, index and video.
    """
    if self._budget is None:
      raise ValueError(
        f'{error}. Prepare it again, or go on without it:'
        " data.corrupt_records='substitute'"
      ) from error
    with self._lock:
      known = video in self._videos
      self._videos.add(video)
      count = len(self._videos)
    if count > self._budget:
      raise ValueError(
        f'{error}. That makes {count} damaged records, data.corrupt_budget is'
        f' {self._budget}; prepare them again: {self.names()}'
      ) from error
    if not known:
      logging.warning(
        '%s. A clip of the next video takes its place (%d of at most %d'
        ' damaged records)',
        error,
        count,
        self._budget,
      )

  def names(self) -> str:
    """The first few, for people."""
    with self._lock:
      videos = sorted(self._videos)
    shown = [self._records.videos[video].video_id for video in videos[:10]]
    return ', '.join(shown) + (', ...' if len(videos) > 10 else '')


class _RecordIterator:
  """Batches read ahead by threads, and what went wrong while reading.

  The place is that of a clip in the stream, so another number of processes, or
  of clips a batch, continues the same one.
  """

  def __init__(
    self,
    read_batch: Callable[[int], dict[str, np.ndarray]],
    places: range,
    read_options: grain.ReadOptions,
    corrupt: _CorruptRecords,
  ):
    """Takes how a batch is read, and the places of the first clips of all."""
    self._read_batch = read_batch
    self._places = places
    self._read_options = read_options
    self._corrupt = corrupt
    self._place = places.start
    self._ahead: grain.DatasetIterator | None = None

  @property
  def num_corrupt(self) -> int:
    return len(self._corrupt)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._ahead is None:
      rest = grain.MapDataset.range(
        self._place, self._places.stop, self._places.step
      ).map(self._read_batch)
      self._ahead = iter(rest.to_iter_dataset(read_options=self._read_options))
    batch = next(self._ahead)
    self._place += self._places.step
    return batch

  def get_state(self) -> dict[str, int]:
    return {'global_next_index': self._place}

  def set_state(self, state: dict[str, int]) -> None:
    self._place = state['global_next_index']
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None


class _NoiseIterator:
  """One batch of noise again and again, under the seeds of the stream."""

  num_corrupt = 0

  def __init__(
    self,
    num_frames: int,
    batch_size: int,
    seed: int,
    process_index: int,
    process_count: int,
  ):
    self._seed = seed
    self._batch_size = batch_size
    share = batch_size // process_count
    self._rows = range(process_index * share, (process_index + 1) * share)
    self._place = 0
    size = records_lib.CROP_SIZE
    draws = [np.random.default_rng((seed, row)) for row in self._rows]
    self._frames = np.stack(
      [
        draw.integers(0, 256, (num_frames, size, size, 3), np.uint8)
        for draw in draws
      ]
    )
    # Where a face would be: blending needs hulls of some area.
    self._landmarks = np.stack(
      [
        draw.uniform(
          size / 4,
          size * 3 / 4,
          (num_frames, records_lib.NUM_LANDMARKS, 2),
        ).astype(np.float32)
        for draw in draws
      ]
    )
    self._frames.flags.writeable = self._landmarks.flags.writeable = False

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    seeds = [_clip_seed(self._seed, self._place + row) for row in self._rows]
    self._place += self._batch_size
    return {
      'frames': self._frames,
      'landmarks': self._landmarks,
      'seed': np.array(seeds, np.uint32),
    }

  def get_state(self) -> dict[str, int]:
    return {'global_next_index': self._place}

  def set_state(self, state: dict[str, int]) -> None:
    self._place = state['global_next_index']


def eval_dataset(
  records: records_lib.Records,
  *,
  num_frames: int,
  batch_size: int,
  real_only: bool = False,
  num_threads: int = 8,
  prefetch: int = 8,
  process_index: int = 0,
  process_count: int = 1,
  first_batch: int = 0,
  corruption: corruptions.Corruption | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Passes once over every clip of every video, in order.

  The last batch is filled up with copies of its first clip whose `valid` is
  0, so that no clip is dropped and all batches have one shape.

  Args:
    records: Videos of either rule.
    num_frames: T.
    batch_size: Clips a batch over all processes.
    real_only: Leave out videos labelled fake, of which no pair can be made.
    num_threads: Reader threads.
    prefetch: Batches read ahead.
    process_index: This process.
    process_count: Number of processes; divides `batch_size`.
    first_batch: Batches to leave out at the start: they are done.
    corruption: Damage done to the frames of each clip.

  Yields:
    {'frames', 'landmarks', 'seed' (uint32, fixed per video and window),
    'video' (int32 index into `records.videos`), 'window' (int32), 'valid'
    (bool)}, all with b rows.
  """
  if batch_size % process_count:
    raise ValueError(
      f'eval.batch_size is {batch_size}; it must be a multiple of the'
      f' {process_count} processes'
    )
  windows = [
    window
    for window in list_windows(records, num_frames)
    if not (real_only and records.videos[window.video].label)
  ]
  padded = windows + windows[:1] * (-len(windows) % batch_size)

  def read(place: int, window: Window) -> dict[str, np.ndarray]:
    start = window.index * num_frames
    slots = range(start, start + num_frames)
    frames, landmarks = records.read(window.video, slots)
    # Of the video's name and not its place, so that a clip's pseudo-fake does
    # not depend on what else is in the split.
    name = records.videos[window.video].video_id
    draw = np.random.SeedSequence((*name.encode(), window.index))
    if corruption is not None:
      frames = corruptions.corrupt_crops(frames, corruption, name, start)
    return {
      'frames': frames,
      'landmarks': landmarks,
      'seed': draw.generate_state(1, np.uint32)[0],
      'video': np.int32(window.video),
      'window': np.int32(window.index),
      'valid': np.bool_(place < len(windows)),
    }

  dataset = grain.MapDataset.source(padded).map_with_index(read)
  dataset = dataset[process_index::process_count]
  dataset = dataset.batch(batch_size // process_count, drop_remainder=True)
  dataset = dataset[first_batch:]
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=prefetch
  )
  return iter(dataset.to_iter_dataset(read_options=options))
