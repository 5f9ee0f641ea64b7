"""Runs are grouped, measured and compared as they should be."""

import csv
import json
import math
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from stormer_jax import comparison
from stormer_jax.scoring import bootstrap, metrics

ROOT = pathlib.Path(__file__).parent.parent
NAMES = [f'v{i:03}' for i in range(40)]


def draw_logits(seed, shift):
  """Logits of 40 videos: even ones are real, odd ones fake and higher."""
  rng = np.random.default_rng(seed)
  return rng.normal(0, 1, len(NAMES)) + shift * (np.arange(len(NAMES)) % 2)


def write_run(folder, config, *, curve=(), logits=None, names=NAMES, done=True):
  """Leaves in a folder what a run and its evaluation leave."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(config.to_json_best_effort())
  figure = config.train.best_metric
  lines = [
    {'step': step, 'train/total': 1.0, figure: value, 'time': {}}
    for step, value in curve
  ]
  (folder / 'metrics.jsonl').write_text(
    ''.join(json.dumps(line) + '\n' for line in lines)
  )
  if done:
    (folder / 'finished.json').write_text('{"step": 2}')
  if logits is not None:
    write_scores(folder, logits, names)


def write_scores(folder, logits, names=NAMES):
  scored = folder / 'eval/celebdf_v2-test'
  scored.mkdir(parents=True)
  with (scored / 'scores.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['video_id', 'label', 'score', 'reason'])
    for name, logit in zip(names, logits, strict=True):
      empty = math.isnan(logit)
      writer.writerow(
        [
          *(name, int(name[1:]) % 2),
          '' if empty else repr(1 / (1 + math.exp(-logit))),
          'too_short: 3 frames' if empty else '',
        ]
      )


@pytest.fixture
def write(tiny_config, tmp_path):
  """Writes one run of an entry."""

  def write_one(entry, seed, fields=None, **kwargs):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.seed = seed
    for name, value in (fields or {}).items():
      section, field = name.split('.')
      config[section][field] = value
    write_run(tmp_path / entry / f'seed{seed}', config, **kwargs)

  return write_one


@pytest.fixture
def two_entries(write):
  for seed in (0, 1, 2):
    curve = [(1, 0.6 + 0.01 * seed), (2, 0.7 + 0.02 * seed)]
    write('base', seed, curve=curve, logits=draw_logits(seed, 1.5))
    write(
      *('adam', seed, {'optimizer.rho': 0.0}),
      curve=[(1, 0.6), (2, 0.55)],
      logits=draw_logits(10 + seed, 0.8),
    )


def measures_of(tmp_path, base=None):
  measures, _ = comparison.compare([f'{tmp_path}/*'], base)
  return {measure.name.partition(':')[0]: measure for measure in measures}


def row_of(measure, name):
  (row,) = (row for row in measure.rows if row.name == name)
  return row


def aucs(shift, seeds):
  labels = np.arange(len(NAMES)) % 2
  return [metrics.auc(labels, draw_logits(seed, shift)) for seed in seeds]


def test_seeds_are_averaged_with_their_deviation(two_entries, tmp_path):
  measures = measures_of(tmp_path)
  validation = row_of(measures['validation'], 'base')
  assert validation.seeds == (0, 1, 2)
  assert validation.mean == pytest.approx(0.72)
  assert validation.deviation == pytest.approx(0.02)
  scored = row_of(measures['celebdf_v2-test'], 'base')
  assert scored.mean == pytest.approx(np.mean(aucs(1.5, (0, 1, 2))))
  assert scored.deviation == pytest.approx(np.std(aucs(1.5, range(3)), ddof=1))


def test_the_best_validation_of_a_run_counts(two_entries, tmp_path):
  row = row_of(measures_of(tmp_path)['validation'], 'adam')
  assert row.values == (0.6, 0.6, 0.6)
  assert row.difference == pytest.approx(-0.12)


def test_one_seed_is_compared_as_two_systems_are(write, tmp_path):
  ours, theirs = draw_logits(7, 0.8), draw_logits(3, 1.5)
  write('base', 0, logits=theirs)
  write('adam', 0, {'optimizer.rho': 0.0}, logits=ours)
  row = row_of(measures_of(tmp_path)['celebdf_v2-test'], 'adam')
  labels = np.arange(len(NAMES)) % 2
  expected = bootstrap.differences(
    labels, metrics.sigmoid(ours), metrics.sigmoid(theirs), names=['auc']
  )['auc']
  assert row.difference == pytest.approx(expected.value)
  assert row.difference_interval == pytest.approx((expected.low, expected.high))
  own = bootstrap.estimates(labels, metrics.sigmoid(ours), names=['auc'])['auc']
  assert row.interval == pytest.approx((own.low, own.high))


def test_a_paired_difference_is_narrower_where_runs_err_on_the_same_videos(
  write, tmp_path
):
  common = draw_logits(3, 0.8)
  write('base', 0, logits=common)
  almost = common + 0.05 * np.arange(len(NAMES)) / len(NAMES)
  write('alike', 0, {'optimizer.rho': 0.0}, logits=almost)
  row = row_of(measures_of(tmp_path)['celebdf_v2-test'], 'alike')

  def width(ends):
    return ends[1] - ends[0]

  assert width(row.difference_interval) < 0.2 * width(row.interval)


def test_only_fields_that_differ_are_columns(write, tmp_path):
  write('base', 0, curve=[(1, 0.5)])
  # How a run is carried out is no difference.
  write(
    'adam', 0, {'optimizer.rho': 0.0, 'data.num_threads': 1}, curve=[(1, 1.0)]
  )
  measures = measures_of(tmp_path)
  assert row_of(measures['validation'], 'adam').fields == {'optimizer.rho': 0.0}
  header = comparison.report([f'{tmp_path}/*']).splitlines()[2]
  assert header.split(' | ')[:3] == ['| run', 'optimizer.rho', 'seeds']


def test_runs_that_differ_in_how_they_are_carried_out_are_one_entry(
  write, tmp_path
):
  write('base', 0, {'data.num_threads': 1}, curve=[(1, 0.5)])
  write('base', 1, {'data.num_threads': 2}, curve=[(1, 0.7)])
  (row,) = measures_of(tmp_path)['validation'].rows
  assert row.seeds == (0, 1) and not row.fields


def test_many_fields_are_said_in_one_column(write, tmp_path):
  write('base', 0, curve=[(1, 0.5)])
  for field in ('width', 'depth', 'num_heads', 'num_frames', 'image_size'):
    write(field, 0, {f'model.{field}': 32}, curve=[(1, 0.5)])
  for field in ('b1', 'b2'):
    write(field, 0, {f'optimizer.{field}': 0.5}, curve=[(1, 0.5)])
  text = comparison.report([f'{tmp_path}/*'], out=tmp_path / 'out')
  assert '| run | differs from base | seeds |' in text
  assert '| depth | model.depth=32 | 1 |' in text
  with (tmp_path / 'out/comparison.csv').open() as file:
    lines = list(csv.DictReader(file))
  assert lines[0]['model.width'] == '24'  # all of them


def test_an_unfinished_run_is_named_and_left_out(two_entries, write, tmp_path):
  write('base', 3, curve=[(1, 0.1)], done=False)
  row = row_of(measures_of(tmp_path)['validation'], 'base')
  assert row.seeds == (0, 1, 2)
  assert row.note == 'seed 3 stopped at step 1'
  assert '| 95 % interval | note |' in comparison.report([f'{tmp_path}/*'])


def test_nothing_finished_is_said(write, tmp_path):
  write('base', 3, curve=[(1, 0.1)], done=False)
  with pytest.raises(
    ValueError, match=r'no run there is finished .* at step 1'
  ):
    measures_of(tmp_path)


def test_converted_weights_are_compared_by_their_scores(write, tmp_path):
  write('base', 0, logits=draw_logits(0, 1.5), curve=[(1, 0.5)])
  write(
    *('released', 0, {'model.temporal_token': 'first_clip'}),
    logits=draw_logits(1, 1.5),
    done=False,  # they were never trained here
  )
  row = row_of(measures_of(tmp_path)['celebdf_v2-test'], 'released')
  assert len(row.values) == 1 and not row.note


def test_runs_are_compared_on_videos_that_both_have_scored(write, tmp_path):
  write('base', 0, logits=draw_logits(3, 1.5))
  fewer = draw_logits(7, 0.8)
  fewer[:4] = math.nan
  write('adam', 0, {'optimizer.rho': 0.0}, logits=fewer)
  row = row_of(measures_of(tmp_path)['celebdf_v2-test'], 'adam')
  assert row.note == '4 videos of the base not scored'
  labels = np.arange(len(NAMES))[4:] % 2
  expected = metrics.auc(labels, fewer[4:]) - metrics.auc(
    labels, draw_logits(3, 1.5)[4:]
  )
  assert row.difference == pytest.approx(expected)


def test_another_base_can_be_named(two_entries, tmp_path):
  measure = measures_of(tmp_path, 'adam')['validation']
  assert row_of(measure, 'base').difference == pytest.approx(0.12)
  assert math.isnan(row_of(measure, 'adam').difference)
  with pytest.raises(ValueError, match='--base is sgd; there are adam, base'):
    measures_of(tmp_path, 'sgd')


def test_two_sweeps_with_entries_of_one_name_are_told_apart(write, tmp_path):
  write('one/base', 0, curve=[(1, 0.5)])
  write('two/base', 0, {'optimizer.rho': 0.0}, curve=[(1, 0.6)])
  measures, _ = comparison.compare([f'{tmp_path}/one/*', f'{tmp_path}/two/*'])
  names = [row.name for row in measures[0].rows]
  assert names == [f'{tmp_path}/one/base/seed0', f'{tmp_path}/two/base/seed0']


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(ValueError, match='no folder there is a run'):
    comparison.report([f'{tmp_path}/*'])


def test_a_damaged_configuration_is_named(write, tmp_path):
  write('base', 0, curve=[(1, 0.5)])
  path = tmp_path / 'base/seed0/config.json'
  path.write_text(path.read_text()[:50])
  with pytest.raises(ValueError, match=r'base/seed0/config.json: damaged'):
    comparison.report([f'{tmp_path}/*'])


def test_page_table_and_plots_are_written(two_entries, tmp_path):
  out = tmp_path / 'out'
  text = comparison.report([f'{tmp_path}/*'], out=out)
  assert (out / 'comparison.md').read_text().startswith(text)
  assert '| note |' not in text and '|  |\n' in text  # the base's difference
  with (out / 'comparison.csv').open() as file:
    lines = list(csv.DictReader(file))
  assert [(x['measure'].partition(':')[0], x['run']) for x in lines] == [
    ('validation', 'adam'),
    ('validation', 'base'),
    ('celebdf_v2-test', 'adam'),
    ('celebdf_v2-test', 'base'),
  ]
  assert float(lines[3]['mean']) == pytest.approx(
    np.mean([float(value) for value in lines[3]['values'].split()])
  )
  names = {path.name for path in out.iterdir()}
  assert names == {
    *('comparison.md', 'comparison.csv', 'curves.svg'),
    *('differences-validation.svg', 'differences-celebdf_v2-test.svg'),
  }
  for path in out.glob('*.svg'):
    titles = [e.text for e in ElementTree.parse(path).iter() if e.text]
    assert 'adam' in ' '.join(titles)


def test_the_command_compares(two_entries, tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'stormer_jax.main', '--mode=report'),
      f'--runs={tmp_path}/*',
    ],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == comparison.report([f'{tmp_path}/*']).strip()
