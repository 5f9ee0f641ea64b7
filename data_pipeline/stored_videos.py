"""The videos that a data set holds already, and how new ones join them.

What enters: a data set on disk and finished videos (`staging`). What leaves:
the data set with both. A video that is not listed this time stays: no finished
record is lost unless the user asks for it (--replace).
"""

import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import NamedTuple

from jaxtyping import Bool, Int8, Int32
import numpy as np

from data_pipeline import metadata, record_writer, records, shard_work
from data_pipeline import staging as staging_lib
from data_pipeline.engines import engine as engine_lib
from data_pipeline.faces import whole_image
from data_pipeline.sources import catalogue


class Place(NamedTuple):
  """Where a stored video lies, and what a report says of it."""

  split: str
  position: int  # among the stored videos of the split
  label: int
  num_frames: int


class Other(NamedTuple):
  """A stored video that is not listed now."""

  split: str
  info: metadata.VideoInfo


@dataclasses.dataclass(frozen=True)
class Places:
  """Where the videos of a data set lie: of each listed one, and of others.

  Attributes:
    split: place in `records.SPLITS`; -1: it is not stored.
    position: among the stored videos of the split.
    label: 0 real, 1 fake.
    num_frames: stored ones.
    others: split and position of each stored video that is not listed.
  """

  split: Int8[np.ndarray, 'v']
  position: Int32[np.ndarray, 'v']
  label: Int8[np.ndarray, 'v']
  num_frames: Int32[np.ndarray, 'v']
  others: Int32[np.ndarray, 'o 2']

  @classmethod
  def none(cls, num_videos: int) -> 'Places':
    """Of a data set that holds nothing yet."""
    return cls(
      np.full(num_videos, -1, np.int8),
      np.zeros(num_videos, np.int32),
      np.zeros(num_videos, np.int8),
      np.zeros(num_videos, np.int32),
      np.zeros((0, 2), np.int32),
    )

  def __getitem__(self, number: int) -> Place | None:
    """Where a listed video lies; None: nowhere."""
    if self.split[number] < 0:
      return None
    return Place(
      records.SPLITS[self.split[number]],
      int(self.position[number]),
      int(self.label[number]),
      int(self.num_frames[number]),
    )


def restore(out: pathlib.Path, dataset: str, rule: str) -> None:
  """Puts a data set back whose replacement was killed half-way."""
  final = metadata.dataset_dir(out, dataset, rule)
  replaced = final.parents[1] / f'.building-{rule}' / 'replaced'
  if replaced.is_dir() and not final.exists():
    replaced.rename(final)


def find_places(
  out: pathlib.Path,
  dataset: str,
  rule: str,
  videos: Sequence[catalogue.Video],
) -> tuple[Places, list[Other]]:
  """Finds where the videos of a data set lie; nowhere if there is none.

  Args:
    out: data root.
    dataset: its name.
    rule: one of `records.RULES`.
    videos: that are listed now.

  Returns:
    The places, and the stored videos that are not listed.

  Raises:
    ValueError: the data set is damaged.
  """
  places, others = Places.none(len(videos)), list[Other]()
  folder = metadata.dataset_dir(out, dataset, rule)
  names = os.listdir(folder) if folder.is_dir() else []
  there = [
    split
    for split in records.SPLITS
    if any(name.startswith(f'{dataset}-{split}.array_rec') for name in names)
  ]
  if not there:
    return places, others
  number_of = {video.video_id: number for number, video in enumerate(videos)}
  of_others: list[tuple[int, int]] = []
  num_frames: dict[str, array.array[int]] = {}

  def note(split: str, infos: Iterator[metadata.VideoInfo]) -> list:
    num_frames[split] = array.array('l')
    for position, info in enumerate(infos):
      num_frames[split].append(info.num_frames)
      number = number_of.get(info.video_id)
      if split not in there:
        continue
      split_number = records.SPLITS.index(split)
      if number is None:
        of_others.append((split_number, position))
        others.append(Other(split, info))
      else:
        places.split[number] = split_number
        places.position[number] = position
        places.label[number] = info.label
        places.num_frames[number] = info.num_frames
    return []

  stored = metadata.read(out, dataset, rule, note)
  for split in there:
    if split not in stored.splits:
      raise ValueError(
        f'{folder} has files of {split!r}, of which its metadata says nothing'
      )
    shards, _ = stored.splits[split]
    records.num_segments(
      folder, shards, num_frames[split], stored.segment_frames
    )
  in_order = np.array(sorted(of_others), np.int32).reshape(-1, 2)
  return dataclasses.replace(places, others=in_order), others


