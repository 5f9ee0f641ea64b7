"""Logits of a person's clips through time -> passages that look forged.

A passage is a maximal scoring subsequence (Ruzzo and Tompa, ISMB 1999) of the
logits above a level: longer ones would hold clips that speak against it. It is
named if its clips' mean stands clear of the level, as measured by how much
clips that follow each other differ.
"""

import dataclasses
import math

from jaxtyping import Float
import numpy as np

# Choice: standard errors that a passage's mean stands above the level. By two,
# a tenth of the real videos that are `likely real` as a whole would have one:
# they have many places to look at, and clips drift.
_CLEAR = 3.0
# Choice: one clip alone is a passage only where it stands clearer.
_ALONE = 4.0


@dataclasses.dataclass(frozen=True)
class Passage:
  """Clips `first` to `last`, both included, and the time they stand for."""

  first: int
  last: int
  start: float  # s
  end: float
  logit: float  # mean of its clips


def find(
  logits: Float[np.ndarray, 'n'],
  starts: Float[np.ndarray, 'n'],
  ends: Float[np.ndarray, 'n'],
  level: float,
) -> list[Passage]:
  """Finds the passages of one person.

  Args:
    logits: Of the clips, by time.
    starts: s, first frame of each; ascending.
    ends: s, last frame of each.
    level: Logit above which a clip speaks for a forgery.
  """
  noise = _noise(logits)
  edges = _edges(starts, ends)
  found = []
  for first, last in maximal_runs(logits - level):
    of_passage = logits[first : last + 1]
    mean = float(of_passage.mean())
    clear = _CLEAR if len(of_passage) > 1 else _ALONE
    if mean - level < clear * noise / math.sqrt(len(of_passage)):
      continue
    found.append(Passage(first, last, edges[first], edges[last + 1], mean))
  return found


def maximal_runs(values: Float[np.ndarray, 'n']) -> list[tuple[int, int]]:
  """All maximal scoring subsequences, as first and last position.

  Ruzzo and Tompa: every run whose sum no shorter or longer neighbour beats, in
  one pass; none overlap.
  """
  runs: list[tuple[int, int, float, float]] = []  # first, last, sum to L, to R
  total = 0.0
  for position, value in enumerate(np.asarray(values, np.float64).tolist()):
    before, total = total, total + value
    if value <= 0:
      continue
    run = (position, position, before, total)
    while True:
      lower = next(
        (i for i in range(len(runs) - 1, -1, -1) if runs[i][2] < run[2]), None
      )
      if lower is None or runs[lower][3] >= run[3]:
        break
      run = (runs[lower][0], position, runs[lower][2], total)
      del runs[lower:]
    runs.append(run)
  return [(first, last) for first, last, _, _ in runs]


def _noise(logits: Float[np.ndarray, 'n']) -> float:
  """Standard deviation of a clip, robust against steps between passages."""
  if len(logits) < 3:
    return 0.0
  steps = np.abs(np.diff(logits))
  return float(np.median(steps)) * 1.4826 / math.sqrt(2)


def _edges(
  starts: Float[np.ndarray, 'n'], ends: Float[np.ndarray, 'n']
) -> list[float]:
  """Times between clips: where the first begins, halfways, the last's end."""
  middle = (ends[:-1] + starts[1:]) / 2
  return [float(starts[0]), *middle.tolist(), float(ends[-1])]
