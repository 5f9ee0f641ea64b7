"""A pipeline of Apache Beam does what worker processes do."""

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import time

import face_videos
import pytest

from data_pipeline import prepare
from tests.engines import small_work

pytest.importorskip('apache_beam')
from data_pipeline.engines import beam

pytestmark = pytest.mark.extra

HERE = ('runner=DirectRunner', 'direct_running_mode=in_memory')
APART = (
  *('runner=DirectRunner', 'direct_running_mode=multi_processing'),
  'direct_num_workers=2',
)


@pytest.mark.parametrize('options', [HERE, APART])
def test_every_task_is_done_and_a_process_starts_once(tmp_path, options):
  (tmp_path / 'work').mkdir()
  work, ticks = small_work.SmallWork(tmp_path / 'work'), []
  tasks = [f'täsk {i}' for i in range(30)]
  engine = beam.Beam(options, tmp_path / 'names [of *]')
  engine.run(work, tasks, lambda: ticks.append(1))
  assert work.done() == set(tasks) and len(ticks) == 30
  assert len(set(work.starts())) == len(work.starts())
  assert not list((tmp_path / 'names [of *]').iterdir())


def test_what_ends_all_work_is_one_line(tmp_path):
  (tmp_path / 'work').mkdir()
  work = small_work.SmallWork(tmp_path / 'work')
  engine = beam.Beam(HERE, tmp_path / 'names')
  with pytest.raises(ChildProcessError, match='No space left') as error:
    engine.run(work, ['a', 'full'])
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'names').iterdir())


def test_records_are_those_of_worker_processes_byte_for_byte(tmp_path):
  root = tmp_path / 'videos'
  for name, num_frames in (('a', 6), ('b', 9), ('c', 2), ('d', 7)):
    face_videos.write_face_video(root / f'train/real/{name}.mp4', num_frames)
  (root / 'train/real/e.mp4').write_text('no film')
  flags = {
    'one': ['--engine=in_process'],
    'many': ['--engine=processes', '--workers=2'],
    'beam': ['--engine=beam', f'--beam_pipeline_options={",".join(HERE)}'],
  }
  for name, engine in flags.items():
    where = ['--root', str(root), '--out', str(tmp_path / name), '--dataset=d']
    assert prepare.main([*where, *engine]) == 0
  assert written(tmp_path / 'one') == written(tmp_path / 'many')
  assert written(tmp_path / 'one') == written(tmp_path / 'beam')
  # Five files of each rule, report.csv and quality.html.
  assert len(written(tmp_path / 'one')) == 12


def answers(port: int) -> bool:
  with socket.socket() as client:
    return client.connect_ex(('localhost', port)) == 0


@contextlib.contextmanager
def serving(module: str, flag: str, cwd: pathlib.Path):
  """A server of Beam's as a process of its own; its address."""
  root = pathlib.Path(__file__).parents[2]
  here = pathlib.Path(sys.executable).parent  # the pool calls it `python`
  env = os.environ | {
    'PYTHONPATH': str(root),
    'PATH': f'{here}{os.pathsep}{os.environ["PATH"]}',
  }
  for _ in range(3):  # another process may take the port that was free
    port = free_port()
    with (cwd / f'{port}.log').open('w') as log:
      process = subprocess.Popen(
        [
          *(sys.executable, '-m', f'apache_beam.runners.{module}'),
          f'{flag}={port}',
        ],
        cwd=cwd,
        env=env,
        stdout=log,
        stderr=log,
      )
    try:
      if comes_up(process, port):  # Beam does not ask a pool again
        yield f'localhost:{port}'
        return
    finally:
      end(process)
  pytest.fail((cwd / f'{port}.log').read_text())


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def comes_up(process: subprocess.Popen, port: int) -> bool:
  for _ in range(600):
    if process.poll() is not None:
      return False
    if answers(port):
      return True
    time.sleep(0.1)
  return False


def end(process: subprocess.Popen) -> None:
  process.terminate()
  try:
    process.wait(10)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def test_workers_behind_a_job_service_write_the_same_bytes(tmp_path):
  """As on Flink and Spark: service and workers are processes of their own."""
  root = tmp_path / 'videos'
  face_videos.write_face_video(root / 'train/real/a.mp4', 6)
  (root / 'train/real/b.mp4').write_text('no film')
  where = ['--root', str(root), '--dataset=d', '--rule=uniform']
  assert prepare.main([*where, f'--out={tmp_path}/one', '--workers=1']) == 0
  job_service = 'portability.local_job_service_main'
  with (
    serving(job_service, '--port', tmp_path) as jobs,
    serving('worker.worker_pool_main', '--service_port', tmp_path) as pool,
  ):
    options = (
      *('runner=PortableRunner', f'job_endpoint={jobs}'),
      *('environment_type=EXTERNAL', f'environment_config={pool}'),
    )
    engine = ['--engine=beam', f'--beam_pipeline_options={",".join(options)}']
    assert prepare.main([*where, f'--out={tmp_path}/apart', *engine]) == 0
  assert written(tmp_path / 'one') == written(tmp_path / 'apart')
  assert len(written(tmp_path / 'one')) == 7


def test_an_address_where_nobody_answers_is_one_line(tmp_path):
  options = ('runner=PortableRunner', 'job_endpoint=localhost:9')
  soon = 'job_server_timeout=1'
  engine = beam.Beam((*options, 'environment_type=LOOPBACK', soon), tmp_path)
  with pytest.raises(ChildProcessError, match='localhost:9') as error:
    engine.run(small_work.SmallWork(tmp_path), ['a'])
  assert '\n' not in str(error.value)


def test_what_is_said_of_a_failed_pipeline_are_words(tmp_path, monkeypatch):
  def fail(**_):
    raise RuntimeError('RPC:\n\tdetails = "Connection refused"\n>')

  monkeypatch.setattr(beam.beam, 'Pipeline', fail)
  with pytest.raises(ChildProcessError, match='Connection refused'):
    beam.Beam(HERE, tmp_path).run(small_work.SmallWork(tmp_path), ['a'])


@pytest.mark.parametrize(
  'options, message',
  [
    (['direct_num_workers=two'], "--direct_num_workers: invalid int .*'two'"),
    (['help'], 'help is no option of a pipeline'),
    (['runner=DataflowRunner'], r'pip install "apache-beam\[gcp\]"'),
  ],
)
def test_options_that_cannot_serve_are_refused_at_once(
  tmp_path, options, message, monkeypatch, capsys
):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=message) as error:
    beam.Beam(tuple(options), tmp_path)
  assert '\n' not in str(error.value)
  assert capsys.readouterr().out == ''


def written(out: pathlib.Path) -> dict[str, str]:
  """SHA-256 of report and records, by path."""
  return {
    str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(out.rglob('*'))
    if path.is_file() and '.staging' not in path.parts
  }
