"""Damage that videos meet on their way: seven kinds, five levels each.

What enters and leaves: RGB uint8 frames in [0, 255] of any size. Kinds and
parameters are those of DeeperForensics-1.0 (Jiang et al., CVPR 2020, section
4.3), applied to the whole frame before the face is cut out, as it does; or to
the crops of a clip (`corrupt_crops`), without decoding and finding faces again.
To them comes what a social network does to an upload: smaller, fewer frames,
compressed. What is random depends on the video's name and the frame's number
alone.
"""

from collections.abc import Callable, Iterable
import dataclasses
import hashlib
import math

import cv2
from jaxtyping import UInt8
import numpy as np

LEVELS = (1, 2, 3, 4, 5)
# The parameter of each kind at the levels 1 to 5.
PARAMETERS: dict[str, tuple[float, ...]] = {
  'saturation': (0.4, 0.3, 0.2, 0.1, 0.0),  # of the chroma that is left
  'contrast': (0.85, 0.725, 0.6, 0.475, 0.35),  # of the brightness left
  'blocks': (16, 32, 48, 64, 80),  # per 256 px of the shorter side
  'noise': (0.001, 0.002, 0.005, 0.01, 0.05),  # variance, of values in [0, 1]
  'blur': (7, 9, 13, 17, 21),  # px, width of the Gaussian kernel
  'downscale': (2, 3, 4, 5, 6),  # times smaller, and back
  'h264': (30, 32, 35, 38, 40),  # constant rate factor
  'social': (28, 30, 33, 36, 40),  # the same, at _SOCIAL_SIDES and rates
}
# What crops can be given; a social network gets whole videos.
OF_CROPS = tuple(kind for kind in PARAMETERS if kind != 'social')
_BLOCK = 8  # px
# Choice: no platform publishes what it does; these are usual sizes and rates.
_SOCIAL_SIDES = (1280, 960, 854, 640, 480)  # px of the longer side, at most
_SOCIAL_RATES = (30, 30, 25, 25, 15)  # frames a second, at most

Frame = UInt8[np.ndarray, 'h w 3']


@dataclasses.dataclass(frozen=True)
class Corruption:
  """One kind at one level.

  Attributes:
    kind: a key of `PARAMETERS`.
    level: 1 (least) to 5.
  """

  kind: str
  level: int

  def __post_init__(self):
    if self.kind not in PARAMETERS or self.level not in LEVELS:
      raise ValueError(
        f'corruption {self.kind}:{self.level}; write KIND:LEVEL with a kind of '
        f'{", ".join(PARAMETERS)} and a level of 1 to 5'
      )

  @property
  def parameter(self) -> float:
    """The number behind the level."""
    return float(PARAMETERS[self.kind][self.level - 1])

  @property
  def of_files(self) -> bool:
    """Whether whole videos are compressed anew, rather than frames changed."""
    return self.kind in ('h264', 'social')

  @property
  def most_side(self) -> float:
    """px of the longer side that are left, at most."""
    if self.kind != 'social':
      return math.inf
    return float(_SOCIAL_SIDES[self.level - 1])

  @property
  def most_rate(self) -> float:
    """Frames a second that are left, at most."""
    if self.kind != 'social':
      return math.inf
    return float(_SOCIAL_RATES[self.level - 1])

  def __str__(self) -> str:
    return f'{self.kind}-{self.level}'


def parse(text: str) -> Corruption:
  """Reads KIND:LEVEL.

  Raises:
    ValueError: it is none.
  """
  kind, _, level = text.partition(':')
  return Corruption(kind, int(level) if level.isdecimal() else 0)


def select(entries: Iterable[str]) -> list[Corruption]:
  """Reads what crops are to be given.

  Args:
    entries: KIND:LEVEL, KIND for all its levels, 'all' for all kinds.

  Returns:
    Each once, in the order of the entries.

  Raises:
    ValueError: an entry is none of them, or not for crops.
  """
  found: dict[Corruption, None] = {}
  for entry in entries:
    kind, _, level = entry.partition(':')
    if kind == 'social':
      raise ValueError(
        f'corruption {entry}: a social network changes size and rate of whole '
        f'videos, not of crops; prepare them: prepare --corrupt={entry}'
      )
    kinds = OF_CROPS if entry == 'all' else (kind,)
    levels = (level,) if level else LEVELS
    for each in kinds:
      found |= {parse(f'{each}:{number}'): None for number in levels}
  return list(found)


