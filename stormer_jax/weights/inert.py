"""What stands for an object of a pickle whose class is not wanted."""

from typing import Any


class Inert:
  """Takes what a pickle does to an object; keeps nothing and does nothing."""

  def __new__(cls, *args, **kwargs):
    return super().__new__(cls)

  def __init__(self, *args, **kwargs):
    pass

  def __setstate__(self, state: Any):
    pass

  def __setitem__(self, key: Any, value: Any):
    pass

  def append(self, item: Any):
    pass

  def extend(self, items: Any):
    pass
