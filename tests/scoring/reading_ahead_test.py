"""Many videos: answers in order, and the host ahead of the device."""

import threading
import time

import pytest

from stormer_jax.scoring import reading_ahead


def test_answers_come_in_order_whichever_is_ready_first():
  later = threading.Event()

  def work(video, watch):
    if video == 'a':
      assert later.wait(20)  # the next one is done before this one
    later.set()
    return video.upper()

  assert [*reading_ahead.answer_in_order(work, 'abcd')] == [*'ABCD']


def test_what_ends_the_work_ends_it_in_its_turn():
  def work(video, watch):
    if video == 'b':
      raise ValueError('the weights are damaged')
    return video

  got = reading_ahead.answer_in_order(work, 'abcd')
  assert next(got) == 'a'
  with pytest.raises(ValueError, match='damaged'):
    next(got)


def test_who_stops_does_not_wait_for_the_end_of_a_film():
  watched = []

  def work(video, watch):
    for frame in range(20_000 if video != 'a' else 0):
      watch(0.0)
      watched.append(frame)
      time.sleep(0.001)
    return video

  got = reading_ahead.answer_in_order(work, 'abcd')
  assert next(got) == 'a'
  got.close()  # returns when no thread is at work
  assert 19_999 not in watched
