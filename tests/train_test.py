"""What a run refuses before it begins."""

import dataclasses

import pytest

from data_pipeline import record_writer
from stormer_jax import train
from tests.conftest import make_video


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


def test_faces_of_two_backends_are_no_training_data(tiny_config, tmp_path):
  by = {
    split: dataclasses.replace(
      make_video(split, 8), provenance=f'{{"backend": "{name}"}}'
    )
    for split, name in (
      ('train', 'whole image, landmarks by dlib-1'),
      ('val', 'centerface+dlib-1'),
    )
  }
  record_writer.write_records(
    tmp_path, 'demo', 'consecutive', {split: [by[split]] for split in by}
  )
  with pytest.raises(
    ValueError, match=r'centerface\+dlib-1 and by dlib-1, whi'
  ):
    train.train_and_evaluate(tiny_config, tmp_path / 'run', tmp_path)
  assert not (tmp_path / 'run').exists()
