"""Many runs by one command: those of a sweep, one after another.

Enters: a configuration file with `get_sweep()`. Leaves: `<workdir>/<entry>/
seed<k>`, each an ordinary run that `--mode=train` could go on with, trained and
scored. A run is a process of its own, so one that fails or is killed does not
end the others. The same command continues a sweep that was stopped in any way;
what is finished does not run again.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import sys
import time

from absl import logging
from ml_collections import config_dict
import rich.console
import rich.live
import rich.table

from stormer_jax import config_files, detector
from stormer_jax.experiments import child as child_lib
from stormer_jax.experiments import entries as entries_lib
from stormer_jax.runs import metric_writer
from stormer_jax.runs import workdir as workdir_lib

_PROGRAM = (sys.executable, '-m', 'stormer_jax.main')
_LOOK_SECONDS = 1.0


@dataclasses.dataclass
class Progress:
  """What is known of one run of the sweep."""

  run: entries_lib.Run
  state: str = 'waiting'  # 'training', 'scoring', 'done' or 'failed' later
  step: int = 0
  figure: float | None = None  # last validation, by train.best_metric
  seconds: float = 0.0  # spent on it by this command
  error: str = ''


def sweep(
  config: config_dict.ConfigDict,
  file: str,
  workdir: pathlib.Path,
  data_root: pathlib.Path,
  *,
  entry: int | None = None,
  extra_flags: Sequence[str] = (),
  program: Sequence[str] = _PROGRAM,
) -> list[Progress]:
  """Carries out a sweep, or one entry of it.

  Training is followed by `--mode=evaluate` with the `eval` section of `config`,
  and with its `synthesis` where it scores pseudo-fakes: an entry that learns
  from other fakes is measured on the same ones as all. Nothing is scored if
  `eval.datasets` is empty.

  Args:
    config: What the entries share, flags of the command line applied.
    file: The configuration file, as given to `--config`.
    workdir: Folder of the sweep.
    data_root: Folder that `data_pipeline.prepare` wrote.
    entry: Index into `get_sweep()`; None for all entries.
    extra_flags: Of the program, for every run.
    program: What carries out a run; replaced in tests.

  Returns:
    How each run ended.

  Raises:
    ValueError: If the file is no sweep, or runs failed; names them. The others
      are finished then.
    SystemExit: If asked to stop; the run under way has saved itself.
  """
  with config_files.naming(file):
    start, entries = entries_lib.read_sweep(file)
  if entry is not None:
    if not 0 <= entry < len(entries):
      raise ValueError(
        f'--entry is {entry}; {file} has the entries 0 to {len(entries) - 1},'
        ' which --list names'
      )
    entries = entries[entry : entry + 1]
  runs = entries_lib.list_runs(config, entries, workdir)
  common = [f'--data_root={data_root}', '--distributed=off', *extra_flags]
  progress = [Progress(run) for run in runs]
  with _stopping_on_sigterm(), _shown(progress) as show:
    for one in progress:
      began = time.monotonic()
      for state, command in _left(one.run, start, config, file):
        one.state = state
        show(one)
        log = one.run.workdir.with_suffix('.log')
        with child_lib.Child(
          [*program, *command, *common], log, os.getpid()
        ) as child:
          while child.status is None:
            child.wait(_LOOK_SECONDS)
            one.seconds = time.monotonic() - began
            _look(one)
            show(None)
        if child.status:
          one.state, one.error = 'failed', child.failure()
          break
        if state == 'scoring':
          _note_scored(one.run, config)
      else:
        one.state = 'done'
      _look(one)
      show(one)
  failed = [one for one in progress if one.error]
  if failed:
    runs_of = {
      error: [str(one.run) for one in failed if one.error == error]
      for error in dict.fromkeys(one.error for one in failed)
    }
    raise ValueError(
      f'{len(failed)} of {len(runs)} runs failed, the others are finished;'
      f' the same command tries them again. Logs: {workdir}/RUN.log. '
      + '. '.join(
        f'{", ".join(names)}: {error}' for error, names in runs_of.items()
      )
    )
  return progress


def listing(
  config: config_dict.ConfigDict, file: str, workdir: pathlib.Path
) -> str:
  """Returns one line an entry: its index, name, seeds and overrides."""
  with config_files.naming(file):
    _, entries = entries_lib.read_sweep(file)
  entries_lib.list_runs(config, entries, workdir)  # refuses what cannot run
  width = max(len(entry.name) for entry in entries)
  lines = []
  for index, entry in enumerate(entries):
    overrides = [f'--config.{k}={v}' for k, v in entry.overrides.items()]
    seeds = ','.join(map(str, entry.seeds))
    lines.append(
      f'{index:>3}  {entry.name:<{width}}  seeds {seeds}  '
      + shlex.join(overrides)
    )
  return '\n'.join(line.rstrip() for line in lines)


def _left(
  run: entries_lib.Run,
  start: config_dict.ConfigDict,
  config: config_dict.ConfigDict,
  file: str,
) -> Iterator[tuple[str, list[str]]]:
  """Yields what is still to be done for a run, and the command for it."""
  if not workdir_lib.is_finished(run.workdir):
    yield (
      'training',
      [
        '--mode=train',
        f'--config={file}',
        *entries_lib.flags_between(start, run.config),
        f'--workdir={run.workdir}',
      ],
    )
  if config.eval.datasets and not _is_scored(run, config):
    saved = detector.load_config(run.workdir)
    wanted = saved.copy_and_resolve_references().unlock()
    for section, fields in _yardstick(config).items():
      # A run of an earlier version does not have the fields made since.
      known = {k: v for k, v in fields.items() if k in wanted[section]}
      wanted[section].update(known)
    yield (
      'scoring',
      [
        '--mode=evaluate',
        f'--workdir={run.workdir}',
        *entries_lib.flags_between(saved, wanted),
      ],
    )


def _yardstick(config: config_dict.ConfigDict) -> dict:
  """What the scores of all entries are made with."""
  sections = ['eval'] + ['synthesis'] * config.eval.pseudo_fakes
  return {name: config[name].to_dict() for name in sections}


def _scored_note(run: entries_lib.Run) -> pathlib.Path:
  return run.workdir / 'scored.json'


def _is_scored(run: entries_lib.Run, config: config_dict.ConfigDict) -> bool:
  path = _scored_note(run)
  ours = json.loads(json.dumps(_yardstick(config)))
  return path.exists() and json.loads(path.read_text()) == ours


def _note_scored(run: entries_lib.Run, config: config_dict.ConfigDict) -> None:
  path = _scored_note(run)
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(_yardstick(config), indent=2) + '\n')
  partial.replace(path)


def _look(one: Progress) -> None:
  """Reads how far a run is."""
  lines = metric_writer.read_metrics(one.run.workdir / 'metrics.jsonl')
  if lines:
    one.step = lines[-1]['step']
  name = one.run.config.train.best_metric
  figures = [line[name] for line in lines if line.get(name) is not None]
  if figures:
    one.figure = figures[-1]


@contextlib.contextmanager
def _stopping_on_sigterm():
  """Makes SIGTERM leave all contexts, so that the run under way is stopped."""

  def stop(signum, frame):
    del signum, frame
    raise SystemExit('stopped; the same command continues the sweep')

  previous = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _shown(progress: list[Progress]):
  """Yields `show(one)`: a live table on a terminal, else a line a change."""
  console = rich.console.Console(stderr=True)
  if console.is_terminal:
    with rich.live.Live(
      console=console, get_renderable=lambda: _table(progress)
    ) as live:
      yield lambda one: live.refresh()
  else:

    def say(one):
      if one is not None:
        logging.info('%s', _line(one))

    yield say


def _line(one: Progress) -> str:
  parts = [one.state, f'step {one.step}', _figure(one), one.error]
  return f'{one.run}: ' + ', '.join(part for part in parts if part)


def _figure(one: Progress) -> str:
  if one.figure is None:
    return ''
  name = one.run.config.train.best_metric.removeprefix('val/')
  return f'{name} {one.figure:.3f}'


def _table(progress: Iterable[Progress]) -> rich.table.Table:
  table = rich.table.Table('run', 'state', 'step', 'last', 'time', 'error')
  for one in progress:
    minutes, seconds = divmod(round(one.seconds), 60)
    table.add_row(
      str(one.run),
      one.state,
      str(one.step or ''),
      _figure(one),
      f'{minutes}:{seconds:02}' if one.seconds else '',
      one.error,
    )
  return table
