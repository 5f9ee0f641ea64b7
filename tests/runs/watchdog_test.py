"""A process that has stopped moving ends, and says why."""

import subprocess
import sys
import time
import types

from stormer_jax.runs import watchdog


def test_a_stall_is_named_after_the_timeout():
  messages = []
  dog = watchdog.Watchdog(0.2, on_stall=messages.append)
  dog.expect('the data loader, for the batch of step 7')
  while not messages:
    time.sleep(0.02)
  dog.close()
  (message,) = messages
  assert 'the data loader, for the batch of step 7' in message
  assert 'train.stall_timeout (0.2 s)' in message


def test_signs_of_life_and_rest_keep_the_peace(monkeypatch):
  # The dog's own clock, so that a slow machine is no stall.
  now = 0.0
  clock = types.SimpleNamespace(monotonic=lambda: now)
  monkeypatch.setattr(watchdog, 'time', clock)
  messages = []
  dog = watchdog.Watchdog(0.1, on_stall=messages.append)
  for step in range(6):
    dog.expect(f'step {step}')
    now += 0.09
    time.sleep(0.05)  # it looks twice
  dog.rest()
  now += 100
  time.sleep(0.1)
  dog.close()
  assert not messages


def test_a_blocked_process_ends_with_one_line():
  code = (
    'import threading; from stormer_jax.runs import watchdog;'
    "watchdog.Watchdog(0.3).expect('a disk'); threading.Event().wait()"
  )
  ended = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert ended.returncode == 143
  assert ended.stderr.startswith('error: waited') and 'a disk' in ended.stderr
  assert len(ended.stderr.splitlines()) == 1
