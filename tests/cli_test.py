"""The console command hands over, explains itself and knows configurations."""

import pathlib
import sys

from absl import flags
import pytest

from stormer_jax import cli, config_files
from stormer_jax import main as program

CONFIGS = pathlib.Path(program.__file__).parent.parent / 'configs'


def run(monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['stormer-jax', *arguments])
  return cli.main()


def test_a_name_becomes_the_file_that_ships_with_the_package():
  path = CONFIGS / 'ffpp_c23.py'
  assert config_files.with_paths(['--config=ffpp_c23', '--x']) == [
    f'--config={path}',
    '--x',
  ]
  assert config_files.with_paths(['--config', 'base:official'])[1] == (
    f'{CONFIGS / "base.py"}:official'
  )
  assert config_files.names()[0] == 'ablations' and 'tiny' in (
    config_files.names()
  )


@pytest.mark.parametrize(
  'argument',
  [
    '--config=configs/ffpp_c23.py',
    '--config=none',
    '--config.model.depth=2',
    '--workdir=tiny',
  ],
)
def test_everything_else_stays_as_it_is(argument):
  assert config_files.with_paths([argument]) == [argument]


def test_a_file_of_ones_own_goes_before_a_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('tiny').touch()
  assert config_files.with_paths(['--config=tiny']) == ['--config=tiny']


def test_a_mode_is_handed_over_with_its_flags(monkeypatch):
  handed = []
  monkeypatch.setattr(program, 'run', lambda: handed.extend(sys.argv))
  assert run(monkeypatch, 'train', '--config=tiny', '--workdir=W') == 0
  assert handed[1:] == ['--mode=train', '--config=tiny', '--workdir=W']


def test_a_command_of_the_data_is_handed_over_with_its_status(
  monkeypatch, capsys
):
  with pytest.raises(SystemExit) as ended:
    run(monkeypatch, 'prepare', '--help')
  assert ended.value.code == 0
  assert 'usage:' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [(), ('--help',), ('help',)])
def test_without_a_command_all_are_listed(arguments, monkeypatch, capsys):
  assert run(monkeypatch, *arguments) == 0
  said = capsys.readouterr().out
  assert all(f'  {name} ' in said for name in cli.COMMANDS)
  assert max(map(len, said.splitlines()[:-1])) <= 80


def test_an_unknown_command_is_one_line_with_those_that_are(
  monkeypatch, capsys
):
  assert run(monkeypatch, 'predikt') == 2
  assert "no command 'predikt'; there are predict" in capsys.readouterr().err


def test_every_mode_has_a_command_and_every_flag_an_explanation(monkeypatch):
  values = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', values)
  for kind in (
    *('string', 'enum', 'integer', 'float', 'bool', 'list', 'multi_string'),
  ):
    define = getattr(flags, f'DEFINE_{kind}')

    def into(*given, _define=define, **options):
      return _define(*given, flag_values=values, **options)

    monkeypatch.setattr(flags, f'DEFINE_{kind}', into)
  monkeypatch.setattr(
    program.config_flags,
    'DEFINE_config_file',
    lambda *given: flags.DEFINE_string('config', None, 'File.'),
  )
  program.define_flags(['stormer-jax', '--mode=train'])
  of_main = {name for name, x in cli.COMMANDS.items() if x.flags}
  assert of_main == set(program.MODES)
  explained = {flag for x in cli.COMMANDS.values() for flag in x.flags}
  assert explained | {'mode', 'debug'} == set(values)
  for name in of_main:
    said = cli.describe(name)
    assert f'usage: stormer-jax {name} ' in said
    assert {f'--{flag}' for flag in cli.COMMANDS[name].flags} < set(
      said.split()
    )


def test_a_flag_says_what_holds_without_it(monkeypatch, capsys):
  assert run(monkeypatch, 'predict', '--help') == 0
  said = capsys.readouterr().out
  assert 'where frames are dense; 0.5 if ' in ' '.join(said.split())
  assert '  --beam_pipeline_options\n                       Of ' in said
  assert max(map(len, said.splitlines())) <= 80
