"""Training, scoring, evaluation: prepared clips and seeds -> answers.

`stormer_jax.Detector` answers for videos (`scoring.video_detector`).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from stormer_jax.scoring.answer import Answer
  from stormer_jax.scoring.video_detector import Detector, Look

__all__ = ('Answer', 'Detector', 'Look')

_HOMES = {
  'Answer': 'answer',
  'Detector': 'video_detector',
  'Look': 'video_detector',
}


def __getattr__(name: str) -> Any:
  """Imports what is asked for: JAX and all, which takes seconds."""
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = importlib.import_module(f'stormer_jax.scoring.{_HOMES[name]}')
  return getattr(home, name)
