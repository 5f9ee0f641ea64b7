"""A run of a sweep is a process that ends with it and runs once at a time."""

import os
import subprocess
import sys
import time

import pytest

from stormer_jax.experiments import child as child_lib


def start(log, program):
  return child_lib.Child([sys.executable, '-c', program], log, os.getpid())


def finish(log, program):
  with start(log, program) as child:
    while child.status is None:
      child.wait(0.05)
  return child


@pytest.mark.parametrize(
  'program, status, failure',
  [
    (
      'import sys; print("error: no data", file=sys.stderr); sys.exit(2)',
      2,
      'no data',
    ),
    ('import sys; print("so far"); sys.exit(3)', 3, 'ended with status 3: so '),
    ('import sys; sys.exit(1)', 1, 'ended with status 1'),
    ('import os; os.kill(os.getpid(), 9)', 137, 'ended by SIGKILL'),
  ],
)
def test_a_failure_is_one_line(tmp_path, program, status, failure):
  log = tmp_path / 'a/run.log'
  finish(log, 'print("error: of an earlier attempt")')
  child = finish(log, program)
  assert child.status == status
  assert child.failure().startswith(failure) and '\n' not in child.failure()


def test_leaving_asks_the_program_to_stop_and_waits(tmp_path):
  saved = tmp_path / 'saved'
  program = (
    'import pathlib, signal, sys, time\n'
    'def save(*_):\n'
    f'  pathlib.Path({str(saved)!r}).write_text("all")\n'
    '  sys.exit(143)\n'
    'signal.signal(signal.SIGTERM, save)\n'
    'print("ready", flush=True)\n'
    'time.sleep(60)\n'
  )
  log = tmp_path / 'run.log'
  with start(log, program) as child:
    while 'ready\n' not in log.read_text().splitlines(keepends=True):
      time.sleep(0.02)
  assert child.status == 143
  assert saved.read_text() == 'all'


def test_a_log_has_one_writer_at_a_time(tmp_path):
  log = tmp_path / 'run.log'
  with start(log, 'import time; time.sleep(0.5); print("first")'):
    # Another sweep on the same folder: it waits for the end of the first.
    second = finish(log, 'print("second")')
  assert second.status == 0
  said = [line for line in log.read_text().splitlines() if line[0] != '$']
  assert said == ['first', 'second']


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux alone ties them')
def test_a_program_does_not_outlive_a_sweep_that_was_killed(tmp_path):
  log = tmp_path / 'run.log'
  program = 'import time; print("ready", flush=True); time.sleep(60)'
  parent = (
    'import os, sys, time\n'
    'from stormer_jax.experiments import child\n'
    'import pathlib\n'
    f'child.Child([sys.executable, "-c", {program!r}],'
    f' pathlib.Path({str(log)!r}), os.getpid())\n'
    'time.sleep(60)\n'
  )
  process = subprocess.Popen([sys.executable, '-c', parent])
  while not (log.exists() and 'ready\n' in log.read_text().splitlines(True)):
    assert process.poll() is None
    time.sleep(0.02)
  process.kill()
  process.wait()
  # The lock is free as soon as the orphan is gone, long before it is done.
  began = time.monotonic()
  assert finish(log, 'pass').status == 0
  assert time.monotonic() - began < 50
