"""Every file in configs/ builds, and every field of a run is read."""

import ast
import dataclasses
import importlib
import inspect
import pathlib

import jax
import pytest

from configs import base, baselines, mae_faces, tables
from data_pipeline.synthesis import blending
from stormer_jax import losses, model, steps
from stormer_jax.experiments import entries as experiments_entries

ROOT = pathlib.Path(__file__).parent.parent
NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if path.stem != '__init__'
)


TAKEN = {
  'baselines': baselines.KINDS,
  'mae_faces': mae_faces.MASKINGS,
  'tables': tables.TABLES,
}
ARGUMENTS = [
  (name, argument)
  for name in NAMES
  for argument in TAKEN.get(name, ('paper', 'official'))
]


@pytest.mark.parametrize(('name', 'argument'), ARGUMENTS)
def test_every_config_builds_a_model(name, argument):
  config = importlib.import_module(f'configs.{name}').get_config(argument)
  assert config.is_locked
  blending.SynthesisConfig(**config.synthesis)
  # Of its own kind but small: what is left is the choice of everything else.
  config.model.update(width=24, depth=1, num_heads=2, num_frames=2)
  jax.eval_shape(steps.make_model(config)[1])


def test_a_misspelt_field_fails():
  config = base.get_config()
  with pytest.raises((AttributeError, KeyError), match='peak_lrr'):
    config.optimizer.peak_lrr = 1e-3


def test_an_unknown_semantics_fails_with_the_choices():
  with pytest.raises(ValueError, match='paper or official'):
    base.get_config('oficial')


def test_official_semantics_differs_in_five_fields_alone():
  def flat(config):
    return {
      f'{section}.{name}': value
      for section, fields in config.items()
      if hasattr(fields, 'items')
      for name, value in fields.items()
    }

  paper, official = flat(base.get_config()), flat(base.get_config('official'))
  assert {name for name in paper if paper[name] != official[name]} == {
    'data.max_offset',
    'model.map_layout',
    'model.temporal_token',
    'optimizer.batch_stats',
    'synthesis.boundary_change',
  }


def reads_of_fields() -> set[str]:
  """Every `X.section.field` in the sources, as 'section.field'.

  Sections that become a dataclass are read off it: `eval` as `options`, here;
  model and synthesis in ablations_test.py, while they are traced.
  """
  found = set()
  for package in ('data_pipeline', 'stormer_jax'):
    for path in (ROOT / package).rglob('*.py'):
      for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
          continue
        if isinstance(node.value, ast.Attribute):
          found.add(f'{node.value.attr}.{node.attr}')
        elif isinstance(node.value, ast.Name) and node.value.id == 'options':
          found.add(f'eval.{node.attr}')
        elif isinstance(node.value, ast.Name) and node.value.id == 'config':
          found.add(node.attr)
  return found


def test_every_field_is_read_somewhere():
  found = reads_of_fields()
  config = base.get_config()
  # Keyword arguments of the loss, which refuses others.
  assert set(config.loss) <= set(
    inspect.signature(losses.three_task_loss).parameters
  )
  unread = [
    name
    for name in experiments_entries.flatten(config)
    if not name.startswith(('loss.', 'model.', 'synthesis.'))
    and name not in found
  ]
  assert not unread


def test_sections_become_dataclasses_field_by_field():
  config = base.get_config()
  for cls, section in (
    (model.StormerConfig, config.model),
    (blending.SynthesisConfig, config.synthesis),
  ):
    assert {f.name for f in dataclasses.fields(cls)} == set(section)
