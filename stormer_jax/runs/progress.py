"""What a run tells while it goes: its terms, its speed, where its time went.

Enter: the terms of each step, still on the device, and how long the loop spent
on what is not a step. Leave: a line in the log and one in metrics.jsonl every
`log_every` steps. Terms are fetched one step late, so that the device never
waits for the host.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from stormer_jax.runs import metric_writer

_COMPILED = '/jax/core/compile/backend_compile_duration'


@dataclasses.dataclass(frozen=True)
class Pace:
  """What the speed of a run is measured against.

  Attributes:
    clips: Clips a step, real and pseudo-fake, over all hosts.
    flops: Floating-point operations a step, by formula (`flops`).
    peak_flops: A second, of all devices together; None if not known.
  """

  clips: int
  flops: float
  peak_flops: float | None


class Clock:
  """Seconds since a run was first started, and how many of them counted.

  Productive seconds are those of the steps that led to the present state:
  neither waiting for data, compiling, validating and saving, nor steps that a
  kill undid. Seconds of this process are counted by a clock that no change of
  date moves; only the gap before a restart is a difference of dates.
  """

  def __init__(self, saved: Mapping[str, float], config_file: pathlib.Path):
    """Goes on from a checkpoint's clock.

    Args:
      saved: Of `state`, or {} in a run without a checkpoint.
      config_file: Written when the run was first started.
    """
    now = time.time()
    first = saved.get('first_start')
    if first is None:
      first = config_file.stat().st_mtime if config_file.exists() else now
    self._first_start = first
    self._elapsed_before = max(now - first, saved.get('elapsed', 0.0), 0.0)
    self._started = time.perf_counter()
    self.productive = saved.get('productive', 0.0)

  def elapsed(self) -> float:
    """Seconds since the first start."""
    return self._elapsed_before + time.perf_counter() - self._started

  def goodput(self) -> float:
    """Productive share of all seconds so far, in [0, 1]."""
    return min(self.productive / max(self.elapsed(), 1e-9), 1.0)

  def state(self) -> dict[str, float]:
    """For the checkpoint."""
    return {
      'first_start': self._first_start,
      'elapsed': self.elapsed(),
      'productive': self.productive,
    }


class Progress:
  """Fetches terms one step late, checks them, and says how fast it goes."""

  def __init__(
    self,
    writer: metric_writer.MetricWriter,
    clock: Clock,
    pace: Pace,
    *,
    step: int,
    num_steps: int,
    steps_per_epoch: int,
    learning_rate: np.ndarray,
    log_every: int,
    nonfinite_budget: int | None,
  ):
    """Readies the record of a run that has finished `step` steps.

    Args:
      writer: Of metrics.jsonl.
      clock: Of the run.
      pace: What speed is measured against.
      step: Steps finished; the next one compiles.
      num_steps: Of the run.
      steps_per_epoch: Of the schedule.
      learning_rate: Of every epoch.
      log_every: Steps between two lines.
      nonfinite_budget: Steps whose update may be left out because a term was
        not finite; None: none, the first one ends the run.
    """
    self._writer = writer
    self._clock = clock
    self._pace = pace
    self._first = step
    self._num_steps = num_steps
    self._steps_per_epoch = steps_per_epoch
    self._learning_rate = learning_rate
    self._log_every = log_every
    self._budget = nonfinite_budget
    self._pending: tuple[int, Any] | None = None
    self._num_corrupt = 0
    self._compiles, self._compile_seconds = 0, 0.0
    self._begin()
    jax.monitoring.register_event_duration_secs_listener(self._on_event)

  def _begin(self):
    """Begins an interval: what is summed until the next line."""
    self._steps = 0
    self._bytes = 0
    self._spent = {'data': 0.0, 'checkpoint': 0.0, 'apart': 0.0}
    self._counted = 0.0
    self._started = time.perf_counter()

  def _on_event(
    self, event: str, duration_secs: float, **kwargs: str | int
  ) -> None:
    if event == _COMPILED:
      self._compiles += 1
      self._compile_seconds += duration_secs

  @contextlib.contextmanager
  def spending(self, on: str) -> Iterator[None]:
    """Counts the time inside as spent on 'data', 'checkpoint' or 'apart'."""
    started = time.perf_counter()
    try:
      yield
    finally:
      self._spent[on] += time.perf_counter() - started

  def add(
    self,
    step: int,
    terms: Mapping[str, Any],
    num_bytes: int,
    num_corrupt: int = 0,
  ) -> None:
    """Notes a dispatched step, and fetches the one before it.

    Args:
      step: Steps done with it.
      terms: Of `steps.make_train_step`, on the device.
      num_bytes: That the host sent to the device for it.
      num_corrupt: Damaged records met so far by this process.

    Raises:
      FloatingPointError: If a term of the step before is not finite, and the
        budget for that is used up; names step and term.
    """
    self.flush()
    self._pending = (step, terms)
    self._bytes += num_bytes
    self._num_corrupt = num_corrupt

  def flush(self) -> None:
    """Fetches the last step's terms; raises like `add`."""
    if self._pending is None:
      return
    step, device_terms = self._pending
    self._pending = None
    terms = jax.device_get(device_terms)
    mean, skipped = terms.pop('mean'), int(terms.pop('skipped'))
    self._check(step, terms, skipped)
    if step == self._first + 1:  # it compiled: left out of the speed
      self._begin()
    else:
      self._steps += 1
    self._count()
    if step % self._log_every == 0 or step == self._num_steps:
      self._report(step, mean, skipped)
      self._begin()

  def _check(self, step: int, terms: Mapping[str, Any], skipped: int) -> None:
    bad = [name for name, value in terms.items() if not np.isfinite(value)]
    if not bad:
      return
    # The norm of the second SAM pass, if no term of the first one.
    what = f'step {step}: the {bad[0].replace("_", " ")} is {terms[bad[0]]}'
    if self._budget is None:
      raise FloatingPointError(
        f'{what}; the last checkpoint is from before it. Lower'
        ' optimizer.peak_lr, look at the data of this step, or set'
        ' train.nonfinite=skip'
      )
    if skipped > self._budget:
      raise FloatingPointError(
        f'{what}; {skipped} such steps so far, train.nonfinite_budget is'
        f' {self._budget}. Lower optimizer.peak_lr, or look at the data'
      )
    logging.warning(
      '%s; this step changes nothing (%d of at most %d such steps)',
      what,
      skipped,
      self._budget,
    )

  def _training_seconds(self) -> float:
    seconds = time.perf_counter() - self._started
    return seconds - self._spent['checkpoint'] - self._spent['apart']

  def _count(self) -> None:
    """Adds what was productive since the last call to the clock."""
    productive = self._training_seconds() - self._spent['data']
    self._clock.productive += productive - self._counted
    self._counted = productive

  def _report(self, step: int, mean: Mapping[str, Any], skipped: int) -> None:
    epoch = (step - 1) // self._steps_per_epoch
    figures = {f'train/{name}': float(x) for name, x in mean.items()}
    figures['train/learning_rate'] = float(self._learning_rate[epoch])
    if self._budget is not None:
      figures['train/skipped_steps'] = float(skipped)
    timing = self._timing() if self._steps else {}
    self._writer.write(step, figures, timing)
    logging.info(
      'step %d/%d  epoch %d  %s%s',
      step,
      self._num_steps,
      epoch,
      '  '.join(f'{name} {x:.4f}' for name, x in mean.items()),
      f'  {timing["clips_per_second"]:.1f} clips/s,'
      f' {timing["data_wait_share"]:.1%} waiting for data'
      if timing
      else '',
    )

  def _timing(self) -> dict[str, float]:
    seconds = max(self._training_seconds(), 1e-9)
    timing = {
      'clips_per_second': self._pace.clips * self._steps / seconds,
      'step_seconds': seconds / self._steps,
      'data_wait_share': self._spent['data'] / seconds,
      'host_to_device_bytes_per_second': self._bytes / seconds,
      'checkpoint_seconds': self._spent['checkpoint'],
      'compiles': float(self._compiles),
      'compile_seconds': self._compile_seconds,
      'goodput': self._clock.goodput(),
    }
    if self._pace.peak_flops:
      rate = self._pace.flops * self._steps / seconds
      timing['mfu'] = rate / self._pace.peak_flops
    if self._num_corrupt:
      timing['corrupt_records'] = float(self._num_corrupt)
    memory = jax.local_devices()[0].memory_stats()  # None on a CPU
    if memory and 'peak_bytes_in_use' in memory:
      timing['device_memory_bytes'] = float(memory['peak_bytes_in_use'])
    return timing

  def close(self) -> None:
    """Stops listening to the compiler."""
    jax.monitoring.unregister_event_duration_listener(self._on_event)
