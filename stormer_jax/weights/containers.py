"""What a training program saved -> the one state dict in it that is wanted.

Enters: nested mappings with arrays in them, as `torch_file` reads them, or the
flat names of a .safetensors or .npz file. Leaves: names and arrays as the model
itself named them, and a sentence that says where they lay. Programs keep
weights under a key ('state_dict', 'ema') or put a word before every name
('module.', 'teacher.'); one list of words serves both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

StateDict = dict[str, np.ndarray]

# What wrappers of torch put before the names of the module they wrap, be it
# the whole model or a part of it (DataParallel, compile, FSDP, checkpoint).
_WRAPPERS = (
  'module',
  '_orig_mod',
  '_fsdp_wrapped_module',
  '_checkpoint_wrapped_module',
)
# Under these words training programs keep weights beside other things.
_KEYS = (
  *('state_dict', 'model_state_dict', 'model_state', 'model', 'net'),
  *('network', 'weights', 'params', 'student', 'teacher', 'ema', 'model_ema'),
  *('ema_model', 'online_model', 'ema_state_dict', 'state_dict_ema'),
  *('params_ema', *_WRAPPERS),
)
_SHOWN = 8  # keys in an error


def find_state_dict(content: Any, key: str = '') -> tuple[StateDict, str]:
  """Returns the state dict in what was saved, and where it lay.

  Args:
    content: Mappings of names to arrays, to further mappings, and to anything.
    key: Keys from the outside to the inside, or the first words of the names,
      joined by dots ('model.teacher'); '' where there is but one candidate.

  Returns:
    The tensors under their bare names, and words for people: the keys that led
    to them and what stood before their names; '' for a plain state dict.

  Raises:
    ValueError: There are no tensors, or two candidates; both are named, with
      the flag that chooses.
  """
  place: tuple[str, ...] = (key,) if key else ()
  inside = _descend(content, key)
  candidates = _candidates(inside, place, set())
  if not candidates:
    raise ValueError(_nothing(inside, place))
  if len(candidates) > 1:
    keys = sorted(map('.'.join, candidates))
    raise ValueError(
      f'holds {len(keys)} sets of weights: {", ".join(keys[:_SHOWN])}; '
      f'{_how_to_choose(keys[0])}'
    )
  ((place, tensors),) = candidates.items()
  bare, removed = _bare_names(tensors)
  said = [f'weights under {".".join(place)!r}'] if place else []
  if removed:
    said.append('names without ' + ', '.join(f'{p!r}' for p in removed))
  return bare, '; '.join(said)


def _candidates(
  content: Any, place: tuple[str, ...], seen: set[int]
) -> dict[tuple[str, ...], StateDict]:
  """All state dicts at or below a place, by the keys that lead to them."""
  if not isinstance(content, Mapping) or id(content) in seen:
    return {}  # a pickle may contain itself
  seen.add(id(content))
  found: dict[tuple[str, ...], StateDict] = {}
  for key in _KEYS:
    # First, because a tensor beside the weights may be a score or a count.
    if isinstance(content.get(key), Mapping):
      found |= _candidates(content[key], (*place, key), seen)
  if found:
    return found
  tensors = _tensors(content)
  if not tensors:
    return {}
  if len({_split(name)[1] for name in tensors}) == len(tensors):
    return {place: tensors}
  # Two tensors of one bare name: several models in one state dict.
  for name, value in tensors.items():
    before, _ = _split(name)
    where = (*place, before) if before else place
    found.setdefault(where, {})[name] = value
  return found


def _tensors(content: Mapping) -> StateDict:
  return {
    str(name): value
    for name, value in content.items()
    if isinstance(value, np.ndarray)
  }


def _descend(content: Any, key: str) -> Any:
  """What lies under a key, or under the words that names begin with."""
  if not key:
    return content
  keys = list(content) if isinstance(content, Mapping) else []
  for name in keys:
    if f'{key}.'.startswith(f'{name}.') and not isinstance(
      content[name], np.ndarray
    ):
      return _descend(content[name], key.removeprefix(str(name))[1:])
  under = {
    str(name).removeprefix(f'{key}.'): content[name]
    for name in keys
    if str(name).startswith(f'{key}.')
  }
  if not under:
    raise ValueError(f'holds nothing under {key!r}; it has {_list(keys)}')
  return under


def _split(name: str) -> tuple[str, str]:
  """The words of programs and wrappers that lead a name, and the bare name."""
  words = name.split('.')
  start = next(
    (i for i, word in enumerate(words[:-1]) if word not in _KEYS),
    len(words) - 1,
  )
  # Wrappers of a part stand inside a name.
  bare = [word for word in words[start:-1] if word not in _WRAPPERS]
  return '.'.join(words[:start]), '.'.join([*bare, words[-1]])


def _bare_names(tensors: StateDict) -> tuple[StateDict, list[str]]:
  """Tensors by bare name, and the different words that were left out."""
  bare, removed = {}, {}
  for name, value in tensors.items():
    before, short = _split(name)
    bare[short] = value
    if before:
      removed[f'{before}.'] = True
    inside = f'.{name.removeprefix(before)}.'
    removed |= {f'{w}.': True for w in _WRAPPERS if f'.{w}.' in inside}
  if len(bare) < len(tensors):
    raise ValueError(
      f'{len(tensors)} tensors have but {len(bare)} names without '
      f'{_list(list(removed))}'
    )
  return bare, list(removed)


def _nothing(content: Any, place: tuple[str, ...]) -> str:
  """The sentence for content without a state dict."""
  where = f'under {".".join(place)!r}' if place else 'at the top'
  while isinstance(content, Mapping):
    elsewhere = ['.'.join((*place, key)) for key in _elsewhere(content, set())]
    if elsewhere:
      return (
        f'holds no tensors {where}, but under {_list(elsewhere)}; '
        f'{_how_to_choose(elsewhere[0])}'
      )
    key = next((key for key in _KEYS if key in content), None)
    if key is None:
      return (
        f'holds no tensors {where} or under a key like '
        f'{", ".join(_KEYS[:4])}; its keys there: {_list(list(content))}'
      )
    content, place = content[key], (*place, key)
    where = f'under {".".join(place)!r}'
  return (
    f'{where} lies a {type(content).__name__}, not a state dict; save '
    'model.state_dict(), not the model'
  )


def _elsewhere(content: Mapping, seen: set[int]) -> list[str]:
  """Keys of any name under which there are tensors, but for optimizers."""
  seen.add(id(content))
  found = []
  for key, value in content.items():
    if not isinstance(value, Mapping) or 'optim' in str(key):
      continue
    if _tensors(value):
      found.append(str(key))
    elif id(value) not in seen:
      found += [f'{key}.{below}' for below in _elsewhere(value, seen)]
  return found


def _how_to_choose(key: str) -> str:
  return (
    f'choose one with --weights_key={key} (in training '
    f'--config.weights_key={key})'
  )


def _list(keys: list) -> str:
  more = f' and {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''
  return (', '.join(sorted(map(str, keys))[:_SHOWN]) or 'none') + more
