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
import time

import pytest
import yaml

from configs import ablations, base
from stormer_jax.runs import metric_writer

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
TRAIN = ('--config=configs/ffpp_c23.py', '--config.model.dtype=bfloat16')
EVALUATE = ('--mode=evaluate', "--config.eval.datasets=('celebdf_v2:test',)")
SWEEP = (
  '--config=configs/ablations.py',
  "--config.eval.datasets=('ffpp_c23:val', 'celebdf_v2:test')",
)
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
  'slurm_sweep': ('slurm_sweep.sh', HOST, SWEEP),
  'xpk_sweep': ('xpk_sweep.sh', CLOUD | {'ENTRIES': '0 7'}, SWEEP),
  'gke_sweep': ('gke_sweep.sh', CLOUD | {'ENTRIES': '36'}, SWEEP),
  'gke_sweep_tpu': (
    'gke_sweep.sh',
    CLOUD
    | {'ENTRIES': '36', 'NAME': 'ablations', 'PARALLEL': '2'}
    | {'DEVICE': 'tpu-v6e-slice', 'TOPOLOGY': '2x4', 'ACCOUNT': 'trainer'},
    SWEEP,
  ),
  'gpu_host': ('gpu_host.sh', HOST, TRAIN),
  'two_processes': ('two_processes.sh', HOST, ('--config=configs/tiny.py',)),
}


# What they show is read by Kubernetes and not by a shell.
JOBS = {'gke_sweep', 'gke_sweep_tpu'}


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


def shown_job(name):
  return yaml.safe_load(dry_run(*CASES[name]).stdout)


@pytest.mark.parametrize('name', sorted(JOBS))
def test_a_job_has_our_arguments_and_an_index_for_each_entry(name):
  spec = shown_job(name)['spec']
  (container,) = spec['template']['spec']['containers']
  assert set(CASES[name][2]) <= set(container['args'])
  assert '--entry=$(JOB_COMPLETION_INDEX)' in container['args']
  assert (spec['completionMode'], spec['completions']) == ('Indexed', 36)


def test_a_job_asks_for_the_machines_that_were_named():
  gpu, tpu = (
    shown_job(name)['spec']['template']['spec'] for name in sorted(JOBS)
  )
  assert gpu['nodeSelector'] == {
    'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb'
  }
  assert gpu['containers'][0]['resources'] == {'limits': {'nvidia.com/gpu': 8}}
  assert tpu['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice',
    'cloud.google.com/gke-tpu-topology': '2x4',
  }
  assert tpu['containers'][0]['resources'] == {'limits': {'google.com/tpu': 8}}


@pytest.mark.parametrize('name', sorted(CASES.keys() - JOBS))
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


def test_recipes_of_a_sweep_leave_out_no_ablation():
  count = len(ablations.get_sweep())
  texts = {
    path.name: path.read_text()
    for path in (*SCRIPTS, *(ROOT / 'docs').glob('*.md'))
  }
  numbers = [
    (name, int(number) - count + (0 if what.endswith('=') else 1))
    for name, text in texts.items()
    for what, number in re.findall(
      r"(--array=0-|seq -s ' ' 0 |ENTRIES=)(\d+)", text
    )
  ]
  numbers += [
    ('experiments.md', int(number) - count)
    for number in re.findall(r'(\d+)\s+entries', texts['experiments.md'])
  ]
  assert len(numbers) > 6
  assert not [name for name, off in numbers if off]


def test_a_missing_setting_is_named():
  shown = dry_run('gpu_host.sh', {'WORKDIR': '/runs/a'}, TRAIN)
  assert shown.returncode != 0 and 'DATA: folder that prepare' in shown.stderr


