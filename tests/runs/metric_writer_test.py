"""The record of a killed and resumed run is that of a run never killed."""

import math

import pytest
from tensorboardX.proto import event_pb2

from stormer_jax.runs import metric_writer


def _run(workdir, first, last, every=2):
  writer = metric_writer.MetricWriter(workdir, step=first, enabled=True)
  for step in range(first, last + 1):
    if step % every == 0 and step:
      writer.write(step, {'val/auc': 0.5 + step / 100})
    if step > first:
      writer.write(step, {'train/loss': 1 / step}, {'clips_per_second': 9.0})
  writer.close()


def _timeless(workdir):
  lines = metric_writer.read_metrics(workdir / 'metrics.jsonl')
  return [{k: v for k, v in line.items() if k != 'time'} for line in lines]


def test_a_line_holds_the_step_the_figures_and_the_clock_apart(tmp_path):
  _run(tmp_path, 0, 2)
  first, *_, last = metric_writer.read_metrics(tmp_path / 'metrics.jsonl')
  assert first['step'] == 1 and first['train/loss'] == 1.0
  assert first['time']['clips_per_second'] == 9.0
  assert last['time']['unix'] > 1e9


@pytest.mark.parametrize('saved', [1, 2, 3, 4])
def test_a_run_resumed_at_a_checkpoint_ends_with_the_same_lines(
  tmp_path, saved
):
  _run(tmp_path / 'whole', 0, 6)
  _run(tmp_path / 'killed', 0, 5)
  with (tmp_path / 'killed' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "train/lo')  # cut by the kill
  _run(tmp_path / 'killed', saved, 6)
  whole, killed = _timeless(tmp_path / 'whole'), _timeless(tmp_path / 'killed')
  assert killed == whole


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, step=0, enabled=True)
  writer.write(1, {'train/loss': 2.0})
  assert _timeless(tmp_path) == [{'step': 1, 'train/loss': 2.0}]
  writer.close()
  writer.write(2, {'train/loss': 2.0})
  assert len(_timeless(tmp_path)) == 1


def test_a_figure_that_is_not_finite_is_null_not_broken_json(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, step=0, enabled=True)
  writer.write(1, {'val/auc': math.nan})
  writer.close()
  assert _timeless(tmp_path) == [{'step': 1, 'val/auc': None}]
  assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text()


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, step=0, enabled=False)
  writer.write(1, {'train/loss': 2.0})
  writer.close()
  assert not list(tmp_path.iterdir())


def test_a_broken_line_in_the_middle_is_named(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r'metrics\.jsonl:2 is no line'):
    metric_writer.MetricWriter(tmp_path, step=2, enabled=True)
  path.write_text('{"loss": 1}\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r'metrics\.jsonl:1 is no line'):
    metric_writer.read_metrics(path)


def _events(folder):
  # A record: 8 bytes of size, 4 of checksum, the event, 4 of checksum.
  for path in sorted(folder.iterdir()):
    raw = path.read_bytes()
    while raw:
      size = int.from_bytes(raw[:8], 'little')
      yield event_pb2.Event.FromString(raw[12 : 12 + size])
      raw = raw[16 + size :]


def test_tensorboard_gets_the_same_figures(tmp_path):
  _run(tmp_path, 0, 2)
  scalars = [
    (event.step, value.tag, value.simple_value)
    for event in _events(tmp_path / 'tensorboard')
    for value in event.summary.value
  ]
  assert (1, 'train/loss', 1.0) in scalars
  assert (2, 'train/loss', 0.5) in scalars
  assert (1, 'time/clips_per_second', 9.0) in scalars
  assert any(tag == 'val/auc' for _, tag, _ in scalars)
