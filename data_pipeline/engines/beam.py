"""The engine of many machines: an Apache Beam pipeline (extra `beam`).

Elements are names, never pictures: a task is a line of a file in a folder that
all workers see, and what comes of it are files there. So nothing is grouped,
nothing but names passes through a runner, and a bundle that it does twice
leaves the same bytes.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
import pickle
from typing import Any
import uuid

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.utils import shared

from data_pipeline.engines import work as work_lib


@dataclasses.dataclass(frozen=True)
class Beam:
  """Works wherever a runner of Beam does.

  Attributes:
    options: of the pipeline, as 'runner=FlinkRunner'.
    folder: seen by all workers under this name.
  """

  options: tuple[str, ...]
  folder: pathlib.Path

  def run(
    self,
    work: work_lib.Work,
    tasks: Sequence[Any],
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Does all tasks; see `engine.Engine`. `tick` is called at the end."""
    if not tasks:
      return
    options = pipeline_options.PipelineOptions(
      [f'--{option.lstrip("-")}' for option in self.options]
    )
    with self._listed(tasks) as path:
      try:
        with beam.Pipeline(options=options) as pipeline:
          _ = (
            pipeline
            | 'List' >> beam.Create([str(path)])
            | 'Names' >> beam.FlatMap(_lines)
            | 'Spread' >> beam.Reshuffle()
            | 'Work' >> beam.ParDo(_Do(work))
          )
      except RuntimeError as error:  # of the work, or of the runner
        last = str(error).strip().splitlines()[-1:]
        raise ChildProcessError(
          f'the pipeline failed: {"".join(last)}'
        ) from error
    for _ in tasks:
      tick()

  @contextlib.contextmanager
  def _listed(self, tasks: Sequence[Any]) -> Iterator[pathlib.Path]:
    """Writes the tasks to a file, a line each, for as long as it is read.

    In the pipeline itself a hundred thousand would be larger than what runners
    take.
    """
    self.folder.mkdir(parents=True, exist_ok=True)
    path = self.folder / f'tasks-{uuid.uuid4().hex}.txt'
    try:
      with path.open('w', encoding='ascii') as file:
        for task in tasks:
          file.write(base64.b64encode(pickle.dumps(task)).decode() + '\n')
      yield path
    finally:
      path.unlink(missing_ok=True)


def _lines(path: str) -> Iterator[str]:
  """Reads a file of tasks; Beam's own reader would take its name for a glob."""
  with open(path, encoding='ascii') as file:
    for line in file:
      yield line.rstrip('\n')


class _Do(beam.DoFn):
  """Does one task; what that needs is loaded once a worker process."""

  def __init__(self, work: work_lib.Work):
    self._work = work
    self._shared = shared.Shared()
    self._do: Callable[[Any], None] | None = None

  def setup(self) -> None:
    self._do = self._shared.acquire(self._work.start)

  def process(self, element: str) -> None:
    assert self._do is not None, 'a runner calls setup first'
    # Written by `_listed`, a moment ago, in the user's own folder.
    self._do(pickle.loads(base64.b64decode(element)))
