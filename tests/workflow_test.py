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


def test_a_push_does_not_end_the_weekly_run():
  concurrency = WORKFLOW['concurrency']
  assert concurrency['cancel-in-progress']
  assert '${{ github.event_name }}' in concurrency['group']


def test_it_may_read_and_needs_no_secret():
  assert WORKFLOW['permissions'] == {'contents': 'read'}
  assert 'secrets.' not in TEXT and 'github.token' not in TEXT
  checkout = WORKFLOW['jobs']['run']['steps'][0]
  assert checkout['uses'].startswith('actions/checkout@')
  assert checkout['with'] == {'persist-credentials': False}


def makefile():
  return (ROOT / 'Makefile').read_text()
