"""What the command line refuses before anything is started."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

from absl import flags
import pytest

from stormer_jax import main, modes

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize('mode', main.MODES)
@pytest.mark.parametrize(
  'flag',
  ['--workdir=gs://bucket/run', '--data_root=s3://bucket', '-out=hdfs://a/b'],
)
def test_addresses_of_buckets_are_refused_with_the_way_to_mount_them(
  mode, flag
):
  with pytest.raises(ValueError, match=r'mount the bucket .*docs/launch\.md'):
    main.define_flags(['main', f'--mode={mode}', flag])


def test_the_value_of_a_path_may_stand_apart():
  with pytest.raises(ValueError, match='--workdir=gs://bucket'):
    main.define_flags(['main', '--mode=train', '--workdir', 'gs://bucket'])


def test_every_mode_says_what_it_needs():
  assert set(main._NEEDS) == set(main.MODES)


@pytest.mark.parametrize(
  ('mode', 'out', 'says'),
  [
    ('predict', 'folder', 'a folder; name the file of the answer'),
    ('evaluate', 'file', 'a file; name the folder of the reports'),
    ('predict', 'file/a/b.json', 'file is a file, not a folder'),
    ('evaluate', 'file/a', 'file is a file, not a folder'),
  ],
)
def test_a_place_that_cannot_hold_results_is_refused(tmp_path, mode, out, says):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=says):
    main._check_out(mode, str(tmp_path / out))
  for fine in (None, str(tmp_path / 'new' / 'place')):
    main._check_out(mode, fine)


@pytest.mark.parametrize(
  ('environment', 'flags', 'says'),
  [
    (
      {'JAX_PLATFORMS': 'cuda'},
      [],
      "no device to compute on.*JAX_PLATFORMS is 'cuda': unset it",
    ),
    ({}, ['--config.loss.temperature=0'], 'loss.temperature is 0.0; above 0'),
    ({}, ['--config.optimizer.peak_lr=nan'], 'optimizer.peak_lr is nan'),
    ({}, ['--devices=0'], 'flag --devices=0'),
    ({}, ['--out=README.md/x'], 'is a file, not a folder'),
  ],
)
def test_a_wrong_run_is_one_line_and_leaves_nothing(
  tmp_path, environment, flags, says
):
  command = [sys.executable, '-m', 'stormer_jax.main', '--mode=train']
  command += ['--config=configs/tiny.py', f'--data_root={tmp_path}']
  command += [f'--workdir={tmp_path / "run"}', *flags]
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ') and re.search(says, line)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('mode', 'text', 'says'),
  [
    (
      'train',
      'import os\n\ndef get_config(:\n  pass\n',
      r'line 3: SyntaxError: invalid syntax \(def get_config\(:\); mend that',
    ),
    (
      'train',
      'import absent_module\n',
      'line 1: ModuleNotFoundError: No modul',
    ),
    ('train', 'x = 1\n', r'has no get_config\(\); configs/base.py shows'),
    (
      'train',
      'from configs import tiny\n\ndef get_config():\n'
      '  config = tiny.get_config()\n  config.seeed = 1\n  return config\n',
      'line 5: AttributeError: .*seeed',
    ),
    (
      'evaluate',
      'def get_config():\n  return {}["a"] + (\n    1 / 0)\n',
      'line 2: KeyError: a; mend that line',
    ),
    (
      'train',
      'def get_config():\n  return int("many")\n',
      r"line 2: ValueError: invalid literal for int\(\) with base 10: 'many'$",
    ),
    (
      'sweep',
      'from configs import tiny\nget_config = tiny.get_config\n'
      'def get_sweep():\n  return [("a", {}, seeds)]\n',
      "line 4: NameError: name 'seeds' is not defined; mend that line",
    ),
  ],
)
def test_a_mistake_in_a_config_file_is_one_line_that_names_its_line(
  tmp_path, mode, text, says
):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  command = [sys.executable, '-m', 'stormer_jax.main', f'--mode={mode}']
  command += [f'--config={file}', f'--data_root={tmp_path}']
  command += [f'--workdir={tmp_path / "run"}']
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 2, done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: {file}') and re.search(says, line), line
  assert not (tmp_path / 'run').exists()


def test_predict_is_handed_every_output_and_says_what_has_no_score(monkeypatch):
  values = flags.FlagValues()
  given = {'out': 'a.csv', 'html': 'pages', 'mp4': 'films'}
  for name, value in {**given, 'engine': 'in_process'}.items():
    flags.DEFINE_string(name, value, 'Place.', flag_values=values)
  flags.DEFINE_list('beam_pipeline_options', [], 'Of.', flag_values=values)
  values.mark_as_parsed()
  monkeypatch.setattr(modes, '_ready', lambda args: ('detector', 'look'))
  handed = []
  failures = []
  monkeypatch.setattr(
    modes.predict, 'predict', lambda *parts: handed.extend(parts) or failures
  )
  modes._predict(values, ['a.mp4', 'b.mp4'])
  assert handed[:2] == ['detector', ['a.mp4', 'b.mp4']]
  assert dataclasses.asdict(handed[2]) == given
  assert handed[3:] == ['look', None]
  failures.append('a.mp4: no_face')
  with pytest.raises(ValueError, match=r'^a\.mp4: no_face$'):
    modes._predict(values, ['a.mp4'])
  failures.append('b.mp4: too_short')
  with pytest.raises(ValueError, match='2 videos without a score; the first'):
    modes._predict(values, ['a.mp4', 'b.mp4'])
  with pytest.raises(ValueError, match='needs a video'):
    modes._predict(values, [])
  values.beam_pipeline_options = ['runner=DirectRunner']
  with pytest.raises(ValueError, match='are of --engine=beam'):
    modes._predict(values, ['a.mp4'])


def test_some_people_of_a_frame_or_everybody_can_be_asked_for():
  assert modes._max_people('2') == 2
  assert modes._max_people('all') > 100
  for wrong in ('0', '-1', 'main', '2.5'):
    with pytest.raises(ValueError, match=f'--faces={wrong}: a number from 1'):
      modes._max_people(wrong)


def test_a_name_that_the_terminal_lacks_does_not_turn_success_into_failure():
  program = (
    'from data_pipeline import command_line;'
    'command_line.open_streams();'
    'print("caf\\xe9 \\udce9.mp4: score 0.5")'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT,
    env=os.environ | {'PYTHONIOENCODING': 'ascii'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == 'caf\\xe9 \\udce9.mp4: score 0.5\n'


def run_unheard(*command: str, **env: str) -> subprocess.CompletedProcess:
  """Runs Python with a standard output that nobody reads any more."""
  read, write = os.pipe()
  os.close(read)
  try:
    return subprocess.run(
      [sys.executable, *command],
      cwd=ROOT,
      env=os.environ | env,
      stdout=write,
      stderr=subprocess.PIPE,
      text=True,
    )
  finally:
    os.close(write)


@pytest.mark.parametrize(
  'command',
  [
    ('stormer_jax.main', '--help'),
    ('stormer_jax.cli',),
    ('stormer_jax.cli', 'train', '--help'),
    ('data_pipeline.prepare', '--help'),
    ('data_pipeline.check', '--help'),
  ],
)
def test_a_reader_who_has_gone_ends_a_command_without_a_word(command):
  done = run_unheard('-m', *command, PYTHONUNBUFFERED='1')
  assert (done.stderr, done.returncode) == ('', 141)


def test_what_is_said_at_the_end_or_without_end_goes_nowhere_too():
  opened = 'from data_pipeline import command_line;command_line.open_streams();'
  last = run_unheard('-c', f'{opened}print(1)', PYTHONUNBUFFERED='')
  assert (last.stderr, last.returncode) == ('', 0)
  endless = f'{opened}[print(i) for i in iter(int, 1)]'
  done = run_unheard('-c', endless, PYTHONUNBUFFERED='')
  assert (done.stderr, done.returncode) == ('', 141)
