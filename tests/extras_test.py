"""What `make test` skips for want of a package, `make test-extras` runs."""

import ast
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
FILES = sorted(TESTS.rglob('*_test.py'))
# Those that another command of the Makefile runs.
MARKS = ('pytest.mark.extra', 'pytest.mark.browser')


def names_in(node: ast.AST) -> set[str]:
  """What a piece of code names, a test's fixtures among it."""
  return {
    getattr(part, kind)
    for part in ast.walk(node)
    for kind in ('id', 'attr', 'arg')
    if isinstance(getattr(part, kind, None), str)
  }


def unmarked(text: str) -> list[str]:
  """Tests that may skip for want of a package and do not say so."""
  tree = ast.parse(text)
  marked = any(f'pytestmark = {mark}\n' in text for mark in MARKS)
  functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
  others = [n for n in tree.body if not isinstance(n, ast.FunctionDef)]
  may_skip = {'importorskip'}
  if any('importorskip' in names_in(node) for node in others):
    may_skip |= {f.name for f in functions if f.name.startswith('test')}
  while True:  # helpers and fixtures, and what uses them
    found = {f.name for f in functions if names_in(f) & may_skip} - may_skip
    if not found:
      break
    may_skip |= found
  return [
    f.name
    for f in functions
    if f.name.startswith('test')
    and f.name in may_skip
    and not marked
    and not {ast.unparse(d) for d in f.decorator_list} & set(MARKS)
  ]


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_a_test_that_needs_an_extra_is_marked(file):
  assert unmarked(file.read_text()) == []


def test_a_need_behind_a_fixture_or_of_the_whole_file_is_seen():
  behind = (
    'def helper():\n  return pytest.importorskip("torch")\n'
    '@pytest.fixture\ndef net():\n  return helper()\n'
    'def test_a(net):\n  pass\n'
    '@pytest.mark.extra\ndef test_b(net):\n  pass\n'
    'def test_c():\n  pass\n'
  )
  assert unmarked(behind) == ['test_a']
  whole = 'dlib = pytest.importorskip("dlib")\ndef test_a():\n  pass\n'
  assert unmarked(whole) == ['test_a']
  assert unmarked(whole + 'pytestmark = pytest.mark.extra\n') == []
