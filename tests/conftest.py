"""Eight CPU devices, checked shapes, and the tiny configuration."""

import pathlib

import jax
from jaxtyping import install_import_hook
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Every annotation of ours is checked at every call, in tests alone.
install_import_hook(['data_pipeline', 'stormer_jax'], 'beartype.beartype')


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Folder of the small arrays that the original code computed."""
  return pathlib.Path(__file__).parent / 'golden'


@pytest.fixture
def tiny_config():
  """A run of seconds: configs/tiny.py, unlocked paths and all."""
  from configs import tiny

  return tiny.get_config()
