"""Answers to an archive of videos, by an engine of many workers.

Enter: how to load the detector, and videos. Leave: the rows that one process
would have written, in the same order. Until all are done a row lies in a file
of its own, in a folder beside the table, so that a stopped command goes on.
"""

from collections.abc import Callable, Sequence
import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import shutil

from data_pipeline import staging, video_work
from data_pipeline.engines import engine as engine_lib
from data_pipeline.sources import file_names
from stormer_jax.scoring import answer, answer_table, video_detector


@dataclasses.dataclass(frozen=True)
class AnswerWork:
  """Answers for videos; a `data_pipeline.engines.work.Work`.

  Attributes:
    load: loads the detector, once a process.
    look: how much of a video to look at.
    render: writes what is asked for besides the row (a page, a film).
    folder: where rows lie until all are done.
    suffix: form of the table, one of `answer_table.SUFFIXES`.
    made_with: hash of weights and settings.
  """

  load: Callable[[], video_detector.Detector]
  look: video_detector.Look
  render: Callable[[answer.Answer, str], object]
  folder: pathlib.Path
  suffix: str
  made_with: str

  def start(self) -> Callable[[str], None]:
    """Loads the detector."""
    video_work.silence_decoder()
    return functools.partial(self._write, self.load())

  def _write(self, detector: video_detector.Detector, video: str) -> None:
    said = answer_one(detector, video, self.look)
    self.render(said, detector.card)
    row = {
      'status': said.status,
      'text': answer_table.text(said, self.made_with, self.suffix),
    }
    staging.write_whole(self.row_path(video), json.dumps(row))

  def row_path(self, video: str) -> pathlib.Path:
    """Where the row of a video lies until all are done."""
    name = hashlib.sha256(os.fsencode(video)).hexdigest()[:24]
    return self.folder / f'{name}.json'


def fill(
  table: answer_table.AnswerTable,
  engine: engine_lib.Engine,
  work: AnswerWork,
  videos: Sequence[str],
  refuse: Callable[[str, str], answer.Answer],
) -> None:
  """Answers for the videos that have no row yet, and adds their rows.

  Args:
    table: what they are added to.
    engine: does the work.
    work: what is done to a video.
    videos: in the order of their rows.
    refuse: answer where a video ended its process, given a message.

  Raises:
    ValueError: what the work raises, as of damaged weights.
    OSError: no space left, or the engine could not do the work.
  """
  todo = [video for video in videos if row_name(video) not in table.finished]
  work.folder.mkdir(parents=True, exist_ok=True)
  engine.run(work, [x for x in todo if not work.row_path(x).exists()])
  for video in todo:
    try:
      row = json.loads(work.row_path(video).read_text())
    except FileNotFoundError:
      table.add(refuse(video, 'its process died, twice (out of memory?)'))
      continue
    table.add_text(row_name(video), row['status'], row['text'])
  shutil.rmtree(work.folder)


def answer_one(
  detector: video_detector.Detector,
  video: str,
  look: video_detector.Look,
  watch: Callable[[float], None] = lambda share: None,
) -> answer.Answer:
  """Answers for one video of many: what would end a single one is a row."""
  if not file_names.is_text(video):
    return detector.refuse(
      row_name(video), 'its name is not UTF-8; rename the file'
    )
  try:
    return detector.predict(video, look, watch)
  except FileNotFoundError:
    return detector.refuse(video, 'no such video file')
  except OSError as error:
    if error.errno not in (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP):
      raise
    return detector.refuse(video, f'cannot be opened ({error.strerror})')


def row_name(video: str) -> str:
  """The name of a video in its row."""
  return video if file_names.is_text(video) else file_names.printable(video)
