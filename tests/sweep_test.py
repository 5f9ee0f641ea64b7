"""A sweep: what runs, what does not run again, and what a failure does."""

import io
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import rich.console

from configs import tiny
from stormer_jax import comparison, sweep

ROOT = pathlib.Path(__file__).parent.parent
# Stands in for stormer_jax.main: notes its call, leaves what a run leaves.
# An entry `bad` fails; one named `slow` trains until `go` lies in the folder.
STAND_IN = """
import json, pathlib, sys, time
flags = dict(f[2:].split('=', 1) for f in sys.argv[1:])
workdir = pathlib.Path(flags['workdir'])
folder = workdir.parent.parent
with open(folder / 'calls.log', 'a') as calls:
  calls.write(json.dumps(sys.argv[1:]) + '\\n')
if flags['mode'] == 'train':
  workdir.mkdir(exist_ok=True)
  config = json.loads((folder.parent / 'config.json').read_text())
  for name, value in flags.items():
    if name.startswith('config.') and name.count('.') == 2:
      _, section, field = name.split('.')
      config[section][field] = type(config[section][field])(value)
  (workdir / 'config.json').write_text(json.dumps(config))
  while workdir.parent.name == 'slow' and not (folder / 'go').exists():
    time.sleep(0.02)
  if workdir.parent.name == 'bad' and not (folder / 'mended').exists():
    sys.exit('error: too bad')
  line = json.dumps({'step': 9, 'val/video_auc': 0.75, 'time': {}})
  (workdir / 'metrics.jsonl').write_text(line + '\\n')
  (workdir / 'finished.json').write_text('{}')
"""
SWEEP = """
from configs import tiny
def get_config(semantics='paper'):
  config = tiny.get_config(semantics).unlock()
  config.eval.pseudo_fakes = True
  return config.lock()
def get_sweep():
  return [
    ('base', {}, (0, 1)),
    ('bad', {'optimizer.rho': 0.0}, (0,)),
    ('jitter', {'synthesis.temporal_jitter': 1.0}, (0,)),
  ]
"""


class Bench:
  """A sweep's file, folder and stand-in program."""

  def __init__(self, folder: pathlib.Path):
    self.workdir = folder / 'W'
    self.workdir.mkdir()
    self.file = folder / 'sweep.py'
    self.file.write_text(SWEEP)
    (folder / 'stand_in.py').write_text(STAND_IN)
    self.program = (sys.executable, str(folder / 'stand_in.py'))
    config = tiny.get_config().unlock()
    config.eval.pseudo_fakes = True
    (folder / 'config.json').write_text(config.to_json_best_effort())

  def mend(self):
    (self.workdir / 'mended').touch()

  def run(self, *, config=None, entry=None):
    start, _ = sweep.entries_lib.read_sweep(str(self.file))
    return sweep.sweep(
      config or start,
      str(self.file),
      self.workdir,
      pathlib.Path('DATA'),
      entry=entry,
      program=self.program,
    )

  def calls(self):
    """What was run since the last look: (mode, run, flags) each."""
    path = self.workdir / 'calls.log'
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    found = []
    for flags in map(json.loads, lines):
      named = dict(flag[2:].split('=', 1) for flag in flags)
      folder = pathlib.Path(named['workdir']).relative_to(self.workdir)
      found.append((named['mode'], str(folder), flags))
    return found


@pytest.fixture
def bench(tmp_path):
  return Bench(tmp_path)


def names(calls):
  return [(mode, folder) for mode, folder, _ in calls]


def test_every_run_is_trained_and_scored_once(bench):
  bench.mend()
  ended = bench.run()
  assert [one.state for one in ended] == ['done'] * 4
  assert [one.figure for one in ended] == [0.75] * 4
  runs = ['base/seed0', 'base/seed1', 'bad/seed0', 'jitter/seed0']
  assert names(bench.calls()) == [
    (mode, run) for run in runs for mode in ('train', 'evaluate')
  ]
  assert [one.state for one in bench.run()] == ['done'] * 4
  assert not bench.calls()


def test_a_failed_run_is_named_ends_no_other_and_is_tried_again(bench):
  with pytest.raises(
    ValueError, match=r'1 of 4 runs failed.*bad/seed0: too bad'
  ):
    bench.run()
  done = names(bench.calls())
  assert ('evaluate', 'jitter/seed0') in done
  assert ('evaluate', 'bad/seed0') not in done
  bench.mend()
  bench.run()
  assert names(bench.calls()) == [
    ('train', 'bad/seed0'),
    ('evaluate', 'bad/seed0'),
  ]


def test_the_command_of_a_run_says_what_differs_from_the_file(bench):
  bench.mend()
  config, _ = sweep.entries_lib.read_sweep(str(bench.file))
  config.unlock().data.batch_size = 6  # as by a flag of the command line
  bench.run(config=config, entry=2)
  train = bench.calls()[0][2]
  assert [flag for flag in train if flag.startswith('--config')] == [
    f'--config={bench.file}',
    '--config.data.batch_size=6',
    '--config.seed=0',
    '--config.synthesis.temporal_jitter=1.0',
  ]


def test_an_entry_that_learns_other_fakes_is_scored_on_those_of_all(bench):
  bench.run(entry=2)
  _, (mode, folder, flags) = bench.calls()
  assert (mode, folder) == ('evaluate', 'jitter/seed0')
  assert '--config.synthesis.temporal_jitter=0.0' in flags


