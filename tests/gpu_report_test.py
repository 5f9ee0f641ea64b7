"""The GPU report outlives any of its parts, and says what became of each."""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import os
import subprocess
import sys

import jax
import pytest

from benchmarks import gpu_parts, gpu_report, gpu_wheels, step
from configs import tiny
from data_pipeline import records
from stormer_jax import sharding, train

STEP = {
  'what': 'train step',
  'attention': 'xla',
  'remat': 'dots',
  'pairs': 8,
  'scan_layers': False,
}


def without(package, folder):
  """An environment of a process in which a package is not there."""
  (folder / f'{package}.py').write_text(
    f"raise ModuleNotFoundError('no {package}', name='{package}')\n"
  )
  return os.environ | {'PYTHONPATH': str(folder), 'JAX_PLATFORMS': 'cpu'}


def run_report(folder, monkeypatch, *options):
  """Runs the command; returns its status and what it reports."""
  monkeypatch.setattr(
    sys, 'argv', ['gpu_report', '--small', f'--out={folder}', *options]
  )
  status = gpu_report.main()
  return status, json.loads((folder / 'report.json').read_text())


def test_a_missing_package_ends_only_the_part_that_needs_it(
  tmp_path, monkeypatch
):
  two = gpu_report.Part('two', 'Two', ('machine',), 300)
  monkeypatch.setattr(gpu_report, 'PARTS', (*gpu_report.PARTS, two))
  environment = without('ml_collections', tmp_path)
  monkeypatch.setenv('PYTHONPATH', environment['PYTHONPATH'])
  status, report = run_report(
    tmp_path, monkeypatch, '--parts', 'blending', 'two'
  )
  machine, one, two = report['parts']
  assert status == 1
  assert one['state'] == 'missing package'
  assert 'ml_collections' in one['error']
  assert machine['state'] == two['state'] == 'done'
  assert {'what': 'platform', 'value': 'cpu'} in two['rows']
  text = (tmp_path / 'report.md').read_text()
  assert '| platform | cpu |' in text and 'missing package' in text


def test_what_trains_needs_no_decoder_of_videos(tmp_path):
  """The bare machine has no PyAV, and no room for its wheel."""
  program = 'import benchmarks.step, stormer_jax.train'
  subprocess.run(
    [sys.executable, '-c', program], env=without('av', tmp_path), check=True
  )


def test_only_what_is_timed_has_its_kernels_chosen_by_their_times(
  tmp_path, monkeypatch
):
  flags = []

  def run(command, limit, environment):
    flags.append((command[0], environment['XLA_FLAGS'].split()[-1]))
    return gpu_report.Outcome('', 'done', 0, [])

  monkeypatch.setattr(gpu_report, 'run_part', run)
  off = '--xla_gpu_autotune_level=0'
  run_report(tmp_path, monkeypatch, '--parts', 'growth', 'agreement', 'resume')
  assert [name for name, flag in flags if flag == off] == [
    'agreement',
    'resume',
  ]
  flags.clear()
  run_report(tmp_path, monkeypatch, '--autotune=4', '--parts', 'resume')
  assert off not in dict(flags).values()


def test_a_step_says_what_compiling_took_before_it_runs(tmp_path, monkeypatch):
  cache = tmp_path / 'cache'
  options = ('--parts', 'sam_xla_none', f'--cache={cache}', '--autotune=0')
  status, report = run_report(tmp_path, monkeypatch, *options)
  _, step = report['parts']
  assert (status, step['error']) == (0, '')
  compiled, ran = step['rows']
  assert compiled['what'] == 'compiled: train step'
  assert compiled['compile_seconds'] > 0 and 'ms' not in compiled
  assert ran['what'] == 'train step' and ran['ms'] > 0
  assert compiled['autotune'] == ran['autotune'] == '0'
  assert list(cache.iterdir()), 'nothing is left for a second call'


def test_the_step_after_the_blending_is_the_program_that_is_compiled_alone():
  config = tiny.get_config()
  mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
  raw = step.random_clips(config)
  pairs = jax.eval_shape(
    train.jit_pairs(config, mesh), raw['frames'], raw['landmarks'], raw['seed']
  )
  # Numbers on the host, as the step is compiled with, are never weakly typed.
  assert not [name for name, leaf in pairs.items() if leaf.weak_type]


def test_where_there_is_no_time_a_part_is_named_as_left_out(
  tmp_path, monkeypatch
):
  options = ('--parts', 'blending', '--seconds=1')
  status, report = run_report(tmp_path, monkeypatch, *options)
  assert status == 1
  assert [part['state'] for part in report['parts']] == ['no time left'] * 2


@pytest.mark.parametrize(
  ('seconds', 'sizes'), [(100, [4, 8, 16]), (59, [4, 8]), (10, [4])]
)
def test_a_batch_is_doubled_only_while_there_is_time(
  seconds, sizes, monkeypatch
):
  clock = [0.0]
  monkeypatch.setattr(gpu_parts.time, 'monotonic', lambda: clock[0])

  def grow(config, *_, **__):
    for pairs in (4, 8, 16):
      clock[0] += 20
      row = step.Row('train step', 1, pairs, *'abcd', 1, 1, 1, 1, 1, None, None)
      yield dataclasses.replace(row, ms=math.nan)
      yield row

  monkeypatch.setattr(step, 'grow', grow)
  arguments = argparse.Namespace(
    small=True,
    pairs=2,
    seconds=seconds,
    attention='xla',
    remat='none',
    scan_layers='True',
  )
  rows = list(gpu_parts.growth(arguments))
  assert [row['pairs'] for row in rows if 'ms' in row] == sizes


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


def test_the_report_stops_within_eight_minutes():
  assert gpu_report.REPORT_SECONDS <= 480
  for part in gpu_report.PARTS:
    assert part.limit < gpu_report.REPORT_SECONDS
    assert part.command[0] in gpu_parts.PARTS


def test_the_figures_are_held_against_their_bars():
  rows = [
    {'what': 'blending', 'pairs_per_second': 1234.0},
    STEP | {'ms': 100.0, 'clips_per_second': 160.0, 'mfu': 0.25},
    {'what': 'compiled: blending, train step', 'compile_seconds': 1.0},
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
  given = argparse.Namespace(
    attention='xla', remat='none', pairs=32, scan_layers=True
  )
  assert gpu_report.fastest(outcomes, given) == [
    '--attention=cudnn',
    '--remat=dots',
    '--pairs=16',
    '--scan_layers=False',
  ]
  assert gpu_report.fastest([], given) == [
    '--attention=xla',
    '--remat=none',
    '--pairs=32',
    '--scan_layers=True',
  ]


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
