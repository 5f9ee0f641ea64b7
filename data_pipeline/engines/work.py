"""What is done to many things, one at a time, wherever that happens.

A `Work` travels to the process that does it, pickled; what it needs there and
what comes of it lies in files that both see. So an engine hands out tasks and
brings nothing back, and a task that is done twice is done once: its files are
written whole, under a name that is the task's.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Work(Protocol):
  """What is done to every task."""

  def start(self) -> Callable[[Any], None]:
    """Loads what a process needs, once; returns what does a task.

    That raises ValueError or OSError where there is no sense in going on with
    other tasks, as on a full disk. What is wrong with one task is no error: it
    goes into the task's files.
    """
