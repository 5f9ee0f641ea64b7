"""CI runs on every Python that the project takes, and weekly."""

import pathlib
import re
import tomllib

import yaml

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / '.github/workflows/ci.yml').read_text()
# YAML 1.1 reads the key `on` as a truth value.
WORKFLOW = yaml.safe_load(TEXT.replace('\non:\n', '\nwhen:\n'))


def test_it_runs_what_must_pass_on_every_python():
  job = WORKFLOW['jobs']['run']
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  versions = job['strategy']['matrix']['python']
  assert f'>={versions[0]}' == project['requires-python']
  # The Makefile refuses what is not tested.
  bounds = re.search(r'\((\d), (\d+)\) <= v <= \(\d, (\d+)\)', makefile())
  major, least, most = map(int, bounds.groups())
  assert versions == [f'{major}.{x}' for x in range(least, most + 1)]
  assert {'run': 'bash .ci/run'} in job['steps']


def test_it_runs_weekly_with_the_newest_torch_and_else_with_the_makefiles():
  assert WORKFLOW['when']['schedule']
  (pinned,) = re.findall(r'^TORCH \?= (\S+)$', makefile(), re.MULTILINE)
  assert f"'schedule' && 'torch' || '{pinned}'" in TEXT


def makefile():
  return (ROOT / 'Makefile').read_text()
