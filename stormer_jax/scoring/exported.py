"""Reads and runs an exported detector; needs jax and numpy, nothing else.

This file may be copied beside an exported folder and used without the rest of
the project:

  import exported
  detector = exported.load('FOLDER')
  scores = detector(crops)['logits']        # crops: uint8 [b, t, 256, 256, 3]

The crops are RGB faces with a quarter of the face's box added on every side, T
frames a clip, in [0, 255]. The outputs are `logits` [b] (above 0: fake),
`soft_label_logits` [b, t] and `vulnerability_map` [b, t, gh, gw], float32.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib

import jax
import jax.export
import numpy as np

FUNCTION_FILE = 'scoring.stablehlo'
WEIGHTS_FILE = 'weights.npz'
CARD_FILE = 'export.json'


@dataclasses.dataclass(frozen=True)
class ExportedDetector:
  """A function from crops to scores, with what is known of it.

  Attributes:
    card: margin, clip length, platforms, versions, weights, and what else the
      exporting program wrote down.
  """

  card: dict
  _call: Callable

  def __call__(self, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Scores clips of face crops, any number of them.

    Raises:
      ValueError: the crops are not uint8 [b, t, 256, 256, 3].
    """
    crops = np.asarray(crops)
    expected = (self.card['num_frames'], 256, 256, 3)
    if (
      crops.ndim != 5 or crops.shape[1:] != expected or crops.dtype != np.uint8
    ):
      raise ValueError(
        f'crops are {crops.dtype} {crops.shape}; expected uint8 (b, '
        f'{", ".join(map(str, expected))})'
      )
    return jax.device_get(self._call(crops))


def load(folder: str | os.PathLike) -> ExportedDetector:
  """Reads an exported detector.

  Raises:
    ValueError: the folder holds none, or one that is not whole.
  """
  folder = pathlib.Path(folder)
  try:
    card = json.loads((folder / CARD_FILE).read_text())
    serialized = bytearray((folder / FUNCTION_FILE).read_bytes())
    with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as stored:
      weights = [stored[str(i)] for i in range(len(stored.files))]
  except (OSError, KeyError, ValueError) as error:
    raise ValueError(f'{folder}: no exported detector ({error})') from error
  function = jax.export.deserialize(serialized)
  weights = jax.device_put(weights)
  call = jax.jit(function.call)
  return ExportedDetector(card, lambda crops: call(weights, crops))
