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
import importlib.util
import io
import pathlib
import pickle
import re
from typing import Any
import uuid

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.utils import shared
import grpc

from data_pipeline.engines import work as work_lib


@dataclasses.dataclass(frozen=True)
class Beam:
  """Works wherever a runner of Beam does.

  Attributes:
    options: of the pipeline, as 'runner=FlinkRunner'.
    folder: seen by all workers under this name.

  Raises:
    ValueError: a value is none of its option, or it is Dataflow, and what Beam
      needs for it is not installed.
  """

  options: tuple[str, ...]
  folder: pathlib.Path

  def __post_init__(self) -> None:
    """Refuses options now, not when everything has been searched."""
    said = io.StringIO()
    try:
      with (
        contextlib.redirect_stderr(said),  # where argparse explains itself
        contextlib.redirect_stdout(io.StringIO()),  # and its help
      ):
        known = self._parsed().get_all_options()
    except SystemExit as error:
      lines = said.getvalue().strip().splitlines()
      last = lines[-1] if lines else 'error: help is no option of a pipeline'
      raise ValueError(
        f'--beam_pipeline_options: {last.partition("error: ")[2]}'
      ) from error
    # Without it Beam asks for credentials for minutes, and gets none.
    if (
      str(known['runner']).lower().endswith('dataflowrunner')
      and importlib.util.find_spec('apitools') is None
    ):
      raise ValueError(
        'runner=DataflowRunner needs what Beam says to Google Cloud with: pip'
        ' install "apache-beam[gcp]"'
      )

  def _parsed(self) -> pipeline_options.PipelineOptions:
    return pipeline_options.PipelineOptions(
      [f'--{option.lstrip("-")}' for option in self.options]
    )

  def run(
    self,
    work: work_lib.Work,
    tasks: Sequence[Any],
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Does all tasks; see `engine.Engine`. `tick` is called at the end."""
    if not tasks:
      return
    with self._listed(tasks) as path:
      try:
        with beam.Pipeline(options=self._parsed()) as pipeline:
          _ = (
            pipeline
            | 'List' >> beam.Create([str(path)])
            | 'Names' >> beam.FlatMap(_lines)
            | 'Spread' >> beam.Reshuffle()
            | 'Work' >> beam.ParDo(_Do(work))
          )
      except RuntimeError as error:  # of the work, or of the runner
        raise ChildProcessError(
          f'the pipeline failed: {_last_words(error)}'
        ) from error
      except (grpc.FutureTimeoutError, grpc.RpcError) as error:
        raise ChildProcessError(
          f'the job service of {", ".join(self.options)} did not take or finish'
          f' the pipeline ({_last_words(error) or "nobody answered"}); does it'
          ' run, and is this its address?'
        ) from error
    for _ in range(len(tasks)):
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


def _last_words(error: Exception) -> str:
  """The last line of an error that is more than a bracket, as grpc's end."""
  lines = [line.strip() for line in str(error).splitlines()]
  return next((ln for ln in reversed(lines) if re.search(r'\w', ln)), '')


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
