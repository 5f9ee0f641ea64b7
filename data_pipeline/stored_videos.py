"""The videos that a data set holds already, and how new ones join them.

What enters: a data set on disk and finished videos (`staging`). What leaves:
the data set with both. A video that is not listed this time stays: no finished
record is lost unless the user asks for it (--replace).
"""

from collections.abc import Iterable, Mapping, Sequence, Set
import os
import pathlib
from typing import NamedTuple

from data_pipeline import metadata, record_writer, records, shard_work
from data_pipeline import staging as staging_lib
from data_pipeline.engines import engine as engine_lib
from data_pipeline.faces import whole_image
from data_pipeline.sources import catalogue


class Place(NamedTuple):
  """Where a stored video lies."""

  split: str
  stored: records.Records
  position: int  # of the video in `stored`

  @property
  def info(self) -> metadata.VideoInfo:
    """What is known of it without its frames."""
    return self.stored.videos[self.position]


def restore(out: pathlib.Path, dataset: str, rule: str) -> None:
  """Puts a data set back whose replacement was killed half-way."""
  final = metadata.dataset_dir(out, dataset, rule)
  replaced = final.parents[1] / f'.building-{rule}' / 'replaced'
  if replaced.is_dir() and not final.exists():
    replaced.rename(final)


def find_places(out: pathlib.Path, dataset: str, rule: str) -> dict[str, Place]:
  """Where each video of a data set lies, by video_id; {} where there is none.

  Raises:
    ValueError: the data set is damaged.
  """
  folder = metadata.dataset_dir(out, dataset, rule)
  names = os.listdir(folder) if folder.is_dir() else []
  places = {}
  for split in records.SPLITS:
    if any(name.startswith(f'{dataset}-{split}.array_rec') for name in names):
      stored = records.open_records(out, dataset, rule, split)
      for index, info in enumerate(stored.videos):
        places[info.video_id] = Place(split, stored, index)
  return places


def refuse_overlap(
  places: Mapping[str, Place], videos: Iterable[catalogue.Video]
) -> None:
  """Raises ValueError where frames would be in a data set under two names."""
  if not places:
    return
  listed: dict[str, list[catalogue.Video]] = {}
  ids = set()
  for video in videos:
    listed.setdefault(video.path, []).append(video)
    ids.add(video.video_id)
  for video_id, place in places.items():
    if video_id in ids:
      continue
    start, end = catalogue.stretch_of(video_id, place.info.source_path)
    for video in listed.get(place.info.source_path, ()):
      if (end is None or video.start < end) and (
        video.end is None or start < video.end
      ):
        raise ValueError(
          f'{video.video_id} is in the data set as {video_id} ({place.split}) '
          'too: the same frames would be there twice; --replace makes the data '
          'set anew, of the videos listed now'
        )


def refuse_backend(
  places: Mapping[str, Place], videos: Iterable[catalogue.Video], name: str
) -> None:
  """Raises ValueError where a data set would hold faces of two backends.

  Args:
    places: of the stored videos.
    videos: that are prepared now, those that are stored anew.
    name: full name of the backend of now.
  """
  ids = {video.video_id for video in videos}
  for video_id, place in places.items():
    theirs = whole_image.inner_name(place.info.backend)
    if theirs and theirs != name and video_id not in ids:
      raise ValueError(
        f'the data set holds {video_id} with its face found by {theirs}; '
        f'{name} would cut out others beside it: take the same --backend and '
        '--face_model, or --replace to make the data set anew, of the videos '
        'listed now'
      )


def write(
  out: pathlib.Path,
  dataset: str,
  rule: str,
  videos: Sequence[catalogue.Video],
  kept: Set[str],
  staging: staging_lib.Staging,
  places: Mapping[str, Place],
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
    kept: video_id of those of them that have a record, new or stored.
    staging: where the new records lie.
    places: of the stored videos.
    replace: whether stored videos that are not kept are left out.
    engine: writes the shards.

  Raises:
    OSError: no space left, or the engine could not write a shard.
  """
  rows: dict[str, list[str | shard_work.Stored | None]] = {}
  added = False
  for video in videos:
    row: str | shard_work.Stored | None = None
    split = video.split
    if video.video_id in kept:
      staged = staging.record_path(video, rule)
      if staged.exists():
        row, added = staged.name, True
      else:
        place = places[video.video_id]
        row, split = shard_work.Stored(place.split, place.position), place.split
    rows.setdefault(split, []).append(row)
  others = places.keys() - kept
  if not kept or (not added and not (replace and others)):
    return  # it is what lies there already
  if not replace:
    for video_id, place in places.items():
      if video_id in others:
        row = shard_work.Stored(place.split, place.position)
        rows.setdefault(place.split, []).append(row)
  with record_writer.building(out, dataset, rule) as folder:
    tasks = {
      split: _tasks(dataset, split, rows[split])
      for split in records.SPLITS
      if any(row is not None for row in rows.get(split, ()))
    }
    work = shard_work.ShardWork(folder, staging.folder, out, dataset, rule)
    engine.run(work, [task for of_split in tasks.values() for task in of_split])
    record_writer.write_metadata(
      folder,
      dataset,
      rule,
      {
        split: shard_work.Notes(work, of_split)
        for split, of_split in tasks.items()
      },
    )
    for of_split in tasks.values():
      for task in of_split:
        work.note(task).unlink()


def _tasks(
  dataset: str, split: str, rows: Sequence[str | shard_work.Stored | None]
) -> list[shard_work.ShardTask]:
  count = record_writer.num_shards(len(rows))
  return [
    shard_work.ShardTask(
      record_writer.shard_name(dataset, split, index, count),
      tuple(row for i in positions if (row := rows[i]) is not None),
    )
    for index, positions in enumerate(record_writer.shard_ranges(len(rows)))
  ]
