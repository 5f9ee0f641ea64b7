"""A trained detector -> a function that scores clips.

Enter: a `Detector`. Leave: functions from clips, stored frames or loader
batches to logits and maps. A clip's outputs do not depend on what else is in
its batch (METHOD section 9).
"""

from collections.abc import Callable, Mapping
import hashlib
import importlib.metadata
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8
from ml_collections import config_dict
import numpy as np

from data_pipeline import pipeline
from data_pipeline.synthesis import blending
from stormer_jax import detector as detector_lib
from stormer_jax import steps

_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python', 'onnxruntime')


class ClipOutputs(NamedTuple):
  """`model.Outputs` of clips, float32, maybe still being computed.

  Arrays of the device until `jax.device_get` or NumPy asks for their values,
  which waits for them: so the next batch can be sent on its way before.
  """

  logits: Float[Array, ' b']
  soft_label_logits: Float[Array, 'b t']
  vulnerability_map: Float[Array, 'b t gh gw']


Scorer = Callable[[Float[Array, 'b t h w 3']], ClipOutputs]


def make_frame_scorer(
  detector: detector_lib.Detector, *, margin: int, flip: bool
) -> Callable[[UInt8[np.ndarray, 'b t 256 256 3']], ClipOutputs]:
  """Returns a function that crops, normalises and scores stored frames."""
  scorer = make_scorer(detector, flip=flip)
  image_size = detector.config.model.image_size
  return lambda frames: scorer(
    _eval_clips(frames, margin=margin, image_size=image_size)
  )


def make_scorer(
  detector: detector_lib.Detector, *, flip: bool = False
) -> Scorer:
  """Readies the detector in eval mode, on all devices of this process.

  Args:
    detector: From `detector.load_detector`.
    flip: Whether to average each output with that of the mirrored clip.

  Returns:
    Function of normalised clips [b, t, h, w, 3] -> ClipOutputs of b rows, which
    it does not wait for. The batch is filled up to a multiple of the number of
    devices; a clip's outputs do not depend on what else is in the batch.
  """
  # Only devices of this process: processes score different clips, and need
  # not keep in step.
  devices = jax.local_devices()
  mesh = jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )
  whole = NamedSharding(mesh, PartitionSpec())
  by_clip = NamedSharding(mesh, PartitionSpec('data'))
  weights = jax.device_put(
    jax.device_get((detector.params, detector.stats)), whole
  )
  # D4: the released code takes the token of the batch's first clip. So that a
  # score never depends on its batch mates, each clip is the first of its own.
  alone = detector.config.model.temporal_token == 'first_clip'

  def score(clip) -> ClipOutputs:
    num_clips = len(clip)
    padding = round_up(num_clips, len(devices)) - num_clips
    if padding:
      clip = jnp.pad(clip, [(0, padding)] + 4 * [(0, 0)])
    clip = jax.device_put(clip, by_clip)
    outputs = _score_clips(detector.graphdef, *weights, clip, alone=alone)
    if padding:
      outputs = {name: x[:num_clips] for name, x in outputs.items()}
    return ClipOutputs(**outputs)

  def score_both(clip) -> ClipOutputs:
    plain, mirrored = score(clip), score(clip[:, :, :, ::-1])
    # The mirrored map is mirrored back.
    mirrored = mirrored._replace(
      vulnerability_map=mirrored.vulnerability_map[..., ::-1]
    )
    return ClipOutputs(
      *((a + b) / 2 for a, b in zip(plain, mirrored, strict=True))
    )

  return score_both if flip else score


# Jitted here and not in `make_scorer`, so that the next data set finds the
# compiled program.
_score_clips = jax.jit(steps.score_clips, static_argnames=('graphdef', 'alone'))


def provenance(detector: detector_lib.Detector) -> dict[str, Any]:
  """Says which weights scored, and which libraries ran them."""
  return {
    'checkpoint': detector.source,
    'step': int(detector.step),
    'weights': weights_digest(detector),
    'trained_on': detector.config.data.train_dataset,
    'semantics': semantics(detector.config),
    'config_hash': config_hash(detector.config),
    'model': detector.config.model.to_dict(),
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('stormer-jax', *_PACKAGES)
      if _installed(name)
    },
  }


def semantics(config: config_dict.ConfigDict) -> str:
  """Says whose computation a configuration is: paper's, official or mixed."""
  choices = (
    (config.model.temporal_token, 'learned', 'first_clip'),
    (config.model.map_layout, 'thw', 'scrambled'),
    (config.synthesis.boundary_change, 'absolute', 'uint8_wrap'),
    (config.optimizer.batch_stats, 'first_pass', 'both_passes'),
  )
  if all(value == paper for value, paper, _ in choices):
    return 'paper'
  if all(value == official for value, _, official in choices):
    return 'official'
  return 'mixed: ' + ', '.join(value for value, *_ in choices)


def config_hash(config: config_dict.ConfigDict) -> str:
  """Hashes what a run was trained with, evaluation left out: 16 hex digits."""
  fields = json.loads(config.to_json_best_effort())
  fields.pop('eval', None)
  text = json.dumps(fields, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def weights_digest(detector: detector_lib.Detector) -> str:
  """Names the weights: 16 hexadecimal digits, a hash of all tensors.

  Where they are computed with in another type than float32 it stands behind
  them, for a calibration of one is not one of the other: the detector that
  ships gives the demo's video a logit of -0.57, and -0.18 in bfloat16.
  """
  digest = hashlib.blake2b(digest_size=8)
  tree = (detector.params, detector.stats)
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    leaf = np.ascontiguousarray(jax.device_get(leaf))
    digest.update(f'{path} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.view(np.uint8).data if leaf.size else b'')
  dtype = detector.config.model.dtype
  return digest.hexdigest() + ('' if dtype == 'float32' else f'-{dtype}')


def _installed(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


_eval_clips = jax.jit(
  pipeline.eval_clips, static_argnames=('margin', 'image_size')
)
_make_pairs = jax.jit(
  pipeline.make_pairs,
  static_argnames=('synthesis', 'image_size', 'patch_size'),
)
BatchScorer = Callable[[Mapping[str, np.ndarray]], Float[Array, 'b kinds']]


def crop_scorer(
  detector: detector_lib.Detector, *, margin: int, flip: bool
) -> BatchScorer:
  """Returns a function: loader batch -> logits of its clips [b, 1]."""
  scorer = make_frame_scorer(detector, margin=margin, flip=flip)
  return lambda batch: scorer(batch['frames']).logits[:, None]


def pair_scorer(
  detector: detector_lib.Detector,
  synthesis: blending.SynthesisConfig,
  *,
  flip: bool,
) -> BatchScorer:
  """Returns a function: loader batch -> logits [b, 2], the real one first."""
  model = detector.config.model
  scorer = make_scorer(detector, flip=flip)

  def score(batch):
    pairs = _make_pairs(
      batch['frames'],
      batch['landmarks'],
      batch['seed'],
      synthesis=synthesis,
      image_size=model.image_size,
      patch_size=model.patch_size,
    )
    logits = scorer(pairs['clip']).logits.reshape(-1, 2)
    real_first = jnp.argsort(pairs['label'].reshape(-1, 2), axis=1)
    return jnp.take_along_axis(logits, real_first, axis=1)

  return score


def round_up(number: int, multiple: int) -> int:
  """The least multiple that is not below a number."""
  return -(-number // multiple) * multiple
