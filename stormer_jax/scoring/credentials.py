"""What a file says of its own origin: its C2PA manifest, if it carries one.

Enters: a path. Leaves: an `answer.Credentials`. A manifest is a signed note of
who made or changed a file and with what (C2PA, the Content Credentials). The
package c2pa-python reads it where it is installed (extra `c2pa`). A manifest
that lies elsewhere is not fetched, and no certificate is asked for on a
network, so who signed is told but not vouched for. No proof, either way: a
manifest says what its signer says, and most files have none.
"""

import functools
import json
import os
import pathlib
from types import ModuleType
from typing import Any

from stormer_jax.scoring import answer

# By the first bytes; what else there is carries no manifest that c2pa reads.
_KINDS = (
  (4, b'ftyp', 'video/mp4'),
  (8, b'AVI ', 'video/avi'),
  (0, b'\xff\xd8\xff', 'image/jpeg'),
  (0, b'\x89PNG', 'image/png'),
)
_OFFLINE = {
  'version': 1,
  'verify': {
    'remote_manifest_fetch': False,
    'ocsp_fetch': False,
    'verify_after_reading': True,
    'verify_trust': False,
  },
}
_MOST_LISTED = 20  # actions and problems


def read(path: str | os.PathLike[str]) -> answer.Credentials:
  """Reads and checks the manifest of a file; of a folder there is none."""
  kind = _kind(pathlib.Path(path))
  if kind is None:
    return answer.Credentials('none')
  library = _library()
  if library is None:
    return answer.Credentials('not_checked')
  try:
    with pathlib.Path(path).open('rb') as file:
      reader = library.Reader.try_create(kind, file, None, _context(library))
      if reader is None:
        return answer.Credentials('none')
      with reader:
        return _of_manifest(json.loads(reader.json()))
  except library.C2paError as error:
    if 'remote' in str(error).lower():
      return answer.Credentials('remote')
    return answer.Credentials('invalid', problems=(str(error)[:200],))


def _kind(path: pathlib.Path) -> str | None:
  if not path.is_file():
    return None
  with path.open('rb') as file:
    head = file.read(16)
  return next(
    (kind for at, word, kind in _KINDS if head[at:].startswith(word)), None
  )


@functools.cache
def _library() -> ModuleType | None:
  try:
    import c2pa
  except ImportError:
    return None
  return c2pa


def _context(library: ModuleType) -> Any:
  return library.Context.from_dict(_OFFLINE)


def _of_manifest(store: dict[str, Any]) -> answer.Credentials:
  manifest = store.get('manifests', {}).get(store.get('active_manifest'), {})
  signature = manifest.get('signature_info') or {}
  makers = manifest.get('claim_generator_info') or []
  generator = ', '.join(
    f'{maker.get("name", "")} {maker.get("version", "")}'.strip()
    for maker in makers
  )
  actions = [
    str(action.get('action', ''))
    for assertion in manifest.get('assertions', [])
    if str(assertion.get('label', '')).startswith('c2pa.actions')
    for action in (assertion.get('data') or {}).get('actions', [])
  ]
  # That nobody vouches for the signer is said of every manifest.
  problems = [
    str(status.get('code', ''))
    for status in store.get('validation_status', [])
    if status.get('code') != 'signingCredential.untrusted'
  ]
  return answer.Credentials(
    state='invalid' if problems else 'valid',
    generator=generator or str(manifest.get('claim_generator', '')),
    signer=str(signature.get('issuer') or signature.get('common_name') or ''),
    time=str(signature.get('time') or ''),
    actions=tuple(dict.fromkeys(actions))[:_MOST_LISTED],
    problems=tuple(dict.fromkeys(problems))[:_MOST_LISTED],
  )
