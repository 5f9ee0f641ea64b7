"""Every entry of configs/ablations.py is a run that could start.

Traced at tiny size, not run: shapes, branches and choices are those of the
entry. The traces also say which fields of model and synthesis are read.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from configs import base
from data_pipeline import pipeline
from data_pipeline.synthesis import blending
from stormer_jax import model, objectives, steps
from stormer_jax.experiments import entries as entries_lib

FILE = 'configs/ablations.py'
SECTIONS = {
  'model': model.StormerConfig,
  'synthesis': blending.SynthesisConfig,
}
# What looks at every field of a dataclass, to check or to compare it.
NO_READERS = ('__post_init__', '__eq__', '__hash__', '_replace', 'replace')
PAIRS, IMAGE, PATCH = 2, 64, 16


def all_runs():
  config, entries = entries_lib.read_sweep(FILE)
  return entries_lib.list_runs(config, entries, pathlib.Path('W'))


FIRST = {run.entry: run for run in reversed(all_runs())}
TRACED: dict[str, object] = {}  # entries share what they do not change


@pytest.fixture(scope='module')
def read():
  """Fields of model and synthesis read since, as 'section.field'."""
  found: set[str] = set()

  def record(cls, section, fields):
    def getattribute(self, name):
      if name in fields:
        reader = sys._getframe(1).f_code.co_name
        if reader not in NO_READERS:
          found.add(f'{section}.{name}')
      return object.__getattribute__(self, name)

    cls.__getattribute__ = getattribute

  for section, cls in SECTIONS.items():
    record(cls, section, {field.name for field in dataclasses.fields(cls)})
  yield found
  for cls in SECTIONS.values():
    del cls.__getattribute__


def once(function, *sections):
  """Traces again only what another entry has not traced."""
  key = function.__name__ + json.dumps([s.to_dict() for s in sections])
  if key not in TRACED:
    TRACED[key] = function()
  return TRACED[key]


def small(run):
  config = run.config.copy_and_resolve_references().unlock()
  config.model.update(
    width=24, depth=1, num_heads=2, image_size=IMAGE, patch_size=PATCH
  )
  return config


def trace_pairs(config):
  def pairs():
    shape = jax.ShapeDtypeStruct
    frames = (PAIRS, config.model.num_frames)
    return jax.eval_shape(
      functools.partial(
        pipeline.make_pairs,
        synthesis=blending.SynthesisConfig(**config.synthesis),
        image_size=IMAGE,
        patch_size=PATCH,
      ),
      shape((*frames, 256, 256, 3), np.uint8),
      shape((*frames, 81, 2), np.float32),
      shape((PAIRS,), np.uint32),
    )

  return once(pairs, config.synthesis, config.model)


def trace_step(config, pairs):
  def step():
    graphdef, init = steps.make_model(config)
    tx = steps.make_optimizer(config, steps_per_epoch=3)
    state = jax.eval_shape(
      lambda: steps.init_state(
        *init(),
        tx=tx,
        ema_decay=config.optimizer.ema_decay,
        terms=objectives.choose(config).terms,
      )
    )
    train_step = steps.make_train_step(config, graphdef, tx, 3)
    return state, *jax.eval_shape(train_step, state, pairs)

  return once(step, config.model, config.loss, config.optimizer)


@pytest.mark.parametrize('entry', FIRST)
def test_every_entry_traces_a_step(entry, read):
  config = small(FIRST[entry])
  pairs = trace_pairs(config)
  assert pairs['clip'].shape == (
    *(2 * PAIRS, config.model.num_frames),
    *(IMAGE, IMAGE, 3),
  )
  before, after, terms = trace_step(config, pairs)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
    lambda x: (x.shape, x.dtype), after
  )
  assert terms['total'].shape == ()


def test_every_field_of_model_and_synthesis_is_read_on_the_way(read):
  config = small(FIRST['both_blurred'])  # which has a field of its own
  TRACED.clear()
  pairs = trace_pairs(config)
  trace_step(config, pairs)
  views = {
    'clip': pairs['clip'],
    'seed': jax.ShapeDtypeStruct((2 * PAIRS,), np.uint32),
  }
  config.model.stem = 'efficientnet_lite0'  # has fields of its own
  trace_step(config, pairs)
  config.loss.update(spatial_weight=0.0, temporal_weight=0.0)
  config.model.update(kind='frame_cnn', members=2, probes=1)  # has another
  jax.eval_shape(steps.make_model(config)[1])
  config.model.update(kind='mae', stem='patch', members=1, probes=0)  # others
  config.loss.classification_weight = 0.0
  trace_step(config, views)
  unread = {
    f'{section}.{field.name}'
    for section, cls in SECTIONS.items()
    for field in dataclasses.fields(cls)
  } - read
  assert not unread


def test_no_two_entries_are_the_same_run():
  texts = [run.config.to_json_best_effort() for run in all_runs()]
  assert len(set(texts)) == len(texts)


def test_the_base_comes_first_and_changes_nothing():
  _, entries = entries_lib.read_sweep(FILE)
  assert entries[0].name == 'base' and not entries[0].overrides
  assert len({entry.seeds for entry in entries}) == 1


def test_every_choice_of_a_word_is_an_entry_or_the_base():
  # What is said with a word in base.py and not tried here is how a run is
  # carried out, not what it computes; a stem is another model, and weights
  # from elsewhere bring their activation; an autoencoder is no detector.
  carried_out = {'mode', 'dtype', 'attention', 'remat'}
  carried_out |= {'stem', 'stem_statistics', 'activation', 'mae_masking'}
  runs = FIRST.values()
  for section, choices in (
    ('model', model._CHOICES),
    ('synthesis', blending._CHOICES),
  ):
    for name in choices.keys() - carried_out:
      tried = {run.config[section][name] for run in runs}
      assert tried == set(choices[name]), f'{section}.{name}'


def test_all_are_scored_on_held_out_videos_of_the_training_set():
  config, _ = entries_lib.read_sweep(FILE)
  assert config.eval.datasets == ('ffpp_c23:val',)
  assert config.eval.pseudo_fakes
  assert base.get_config().data.val_split == 'val'
