"""The work on one file of records, the same on every engine.

What enters: which videos a shard holds, finished ones of `staging` and stored
ones. What leaves: the shard, and beside it what is to be known of it.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import NamedTuple

from data_pipeline import record_writer, records
from data_pipeline import staging as staging_lib


class Stored(NamedTuple):
  """A video of the data set as it is."""

  split: str
  position: int


class ShardTask(NamedTuple):
  """A shard and its videos: names of staged files, and stored videos."""

  name: str
  videos: tuple[str | Stored, ...]


@dataclasses.dataclass(frozen=True)
class ShardWork:
  """Writes shards.

  Attributes:
    folder: where to.
    staged: where staged files lie.
    out: data root of the data set as it is.
    dataset: its name.
    rule: its frame rule.
  """

  folder: pathlib.Path
  staged: pathlib.Path
  out: pathlib.Path
  dataset: str
  rule: str

  def start(self) -> Callable[[ShardTask], None]:
    """Opens nothing yet: the data set may not be there."""
    return functools.partial(
      self._write,
      functools.cache(
        lambda split: records.open_records(
          self.out, self.dataset, self.rule, split
        )
      ),
    )

  def _write(
    self, open_split: Callable[[str], records.Records], task: ShardTask
  ) -> None:
    written = record_writer.write_shard(
      self.folder / task.name, self._load(open_split, task)
    )
    staging_lib.write_whole(self.note(task.name), written.to_json())

  def _load(
    self, open_split: Callable[[str], records.Records], task: ShardTask
  ) -> Iterator[records.VideoRecord]:
    """Yields the videos, of which one is held at a time."""
    for video in task.videos:
      if isinstance(video, Stored):
        yield open_split(video.split).read_record(video.position)
      else:
        yield staging_lib.load_record(self.staged / video)

  def note(self, name: str) -> pathlib.Path:
    """Where it lies what is to be known of a shard."""
    return self.folder / f'{name}.json'


@dataclasses.dataclass(frozen=True)
class Notes:
  """What is to be known of shards; of one at a time, each time it is asked.

  Attributes:
    work: that has written them.
    names: of them.
  """

  work: ShardWork
  names: Sequence[str]

  def __iter__(self) -> Iterator[record_writer.WrittenShard]:
    """Reads one after the other.

    Raises:
      ChildProcessError: nobody has written it.
    """
    for name in self.names:
      try:
        note = self.work.note(name).read_text()
      except FileNotFoundError:
        raise ChildProcessError(
          f'{name} was not written: its process died, twice (out of memory?)'
        ) from None
      yield record_writer.WrittenShard.from_json(note)
