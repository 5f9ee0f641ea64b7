"""The engine that does everything itself, one task after the other."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from data_pipeline.engines import work as work_lib


@dataclasses.dataclass(frozen=True)
class InProcess:
  """Works in the process that asks."""

  def run(
    self,
    work: work_lib.Work,
    tasks: Sequence[Any],
    tick: Callable[[], None] = lambda: None,
  ) -> None:
    """Does all tasks, in order; see `engine.Engine`."""
    if not tasks:
      return
    do = work.start()
    for task in tasks:
      do(task)
      tick()
