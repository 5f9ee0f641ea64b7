"""The work on one video of `prepare`, the same on every engine.

What enters: a video and the frame rules that are to be done of it. What
leaves, in `staging`: its records and what became of it.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
from typing import NamedTuple

import cv2

from data_pipeline import places, prepared_video, records
from data_pipeline import staging as staging_lib
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import backends
from data_pipeline.sources import catalogue

# What libraries raise at a file that is odd in a way nobody has thought of. A
# fault of this program (TypeError and its like) is none of them.
_OF_A_VIDEO = (ValueError, OSError, RuntimeError, MemoryError, cv2.error)


class VideoTask(NamedTuple):
  """A video, and the frame rules under which it is not finished."""

  video: catalogue.Video
  rules: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class VideoWork:
  """Prepares videos.

  Attributes:
    root: folder that their paths are relative to.
    staging: where finished ones go.
    settings: how.
  """

  root: pathlib.Path
  staging: staging_lib.Staging
  settings: prepared_video.Settings

  def start(self) -> Callable[[VideoTask], None]:
    """Loads the face models."""
    cv2.setNumThreads(1)
    silence_decoder()
    return functools.partial(
      self.finish, backends.open_backend(self.settings.faces)
    )

  def finish(self, backend: backend_lib.FaceBackend, task: VideoTask) -> None:
    """Prepares one video and stores what became of it.

    Raises:
      OSError: that cannot be stored.
    """
    video, rules = task
    kept: list[records.VideoRecord] = []
    try:
      kept, outcomes = prepared_video.prepare_video(
        self.root, video, rules, self.settings, backend
      )
    except _OF_A_VIDEO as error:
      if isinstance(error, OSError) and error.errno in places.NO_SPACE:
        raise  # of a place for temporary files: other videos need it too
      detail = f'{type(error).__name__}: {error}'
      outcomes = prepared_video.skip(video, rules, 'unreadable', detail)
    self.staging.finish(video, kept, outcomes)


def silence_decoder() -> None:
  """Keeps FFmpeg from talking: what matters goes into the report."""
  os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
  cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
