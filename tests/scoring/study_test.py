"""Files of a report hold every figure, and only what is in the scores."""

import csv
import html.parser
import json
import math
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from stormer_jax.scoring import metrics, score_file, study

NONE = {'num_bootstrap': 20}
ROOT = pathlib.Path(__file__).parent.parent.parent


def write(folder, name, seed=0, num=30, extra='', shift=1.0):
  rng = np.random.default_rng(seed)
  lines = ['video,label,score,method,dataset,group']
  for i in range(num):
    score = metrics.sigmoid(np.array(rng.normal() + shift * (i % 2)))
    method = ('swap', 'talk<&>')[i // 2 % 2] if i % 2 else ''
    dataset, group = 'xy'[i >= 16], 'gh'[i % 3 > 0]
    lines.append(f'v{i},{i % 2},{float(score)!r},{method},{dataset},{group}')
  path = folder / f'{name}.csv'
  path.write_text('\n'.join(lines) + '\n' + extra)
  return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('scores')


@pytest.fixture(scope='module')
def made(folder):
  first = write(folder, 'one', extra='lost,fake,,swap,x,g\n')
  second = write(folder, 'two', seed=1)
  return study.report([str(first), str(second)], folder / 'out', measuring=NONE)


def read(path):
  return list(csv.DictReader(path.read_text().splitlines()))


def test_every_figure_stands_in_the_csv_to_the_last_bit(made, folder):
  lines = read(folder / 'out/figures.csv')
  assert len(lines) == len(made.rows)
  for line, row in zip(lines, made.rows, strict=True):
    value = row.estimate.value
    assert (
      line['value'] == ''
      if math.isnan(value)
      else (float(line['value']) == value)
    )
  (area,) = [
    line
    for line in lines
    if (line['system'], line['dataset'], line['figure'], line['part'])
    == ('two', 'x', 'auc', 'all')
    and line['convention'] == 'ours'
  ]
  second = score_file.read(folder / 'two.csv')[0]
  assert float(area['value']) == metrics.auc(second.labels, second.scores)


def test_the_roc_curve_in_the_csv_gives_the_area_back(made, folder):
  lines = read(folder / 'out/roc.csv')
  own = [
    (float(line['fpr']), float(line['tpr']))
    for line in lines
    if (line['system'], line['dataset']) == ('two', 'x')
  ]
  second = score_file.read(folder / 'two.csv')[0]
  assert np.trapezoid(*np.array(own).T[::-1]) == pytest.approx(
    metrics.auc(second.labels, second.scores)
  )
  assert made.systems == ['one', 'two'] and made.datasets == ['x', 'y']


def test_markdown_and_html_show_the_same_tables(made, folder):
  text = (folder / 'out/report.md').read_text()
  page = (folder / 'out/report.html').read_text()
  for table in study.make_tables(made):
    assert f'## {table.title}' in text
    for row in table.rows:
      for cell in row:
        assert cell.replace('|', '\\|') in text
        assert html.escape(cell) in page
  titles = [table.title for table in study.make_tables(made)]
  assert titles[0] == 'AUC' and titles[-1] == 'Protocol'
  assert {'Differences', 'Videos without a score', 'By method: x'} < set(titles)


def test_the_page_needs_nothing_from_elsewhere(made, folder):
  page = (folder / 'out/report.html').read_text()

  class Reader(html.parser.HTMLParser):
    def handle_starttag(self, tag, attributes):
      assert tag not in ('script', 'link', 'img', 'iframe')
      assert not {'src', 'href'} & {name for name, _ in attributes}

  Reader().feed(page)
  assert page.count('<svg') == len(study.make_plots(made)) > 4
  assert 'talk<&>' not in page and 'talk&lt;&amp;&gt;' in page


def test_every_plot_is_a_drawing_that_the_markdown_shows(made, folder):
  text = (folder / 'out/report.md').read_text()
  files = sorted((folder / 'out/plots').iterdir())
  assert files
  for file in files:
    root = xml.etree.ElementTree.parse(file).getroot()
    assert root.tag == '{http://www.w3.org/2000/svg}svg'
    assert f'(plots/{file.name})' in text
    assert 'nan' not in file.read_text()


def test_one_class_alone_has_no_curve_and_says_why(tmp_path):
  path = tmp_path / 'real.csv'
  path.write_text('video,label,score\na,0,0.25\nb,0,0.75\n')
  made = study.report([str(path)], tmp_path / 'out', measuring=NONE)
  text = (tmp_path / 'out/report.md').read_text()
  assert '| AUC | - (no fake video has a score) |' in text
  assert '| accuracy | 50.00 (0.0 to 100.0) |' in text
  assert [p.name.split('-')[0] for p in study.make_plots(made)] == [
    'scores',
    'reliability',
  ]


def test_scores_that_are_no_probabilities_have_no_reliability(tmp_path):
  path = tmp_path / 'logits.csv'
  path.write_text('video,label,score\na,0,-2\nb,1,3\nc,0,-1\nd,1,0.5\n')
  made = study.report([str(path)], tmp_path / 'out', measuring=NONE)
  text = (tmp_path / 'out/report.md').read_text()
  assert '| ECE | - (the scores are not probabilities) |' in text
  assert not [p for p in study.make_plots(made) if 'reliab' in p.name]


def test_a_file_with_one_column_of_scores_that_all_failed_is_reported(
  tmp_path,
):
  path = tmp_path / 'none.csv'
  path.write_text('video,label,score\na,0,\nb,1,\n')
  study.report([str(path)], tmp_path / 'out', measuring=NONE)
  text = (tmp_path / 'out/report.md').read_text()
  assert '| AUC | - (no video has a score) |' in text
  assert '| none | data set | a | real | no score in the file |' in text


def test_a_mean_over_sets_stands_beside_the_pool_and_the_paper(tmp_path):
  path = tmp_path / 'mine.csv'
  lines = ['video,label,score,dataset']
  for i in range(40):
    dataset = ('celebdf_v2:test', 'dfdcp:test')[i // 20]
    lines.append(f'v{i},{i % 2},{(7 * i + 20 * (i % 2)) % 41 / 41},{dataset}')
  path.write_text('\n'.join(lines))
  made = study.report([str(path)], tmp_path / 'out', measuring=NONE)
  table = study.make_tables(made)[0]
  assert [row[0] for row in table.rows] == [
    'celebdf_v2:test',
    'dfdcp:test',
    'mean',
    'pooled',
  ]
  assert table.rows[0][-1] == 'c23: 92.40 (90.2 to 94.6)'
  assert table.rows[2][-1] == ''


def test_groups_named_are_measured_alone_and_others_refused(tmp_path):
  saved = write(tmp_path, 'one', num=60)
  lines = saved.read_text().splitlines()
  saved.write_text('\n'.join([*lines, 'v,1,0.9,swap,x,other', '']))
  (all_x, all_y) = score_file.read_all([str(saved)])
  out = study.report(
    [str(saved)], tmp_path / 'out', measuring=NONE, groups=['g', 'h']
  )
  assert [len(s.video) for s in out.scores] == [16, 44]
  assert len(all_x.video) == 17 and len(all_y.video) == 44
  with pytest.raises(ValueError, match=r'no group k .* there are: g, h, o'):
    study.report([str(saved)], tmp_path / 'no', groups=['g', 'k'])


def test_the_command_reports_without_weights_and_media(tmp_path):
  path = write(tmp_path, 'one')
  command = [sys.executable, '-m', 'stormer_jax.main', '--mode=report']
  done = subprocess.run(
    [*command, f'--scores=mine={path}', f'--out={tmp_path / "out"}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert 'mine' in done.stdout and 'report.html' in done.stdout
  assert 'paper' not in done.stdout  # which has no figure of this set
  assert (tmp_path / 'out/report.html').exists()
  path.write_text('video,label,score\na,maybe,0.5\n')
  done = subprocess.run(
    [*command, f'--scores={path}', f'--out={tmp_path / "out"}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].endswith(
    "one.csv, line 2: label 'maybe'; expected 0 or real, 1 or fake"
  )


@pytest.mark.parametrize('start', ['stormer_jax.main', 'stormer_jax.cli'])
def test_a_report_is_made_without_jax_whose_import_takes_seconds(
  tmp_path, start
):
  path = write(tmp_path, 'one')
  mode = ['--mode=report'] if start == 'stormer_jax.main' else ['report']
  program = (
    'import sys\n'
    f'import {start} as program\n'
    'try:\n'
    '  getattr(program, "run", program.main)()\n'
    'finally:\n'
    '  print("loaded:", *(x for x in ("jax", "flax") if x in sys.modules))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, *mode, f'--scores={path}', '--out=out'],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'loaded:'
  assert (tmp_path / 'out/report.html').exists()


def test_json_and_csv_of_an_evaluation_give_the_same_figures(tmp_path):
  from stormer_jax.scoring import protocol, report

  rng = np.random.default_rng(0)
  rows = []
  for i in range(20):
    logits = tuple((rng.normal(size=3) + i % 2).tolist())
    mean = float(np.mean(np.sort(logits)))
    score = float(metrics.sigmoid(np.array(mean)))
    rows.append(
      report.VideoScore(f'v{i}', i % 2, '', '', '', 12, logits, mean, score)
    )
  own = protocol.Protocol(
    dataset='faces', split='test', margin=5, num_bootstrap=20
  )
  scores = report.measured(rows, own, {})
  folder = tmp_path / 'run/eval/faces-test'
  report.write_scores(scores, folder)
  again = study.report([str(tmp_path / 'run')], tmp_path / 'out')
  assert [r.estimate for r in again.rows] == [
    r.estimate for r in scores.measured
  ]
  assert again.systems == ['run'] and again.protocols == (own,)
  saved = json.loads((folder / 'metrics.json').read_text())
  assert saved['settings']['protocol']['margin'] == 5
  one = study.of_run('run', [scores])
  assert one.rows == again.rows
  assert study.figures_csv(one.rows) == study.figures_csv(again.rows)
  assert study.roc_csv(one) == study.roc_csv(again)
