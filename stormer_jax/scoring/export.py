"""A trained detector -> a folder that scores without this project.

What enters: a `Detector`. What leaves: the scoring function as serialised
StableHLO for CPU, CUDA and TPU, with any number of clips; its weights as
.safetensors; a card for programs and one for people. `exported.py`, which needs
jax and numpy alone, reads them. The format is that of `jax.export`: a later jax
reads it for six months at least.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.export
from jaxtyping import Array, UInt8
import numpy as np

from data_pipeline import pipeline
from data_pipeline import records as records_lib
from stormer_jax import detector as detector_lib
from stormer_jax import steps
from stormer_jax.scoring import clip_scorer, exported

PLATFORMS = ('cpu', 'cuda', 'tpu')
MODEL_CARD_FILE = 'card.md'


def export(
  detector: detector_lib.Detector,
  destination: str | os.PathLike,
  *,
  margin: int,
  platforms: Sequence[str] = PLATFORMS,
  known: str = '',
) -> pathlib.Path:
  """Writes an exported detector, whole or not at all.

  Args:
    detector: from `detector.load_detector`.
    destination: folder to make.
    margin: px cut off every side of a crop, part of the function.
    platforms: of 'cpu', 'cuda' and 'tpu'.
    known: the card of its run, Markdown; '' where nobody wrote one.

  Returns:
    The folder.

  Raises:
    ValueError: it exists and is not empty.
    OSError: it cannot be written.
  """
  destination = pathlib.Path(destination)
  if destination.exists() and any(destination.iterdir()):
    raise ValueError(f'{destination}: exists and is not empty; name another')
  config = detector.config.copy_and_resolve_references()
  with config.unlocked():
    # The forms of other devices' libraries are no part of a portable function.
    config.model.attention = 'xla'
  graphdef, _ = steps.make_model(config)
  weights = jax.device_get((detector.params, detector.stats))
  leaves, structure = jax.tree.flatten(weights)
  alone = config.model.temporal_token == 'first_clip'  # D4

  def score(
    leaves: Sequence[Array], frames: UInt8[Array, 'b t 256 256 3']
  ) -> dict[str, Array]:
    params, stats = jax.tree.unflatten(structure, leaves)
    clip = pipeline.eval_clips(frames, margin, config.model.image_size)
    return steps.score_clips(graphdef, params, stats, clip, alone=alone)

  size = records_lib.CROP_SIZE
  shape = jax.export.symbolic_shape(
    f'b, {config.model.num_frames}, {size}, {size}, 3'
  )
  # How tokens lie on a GPU (`model._as_it_lies`): a target of XLA's own, which
  # jax makes no promise for, and the only one here.
  layout = jax.export.DisabledSafetyCheck.custom_call('LayoutConstraint')
  function = jax.export.export(
    jax.jit(score), platforms=tuple(platforms), disabled_checks=(layout,)
  )(
    [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves],
    jax.ShapeDtypeStruct(shape, np.uint8),
  )
  card = {
    **clip_scorer.provenance(dataclasses.replace(detector, config=config)),
    'num_frames': config.model.num_frames,
    'margin': margin,
    'platforms': list(platforms),
    'calling_convention': function.calling_convention_version,
    'weights_in_order': detector_lib.weight_names(detector),
  }
  part = destination.with_name(f'.{destination.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  try:
    part.mkdir(parents=True)
    (part / exported.FUNCTION_FILE).write_bytes(function.serialize())
    detector_lib.save_weights(part / exported.WEIGHTS_FILE, detector)
    (part / exported.CARD_FILE).write_text(
      json.dumps(card, indent=2, sort_keys=True) + '\n'
    )
    (part / MODEL_CARD_FILE).write_text(_card(card, known), encoding='utf-8')
    part.rename(destination)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return destination


def _card(card: Mapping[str, Any], known: str) -> str:
  """Says to people what the folder holds, and what is known of it."""
  shape = f'[b, {card["num_frames"]}, 256, 256, 3]'
  rows = {
    'weights': f'`{card["weights"]}`, step {card["step"]}',
    'trained on': card['trained_on'],
    'computed as': f'{card["semantics"]} (docs/official_differences.md)',
    'enters': f'uint8 RGB crops {shape}, of which {card["margin"]} px are cut'
    ' off every side',
    'leaves': '`logits` [b], above 0 for fake; `soft_label_logits` [b, t];'
    ' `vulnerability_map` [b, t, gh, gw]',
    'platforms': ', '.join(card['platforms']),
    'written by': ', '.join(f'{k} {v}' for k, v in card['versions'].items()),
  }
  table = ''.join(f'| {name} | {value} |\n' for name, value in rows.items())
  return (
    f'# An exported detector\n\n| | |\n| --- | --- |\n{table}\n'
    'A logit orders clips: it is no probability, and no proof. How faces are'
    ' found and cut out is not part of this folder.\n\n'
    + (
      known
      or 'How well it tells fakes nobody wrote down: its run has no'
      ' card.md. Measure it before you use it.\n'
    )
  )
