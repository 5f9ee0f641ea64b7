"""Finished batches of a scoring that is still going on.

Each process notes what it has scored, so that a stopped call can be repeated
without repeating them. Journals stay until the whole call is done, so that a
data set that was finished before the stop is not scored again either.
"""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
from jaxtyping import Float
import numpy as np


class Journal:
  """Finished batches of this process, on disk if there is a folder.

  A journal of other weights, settings or videos is thrown away.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str] | None,
    fingerprint: Mapping[str, Any],
  ):
    self.finished: list[dict[str, Any]] = []
    self._file = self._path = None
    if folder is None:
      return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    self._path = _path(folder)
    text = json.dumps(fingerprint, sort_keys=True)
    head = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    lines = self._path.read_text().split('\n') if self._path.exists() else []
    if lines[:1] == [head]:
      # The last part is '' or what a kill left of a line.
      self.finished = [json.loads(line) for line in lines[1:-1]]
      logging.info('%s: %d batches done', self._path, len(self.finished))
    kept = [head, *map(json.dumps, self.finished)]
    self._path.write_text(''.join(line + '\n' for line in kept))
    self._file = self._path.open('a')

  def add(
    self, batch: Mapping[str, np.ndarray], logits: Float[np.ndarray, 'b kinds']
  ) -> None:
    """Notes a batch; what is padding is left out."""
    valid = batch['valid']
    entry = {
      'video': batch['video'][valid].tolist(),
      'window': batch['window'][valid].tolist(),
      'logits': logits[valid].tolist(),  # float32 as float64: exact in JSON
    }
    self.finished.append(entry)
    if self._file is not None:
      self._file.write(json.dumps(entry) + '\n')
      self._file.flush()

  def __enter__(self) -> 'Journal':
    return self

  def __exit__(self, *error: object) -> None:
    if self._file is not None:
      self._file.close()


def remove(folder: str | os.PathLike[str]) -> None:
  """Takes this process's journal in a folder away: the work is done."""
  _path(folder).unlink()


def _path(folder: str | os.PathLike[str]) -> pathlib.Path:
  return pathlib.Path(folder) / f'journal-{jax.process_index()}.jsonl'


def gather(
  finished: list[dict[str, Any]], num_windows: list[int], num_kinds: int
) -> Float[np.ndarray, 'videos windows kinds']:
  """Joins the clip logits of all processes, nan where there is no clip."""
  shape = (len(num_windows), max(num_windows, default=0), num_kinds)
  logits = np.zeros(shape, np.float32)
  count = np.zeros(shape[:2], np.int32)
  for entry in finished:
    place = np.array([entry['video'], entry['window']], int)
    logits[*place] = np.reshape(entry['logits'], (-1, num_kinds))
    np.add.at(count, (*place,), 1)
  if jax.process_count() > 1:
    logits, count = multihost_utils.process_allgather((logits, count))
    logits, count = logits.sum(0), count.sum(0)
  expected = np.arange(shape[1]) < np.array(num_windows, int)[:, None]
  assert np.array_equal(count, expected), 'a clip is missing or scored twice'
  return np.where(expected[..., None], logits, np.nan)
