"""Dataclasses and mappings -> JSON; null stands for what is not known."""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import math
from typing import Any


def plain(value: Any) -> Any:
  """Reduces dataclasses to dicts and what is not finite to None."""
  if dataclasses.is_dataclass(value):
    names = (field.name for field in dataclasses.fields(value))
    return {name: plain(getattr(value, name)) for name in names}
  if isinstance(value, Mapping):
    return {name: plain(item) for name, item in value.items()}
  if isinstance(value, Iterable) and not isinstance(value, str):
    return [plain(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def text(value: Any) -> str:
  """Returns the content of a JSON file."""
  return json.dumps(plain(value), indent=2, allow_nan=False) + '\n'
