"""Weights & Biases gets the figures, offline too, and one run a workdir."""

import json
import sys

import pytest

from stormer_jax.runs import metric_writer, wandb_writer


def history(folder):
  """Steps and figures of the one offline run in a workdir."""
  internal = pytest.importorskip('wandb.proto.wandb_internal_pb2')
  (path,) = (folder / 'wandb').glob('offline-run-*/*.wandb')
  raw = path.read_bytes()[7:]  # a mark of the format
  result = []
  while raw:  # 4 bytes of checksum, 2 of size, 1 of kind, the record
    size = int.from_bytes(raw[4:6], 'little')
    record = internal.Record.FromString(raw[7 : 7 + size])
    raw = raw[7 + size :]
    if record.WhichOneof('record_type') == 'history':
      result.append(
        {
          '/'.join(item.nested_key) or item.key: json.loads(item.value_json)
          for item in record.history.item
        }
      )
  return result


@pytest.mark.extra
def test_it_gets_the_figures_of_every_step_offline(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  wandb = wandb_writer.WandbWriter(tmp_path, 'project', {'seed': 3})
  writer = metric_writer.MetricWriter(
    tmp_path, step=0, enabled=True, wandb=wandb
  )
  writer.write(1, {'train/loss': 2.0}, {'clips_per_second': 9.0})
  writer.write(2, {'train/loss': 1.0})
  writer.write(2, {'val/auc': 0.75})
  writer.close()
  first, second = history(tmp_path)
  assert (first['_step'], first['train/loss']) == (1, 2.0)
  assert first['time/clips_per_second'] == 9.0
  assert (second['_step'], second['train/loss']) == (2, 1.0)
  assert second['val/auc'] == 0.75
  assert len(metric_writer.read_metrics(tmp_path / 'metrics.jsonl')) == 3


@pytest.mark.extra
def test_a_run_goes_on_under_the_id_that_its_workdir_remembers(
  tmp_path, monkeypatch
):
  wandb = pytest.importorskip('wandb')
  begun = []
  monkeypatch.setattr(wandb, 'init', lambda **given: begun.append(given))
  wandb_writer.WandbWriter(tmp_path / '.', 'entity/project', {})
  wandb_writer.WandbWriter(tmp_path, 'entity/project', {})
  assert begun[0]['id'] == begun[1]['id'] and begun[0]['id']
  assert begun[0]['entity'] == 'entity' and begun[0]['project'] == 'project'
  assert begun[0]['resume'] == 'allow'


@pytest.mark.extra
def test_what_the_server_refuses_is_one_line_with_the_fix(
  tmp_path, monkeypatch
):
  wandb = pytest.importorskip('wandb')

  def refuse(**given):
    raise wandb.errors.UsageError('no API key')

  monkeypatch.setattr(wandb, 'init', refuse)
  with pytest.raises(ValueError, match=r'no API key.*WANDB_MODE=offline'):
    wandb_writer.WandbWriter(tmp_path, 'project', {})


def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match=r"pip install 'stormer-jax\[wandb\]'"):
    wandb_writer.WandbWriter(tmp_path, 'project', {})
  assert not list(tmp_path.iterdir())
