"""Two real processes of four devices each, on loopback: one job.

They train together, lose a member in two ways, and go on as if nothing had
been. Configuration tiny, videos of drawn faces.
"""

import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import quick_compile
import saved_state

from stormer_jax.runs import metric_writer

ROOT = pathlib.Path(__file__).parent.parent
NUM_STEPS = 12
# A dead peer is noticed by its sockets at once, else by its heartbeat (30 s).
NOTICED_SECONDS = 120


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """Starts the processes of a job; compiled code is shared between jobs."""
  cache = tmp_path_factory.mktemp('cache')
  running = []

  def launch(*arguments, num_processes=2, ending=()):
    """`ending` of the second process: see killed_program."""
    with socket.socket() as probe:
      probe.bind(('localhost', 0))
      port = probe.getsockname()[1]
    job = []
    for index in range(num_processes):
      environment = os.environ | {
        'PYTHONPATH': str(ROOT),
        'JAX_NUM_CPU_DEVICES': str(8 // num_processes),
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
        # On CPU, JAX's cache serves process 0 alone.
        'XLA_FLAGS': quick_compile.XLA_FLAGS,
      }
      if num_processes > 1:
        environment |= {
          'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
          'JAX_NUM_PROCESSES': str(num_processes),
          'JAX_PROCESS_ID': str(index),
        }
      program = ['-m', 'stormer_jax.main']
      if ending and index == 1:
        program = [str(ROOT / 'tests/killed_program.py'), *ending]
      process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      job.append(process)
      running.append(process)
    return job

  yield launch
  for process in running:
    process.kill()
    process.communicate()


def finish(job):
  """Waits for all; returns their statuses and what they said on stderr."""
  said = [process.communicate(timeout=1800)[1] for process in job]
  return [process.returncode for process in job], said


def train_arguments(data_root, workdir):
  return (
    '--mode=train',
    f'--config={ROOT / "configs/tiny.py"}',
    f'--data_root={data_root}',
    f'--workdir={workdir}',
    f'--config.train.num_epochs={NUM_STEPS}',
    f'--config.train.eval_every_epochs={NUM_STEPS}',
    '--config.train.checkpoint_every=2',
    '--config.model.image_size=32',
    '--config.model.depth=1',
    '--config.optimizer.freeze_epochs=0',
    # Adam would magnify rounding where a gradient is zero but for it.
    '--config.optimizer.eps=0.1',
    '--config.train.mesh_fsdp=2',
  )


@pytest.fixture(scope='module')
def clean_run(start, data_root, tmp_path_factory):
  """Two processes that nothing interrupted."""
  workdir = tmp_path_factory.mktemp('clean')
  statuses, said = finish(start(*train_arguments(data_root, workdir)))
  assert statuses == [0, 0], said
  return workdir


def lines_of(workdir):
  lines = metric_writer.read_metrics(workdir / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'time'} for line in lines]


def test_two_processes_train_as_one(start, data_root, clean_run, tmp_path):
  arguments = train_arguments(data_root, tmp_path)
  statuses, said = finish(start(*arguments, num_processes=1))
  assert statuses == [0], said
  # Rows of a batch lie on other devices, so sums round differently.
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(
      ours, theirs, rtol=0, atol=1e-5
    ),
    saved_state.read_state(tmp_path, NUM_STEPS)['params'],
    saved_state.read_state(clean_run, NUM_STEPS)['params'],
  )
  for ours, theirs in itertools.zip_longest(
    lines_of(tmp_path), lines_of(clean_run)
  ):
    assert ours.keys() == theirs.keys()
    assert ours['step'] == theirs['step']
    if 'val/clips' in ours:  # none dropped, none counted twice
      assert ours['val/clips'] == theirs['val/clips']
    for name in ('train/total', 'val/total'):
      if name in ours:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


def test_two_processes_evaluate_as_one(start, data_root, clean_run, tmp_path):
  tables = {}
  for num_processes in (1, 2):
    out = tmp_path / str(num_processes)
    statuses, said = finish(
      start(
        '--mode=evaluate',
        f'--workdir={clean_run}',
        f'--data_root={data_root}',
        f'--out={out}',
        # 5 videos of 2 to 3 clips: nothing divides evenly.
        "--config.eval.datasets=('demo:test',)",
        '--config.eval.batch_size=4',
        num_processes=num_processes,
      )
    )
    assert statuses == [0] * num_processes, said
    tables[num_processes] = json.loads(
      (out / 'demo-test/metrics.json').read_text()
    )
    scores = (out / 'demo-test/scores.csv').read_text().splitlines()
    assert len(scores) == 1 + 5
  for name, figure in tables[1]['figures'].items():
    assert tables[2]['figures'][name]['value'] == pytest.approx(
      figure['value'], rel=1e-5
    )


def test_a_job_that_loses_a_member_twice_ends_as_one_that_did_not(
  start, data_root, clean_run, tmp_path
):
  arguments = train_arguments(data_root, tmp_path)

  # Killed: the other ends by itself, and says why.
  job = start(*arguments, ending=('4', 'step', 'SIGKILL'))
  job[1].communicate()
  _, said = job[0].communicate(timeout=NOTICED_SECONDS)
  assert job[0].returncode == 143, said
  assert 'another process of this run failed or is gone' in said, said
  assert 'Traceback' not in said, said

  # Told to stop: all stop at one step, which is saved.
  job = start(*arguments, ending=('3', 'step', 'SIGTERM'))
  statuses, said = finish(job)
  assert statuses == [143, 143], said
  stops = [text.strip().splitlines()[-1] for text in said]
  assert stops[0] == stops[1] and stops[0].startswith('stopped at step')

  statuses, said = finish(start(*arguments))
  assert statuses == [0, 0], said
  assert 'resuming at step' in said[0]
  assert lines_of(tmp_path) == lines_of(clean_run)
  jax.tree.map(
    np.testing.assert_array_equal,
    saved_state.read_state(tmp_path, NUM_STEPS),
    saved_state.read_state(clean_run, NUM_STEPS),
  )
