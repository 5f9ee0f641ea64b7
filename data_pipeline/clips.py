"""Records -> batches of clips on the host, by Grain.

Enters: `records.Records`. Leaves: dicts of NumPy arrays; `frames` are uint8
RGB [b, t, h, w, 3] of the 256 crop, `landmarks` float32 [b, t, 81, 2] in its
pixels. Nothing random is left to the device but what it draws from `seed`.

A training clip is T consecutive kept frames (METHOD 1.3). Which one stands at
place i of the endless stream is a function of (run seed, i) alone, so any
number of hosts and readers sees the same global batches, and the position in
the stream is one integer.
"""

from collections.abc import Iterator
import dataclasses
from typing import Protocol, runtime_checkable

import grain
import numpy as np

from data_pipeline import records as records_lib


@runtime_checkable
class ClipIterator(Protocol):
  """An endless iterator of batches whose place can be saved."""

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

  Returns:
    Iterator of {'frames', 'landmarks', 'seed' (uint32 [b])}, this process's
    share of each global batch.

  Raises:
    ValueError: If no video has `num_frames` frames, a video is not real, the
      batch does not divide over the processes, or a number is out of range.
  """
  for name, value, least in (
    ('batch_size', batch_size, 1),
    ('max_offset', max_offset, -1),
  ):
    if value < least:
      raise ValueError(f'data.{name} is {value}; at least {least}')
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

  def read(place: int, window: Window) -> dict[str, np.ndarray]:
    epoch = place // len(windows)
    offset = window_offset(
      records, window, num_frames, max_offset, (seed, epoch)
    )
    start = offset + window.index * num_frames
    slots = range(start, start + num_frames)
    frames, landmarks = records.read(window.video, slots)
    draw = np.random.SeedSequence((seed, place)).generate_state(1, np.uint32)
    return {'frames': frames, 'landmarks': landmarks, 'seed': draw[0]}

  dataset = (
    grain.MapDataset.source(windows)
    .seed(seed)
    .shuffle()
    .repeat()
    .map_with_index(read)
  )
  # Elastic: its state is the global place, so another number of processes
  # continues the same stream.
  return iter(
    grain.experimental.ElasticIterator(
      dataset,
      batch_size,
      grain.sharding.ShardOptions(
        process_index, process_count, drop_remainder=True
      ),
      read_options=grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=prefetch
      ),
    )
  )


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
    name = records.videos[window.video].video_id.encode()
    draw = np.random.SeedSequence((*name, window.index)).generate_state(
      1, np.uint32
    )
    return {
      'frames': frames,
      'landmarks': landmarks,
      'seed': draw[0],
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