def corrupt_crops(
  crops: UInt8[np.ndarray, 't h w 3'],
  corruption: Corruption,
  name: str,
  first: int,
) -> UInt8[np.ndarray, 't h w 3']:
  """Corrupts the crops of one clip.

  Choice: the kind 'h264' takes the clip for a film of its own, whose first
  frame is whole and whose others are differences, as in a video.

  Args:
    crops: RGB, of even height and width.
    corruption: any but the kind 'social'.
    name: of the video; see `corrupt_frame`.
    first: place of the first crop among those of the video.

  Raises:
    ValueError: the kind works on whole files alone.
  """
  if corruption.kind == 'h264':
    # Here: it needs PyAV, which a machine that trains need not have.
    from data_pipeline import recompression

    return recompression.compress_crops(crops, int(corruption.parameter))
  return np.stack(
    [
      corrupt_frame(crop, corruption, name, first + i)
      for i, crop in enumerate(crops)
    ]
  )


def corrupt_frame(
  frame: Frame, corruption: Corruption, name: str, index: int
) -> Frame:
  """Corrupts one frame.

  Args:
    frame: RGB.
    corruption: a kind that works frame by frame.
    name: of the video; with `index` it seeds what is random.
    index: number of the frame.

  Raises:
    ValueError: the kind works on whole files.
  """
  if corruption.of_files:
    raise ValueError(f'{corruption} compresses whole videos, not frames')
  digest = hashlib.sha256(f'{name}\0{index}'.encode()).digest()
  rng = np.random.default_rng(int.from_bytes(digest[:8], 'big'))
  return _FRAME_KINDS[corruption.kind](frame, corruption.parameter, rng)


def _saturation(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
  luma, chroma = _to_ycbcr(frame)
  return _to_rgb(luma, 0.5 + share * (chroma - 0.5))


def _contrast(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
  return _to_bytes(frame * np.float32(share))


def _blocks(frame: Frame, per_256: float, rng: np.random.Generator) -> Frame:
  height, width = frame.shape[:2]
  frame = frame.copy()
  for _ in range(int(min(height, width) * per_256 / 256)):
    y = rng.integers(0, max(height - _BLOCK, 0) + 1)
    x = rng.integers(0, max(width - _BLOCK, 0) + 1)
    frame[y : y + _BLOCK, x : x + _BLOCK] = 128
  return frame


def _noise(frame: Frame, variance: float, rng: np.random.Generator) -> Frame:
  luma, chroma = _to_ycbcr(frame)
  scale = np.float32(variance**0.5)
  luma = luma + scale * rng.standard_normal(luma.shape, np.float32)
  chroma = chroma + scale * rng.standard_normal(chroma.shape, np.float32)
  return _to_rgb(np.clip(luma, 0, 1), np.clip(chroma, 0, 1))


def _blur(frame: Frame, width: float, rng: np.random.Generator) -> Frame:
  size = int(width)
  return cv2.GaussianBlur(frame, (size, size), sigmaX=size / 6)


def _downscale(frame: Frame, times: float, rng: np.random.Generator) -> Frame:
  height, width = frame.shape[:2]
  small = (max(int(width / times), 1), max(int(height / times), 1))
  # Choice: bilinear both ways; the kernel is not stated.
  shrunk = cv2.resize(frame, small, interpolation=cv2.INTER_LINEAR)
  return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)


_FRAME_KINDS: dict[
  str, Callable[[Frame, float, np.random.Generator], Frame]
] = {
  'saturation': _saturation,
  'contrast': _contrast,
  'blocks': _blocks,
  'noise': _noise,
  'blur': _blur,
  'downscale': _downscale,
}

# Full-range BT.601, as JPEG has it.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _to_ycbcr(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
  """Luma [h, w] and chroma (Cb, Cr) [h, w, 2], both in [0, 1]."""
  rgb = frame.astype(np.float32) / 255
  luma = rgb @ _LUMA
  blue = 0.5 + (rgb[..., 2] - luma) * np.float32(0.5 / (1 - 0.114))
  red = 0.5 + (rgb[..., 0] - luma) * np.float32(0.5 / (1 - 0.299))
  return luma, np.stack([blue, red], -1)


def _to_rgb(luma: np.ndarray, chroma: np.ndarray) -> Frame:
  blue = luma + (chroma[..., 0] - 0.5) * np.float32((1 - 0.114) / 0.5)
  red = luma + (chroma[..., 1] - 0.5) * np.float32((1 - 0.299) / 0.5)
  green = (luma - 0.299 * red - 0.114 * blue) / np.float32(0.587)
  return _to_bytes(255 * np.stack([red, green, blue], -1))


def _to_bytes(values: np.ndarray) -> Frame:
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)