class Stage:
  """Stand-ins for the programs that a script starts.

  Each notes its name and arguments in `calls`, then does what it was told.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.program('sleep', 'true')

  def program(self, name: str, body: str) -> None:
    path = self.folder / name
    path.write_text(
      f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls.log\n{body}\n'
    )
    path.chmod(0o755)

  def will_end_with(self, name: str, *statuses: int) -> None:
    """Gives a program the status of each of its calls."""
    queue = self.folder / f'{name}.statuses'
    queue.write_text(''.join(f'{status}\n' for status in statuses))
    self.program(
      name, f'status=$(head -1 {queue}); sed -i 1d {queue}\nexit $status'
    )

  def start(self, script: str, settings, *arguments) -> subprocess.Popen:
    path = {'PATH': f'{self.folder}:{os.environ["PATH"]}'}
    return subprocess.Popen(
      ['bash', str(ROOT / 'launch' / script), *arguments],
      cwd=ROOT,
      env=environment({}) | dict(settings) | path,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, script: str, settings, *arguments) -> int:
    process = self.start(script, settings, *arguments)
    process.communicate(timeout=60)
    return process.returncode

  def calls(self, name: str) -> list[str]:
    log = self.folder / 'calls.log'
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.split()[0] == name]


@pytest.fixture
def stage(tmp_path):
  folder = tmp_path / 'bin'
  folder.mkdir()
  return Stage(folder)


@pytest.mark.parametrize(
  'statuses, calls',
  [((0,), 1), ((137, 134, 0), 3), ((137, 2, 0), 2), ((137,) * 20, 11)],
)
def test_a_gpu_host_starts_again_what_was_killed_and_nothing_else(
  stage, statuses, calls
):
  stage.will_end_with('python', *statuses)
  assert stage.run('gpu_host.sh', HOST, *TRAIN) == statuses[calls - 1]
  assert len(stage.calls('python')) == calls


@pytest.mark.parametrize(
  'status, restarts, requeued',
  [
    (0, 0, False),
    (2, 0, False),
    (143, 0, True),
    (137, 3, True),
    (143, 100, False),
  ],
)
def test_slurm_puts_back_what_was_stopped_or_killed(
  stage, status, restarts, requeued
):
  stage.will_end_with('srun', status)
  stage.program('scontrol', 'true')
  job = {
    'SLURM_JOB_ID': '7',
    'SLURM_SUBMIT_DIR': str(ROOT),
    'SLURM_RESTART_COUNT': str(restarts),
  }
  assert stage.run('slurm.sh', HOST | job, *TRAIN) == status
  assert stage.calls('scontrol') == ['scontrol requeue 7'] * requeued


@pytest.mark.parametrize(
  'status, requeued', [(0, False), (2, False), (143, True), (137, True)]
)
def test_slurm_puts_back_the_task_of_an_entry(stage, status, requeued):
  stage.will_end_with('srun', status)
  stage.program('scontrol', 'true')
  job = {
    'SLURM_JOB_ID': '9',
    'SLURM_SUBMIT_DIR': str(ROOT),
    'SLURM_ARRAY_TASK_ID': '3',
  }
  assert stage.run('slurm_sweep.sh', HOST | job, *SWEEP) == status
  assert stage.calls('scontrol') == ['scontrol requeue 9'] * requeued
  assert ' --entry=3 ' in stage.calls('srun')[0]


def test_a_sweep_that_is_no_array_job_is_refused(stage):
  job = {'SLURM_JOB_ID': '9', 'SLURM_SUBMIT_DIR': str(ROOT)}
  assert stage.run('slurm_sweep.sh', HOST | job, *SWEEP) != 0
  assert not stage.calls('srun')


@pytest.mark.parametrize(
  'script, count', [('gpu_host.sh', 1), ('two_processes.sh', 3)]
)
def test_sigterm_reaches_all_processes_and_is_waited_for(stage, script, count):
  stage.program(
    'python',
    'trap "echo saved >> $WORKDIR/saved; exit 143" TERM\n'
    'echo >> $WORKDIR/started; for i in {1..600}; do /bin/sleep 0.05; done',
  )
  workdir = stage.folder.parent
  process = stage.start(
    script,
    HOST | {'WORKDIR': str(workdir), 'COUNT': str(count)},
    *TRAIN,
  )
  started = workdir / 'started'
  while not started.exists() or len(started.read_text()) < count:
    assert process.poll() is None
    time.sleep(0.02)
  process.terminate()
  process.communicate(timeout=60)
  assert process.returncode == 143
  assert (workdir / 'saved').read_text().splitlines() == ['saved'] * count
  assert len(stage.calls('python')) == count


def tpu_scenario(stage, states, statuses):
  """A cloud whose TPU has these states, and its program these statuses."""
  folder = stage.folder
  (folder / 'states').write_text(''.join(f'{s}\n' for s in states))
  (folder / 'ssh').write_text(''.join(f'{s}\n' for s in statuses))
  stage.program(
    'gcloud',
    'case "$4" in\n'
    f'describe) head -1 {folder}/states; sed -i 1d {folder}/states ;;\n'
    f'ssh) s=$(head -1 {folder}/ssh); sed -i 1d {folder}/ssh; exit $s ;;\n'
    'esac',
  )
  status = stage.run('tpu.sh', CLOUD, *TRAIN)
  steps = [line.split()[4] for line in stage.calls('gcloud')]
  return status, [s for s in steps if s not in ('describe', 'scp')]


def test_a_tpu_that_is_taken_away_is_made_anew(stage):
  assert tpu_scenario(stage, ['', 'PREEMPTED', 'PREEMPTED'], [255, 0]) == (
    0,
    ['delete', 'create', 'ssh', 'delete', 'create', 'ssh', 'delete'],
  )


def test_a_tpu_whose_program_failed_is_left_to_look_at(stage):
  assert tpu_scenario(stage, ['READY', 'READY'], [2]) == (2, ['ssh'])


@pytest.mark.slow
def test_two_processes_really_train(data_root, tmp_path):
  done = subprocess.run(
    ['bash', str(ROOT / 'launch/two_processes.sh'), '--config=configs/tiny.py'],
    cwd=ROOT,
    env=environment(
      {'DATA': str(data_root), 'WORKDIR': str(tmp_path), 'PORT': '29411'}
    ),
    capture_output=True,
    text=True,
    timeout=1800,  # a minute on a quiet machine
  )
  assert done.returncode == 0, done.stderr
  assert 'process 1 of 2, by JAX_COORDINATOR_ADDRESS' in done.stderr
  lines = metric_writer.read_metrics(tmp_path / 'metrics.jsonl')
  assert lines[-1]['step'] == 3
  assert (tmp_path / 'checkpoints/3').is_dir()
