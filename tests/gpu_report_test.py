"""The GPU report outlives any of its parts, and says what became of each."""

import importlib.metadata
import json
import os
import sys

import pytest

from benchmarks import gpu_parts, gpu_report, gpu_wheels
from data_pipeline import records

STEP = {'what': 'train step', 'attention': 'xla', 'remat': 'dots', 'pairs': 8}


def without(package, folder):
  """An environment of a process in which a package is not there."""
  (folder / f'{package}.py').write_text(
    f"raise ModuleNotFoundError('no {package}', name='{package}')\n"
  )
  return os.environ | {'PYTHONPATH': str(folder), 'JAX_PLATFORMS': 'cpu'}


def test_a_missing_package_ends_only_the_part_that_needs_it(
  tmp_path, monkeypatch
):
  one = gpu_report.Part('One', ('blending',), 300)
  two = gpu_report.Part('Two', ('machine',), 300)
  monkeypatch.setattr(gpu_report, 'together', lambda small: (one,))
  monkeypatch.setattr(gpu_report, 'ALONE', (two,))
  arguments = ['gpu_report', '--small', f'--out={tmp_path}']
  monkeypatch.setattr(sys, 'argv', arguments)
  environment = without('ml_collections', tmp_path)
  monkeypatch.setenv('PYTHONPATH', environment['PYTHONPATH'])
  assert gpu_report.main() == 1
  report = json.loads((tmp_path / 'report.json').read_text())
  machine, one, two = report['parts']
  assert one['state'] == 'missing package'
  assert 'ml_collections' in one['error']
  assert machine['state'] == two['state'] == 'done'
  assert {'what': 'platform', 'value': 'cpu'} in two['rows']
  text = (tmp_path / 'report.md').read_text()
  assert '| platform | cpu |' in text and 'missing package' in text


def test_a_part_is_stopped_at_its_limit_and_keeps_its_figures(tmp_path):
  # It says its first figures, then hangs where it imports jax.
  (tmp_path / 'jax.py').write_text('import time\ntime.sleep(1000)\n')
  outcome = gpu_report.run_part(
    ['machine', f'--folder={tmp_path}'],
    5.0,
    os.environ | {'PYTHONPATH': str(tmp_path)},
  )
  assert outcome.state == 'stopped at its limit'
  assert outcome.rows and outcome.rows[0]['what'] == 'python'


def test_a_part_that_fails_says_why_in_one_line(tmp_path):
  (tmp_path / 'jax.py').write_text("raise RuntimeError('no card')\n")
  outcome = gpu_report.run_part(
    ['machine', f'--folder={tmp_path}'],
    60.0,
    os.environ | {'PYTHONPATH': str(tmp_path)},
  )
  assert (outcome.state, outcome.error) == ('failed', 'RuntimeError: no card')


def test_all_parts_fit_eight_minutes():
  assert gpu_report.REPORT_SECONDS <= 480
  reserved = sum(part.reserve for part in gpu_report.ALONE)
  compiling = max(part.limit for part in gpu_report.together(False))
  assert reserved + compiling <= 480
  for part in (*gpu_report.together(False), *gpu_report.ALONE):
    assert part.reserve <= part.limit
    assert part.command[0] in gpu_parts.PARTS


def test_the_figures_are_held_against_their_bars():
  rows = [
    {'what': 'blending', 'pairs_per_second': 1234.0},
    STEP | {'ms': 100.0, 'clips_per_second': 160.0, 'mfu': 0.25},
    STEP | {'what': 'blending, train step', 'ms': 104.0, 'mfu': 0.24},
    {'what': 'resumed', 'bit_equal': True, 'relative_error': 0.0},
  ]
  said = gpu_report.bars([gpu_report.Outcome('', 'done', 1, rows)])
  assert '1,234 pairs/s' in said[0]
  assert '25.0%' in said[1]
  assert 'adds 4.0%' in said[2]
  assert 'bit-equal' in said[3]


def test_the_fastest_step_is_the_one_that_is_measured_whole():
  rows = [
    STEP | {'clips_per_second': 10.0},
    STEP | {'clips_per_second': 20.0, 'attention': 'cudnn', 'pairs': 16},
  ]
  outcomes = [gpu_report.Outcome('', 'done', 1, rows)]
  assert gpu_report.fastest(outcomes) == [
    '--attention=cudnn',
    '--remat=dots',
    '--pairs=16',
  ]
  assert gpu_report.fastest([]) == []


@pytest.mark.parametrize(
  ('version', 'wanted'),
  [('0.12.7', True), ('0.12.8', False), ('0.12.12', False), ('0.13.0', True)],
)
def test_only_what_is_missing_or_out_of_bounds_is_installed(
  version, wanted, tmp_path, monkeypatch
):
  def installed(name):
    if name == 'no-such-package':
      raise importlib.metadata.PackageNotFoundError
    return version

  monkeypatch.setattr(importlib.metadata, 'version', installed)
  flax = tmp_path / 'flax-0.12.8-py3-none-any.whl'
  missing = tmp_path / 'no_such_package-1.0-py3-none-any.whl'
  flax.touch()
  missing.touch()
  expected = [flax, missing] if wanted else [missing]
  assert gpu_report.wanted_wheels(tmp_path) == expected


def test_wheels_are_gathered_of_what_packages_need_in_turn():
  found = gpu_wheels.required(['tensorflow-datasets>=4'], ['pyarrow'])
  assert {'tensorflow-datasets', 'promise', 'six'} <= set(found)
  assert 'pyarrow' not in found and 'pytest' not in found
  assert found['promise'] == importlib.metadata.version('promise')


def test_the_made_up_records_are_ones_that_training_reads(tmp_path):
  gpu_parts.write_records(tmp_path)
  opened = records.open_records(tmp_path, 'demo', 'consecutive', 'train')
  assert [video.num_frames for video in opened.videos] == [24] * 8
