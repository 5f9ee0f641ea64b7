"""predict and app keep programs in the user's cache, other modes nowhere."""

import pathlib
import types

import pytest

from stormer_jax import program_cache

NAME = 'jax_compilation_cache_dir'


@pytest.fixture
def chosen(monkeypatch, tmp_path):
  """Chooses, and says what JAX would have been told."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))

  def choose(*arguments, before=None):
    told = {}
    config = types.SimpleNamespace(
      values={NAME: before}, update=lambda name, x: told.update({name: x})
    )
    monkeypatch.setattr(
      program_cache, 'jax', types.SimpleNamespace(config=config)
    )
    program_cache.choose(*arguments)
    return told.get(NAME, 'nothing')

  return choose


@pytest.mark.parametrize('mode', ['predict', 'app'])
def test_it_is_the_users_cache_that_others_cannot_write_to(
  chosen, mode, tmp_path
):
  folder = pathlib.Path(chosen(None, mode))
  assert folder.parent == tmp_path / 'stormer-jax' and folder.is_dir()
  assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize('mode', ['train', 'evaluate', 'export', 'plan'])
def test_what_has_a_folder_of_its_own_keeps_nothing_elsewhere(
  chosen, mode, tmp_path
):
  assert chosen(None, mode) == 'nothing' and not list(tmp_path.iterdir())


def test_a_named_folder_is_taken_by_every_mode_and_none_by_an_empty_name(
  chosen, tmp_path
):
  assert chosen('here', 'train') == chosen('here', 'app') == 'here'
  assert chosen('', 'predict') is None
  assert not list(tmp_path.iterdir())


def test_the_folder_that_the_environment_names_stays(chosen, tmp_path):
  assert chosen(None, 'predict', before='there') == 'nothing'
  assert not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_to_is_no_error(chosen, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null/cache')
  assert chosen(None, 'predict') == 'nothing'


def test_a_user_without_a_home_is_no_error(chosen, monkeypatch):
  def no_home():
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setattr(program_cache.pathlib.Path, 'home', no_home)
  assert chosen(None, 'predict') == 'nothing'


def test_another_processor_has_another_folder(monkeypatch):
  here = program_cache.users_folder({'XDG_CACHE_HOME': '/c'})
  assert here == program_cache.users_folder({'XDG_CACHE_HOME': '/c'})
  monkeypatch.setattr(program_cache, '_processor', lambda: 'another')
  assert here != program_cache.users_folder({'XDG_CACHE_HOME': '/c'})
  home = program_cache.users_folder({})
  assert home.is_relative_to(pathlib.Path.home() / '.cache')
