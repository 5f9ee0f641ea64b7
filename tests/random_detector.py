"""A tiny detector without training, for tests of what scores with one."""

import jax
from ml_collections import config_dict
import numpy as np

from stormer_jax import detector as detector_lib
from stormer_jax import steps


def make_detector(
  config: config_dict.ConfigDict, seed: int = 0
) -> detector_lib.Detector:
  """Fills a detector with random numbers, also where training starts at 0.

  Drawn by NumPy: to compile the model's own start takes ten seconds.
  """
  graphdef, init = steps.make_model(config)
  params, stats = jax.eval_shape(init)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    near = path[-1].key in ('scale', 'var')
    return np.asarray(near + 0.1 * rng.normal(size=leaf.shape), leaf.dtype)

  return detector_lib.Detector(
    config=config,
    graphdef=graphdef,
    params=jax.tree_util.tree_map_with_path(draw, params),
    stats=jax.tree_util.tree_map_with_path(draw, stats),
    step=7,
    source='here',
  )
