"""Answers to many videos in their order, the next one read while one is scored.

Enter: what answers for one video, and videos. Leave: the answers that one after
the other gives. Faces are found on the host and clips scored on the device; so
neither waits for the other from one video to the next.
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