def test_a_change_of_the_scoring_scores_again_and_trains_nothing(bench):
  bench.mend()
  bench.run()
  bench.calls()
  config, _ = sweep.entries_lib.read_sweep(str(bench.file))
  config.unlock().eval.flip = True
  bench.run(config=config)
  calls = bench.calls()
  assert [mode for mode, *_ in calls] == ['evaluate'] * 4
  assert all('--config.eval.flip=True' in flags for *_, flags in calls)
  config.eval.datasets = ()
  bench.run(config=config)
  assert not bench.calls()


def test_a_run_older_than_a_field_is_scored_without_it(bench):
  bench.run(entry=2)
  path = bench.workdir / 'jitter/seed0/config.json'
  saved = json.loads(path.read_text())
  del saved['synthesis']['soft_label'], saved['eval']['flip']
  path.write_text(json.dumps(saved))
  bench.calls()
  config, _ = sweep.entries_lib.read_sweep(str(bench.file))
  config.unlock().eval.num_bootstrap = 7
  bench.run(config=config, entry=2)
  ((mode, _, flags),) = bench.calls()
  assert mode == 'evaluate' and '--config.eval.num_bootstrap=7' in flags
  assert not any('soft_label' in flag or 'flip' in flag for flag in flags)


def test_an_entry_is_chosen_by_its_number(bench):
  bench.run(entry=0)
  assert {folder for _, folder in names(bench.calls())} == {
    'base/seed0',
    'base/seed1',
  }
  with pytest.raises(ValueError, match=r'--entry is 3; .* entries 0 to 2'):
    bench.run(entry=3)


def test_the_list_names_entries_by_number(bench, tiny_config):
  lines = sweep.listing(tiny_config, str(bench.file), bench.workdir).split('\n')
  assert [line.split()[:2] for line in lines] == [
    ['0', 'base'],
    ['1', 'bad'],
    ['2', 'jitter'],
  ]
  assert lines[2].endswith('--config.synthesis.temporal_jitter=1.0')


def test_the_live_table_says_how_far_each_run_is(bench):
  with pytest.raises(ValueError):
    bench.run()  # with one that fails
  bench.mend()
  ended = bench.run()
  ended[2].state, ended[2].error = 'failed', 'too bad'
  console = rich.console.Console(width=100, record=True, file=io.StringIO())
  console.print(sweep._table(ended))
  lines = console.export_text().splitlines()
  (base,) = (line for line in lines if 'base/seed0' in line)
  (bad,) = (line for line in lines if 'bad/seed0' in line)
  assert 'done' in base and ' 9 ' in base and 'video_auc 0.750' in base
  assert 'failed' in bad and 'too bad' in bad


def start(bench):
  """The same in a process of its own, that can be killed."""
  program = (
    'import pathlib\n'
    'from stormer_jax import sweep\n'
    f'file = {str(bench.file)!r}\n'
    'config, _ = sweep.entries_lib.read_sweep(file)\n'
    f'sweep.sweep(config, file, pathlib.Path({str(bench.workdir)!r}),'
    f' pathlib.Path("DATA"), program={bench.program!r})\n'
  )
  return subprocess.Popen(
    [sys.executable, '-c', program], cwd=ROOT, stderr=subprocess.PIPE, text=True
  )


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(bench, how):
  bench.file.write_text(SWEEP.replace("'bad'", "'slow'"))
  process = start(bench)
  while not (bench.workdir / 'slow/seed0/config.json').exists():
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)
  process.send_signal(how)
  process.communicate(timeout=600)
  assert process.returncode != 0
  (bench.workdir / 'go').touch()
  bench.calls()
  bench.run()
  assert names(bench.calls()) == [
    ('train', 'slow/seed0'),
    ('evaluate', 'slow/seed0'),
    ('train', 'jitter/seed0'),
    ('evaluate', 'jitter/seed0'),
  ]


REAL_SWEEP = """
from configs import tiny
def get_config(semantics='paper'):
  config = tiny.get_config(semantics).unlock()
  config.data.batch_size = 4
  config.train.num_epochs = 2
  config.eval.pseudo_fakes = True
  return config.lock()
def get_sweep():
  return [
    ('base', {}, (0,)),
    ('no_map_head', {'loss.spatial_weight': 0.0}, (0,)),
    ('per_frame', {'synthesis.temporal_jitter': 1.0}, (0,)),
  ]
"""


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_in_the_table_of_a_clean_one(
  data_root, tmp_path
):
  file = tmp_path / 'sweep.py'
  file.write_text(REAL_SWEEP)

  def start_sweep(workdir):
    return subprocess.Popen(
      [
        *(sys.executable, '-m', 'stormer_jax.main', '--mode=sweep'),
        *(f'--config={file}', f'--data_root={data_root}'),
        *(f'--workdir={workdir}', f'--compilation_cache={tmp_path}/compiled'),
      ],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )

  def finish_sweep(workdir):
    process = start_sweep(workdir)
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err

  def kill_when(workdir, path):
    process = start_sweep(workdir)
    while not (workdir / path).exists():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    process.kill()
    process.communicate()

  clean, killed = tmp_path / 'clean', tmp_path / 'killed'
  finish_sweep(clean)
  kill_when(killed, 'base/seed0/checkpoints/3')  # in the middle of training
  kill_when(killed, 'no_map_head/seed0/finished.json')  # before it is scored
  finish_sweep(killed)
  once = comparison.report([f'{clean}/*'], out=tmp_path / 'a')
  printed = (clean / 'comparison/comparison.md').read_text()
  assert printed.startswith(once)
  assert comparison.report([f'{killed}/*'], out=tmp_path / 'b') == once
  for name in ('comparison.csv', 'curves.svg'):
    ours, theirs = ((tmp_path / x / name).read_text() for x in 'ab')
    assert ours == theirs
  assert 'per_frame' in once and 'demo-val-pseudo_fakes: AUC' in once
