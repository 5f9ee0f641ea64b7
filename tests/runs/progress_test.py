"""What a run says of itself: its terms, its clock, its compilations."""

import contextlib
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormer_jax import losses
from stormer_jax.runs import metric_writer, progress


@pytest.fixture
def make_progress(tmp_path):
  """Makes the Progress of a run, and a function that reads its lines."""
  with contextlib.ExitStack() as stack:

    def make(*, budget=None, peak=None):
      writer = metric_writer.MetricWriter(tmp_path, step=0, enabled=True)
      tell = progress.Progress(
        writer,
        progress.Clock({}, tmp_path / 'config.json'),
        progress.Pace(clips=4, flops=1e6, peak_flops=peak),
        step=0,
        num_steps=10,
        steps_per_epoch=5,
        learning_rate=np.array([1.0, 2.0]),
        log_every=2,
        nonfinite_budget=budget,
      )
      stack.callback(writer.close)
      stack.callback(tell.close)
      return tell, lambda: metric_writer.read_metrics(
        tmp_path / 'metrics.jsonl'
      )

    yield make


def make_terms(skipped=0, **changed):
  terms = {name: np.float32(1) for name in (*losses.TERMS, 'gradient_norm')}
  mean = {name: np.float32(0.5) for name in losses.TERMS}
  return {
    **terms,
    **changed,
    'mean': mean,
    'skipped': np.int32(skipped),
  }


def test_a_term_that_is_not_finite_stops_the_run_by_name(make_progress):
  tell, _ = make_progress()
  tell.add(4, make_terms(spatial=np.float32(np.nan)), 0)
  with pytest.raises(FloatingPointError, match='step 4: the spatial is nan'):
    tell.flush()


def test_a_budget_lets_some_steps_be_left_out_and_no_more(make_progress):
  tell, lines = make_progress(budget=1)
  bad = {'gradient_norm': np.float32(np.inf)}
  tell.add(2, make_terms(skipped=1, **bad), 0)
  tell.flush()
  assert lines()[-1]['train/skipped_steps'] == 1
  tell.add(3, make_terms(skipped=2, **bad), 0)
  with pytest.raises(FloatingPointError, match='norm is inf; 2 such steps'):
    tell.flush()


def test_a_line_says_where_the_time_of_its_steps_went(
  make_progress, monkeypatch
):
  now = 0.0
  clock = types.SimpleNamespace(time=time.time, perf_counter=lambda: now)
  monkeypatch.setattr(progress, 'time', clock)
  tell, lines = make_progress(peak=1e9)
  for step in range(1, 5):
    with tell.spending('data'):
      now += 0.03
    now += 0.01
    tell.add(step, make_terms(), 100)
    if step == 3:
      with tell.spending('apart'):  # validation, say
        now += 30
  tell.flush()
  first, second = lines()
  timing, later = first['time'], second['time']
  assert (first['step'], second['step']) == (2, 4)
  assert first['train/total'] == 0.5 and first['train/learning_rate'] == 1.0
  assert timing['data_wait_share'] == pytest.approx(0.75)
  # What was apart is in neither speed nor share. Terms are fetched a step
  # late, so the second line begins after the third step.
  assert later['step_seconds'] == pytest.approx(0.04 / 2)
  assert later['clips_per_second'] == pytest.approx(4 / later['step_seconds'])
  assert later['mfu'] == pytest.approx(1e6 / later['step_seconds'] / 1e9)
  assert later['host_to_device_bytes_per_second'] > 0


def test_a_compilation_in_the_middle_of_a_run_is_seen(make_progress):
  tell, lines = make_progress()
  tell.add(1, make_terms(), 0)
  tell.add(2, make_terms(), 0)
  tell.flush()
  jax.jit(lambda x: jnp.sin(x) * 3 + 41)(np.ones(7))
  tell.add(3, make_terms(), 0)
  tell.add(4, make_terms(), 0)
  tell.flush()
  before, after = (line['time'] for line in lines())
  assert after['compiles'] > before['compiles']
  assert after['compile_seconds'] > before['compile_seconds']


def test_goodput_counts_the_seconds_before_a_restart_and_what_was_lost(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(time, 'time', lambda: 1000.0)
  saved = {'first_start': 0.0, 'elapsed': 500.0, 'productive': 400.0}
  clock = progress.Clock(saved, tmp_path / 'config.json')
  assert clock.elapsed() == pytest.approx(1000, abs=1)  # 500 s were lost
  assert clock.goodput() == pytest.approx(0.4, abs=0.01)


def test_a_clock_that_was_set_back_breaks_no_figure(tmp_path, monkeypatch):
  saved = {'first_start': 5000.0, 'elapsed': 500.0, 'productive': 400.0}
  monkeypatch.setattr(time, 'time', lambda: 10.0)
  clock = progress.Clock(saved, tmp_path / 'config.json')
  assert clock.elapsed() == pytest.approx(500, abs=1)
  monkeypatch.setattr(time, 'time', lambda: -1e9)
  assert clock.elapsed() >= 500
  assert 0 <= clock.goodput() <= 1
