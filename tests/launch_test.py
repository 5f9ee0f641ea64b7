"""The launch scripts: what they would run, and one that really runs.

After a change that is meant, write what the failed test shows to
tests/golden/launch, and read it as if you were to type it.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import base
from stormer_jax import checkpoint, metric_writer

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
TRAIN = ('--config=configs/ffpp_c23.py', '--config.model.dtype=bfloat16')
EVALUATE = ('--mode=evaluate', "--config.eval.datasets=('celebdf_v2:test',)")
CLOUD = {
  'IMAGE': 'us-docker.pkg.dev/my-project/images/stormer-jax:tpu',
  'BUCKET': 'my-bucket',
  'PROJECT': 'my-project',
  'CLUSTER': 'my-cluster',
}
HOST = {'DATA': '/shared/data', 'WORKDIR': '/shared/runs/stormer'}
CASES = {
  'tpu_vm': ('tpu.sh', CLOUD, TRAIN),
  'tpu_slice': (
    'tpu.sh',
    CLOUD
    | {'NAME': 'big', 'TYPE': 'v5p-64', 'ZONE': 'us-east5-a'}
    | {'VERSION': 'v2-alpha-tpuv5', 'SPOT': ''},
    (*TRAIN, '--config.train.mesh_fsdp=4'),
  ),
  'tpu_evaluate': ('tpu.sh', CLOUD, EVALUATE),
  'tpu_worker': (
    'tpu_worker.sh',
    {},
    (CLOUD['IMAGE'], 'my-bucket', '--mode=train', *TRAIN),
  ),
  'gke_tpu': ('gke.sh', CLOUD, TRAIN),
  'gke_gpu': (
    'gke.sh',
    CLOUD
    | {'TYPE': 'h100-mega-80gb-8', 'COUNT': '2', 'ZONE': 'us-east4-a'}
    | {'IMAGE': 'us-docker.pkg.dev/my-project/images/stormer-jax:cuda'},
    EVALUATE,
  ),
  'slurm': ('slurm.sh', HOST, TRAIN),
  'gpu_host': ('gpu_host.sh', HOST, TRAIN),
  'two_processes': ('two_processes.sh', HOST, ('--config=configs/tiny.py',)),
}


def environment(settings):
  kept = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
  python = str(pathlib.Path(sys.executable).parent)
  return kept | {'PATH': f'{python}:{os.environ["PATH"]}'} | settings


def dry_run(script, settings, arguments):
  return subprocess.run(
    ['bash', str(ROOT / 'launch' / script), '--dry-run', *arguments],
    cwd=ROOT,
    env=environment(settings),
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize('name', CASES)
def test_a_dry_run_shows_the_stored_commands(name):
  shown = dry_run(*CASES[name])
  assert shown.returncode == 0, shown.stderr
  stored = ROOT / 'tests/golden/launch' / f'{name}.txt'
  assert shown.stdout == stored.read_text()


def test_every_script_has_a_stored_dry_run():
  scripts = {path.name for path in SCRIPTS} - {'common.sh'}
  assert scripts == {script for script, _, _ in CASES.values()}


@pytest.mark.parametrize('name', CASES)
def test_what_is_shown_is_what_a_shell_would_be_given(name):
  # Words survive the quoting: a shell that reads the line sees our arguments.
  arguments = CASES[name][2]
  shown = dry_run(*CASES[name]).stdout
  for _ in range(2):  # once more for what is quoted for another machine
    words = subprocess.run(
      ['bash', '-c', f'printf "%s\\n" {shown.replace(chr(10), " ")}'],
      capture_output=True,
      text=True,
      check=True,
    ).stdout
    if set(arguments) <= set(words.splitlines()):
      return
    shown = ' '.join(
      word.removeprefix('--command=') for word in words.splitlines()
    )
  raise AssertionError(f'{arguments} not in {words}')


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_bash_understands_every_script(script):
  subprocess.run(['bash', '-n', str(script)], check=True)


@pytest.mark.parametrize('name', CASES)
def test_every_flag_of_ours_exists(name):
  tree = ast.parse((ROOT / 'stormer_jax/main.py').read_text())
  known = {
    node.args[0].value
    for node in ast.walk(tree)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Attribute)
    and node.func.attr.startswith('DEFINE_')
    and isinstance(node.args[0], ast.Constant)
  }
  stored = (ROOT / 'tests/golden/launch' / f'{name}.txt').read_text()
  # What follows our program, or else the image that starts it.
  ours = re.split(r'stormer_jax\.main|stormer-jax:tpu(?=.* --mode)', stored)[-1]
  config = base.get_config()
  for flag in re.findall(r'(?<![\w-])--([a-z][\w.]*)=', ours):
    if flag.startswith('config.'):
      section, field = flag.split('.')[1:]
      assert field in config[section]
    elif flag != 'zone':  # of gcloud, which comes last
      assert flag in known


def test_the_page_on_launching_knows_every_script_and_setting():
  page = (ROOT / 'docs/launch.md').read_text()
  names = {f'launch/{script}' for script, _, _ in CASES.values()}
  names -= {'launch/tpu_worker.sh'}  # which tpu.sh starts
  for path in SCRIPTS:
    names |= set(re.findall(r'\$\{([A-Z]+):?[-?]', path.read_text()))
  assert not {name for name in names if name not in page}


def test_a_missing_setting_is_named():
  shown = dry_run('gpu_host.sh', {'WORKDIR': '/runs/a'}, TRAIN)
  assert shown.returncode != 0 and 'DATA: folder that prepare' in shown.stderr


@pytest.fixture
def stub(tmp_path):
  """A `python` that notes its call and ends as told, one status a call."""

  def make(*statuses):
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'statuses').write_text('\n'.join(map(str, statuses)) + '\n')
    program = folder / 'python'
    program.write_text(
      f'#!/bin/bash\necho "$@" >> {folder}/calls\n'
      f'status=$(head -1 {folder}/statuses)\nsed -i 1d {folder}/statuses\n'
      'exit $status\n'
    )
    program.chmod(0o755)
    sleep = folder / 'sleep'
    sleep.write_text('#!/bin/bash\n')
    sleep.chmod(0o755)
    return folder

  return make


@pytest.mark.parametrize(
  'statuses, calls',
  [((0,), 1), ((137, 134, 0), 3), ((137, 2, 0), 2), ((137,) * 20, 11)],
)
def test_a_gpu_host_starts_again_what_was_killed_and_nothing_else(
  stub, statuses, calls
):
  folder = stub(*statuses)
  done = subprocess.run(
    ['bash', str(ROOT / 'launch/gpu_host.sh'), *TRAIN],
    env=os.environ | HOST | {'PATH': f'{folder}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
  )
  assert len((folder / 'calls').read_text().splitlines()) == calls
  assert done.returncode == statuses[calls - 1]


@pytest.mark.slow
def test_two_processes_train_as_one(data_root, tmp_path):
  def train(workdir, **settings):
    subprocess.run(
      [
        'bash',
        str(ROOT / 'launch/two_processes.sh'),
        '--config=configs/tiny.py',
      ],
      cwd=ROOT,
      env=environment(
        {'DATA': str(data_root), 'WORKDIR': str(workdir), **settings}
      ),
      check=True,
      timeout=600,
    )
    figures = metric_writer.read_metrics(workdir / 'metrics.jsonl')
    steps = checkpoint.Checkpointer(workdir / 'checkpoints').all_steps()
    return figures, steps

  two = train(tmp_path / 'two', COUNT='2', DEVICES='4', PORT='29411')
  one = train(tmp_path / 'one', COUNT='1', DEVICES='8', PORT='29412')
  assert two[1] == one[1]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
    [{k: v for k, v in line.items() if k != 'time'} for line in two[0]],
    [{k: v for k, v in line.items() if k != 'time'} for line in one[0]],
  )