def refuse_overlap(
  others: Sequence[Other], videos: Iterable[catalogue.Video]
) -> None:
  """Raises ValueError where frames would be in a data set under two names.

  Args:
    others: stored videos that are not listed.
    videos: that are listed.
  """
  paths = {other.info.source_path for other in others}
  listed: dict[str, list[catalogue.Video]] = {}
  for video in videos if paths else ():
    if video.path in paths:
      listed.setdefault(video.path, []).append(video)
  for split, info in others:
    start, end = catalogue.stretch_of(info.video_id, info.source_path)
    for video in listed.get(info.source_path, ()):
      if (end is None or video.start < end) and (
        video.end is None or start < video.end
      ):
        raise ValueError(
          f'{video.video_id} is in the data set as {info.video_id} ({split}) '
          'too: the same frames would be there twice; --replace makes the data '
          'set anew, of the videos listed now'
        )


def refuse_backend(others: Iterable[metadata.VideoInfo], name: str) -> None:
  """Raises ValueError where a data set would hold faces of two backends.

  Args:
    others: the stored videos that stay as they are.
    name: full name of the backend of now.
  """
  for info in others:
    theirs = whole_image.inner_name(info.backend)
    if theirs and theirs != name:
      raise ValueError(
        f'the data set holds {info.video_id} with its face found by {theirs}; '
        f'{name} would cut out others beside it: take the same --backend and '
        '--face_model, or --replace to make the data set anew, of the videos '
        'listed now'
      )


def write(
  out: pathlib.Path,
  dataset: str,
  rule: str,
  videos: Sequence[catalogue.Video],
  kept: Bool[np.ndarray, 'v'],
  staging: staging_lib.Staging,
  places: Places,
  replace: bool,
  engine: engine_lib.Engine,
) -> None:
  """Writes a data set from staged files and what it holds already.

  Which shard a video lies in is a function of the list of videos alone: one
  that is left out leaves a gap. So names and contents of shards do not depend
  on what went wrong where.

  Args:
    out: the data root.
    dataset: its name.
    rule: one of `records.RULES`.
    videos: of this command.
    kept: which of them have a record, new or stored.
    staging: where the new records lie.
    places: of the stored videos.
    replace: whether stored videos that are not kept are left out.
    engine: writes the shards.

  Raises:
    OSError: no space left, or the engine could not write a shard.
  """
  staged = np.array(
    [
      bool(is_kept) and staging.record_path(video, rule).exists()
      for video, is_kept in zip(videos, kept, strict=True)
    ],
    bool,
  )
  left_out = len(places.others) or ((places.split >= 0) & ~kept).any()
  if not kept.any() or not (staged.any() or (replace and left_out)):
    return  # it is what lies there already
  split_of = np.array([records.SPLITS.index(v.split) for v in videos], np.int8)
  stored = kept & ~staged
  split_of[stored] = places.split[stored]
  rows = {}
  for number, split in enumerate(records.SPLITS):
    listed = np.flatnonzero(split_of == number)
    others = np.flatnonzero(places.others[:, 0] == number)
    if replace:
      others = others[:0]
    if kept[listed].any() or len(others):
      rows[split] = np.concatenate([listed, ~others]).astype(np.int32)

  def look_up(row: int) -> str | shard_work.Stored | None:
    if row < 0:
      number, position = places.others[~row].tolist()
      return shard_work.Stored(records.SPLITS[number], position)
    if staged[row]:
      return staging.record_path(videos[row], rule).name
    place = places[row] if kept[row] else None
    return shard_work.Stored(place.split, place.position) if place else None

  with record_writer.building(out, dataset, rule) as folder:
    tasks = _Tasks(dataset, rows, look_up)
    work = shard_work.ShardWork(folder, staging.folder, out, dataset, rule)
    engine.run(work, tasks)
    notes = {
      split: shard_work.Notes(work, names)
      for split, names in tasks.names.items()
    }
    record_writer.write_metadata(folder, dataset, rule, notes)
    for names in tasks.names.values():
      for name in names:
        work.note(name).unlink()


class _Tasks(Sequence[shard_work.ShardTask]):
  """The shards that are to be written; each is made when it is asked for.

  Attributes:
    names: of the shards, by split.
  """

  def __init__(
    self,
    dataset: str,
    rows: Mapping[str, Int32[np.ndarray, '_']],
    look_up: Callable[[int], str | shard_work.Stored | None],
  ):
    """Takes the videos of each split, gaps included, and what each is."""
    self._rows = rows
    self._look_up = look_up
    self.names = {
      split: [
        record_writer.shard_name(dataset, split, index, count)
        for index in range(count)
      ]
      for split, of_split in rows.items()
      for count in [record_writer.num_shards(len(of_split))]
    }
    self._all = [
      (split, number)
      for split, names in self.names.items()
      for number in range(len(names))
    ]

  def __len__(self) -> int:
    return len(self._all)

  def __getitem__(self, index):
    split, number = self._all[index]
    rows = self._rows[split]
    found = (
      self._look_up(int(rows[place]))
      for place in record_writer.shard_range(len(rows), number)
    )
    return shard_work.ShardTask(
      self.names[split][number],
      tuple(video for video in found if video is not None),
    )
