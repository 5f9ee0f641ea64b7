"""ONNX files written byte by byte: a model whose outputs are constants.

The package onnx is no dependency of ours; the wire format of what is needed of
it is a page (onnx.proto, opset 13).
"""

from collections.abc import Sequence
import pathlib

import numpy as np

_FLOAT = 1


def write_constants(
  path: pathlib.Path,
  outputs: Sequence[np.ndarray],
  input_shape: Sequence[int | str] = (1, 3, '?', '?'),
) -> pathlib.Path:
  """Writes a model that gives `outputs`, whatever image it is fed."""
  graph = b''
  for index in range(len(outputs)):
    graph += _bytes(
      1,
      _text(1, f'constant{index}')
      + _text(2, f'output{index}')
      + _text(4, 'Identity'),
    )
  graph += _text(2, 'made')
  for index, array in enumerate(outputs):
    graph += _bytes(
      5,
      b''.join(_number(1, side) for side in array.shape)
      + _number(2, _FLOAT)
      + _text(8, f'constant{index}')
      + _bytes(9, array.astype('<f4').tobytes()),
    )
  graph += _bytes(11, _value('image', input_shape))
  for index, array in enumerate(outputs):
    graph += _bytes(12, _value(f'output{index}', array.shape))
  opset = _text(1, '') + _number(2, 13)
  path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, opset))
  return path


def _value(name: str, shape: Sequence[int | str]) -> bytes:
  sides = b''.join(
    _bytes(1, _number(1, side) if isinstance(side, int) else _text(2, side))
    for side in shape
  )
  tensor = _number(1, _FLOAT) + _bytes(2, sides)
  return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
  return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
  return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
  raw = bytearray()
  while value > 127:
    raw.append(value & 127 | 128)
    value >>= 7
  return bytes([*raw, value])
