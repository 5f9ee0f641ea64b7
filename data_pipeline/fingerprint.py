"""Crops of a video -> 24 bytes that a copy of its film shares, nearly.

What enters: three face crops, RGB uint8 in [0, 255], with their landmarks.
What leaves: a fingerprint, 64 bits a crop, that re-encoding and rescaling
change little; and, of many, the pairs that differ in few bits.
"""

from collections.abc import Callable, Iterable, Sequence

import cv2
from jaxtyping import Bool, Float32, Float64, Int64, UInt8, UInt64
import numpy as np

NUM_CROPS = 3
_SIDE = 32  # px that a face is brought to
_SPREADS = 6  # standard deviations of its landmarks that are seen of it
_WAVES = 8  # lowest frequencies each way
# Choice: of 192. Copies of one film differ in up to 16, unless its faces are
# smaller than 50 px; different people in 86 on average, and of 17,000 pairs
# none in fewer than 36 (docs/datasets.md).
_MOST_BITS = 24
# Choice: videos with the same 16 bits that each is compared with.
_NEIGHBOURS = 32


def of_crops(
  crops: Sequence[UInt8[np.ndarray, '256 256 3']],
  landmarks: Sequence[Float32[np.ndarray, '81 2']],
) -> str:
  """Returns the fingerprint of three crops, 48 hexadecimal digits.

  A bit says whether one of the lowest frequencies of the brightness is above
  their median (pHash: Zauner, 2010). The landmarks, in pixels of the crop,
  place the face: the box that it was cut out by differs by a few pixels.
  """
  bits = []
  for crop, points in zip(crops, landmarks, strict=True):
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.warpAffine(
      cv2.GaussianBlur(grey, (0, 0), 3),  # sigma, px: what _SIDE can show
      _placed(points),
      (_SIDE, _SIDE),
      borderMode=cv2.BORDER_REPLICATE,
    )
    waves = cv2.dct(small.astype(np.float32))[:_WAVES, :_WAVES].ravel()
    waves[0] = -np.inf  # the mean says how bright the film is
    bits.append(waves > np.median(waves[1:]))
  return np.packbits(bits).tobytes().hex()


def _placed(
  points: Float32[np.ndarray, '81 2'],
) -> Float64[np.ndarray, '2 3']:
  """The affine map that brings a face to the middle of a small square."""
  scale = _SIDE / (_SPREADS * np.maximum(points.std(0), 1))
  shift = _SIDE / 2 - points.mean(0) * scale
  return np.column_stack([np.diag(scale), shift]).astype(np.float64)


def parse(fingerprints: Iterable[str]) -> UInt64[np.ndarray, 'n 3']:
  """Returns fingerprints as numbers, one a crop."""
  raw = bytes.fromhex(''.join(fingerprints))
  return np.frombuffer(raw, np.uint64).reshape(-1, NUM_CROPS)


def close_pairs(
  parts: UInt64[np.ndarray, 'n 3'],
  wanted: Callable[
    [Int64[np.ndarray, 'p'], Int64[np.ndarray, 'p']], Bool[np.ndarray, 'p']
  ] = lambda first, second: np.ones(len(first), bool),
) -> Int64[np.ndarray, 'p 2']:
  """Finds the pairs of positions whose fingerprints differ in few bits.

  Only those are compared that share one of twelve words of 16 bits, each with
  the next 32 of them: so 100,000 take seconds. Of pairs that differ in 10 bits
  hardly one is missed so, of those in 20 one in twenty.

  Args:
    parts: fingerprints as `parse` returns them.
    wanted: which of some pairs are to be returned.
  """
  count = max(len(parts), 1)
  found = np.zeros(0, np.int64)  # first of a pair, times count, and second
  for word in parts.view(np.uint16).T:
    order = np.lexsort([*parts.T, word])
    of_word = [found]
    for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
      first, second = order[:-step], order[step:]
      same = word[first] == word[second]
      first, second = first[same], second[same]
      apart = np.bitwise_count(parts[first] ^ parts[second]).sum(1)
      near = apart <= _MOST_BITS
      first, second = np.sort(np.stack([first[near], second[near]]), 0)
      chosen = wanted(first, second)
      of_word.append(first[chosen] * count + second[chosen])
    found = np.unique(np.concatenate(of_word))
  return np.stack(np.divmod(found, count), 1)
