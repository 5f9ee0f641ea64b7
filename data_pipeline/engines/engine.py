"""Engines by name: the same work in this process, on this machine, on many."""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any, Protocol, runtime_checkable

from data_pipeline.engines import in_process, processes
from data_pipeline.engines import work as work_lib

NAMES = ('in_process', 'processes', 'beam')


@runtime_checkable
class Engine(Protocol):
  """What carries out work."""

  def run(
    self,
    work: work_lib.Work,
    tasks: Sequence[Any],
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Does all tasks, in any order, each at least once.

    One that ends its process again and again is given up: it leaves no files.

    Args:
      work: what is done.
      tasks: to what; they can be pickled, and hold names rather than contents.
        A sequence may make them when they are asked for.
      tick: called once a task, when the engine knows that it is done.

    Raises:
      ValueError: what the work raises.
      OSError: likewise, or nobody there could do it.
      RuntimeError: a fault in the work.
    """


def make(
  name: str,
  num_workers: int,
  beam_options: Sequence[str] = (),
  folder: pathlib.Path = pathlib.Path(),
) -> Engine:
  """Returns an engine.

  Args:
    name: one of `NAMES`.
    num_workers: processes, of 'processes'.
    beam_options: of the pipeline, of 'beam', as 'runner=DirectRunner'.
    folder: that all workers of 'beam' see; it need not be there yet.

  Raises:
    ValueError: no engine of this name, or nothing is installed that it needs.
  """
  if beam_options and name != 'beam':
    raise ValueError(
      f'--beam_pipeline_options are of --engine=beam, not of {name}'
    )
  if name == 'in_process':
    return in_process.InProcess()
  if name == 'processes':
    return processes.Processes(num_workers)
  if name != 'beam':
    raise ValueError(f'no engine {name!r}; choose one of {", ".join(NAMES)}')
  try:
    from data_pipeline.engines import beam  # an extra
  except ImportError as error:
    raise ValueError(
      '--engine=beam needs Apache Beam: pip install "stormer-jax[beam]"'
      f' ({error})'
    ) from error
  return beam.Beam(tuple(beam_options), folder.absolute())
