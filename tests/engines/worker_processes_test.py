"""Worker processes do every task, and outlive one that kills them."""

import sys
import tracemalloc

import pytest

from data_pipeline.engines import engine, in_process, processes
from tests.engines import small_work


@pytest.mark.parametrize(
  'of_engine', [in_process.InProcess(), processes.Processes(2)]
)
def test_every_task_is_done_and_ticks_once(tmp_path, of_engine):
  work, ticks = small_work.SmallWork(tmp_path), []
  tasks = [f'task{i}' for i in range(7)]
  of_engine.run(work, tasks, lambda: ticks.append(1))
  assert work.done() == set(tasks) and len(ticks) == 7
  assert len(set(work.starts())) == len(work.starts()) <= 2
  of_engine.run(work, [])
  assert work.done() == set(tasks)


def test_a_task_that_kills_its_process_is_left_after_two_tries(tmp_path):
  work, ticks = small_work.SmallWork(tmp_path), []
  tasks = ['die', 'a', 'die once', 'b']
  processes.Processes(2).run(work, tasks, lambda: ticks.append(1))
  assert work.done() == {'a', 'b', 'die once'} and len(ticks) == 4
  assert (tmp_path / 'met-die').read_text() == 'xx'


@pytest.mark.parametrize(
  ('task', 'error', 'says'),
  [
    ('full', OSError, 'No space left'),
    ('fault', RuntimeError, 'ended with status 1'),
  ],
)
def test_what_ends_all_work_is_raised_where_it_was_asked_for(
  tmp_path, task, error, says, capfd
):
  work = small_work.SmallWork(tmp_path)
  with pytest.raises(error, match=says):
    processes.Processes(1).run(work, ['a', task, 'b'])
  assert work.done() == {'a'}
  assert ('a fault of the program' in capfd.readouterr().err) == (
    task == 'fault'
  )


def test_of_many_tasks_none_is_held_before_or_after_its_turn():
  tasks = range(6000)  # which makes a number when it is asked for
  tracemalloc.start()
  try:
    processes.Processes(2).run(small_work.Idle(), tasks)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak / len(tasks) < 50  # bytes; a list of them takes 40 each


def test_workers_that_never_come_up_are_an_error_and_no_endless_loop():
  with pytest.raises(ChildProcessError, match='signal 9 as it started'):
    processes.Processes(2).run(small_work.NeverUp(), ['a', 'b'])
  with pytest.raises(ValueError, match='no model of faces'):
    processes.Processes(2).run(small_work.Unready(), ['a', 'b'])


def test_engines_have_names_and_say_what_they_need(monkeypatch):
  assert engine.make('processes', 3) == processes.Processes(3)
  assert engine.make('in_process', 3) == in_process.InProcess()
  with pytest.raises(ValueError, match="no engine 'spark'"):
    engine.make('spark', 1)
  with pytest.raises(ValueError, match='are of --engine=beam'):
    engine.make('processes', 1, ['runner=DirectRunner'])
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  monkeypatch.delitem(sys.modules, 'data_pipeline.engines.beam', raising=False)
  with pytest.raises(ValueError, match=r'stormer-jax\[beam\]'):
    engine.make('beam', 1)
