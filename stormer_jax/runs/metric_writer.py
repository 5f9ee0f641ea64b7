"""The record of a run: metrics.jsonl and TensorBoard events in the workdir.

Enter: a step and its figures. Leave: one JSON line a call, each on disk when
the call returns, and the same figures as TensorBoard scalars and, if asked for,
in Weights & Biases. A run that was
killed and goes on from step s first forgets what it wrote after s, so that it
ends with the lines of a run never killed, the `time` objects apart.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
import time
from typing import Any

import tensorboardX

from stormer_jax.runs import wandb_writer


class MetricWriter:
  """Appends figures to a run's record; does nothing unless enabled."""

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    step: int,
    enabled: bool,
    wandb: wandb_writer.WandbWriter | None = None,
  ):
    """Opens the record of a run that has finished `step` steps.

    Args:
      workdir: Folder of the run; holds metrics.jsonl and tensorboard/.
      step: Lines of later steps are removed: they will be written again. A
        line of this very step stays, and writing it again is skipped.
      enabled: True on process 0 alone.
      wandb: Gets the same figures, or None.
    """
    self._file = self._events = None
    self._wandb = wandb
    self._seen: set[tuple[int, frozenset[str]]] = set()
    if not enabled:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'metrics.jsonl'
    kept = [line for line in read_metrics(path) if line['step'] <= step]
    self._seen = {_key(line) for line in kept if line['step'] == step}
    _replace(path, ''.join(map(_to_line, kept)))
    self._file = path.open('a', encoding='utf-8')
    self._events = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=step + 1
    )

  def write(
    self,
    step: int,
    values: Mapping[str, float],
    timing: Mapping[str, float] | None = None,
  ) -> None:
    """Adds one line.

    Args:
      step: Number of finished steps.
      values: Figures that the config and seed determine, as 'train/loss'.
      timing: Figures of the clock, as 'clips_per_second': kept apart in the
        line's `time` object, because no two runs share them.
    """
    if self._file is None or self._events is None:
      return
    line: dict[str, Any] = {'step': int(step)}
    line |= {name: float(value) for name, value in values.items()}
    if _key(line) in self._seen:
      return
    clock = {'unix': time.time(), **(timing or {})}
    line['time'] = {name: float(value) for name, value in clock.items()}
    self._file.write(_to_line(line))
    self._file.flush()
    os.fsync(self._file.fileno())
    for name, value in values.items():
      self._events.add_scalar(name, float(value), int(step))
    for name, value in (timing or {}).items():
      self._events.add_scalar(f'time/{name}', float(value), int(step))
    if self._wandb is not None:
      clock = {f'time/{name}': value for name, value in (timing or {}).items()}
      self._wandb.write(int(step), {**values, **clock})

  def close(self) -> None:
    """Flushes all records; later calls of `write` do nothing."""
    if self._file is not None and self._events is not None:
      self._file.close()
      self._events.close()
    if self._wandb is not None:
      self._wandb.close()
    self._file = self._events = self._wandb = None


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads metrics.jsonl; [] if missing, without a line that a kill cut off.

  Figures that were not finite read as None.

  Raises:
    ValueError: If a line before the last one is no JSON object with a step.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  *lines, tail = path.read_text(encoding='utf-8').split('\n')
  del tail  # '' after a whole last line, else what the kill left of one
  result = []
  for number, text in enumerate(lines, 1):
    try:
      line = json.loads(text)
      line['step'] = int(line['step'])
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f'{path}:{number} is no line of metrics ({error}); repair or remove it'
      ) from error
    result.append(line)
  return result


def _key(line: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
  return line['step'], frozenset(line) - {'step', 'time'}


def _to_line(line: Mapping[str, Any]) -> str:
  return json.dumps(_finite(line), allow_nan=False) + '\n'


def _finite(value: Any) -> Any:
  """Puts None where JSON has no number: nan and infinity."""
  if isinstance(value, Mapping):
    return {name: _finite(item) for name, item in value.items()}
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _replace(path: pathlib.Path, text: str) -> None:
  """Writes the file as a whole or not at all."""
  partial = path.with_suffix('.partial')
  with partial.open('w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
