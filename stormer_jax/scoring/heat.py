"""A vulnerability map over the face that it is of.

Enters: an RGB crop and the standardised map of its patches. Leaves: RGB, uint8;
patches at the mean stay as they are, those two standard deviations above it
glow.
"""

import cv2
from jaxtyping import Float, UInt8
import numpy as np

_FULL = 2.0  # standard deviations at which a patch glows most
_MOST = 0.6  # share of the colour there


def overlay(
  image: UInt8[np.ndarray, 'h w 3'], values: Float[np.ndarray, 'gh gw']
) -> UInt8[np.ndarray, 'h w 3']:
  """Paints a map over a picture."""
  height, width = image.shape[:2]
  share = np.clip(values.astype(np.float32) / _FULL, 0, 1)
  share = cv2.resize(share, (width, height), interpolation=cv2.INTER_CUBIC)
  share = np.clip(share, 0, 1)
  colours = cv2.applyColorMap(
    (255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO
  )[..., ::-1]
  alpha = _MOST * share[..., None]
  mixed = (1 - alpha) * image + alpha * colours
  return np.rint(mixed).astype(np.uint8)
