"""A file of weights -> its named tensors, whatever wrote it.

Enters: the path of a .pth, .safetensors or .npz file under any name; the
content says which it is. Leaves: names and arrays as the model itself named
them (`containers`). What is no such file gets the sentence that is true of it.
"""

from collections.abc import Callable
import json
import os
import pathlib
from typing import Any
import zipfile

from absl import logging
import numpy as np

from stormer_jax.weights import containers, tensor_file, torch_file

_LFS_POINTER = b'version https://git-lfs.github.com/spec/'
# First bytes of what people have instead of weights, and what to do about it.
_STRANGERS = (
  (b'\x1f\x8b', 'compressed with gzip; unpack it and name the file within'),
  (b'7z\xbc\xaf', 'a 7z archive; unpack it and name the file within'),
  (b'Rar!', 'a RAR archive; unpack it and name the file within'),
  (b'\x89HDF', 'an HDF5 file (Keras); read are files of PyTorch weights'),
  (b'\x93NUMPY', 'a single NumPy array; wanted is an .npz of named ones'),
)


def read_state_dict(
  path: str | pathlib.Path, key: str = ''
) -> dict[str, np.ndarray]:
  """Reads the named tensors of a file.

  Arrays of .pth and .safetensors files are read-only views of the mapped file.
  The keys under which a program keeps weights, and the words that wrappers put
  before names, are gone from the names and said on the log.

  Args:
    path: The file; its content counts, not its suffix.
    key: Which weights, where the file holds several (`containers`).

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no file of weights, damaged, or holds several sets; says
      what it is.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(
      describe_folder(path) or f'{path}: a folder without a file of weights'
    )
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file of weights')
  with path.open('rb') as file:
    start = file.read(512)
  if problem := _stranger(path, start):
    raise ValueError(f'{path}: {problem}')
  content = _reader(path, start)(path)
  try:
    tensors, said = containers.find_state_dict(content, key)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if said:
    logging.info('%s: %s', path, said)
  return tensors


def _reader(path: pathlib.Path, start: bytes) -> Callable[[pathlib.Path], Any]:
  """What reads a file: its content says, or its suffix for a damaged one."""
  if start.startswith(b'PK'):
    is_npz = _is_npz(path)
    return tensor_file.read_npz if is_npz else torch_file.read_torch_file
  if start[8:9] == b'{' or path.suffix.lower() == '.safetensors':
    return tensor_file.read_safetensors
  if path.suffix.lower() == '.npz':
    return tensor_file.read_npz
  return torch_file.read_torch_file


def describe_folder(path: pathlib.Path) -> str:
  """Says which file of a folder to name instead; '' if there are no weights."""
  names = sorted(os.listdir(path))
  whole = [
    name
    for name in names
    if name.lower().endswith(('.safetensors', '.pth', '.pt', '.bin', '.npz'))
    and '-of-' not in name
  ]
  if whole:
    return (
      f'{path}: a folder; name the file of weights in it: {path / whole[0]}'
    )
  if any(name.endswith('.index.json') for name in names):
    return f'{path}: a folder of weights in several files; {_JOIN}'
  if 'data.pkl' in names:
    return (
      f'{path}: an unpacked .pth; fetch the file as it was, or zip it again'
    )
  return ''


_JOIN = (
  'read are whole files: load the model with transformers and save it again '
  "with save_pretrained(folder, max_shard_size='100GB')"
)


def _stranger(path: pathlib.Path, start: bytes) -> str:
  """What is wrong with a file that cannot be weights; '' if it may be."""
  text = start.lstrip(b'\xef\xbb\xbf \t\r\n')
  if not start:
    return 'an empty file; fetch it again'
  if start.startswith(_LFS_POINTER):
    return (
      'a Git LFS pointer, not the weights it stands for; fetch them with '
      f'`git lfs pull --include {path.name}`'
    )
  if text[:1] == b'<':
    return (
      'a web page, not weights (the download asked for a click, or failed); '
      'fetch it again with a browser'
    )
  if text[:1] in (b'{', b'['):
    return _of_json(path)
  for magic, sentence in _STRANGERS:
    if start.startswith(magic):
      return sentence
  if start[257:262] == b'ustar':
    return 'a tar archive; unpack it and name the file within'
  return ''


def _of_json(path: pathlib.Path) -> str:
  try:
    content = json.loads(path.read_bytes())
  except ValueError:
    return 'a text, not weights'
  if isinstance(content, dict) and 'weight_map' in content:
    return f'the index of weights in several files; {_JOIN}'
  return 'a JSON text, not weights'


def _is_npz(path: pathlib.Path) -> bool:
  """Whether a zip archive is NumPy's; raises for one packed around weights."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, OSError):
    return path.suffix.lower() == '.npz'
  packed = [
    name
    for name in names
    if name.lower().endswith(('.pth', '.pt', '.safetensors', '.ckpt', '.npz'))
  ]
  if packed:
    raise ValueError(
      f'{path}: a zip archive around {packed[0]}; unpack it and name that file'
    )
  return bool(names) and all(name.endswith('.npy') for name in names)
