"""Video file -> frames, by exact frame number.

What enters: a path. What leaves: RGB uint8 frames in [0, 255], turned upright
where the file carries a rotation flag.

A frame number is a position in presentation order, 0 for the first frame,
whatever the frame rate does. Frames are decoded one after the other: seeking
lands on the wrong frame in many files (variable frame rate, broken
timestamps), and decoding a 720p frame costs 2 ms, a twentieth of finding the
face in it.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import itertools
import os
import pathlib

import cv2
from jaxtyping import Int64, UInt8
import numpy as np

SPREADS = ('consecutive', 'uniform')


@dataclasses.dataclass(frozen=True)
class VideoStream:
  """What a file holds.

  Attributes:
    width: px, upright.
    height: px, upright.
    fps: average frames a second; 0 where the file does not say.
    num_frames: frames that are in the file.
    declared_frames: frames that its header promises; more than `num_frames`
      where the file was cut off.
  """

  width: int
  height: int
  fps: float
  num_frames: int
  declared_frames: int

  @property
  def truncated(self) -> bool:
    """Whether the file ends well before its header says."""
    # Choice: some containers estimate the number from duration and rate.
    return self.num_frames < 0.98 * self.declared_frames - 2


def probe(path: str | os.PathLike) -> VideoStream:
  """Counts the frames of a file, without decoding them.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a video, or one without a single frame.
  """
  capture = _open(path)
  width, height, declared = (
    round(capture.get(prop))
    for prop in (
      cv2.CAP_PROP_FRAME_WIDTH,
      cv2.CAP_PROP_FRAME_HEIGHT,
      cv2.CAP_PROP_FRAME_COUNT,
    )
  )
  fps = capture.get(cv2.CAP_PROP_FPS)
  capture.release()
  # A capture in this format hands out packets, one a frame, undecoded.
  packets = cv2.VideoCapture(
    os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1]
  )
  num_frames = 0
  while packets.grab():
    num_frames += 1
  packets.release()
  if not num_frames:
    raise ValueError(f'{path} holds no video frame (its header is all of it)')
  return VideoStream(
    width=width,
    height=height,
    fps=fps if np.isfinite(fps) and fps > 0 else 0.0,
    num_frames=num_frames,
    declared_frames=max(declared, 0),
  )


def frame_indices(
  num_frames: int, count: int, spread: str
) -> Int64[np.ndarray, 'n']:
  """Chooses at most `count` of `num_frames` frames (METHOD 1.1).

  'consecutive' takes the first `count`; 'uniform' takes
  linspace(0, num_frames - 1, count). A shorter video gives all its frames.
  """
  if spread not in SPREADS:
    raise ValueError(f'spread is {spread!r}; choose one of {SPREADS}')
  if num_frames < 1 or count < 1:
    raise ValueError(f'cannot take {count} of {num_frames} frames')
  count = min(count, num_frames)
  if spread == 'consecutive':
    return np.arange(count)
  return np.linspace(0, num_frames - 1, count).astype(np.int64)


def decode_frames(
  path: str | os.PathLike, indices: Iterable[int]
) -> Iterator[tuple[int, UInt8[np.ndarray, 'h w 3']]]:
  """Decodes chosen frames, one at a time.

  Args:
    path: a video file.
    indices: frame numbers, ascending, without repeats.

  Yields:
    (frame number, RGB frame), and stops where the file stops decoding, so a
    caller that counts knows how far a damaged file goes.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: not a video, or indices that do not ascend.
  """
  wanted = [int(index) for index in indices]
  if any(a >= b for a, b in itertools.pairwise(wanted)) or (
    wanted and wanted[0] < 0
  ):
    raise ValueError('indices must be ascending frame numbers, 0 or more')
  capture = _open(path)
  position = -1  # of the frame grabbed last
  try:
    for index in wanted:
      while position < index:
        if not capture.grab():
          return
        position += 1
      decoded, bgr = capture.retrieve()
      if not decoded:
        return
      yield index, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
  finally:
    capture.release()


def _open(path: str | os.PathLike) -> cv2.VideoCapture:
  """Opens a file for decoding in one thread, turning frames upright."""
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'no file {path}')
  capture = cv2.VideoCapture(
    os.fspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]
  )
  if not capture.isOpened():
    size = pathlib.Path(path).stat().st_size
    raise ValueError(
      f'{path} is not a video that can be read ({size} bytes; damaged, cut '
      'off before its index, or another kind of file)'
    )
  capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
  return capture
