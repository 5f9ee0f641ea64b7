"""A sweep's file says which runs there are, and nothing wrong gets through."""

import pathlib

import pytest

from stormer_jax.experiments import entries as entries_lib

HEAD = 'from configs.tiny import get_config\ndef get_sweep():\n  return '


@pytest.fixture
def sweep_file(tmp_path):
  def write(entries: str) -> str:
    path = tmp_path / 'sweep.py'
    path.write_text(HEAD + entries)
    return str(path)

  return write


def runs_of(file):
  config, entries = entries_lib.read_sweep(file)
  return entries_lib.list_runs(config, entries, pathlib.Path('W'))


def test_every_entry_runs_with_every_seed_in_a_folder_of_its_own(sweep_file):
  runs = runs_of(
    sweep_file("[('base', {}, (0, 1)), ('sgd', {'optimizer.rho': 0}, (5,))]")
  )
  assert [str(run) for run in runs] == ['base/seed0', 'base/seed1', 'sgd/seed5']
  assert [run.config.seed for run in runs] == [0, 1, 5]
  assert [run.config.optimizer.rho for run in runs] == [0.05, 0.05, 0.0]
  assert runs[2].workdir == pathlib.Path('W/sgd/seed5')


def test_an_entry_does_not_leak_into_the_next(sweep_file):
  a, b = runs_of(
    sweep_file("[('a', {'model.depth': 1}, (0,)), ('b', {}, (0,))]")
  )
  assert (a.config.model.depth, b.config.model.depth) == (1, 2)


def test_the_argument_of_a_configuration_reaches_it(sweep_file):
  file = sweep_file("[('base', {}, (0,))]")
  (run,) = runs_of(f'{file}:official')
  assert run.config.model.temporal_token == 'first_clip'


def test_flags_are_the_fields_that_differ(tiny_config):
  other = tiny_config.copy_and_resolve_references().unlock()
  other.synthesis.margin = (15, 15)
  other.optimizer.rho = 0.0
  assert entries_lib.flags_between(tiny_config, other) == [
    '--config.optimizer.rho=0.0',
    '--config.synthesis.margin=(15, 15)',
  ]


@pytest.mark.parametrize(
  'entries, message',
  [
    ('[]', 'lists no entry'),
    ("[('a', {}, (0,)), ('a', {}, (1,))]", 'names a twice'),
    ("[('a', {})]", "lists \\('a', {}\\); an entry is"),
    ("[('a', 3, (0,))]", 'an entry is'),
    ("[('../a', {}, (0,))]", 'becomes a folder'),
    ("[('..', {}, (0,))]", 'becomes a folder'),
    ("[('a', {}, ())]", 'at least one'),
    ("[('a', {}, (0, 0))]", 'give each once'),
    (
      "[('a', {'optimizer.roh': 0.0}, (0,))]",
      'entry a sets optimizer.roh: no such field',
    ),
    ("[('a', {'rho': 0.0}, (0,))]", 'entry a sets rho: no such field'),
    ("[('a', {'seed.b': 0.0}, (0,))]", 'entry a sets seed.b: no such field'),
    (
      "[('a', {'optimizer.rho': 'off'}, (0,))]",
      "entry a sets optimizer.rho to 'off'; it is 0.05, of type float",
    ),
    (
      "[('a', {'eval.margin': 3}, (0,))]",
      'all entries are scored alike.*--config.eval.margin',
    ),
  ],
)
def test_what_is_no_entry_is_named(sweep_file, entries, message):
  with pytest.raises(ValueError, match=message):
    runs_of(sweep_file(entries))


def test_a_file_without_a_sweep_is_one_run():
  with pytest.raises(ValueError, match='one run and not a sweep'):
    entries_lib.read_sweep('configs/tiny.py')
