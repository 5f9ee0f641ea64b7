"""Of a long list nothing is held but its names and a few numbers a video."""

import gc
import sys

import rich.console

from benchmarks import prepare_engines
from data_pipeline import fingerprint, prepare, prepared_video, quality_page
from data_pipeline.sources import catalogue

FEW, MANY = 100, 600


def name_videos(count: int) -> list[catalogue.Video]:
  return [
    catalogue.Video(
      path=(path := f'train/real/person{i % 500:03}/video{i:06}.mp4'),
      label=0,
      video_id=path,
      dataset='d',
      split='train',
    )
    for i in range(count)
  ]


def blocks() -> int:
  """Pieces of memory that Python's objects take now."""
  gc.collect()
  return sys.getallocatedblocks()


class Watched:
  """Notes, at moments of a command, how many objects it has made more of."""

  def __init__(self, monkeypatch):
    self.notes: dict[str, int] = {}
    self._start = 0
    self._patch = monkeypatch

  def note(self, moment: str) -> None:
    self.notes[moment] = max(self.notes.get(moment, 0), blocks() - self._start)

  def before(self, module, name: str) -> None:
    """Notes whenever a function is called."""
    function = getattr(module, name)

    def noted(*arguments):
      self.note(name)
      return function(*arguments)

    self._patch.setattr(module, name, noted)

  def run(self, work, tasks, tick=lambda: None) -> None:
    """Is an engine; of each work all is known when it is done."""
    prepare_engines.MadeUp().run(work, tasks, tick)
    self.note(type(work).__name__)

  def begin(self) -> None:
    self.notes, self._start = {}, blocks()


def test_the_command_holds_no_object_for_each_video(tmp_path, monkeypatch):
  watched = Watched(monkeypatch)
  watched.before(fingerprint, 'close_pairs')
  watched.before(quality_page, '_table')
  notes = []
  for count in (20, FEW, MANY):  # the first: what is imported once
    videos = name_videos(count)
    for _ in range(2):  # the second time all is there already
      watched.begin()
      rows = prepare.prepare(
        *(tmp_path, tmp_path / str(count), videos, ('uniform',)),
        *(prepared_video.Settings(), watched),
        rich.console.Console(quiet=True),
      )
      watched.note('end')
      notes.append(watched.notes)
    assert sum(row.status == 'kept' for row in rows) == count
  moments = [set(of_run) for of_run in notes[-2:]]
  assert moments[0] - moments[1] == {'VideoWork', 'ShardWork'}
  assert {'close_pairs', '_table', 'end'} <= moments[1]
  for few, many in zip(notes[2:4], notes[4:], strict=True):
    for moment, held in many.items():
      a_video = (held - few[moment]) / (MANY - FEW)
      assert a_video < 0.5, moment
