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
WEIGHTS_FILE = 'weights.safetensors'
CARD_FILE = 'export.json'
_DTYPES = {'F32': '<f4', 'F16': '<f2', 'I32': '<i4'}  # of safetensors


@dataclasses.dataclass(frozen=True)
class ExportedDetector:
  """A function from crops to scores, with what is known of it.

  Attributes:
    card: margin, clip length, platforms, versions, weights, and what else the
      exporting program wrote down; card.md beside it is for people.
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
    stored = _read_safetensors(folder / WEIGHTS_FILE)
    weights = [stored[name] for name in card['weights_in_order']]
  except (OSError, KeyError, ValueError, TypeError) as error:
    raise ValueError(f'{folder}: no exported detector ({error})') from error
  function = jax.export.deserialize(serialized)
  weights = jax.device_put(weights)
  call = jax.jit(function.call)
  return ExportedDetector(card, lambda crops: call(weights, crops))


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file of named tensors: a length, a JSON header, and values."""
  content = path.read_bytes()
  start = 8 + int.from_bytes(content[:8], 'little')
  header = json.loads(content[8:start])
  header.pop('__metadata__', None)
  tensors = {}
  for name, entry in header.items():
    begin, end = (start + offset for offset in entry['data_offsets'])
    values = np.frombuffer(content[begin:end], _DTYPES[entry['dtype']])
    tensors[name] = values.reshape(entry['shape'])
  return tensors
