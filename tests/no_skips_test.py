"""Where nothing may be skipped, a skip fails the run and names its reason."""

import os
import pathlib
import subprocess
import sys

import pytest

FILES = {
  'a file': (
    "import pytest\npytest.skip('no package', allow_module_level=True)\n"
  ),
  'a test': "import pytest\ndef test_a():\n  pytest.skip('no package')\n",
  'a mark': (
    'import pytest\n'
    "@pytest.mark.skipif(True, reason='no package')\n"
    'def test_a():\n  pass\n'
  ),
}


def run(folder, text, *arguments):
  (folder / 'a_test.py').write_text(text)
  environment = os.environ | {'PYTHONPATH': str(pathlib.Path(__file__).parent)}
  command = [sys.executable, '-m', 'pytest', *arguments, 'a_test.py']
  return subprocess.run(
    command, cwd=folder, env=environment, capture_output=True, text=True
  )


@pytest.mark.parametrize('what', FILES)
def test_a_skip_is_a_failure_with_its_reason(what, tmp_path):
  (tmp_path / 'pytest.ini').touch()  # not ours
  finished = run(tmp_path, FILES[what], '-p', 'no_skips')
  assert finished.returncode in (1, 2)
  assert 'no package' in finished.stdout
  assert run(tmp_path, FILES[what]).returncode in (0, 5)


def test_a_test_that_runs_passes(tmp_path):
  (tmp_path / 'pytest.ini').touch()
  text = 'def test_a():\n  pass\n'
  assert run(tmp_path, text, '-p', 'no_skips').returncode == 0
