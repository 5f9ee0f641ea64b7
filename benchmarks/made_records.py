"""Made-up videos that weigh as much as those of real faces, as records.

Enters: nothing but a folder. Leaves: the data set `made` with a training split
of 20 videos of 256 frames, about 31 kB a frame: smooth shapes that drift, with
the grain of a camera. The same bytes every time.
"""

from collections.abc import Sequence
import os
import pathlib

import cv2
import numpy as np

from data_pipeline import record_writer, records

_GRAIN = 3.8  # standard deviation of a pixel: sets the size of a JPEG


def write(
  root: str | os.PathLike, num_videos: int = 20, num_frames: int = 256
) -> pathlib.Path:
  """Writes the data set and returns its folder."""
  return record_writer.write_records(
    root, 'made', 'consecutive', {'train': _Videos(num_videos, num_frames)}
  )


class _Videos(Sequence[records.VideoRecord]):
  """Each video is made when it is asked for."""

  def __init__(self, num_videos: int, num_frames: int):
    self._num_videos, self._num_frames = num_videos, num_frames

  def __len__(self) -> int:
    return self._num_videos

  def __getitem__(self, index):
    return _make_video(index, self._num_frames)


def _make_video(index: int, num_frames: int) -> records.VideoRecord:
  rng = np.random.default_rng(index)
  name, size = f'video{index}', records.CROP_SIZE

  def shapes(cells: int, spread: float) -> np.ndarray:
    drawn = rng.normal(0, spread, (cells, cells, 3)).astype(np.float32)
    return cv2.resize(drawn, (300, 300), interpolation=cv2.INTER_CUBIC)

  scene = 128 + shapes(12, 50) + shapes(75, 8)
  frames = []
  for t in range(num_frames):
    x, y = (int(20 + 15 * wave) for wave in (np.sin(t / 9), np.cos(t / 11)))
    grain = rng.normal(0, _GRAIN, (size, size, 3)).astype(np.float32)
    frame = scene[y : y + size, x : x + size] + cv2.GaussianBlur(
      grain, (3, 3), 0
    )
    frames.append(records.encode_frame(frame.clip(0, 255).astype(np.uint8)))
  return records.VideoRecord(
    video_id=name,
    frames=tuple(frames),
    landmarks=rng.uniform(40, 216, (num_frames, 81, 2)).astype(np.float32),
    boxes=rng.uniform(0, 99, (num_frames, 4)).astype(np.float32),
    frame_indices=np.arange(num_frames, dtype=np.int32),
    times=np.arange(num_frames, dtype=np.float32) / 30,
    fps=30.0,
    label=0,
    dataset='made',
    identity=name,
    method='',
    source_path=f'{name}.mp4',
    provenance='{}',
  )
