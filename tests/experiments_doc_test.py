"""The changes that docs/experiments.md shows fit the code of today."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
DOC = (ROOT / 'docs/experiments.md').read_text()


def hunks():
  """(file, lines that it is to have, one after the other) of every change."""
  for block in re.findall(r'^```diff\n(.*?)^```', DOC, re.M | re.S):
    for change in re.split(r'^--- a/', block, flags=re.M)[1:]:
      name, *parts = re.split(r'^@@\n', change, flags=re.M)
      for part in parts:
        old = [x[1:] for x in part.splitlines() if not x.startswith('+')]
        yield name.splitlines()[0], '\n'.join(old)


def test_every_change_fits_its_file_at_one_place():
  found = list(hunks())
  assert len(found) > 15
  for name, old in found:
    assert old, f'{name}: a change that says not where'
    text = '\n' + (ROOT / name).read_text()
    assert text.count(f'\n{old}\n') == 1, f'{name}:\n{old}'
