"""What a detector is read from, and what is said when it is not there."""

import pytest

from stormer_jax import detector


@pytest.fixture
def workdir(tiny_config, tmp_path):
  """A run that has not saved anything yet."""
  (tmp_path / 'config.json').write_text(tiny_config.to_json_best_effort())
  return tmp_path


def test_a_configuration_comes_back_as_it_was(workdir, tiny_config):
  config = detector.load_config(workdir)
  assert config.to_dict() == tiny_config.to_dict()
  assert config.is_locked


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('{"model": ', 'damaged'),
    ('[1]', 'not the configuration of a run'),
    ('{"seed": 1}', 'not the configuration of a run'),
  ],
)
def test_a_configuration_that_is_none_is_named(workdir, text, says):
  (workdir / 'config.json').write_text(text)
  with pytest.raises(ValueError, match=rf'config\.json: {says}'):
    detector.load_config(workdir)


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='no run here; train one first'):
    detector.load_detector(tmp_path)


def test_a_run_without_a_checkpoint_says_so(workdir):
  with pytest.raises(FileNotFoundError, match='no checkpoint best; there are'):
    detector.load_detector(workdir)
  (workdir / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match='no checkpoint 3; there are'):
    detector.load_detector(workdir, 3)
  with pytest.raises(ValueError, match="'best', 'last' or a step"):
    detector.load_detector(workdir, 'newest')
