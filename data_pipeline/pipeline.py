"""Records -> batches of self-blended pairs, and clips for scoring.

Grain readers hand over uint8 frames of the 256 crop, landmarks and a uint32
seed; `make_pairs` turns them, on the device, into the `Batch` that training
consumes (METHOD 2-5). `eval_clips` prepares frames for scoring (METHOD 9).
"""

from typing import TypedDict

from jaxtyping import Array, Float


class Batch(TypedDict):
  """Training batch of b pairs; `clips` = 2b, pair i in rows 2i and 2i + 1."""

  clip: Float[Array, 'clips t h w 3']  # ImageNet-normalised
  label: Float[Array, ' clips']  # 0 real, 1 pseudo-fake
  vulnerability_map: Float[Array, 'clips t gh gw']  # temporal target
  soft_label: Float[Array, 'clips t']  # in [0, 1]
  kept: Float[Array, 'clips t gh gw']  # 1 kept, 0 cut out
