"""What guards a run: its workdir, its numbers, its summary."""

import json

import numpy as np
import pytest

from stormer_jax import losses, train


def test_a_workdir_belongs_to_one_configuration(tiny_config, tmp_path):
  train.claim_workdir(tiny_config, tmp_path)
  train.claim_workdir(tiny_config, tmp_path)  # the same again: resume
  tiny_config.model.width = 32
  tiny_config.loss.temperature = 1.0
  with pytest.raises(ValueError) as error:
    train.claim_workdir(tiny_config, tmp_path)
  assert 'loss.temperature: 2.0 there, 1.0 here' in str(error.value)
  assert 'model.width: 24 there, 32 here' in str(error.value)


def test_how_a_run_is_carried_out_may_change(tiny_config, tmp_path):
  train.claim_workdir(tiny_config, tmp_path)
  tiny_config.train.mesh_fsdp = 2
  tiny_config.data.num_threads = 1
  tiny_config.model.remat = 'full'
  tiny_config.eval.margin = 0
  train.claim_workdir(tiny_config, tmp_path)


def test_the_resolved_configuration_lies_in_the_workdir(tiny_config, tmp_path):
  tiny_config.optimizer.rho = 0.07
  train.claim_workdir(tiny_config, tmp_path)
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['optimizer']['rho'] == 0.07


def columns(logits, label, video):
  n = len(logits)
  return {
    'logits': np.asarray(logits, np.float32),
    'label': np.asarray(label, np.float32),
    'video': np.asarray(video, np.int32),
    **{term: np.full(n, 2.0, np.float32) for term in losses.TERMS},
  }


def test_validation_ranks_videos_by_their_mean_logit():
  # Single clips overlap; the means of videos do not.
  figures = train.summarize_validation(
    columns(
      logits=[-3, 1, 0, 3, -3, 1, 0, 3],
      label=[0, 0, 1, 1, 0, 0, 1, 1],
      video=[0, 0, 0, 0, 1, 1, 1, 1],
    )
  )
  assert figures['val/video_auc'] == 1.0
  assert figures['val/clip_auc'] == 0.75
  assert figures['val/total'] == 2.0
  assert figures['val/clips'] == 8


def test_a_term_that_is_not_finite_stops_the_run_by_name(tiny_config):
  progress = train._Progress(
    tiny_config, _NoWriter(), num_steps=10, steps_per_epoch=2, step=0
  )
  terms = {name: np.float32(1) for name in losses.TERMS}
  terms['spatial'] = np.float32(np.nan)
  progress.add(4, {**terms, 'mean': {}})
  with pytest.raises(FloatingPointError, match='step 4: the spatial is nan'):
    progress.flush()


class _NoWriter:
  def write(self, *args):
    pass


@pytest.mark.parametrize(
  ('name', 'value'),
  [('log_every', 0), ('num_epochs', 0), ('best_metric', 'val/auc')],
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
