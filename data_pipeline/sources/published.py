"""Every published data set that is known by name."""

import dataclasses
import os

from data_pipeline.sources import (
  audio_visual,
  catalogue,
  celebdf,
  deepfakebench,
  dfdc,
  faceforensics,
  frame_folders,
  whole_videos,
  wilddeepfake,
)
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

SOURCES: dict[str, source_lib.Source] = {
  **faceforensics.SOURCES,
  **celebdf.SOURCES,
  **dfdc.SOURCES,
  **wilddeepfake.SOURCES,
  **frame_folders.SOURCES,
  **audio_visual.SOURCES,
  **whole_videos.SOURCES,
  **deepfakebench.SOURCES,
}


def source(name: str) -> source_lib.Source:
  """Looks a data set up by its name.

  Raises:
    ValueError: no such name; lists all.
  """
  if name not in SOURCES:
    raise ValueError(f'no source {name!r}; there are {", ".join(SOURCES)}')
  return SOURCES[name]


def list_published(
  name: str, root: str | os.PathLike, dataset: str
) -> tuple[catalogue.Video, ...]:
  """Lists the videos of a published data set, with its splits.

  Args:
    name: of the source, a key of `SOURCES`.
    root: folder of the set.
    dataset: name to give to what is prepared from it.

  Raises:
    ValueError: no such source, or another tree below the root.
  """
  found = source(name).list_videos(tree_lib.read_tree(root))
  return tuple(dataclasses.replace(video, dataset=dataset) for video in found)
