"""What a run refuses before it begins."""

import pytest

from stormer_jax import train


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('log_every', 0),
    ('num_epochs', 0),
    ('keep_every_epochs', -1),
    ('best_metric', 'val/auc'),
    ('nonfinite', 'ignore'),
  ],
)
def test_a_wrong_field_is_refused_before_anything_is_written(
  tiny_config, tmp_path, name, value
):
  tiny_config.train[name] = value
  workdir = tmp_path / 'run'
  with pytest.raises(ValueError, match=f'train.{name} is'):
    train.train_and_evaluate(tiny_config, workdir, tmp_path)
  assert not workdir.exists()


def test_missing_data_leave_the_workdir_free(tiny_config, tmp_path):
  workdir = tmp_path / 'run'
  with pytest.raises(ValueError, match='no prepared dataset'):
    train.train_and_evaluate(tiny_config, workdir, tmp_path)
  assert not workdir.exists()
