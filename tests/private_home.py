"""A user who has run nothing yet, to see what a program leaves with them."""

import os
import pathlib

_PLACES = {
  'HOME': 'home',
  'TMPDIR': 'tmp',
  'XDG_CACHE_HOME': 'home/cache',
  'XDG_CONFIG_HOME': 'home/config',
  'XDG_DATA_HOME': 'home/data',
  'XDG_STATE_HOME': 'home/state',
}


class PrivateHome:
  """Home, caches and temporary files of a user of one's own.

  Attributes:
    environment: What a program is started with to be run by that user.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes the folders, empty."""
    self._folder = folder
    places = {name: folder / place for name, place in _PLACES.items()}
    for place in places.values():
      place.mkdir(parents=True)
    self._before = set(folder.rglob('*'))
    self.environment = os.environ | {n: str(p) for n, p in places.items()}
    # Set by an import of ours in this process; a fresh one has to do it itself.
    self.environment.pop('ORT_DISABLE_TELEMETRY', None)

  def list_traces(self) -> list[pathlib.Path]:
    """Lists what has appeared since."""
    return sorted(set(self._folder.rglob('*')) - self._before)
