"""A protocol says all of itself and refuses what no rule is called."""

import dataclasses

import pytest

from configs import base
from stormer_jax.scoring import evaluate, metrics, protocol


def test_every_field_of_a_protocol_is_said_the_unknown_ones_too():
  lines = protocol.Protocol(dataset='faces', flip=False).lines()
  assert len(lines) == len(dataclasses.fields(protocol.Protocol))
  assert 'dataset: faces' in lines and 'flip: no' in lines
  assert 'margin: not said' in lines and 'face backend: not said' in lines


@pytest.mark.parametrize(
  'field, value',
  [
    ('level', 'person'),
    ('aggregation', 'mean'),
    ('failed_videos', 'zero'),
    ('resample_by', 'frame'),
    ('num_bootstrap', -1),
    ('conventions', ('paper', 'ours')),
  ],
)
def test_what_is_out_of_range_is_named_by_its_field(field, value):
  with pytest.raises(ValueError, match=rf'eval\.{field}'):
    protocol.Protocol(**{field: value})


def test_the_configuration_offers_every_choice_and_none_beyond():
  options = evaluate.EvalConfig(**base.get_config().eval)
  made = protocol.Protocol(**evaluate.measuring(options))
  assert set(evaluate.measuring(options)) | {'threshold_from'} == set(
    protocol.MEASURING
  )
  # What a run of before these fields gets is what a new one has.
  assert made == protocol.Protocol()
  assert set(made.conventions) <= set(protocol.CONVENTIONS)


def test_saved_fields_stay_and_measuring_ones_can_be_chosen_anew():
  saved = dataclasses.asdict(
    protocol.Protocol(dataset='faces', margin=5, level='clip')
  )
  kept = protocol.from_saved(saved | {'of a later version': 1})
  assert (kept.margin, kept.level) == (5, 'clip')
  changed = protocol.from_saved(saved, {'level': 'video', 'margin': 15})
  assert (changed.margin, changed.level) == (5, 'video')
  assert protocol.from_saved({}) == protocol.Protocol()


def test_the_figures_of_every_convention_exist():
  for convention in protocol.CONVENTIONS.values():
    assert set(convention.figures) <= set(metrics.figures())
    assert len(convention.figures) == len(protocol.CONVENTION_TITLES)
