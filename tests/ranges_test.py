"""Every number of a configuration has a range, which all of ours keep."""

import math
import pathlib

from ml_collections import config_dict
import pytest

from configs import base
from stormer_jax import ranges

CONFIGS = pathlib.Path(ranges.__file__).parent.parent / 'configs'


def numbers(config, prefix='') -> set[str]:
  """Names of the fields that hold numbers."""
  found = set()
  for name, value in config.items():
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(value, config_dict.ConfigDict):
      found |= numbers(value, f'{prefix}{name}.')
    elif all(type(x) in (int, float) for x in values):
      found.add(prefix + name)
  return found


def test_the_ranges_are_those_of_fields():
  # Probabilities are checked by blending.SynthesisConfig.
  assert set(ranges._RANGES) <= numbers(base.get_config())


@pytest.mark.parametrize('semantics', ['paper', 'official'])
def test_the_published_runs_keep_them(semantics):
  ranges.check(base.get_config(semantics))


@pytest.mark.parametrize('name', ranges._RANGES)
def test_a_number_out_of_its_range_is_named(name):
  least, most = ranges._RANGES[name]
  section, _, field = name.rpartition('.')
  for value in (least - 1, most * 2 + 1, math.nan, math.inf):
    config = base.get_config().copy_and_resolve_references().to_dict()
    fields = config[section] if section else config
    old = fields[field]
    fields[field] = (value,) * len(old) if isinstance(old, tuple) else value
    with pytest.raises(ValueError, match=f'^{name} is .*; (at least|above)'):
      ranges.check(config_dict.ConfigDict(config))


def test_fields_that_are_not_there_are_passed_over():
  ranges.check(config_dict.ConfigDict({'loss': {}, 'model': 3}))
