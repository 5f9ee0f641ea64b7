"""Answers to many videos in their order, two at a time.

Enter: what answers for one video, and videos. Leave: the answers that one after
the other gives. While the device scores clips of one, the host finds faces in
the other.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import threading
from typing import TypeVar

_AT_ONCE = 2  # videos
Answer = TypeVar('Answer')
Watch = Callable[[float], None]


class _StoppedError(Exception):
  """Nobody waits for the answer any more."""


def answer_in_order(
  answer_one: Callable[[str, Watch], Answer], videos: Sequence[str]
) -> Iterator[Answer]:
  """Yields the answer to each video.

  Args:
    answer_one: Function of a video and of what it calls now and then, with the
      share that is done; what that raises ends the answering. Called by several
      threads at once.
    videos: As named.

  Raises:
    Exception: What `answer_one` raises, when it is the turn of its video.
  """
  stop = threading.Event()

  def watch(_: float) -> None:
    if stop.is_set():
      raise _StoppedError

  waiting: collections.deque[futures.Future[Answer]] = collections.deque()
  with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    try:
      for video in videos:
        waiting.append(pool.submit(answer_one, video, watch))
        if len(waiting) == _AT_ONCE:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      # Whoever stops does not wait for the end of a film.
      stop.set()
      for unheard in waiting:
        unheard.cancel()
