"""A pytest plugin under which a test that would be skipped fails.

  PYTHONPATH=tests python -m pytest -p no_skips ...

For an environment where nothing is missing (`make test-extras`): a package
that did not install must not look like a test that passed.
"""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
  """Judges a test."""
  del item
  return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
  """Judges a file that skips as a whole."""
  del collector
  return _failed_if_skipped((yield))


def _failed_if_skipped(report):
  # An expected failure reads as a skip too, with a reason for `wasxfail`.
  if report.skipped and not hasattr(report, 'wasxfail'):
    *_, reason = report.longrepr
    report.outcome = 'failed'
    report.longrepr = f'{reason} (nothing may be skipped here)'
  return report
