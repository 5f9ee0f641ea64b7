"""Tables and curves of robustness hold the figures of the damaged sets."""

import dataclasses
import xml.etree.ElementTree

import measurement_test
import numpy as np
import pytest

from stormer_jax.scoring import measurement, plots, robustness, study, tables


@pytest.mark.parametrize(
  ('name', 'base', 'kind', 'level', 'of_crops'),
  [
    ('faces-blur-3:test', 'faces:test', 'blur', 3, False),
    ('faces-crops-h264-5:val', 'faces:val', 'h264', 5, True),
    ('a-b-noise-1', 'a-b', 'noise', 1, False),
  ],
)
def test_a_name_says_what_was_damaged_and_how(
  name, base, kind, level, of_crops
):
  assert robustness.parse(name) == robustness.Damaged(
    base, kind, level, of_crops
  )


@pytest.mark.parametrize('name', ['faces:test', 'faces-blur-6:test', 'set-3'])
def test_other_names_are_of_no_damaged_set(name):
  assert robustness.parse(name) is None


def make_scores(groups=()):
  """Two systems: as it was, damaged videos, damaged crops; less to see each."""
  scores = []
  for system in ('a', 'b'):
    for i, name in enumerate(
      ('faces', 'faces-blur-1', 'faces-blur-3', 'faces-crops-noise-2', 'other')
    ):
      own = measurement_test.saved(
        seed=i,
        system=system,
        dataset=f'{name}:test',
        group=groups or [''] * 40,
      )
      own.scores[:i] = np.nan
      scores.append(own)
  return scores


def make_rows(scores):
  return study.make_study(
    scores, {'num_bootstrap': 20, 'aggregation': 'as given'}
  )


def test_a_cell_is_the_area_of_its_set_with_its_interval():
  made = make_rows(make_scores())
  first, second = [
    table
    for table in robustness.make_tables(made.rows)
    if 'faces:test, a' in table.title
  ]
  assert 'damaged videos' in first.title and 'damaged crops' in second.title
  (row,) = first.rows
  areas = {
    r.dataset: tables.shown('auc', r.estimate)
    for r in made.rows
    if (r.system, r.convention, r.level, r.part, r.figure)
    == ('a', 'ours', 'video', 'all', 'auc')
  }
  assert row == (
    'blur',
    areas['faces:test'],
    areas['faces-blur-1:test'] + ', 39 of 40 videos',
    '',
    areas['faces-blur-3:test'] + ', 38 of 40 videos',
    '',
    '',
  )
  ((kind, none, *_),) = second.rows
  assert (kind, none) == ('noise', areas['faces:test'])


def test_groups_have_a_table_of_their_mean():
  rows = make_rows(make_scores(['g', 'h'] * 10 + ['h', 'g'] * 10)).rows
  titles = [table.title for table in robustness.make_tables(rows)]
  assert sum('groups' in title for title in titles) == len(titles) / 2 == 4


def test_damaged_sets_are_not_pooled_with_what_they_were_made_of():
  made = make_rows(make_scores())
  assert made.datasets == ['faces:test', 'other:test']
  (pooled,) = [
    row
    for row in made.rows
    if (row.system, row.dataset, row.figure) == ('a', 'pooled', 'auc')
  ]
  assert pooled.num_real + pooled.num_fake == 40 + 36
  assert {d.dataset for d in made.differences} == {'faces:test', 'other:test'}


def test_a_damaged_set_alone_is_a_set_like_any_other():
  made = make_rows([measurement_test.saved(dataset='faces-blur-1:test')])
  assert made.datasets == ['faces-blur-1:test']
  assert not robustness.make_tables(made.rows)


def test_damaged_crops_are_measured_by_the_area_alone():
  scores = make_scores()[3]
  assert robustness.is_of_crops(scores.dataset)
  rows = make_rows([scores]).rows
  assert {row.figure for row in rows} == {'auc', 'coverage'}
  want = measurement.measure(
    scores,
    dataclasses.replace(measurement_test.PROTOCOL, aggregation='as given'),
  )
  (area,) = [r for r in rows if (r.part, r.figure) == ('all', 'auc')]
  assert area.estimate.value == want[0].estimate.value


def test_lines_hold_every_digit_and_level_0():
  made = make_rows(make_scores())
  lines = [
    dict(zip(robustness.HEADER, line, strict=True))
    for line in robustness.lines(made.rows)
  ]
  own = [x for x in lines if (x['system'], x['kind']) == ('b', 'blur')]
  assert [x['level'] for x in own] == [0, 1, 3]
  assert [x['num_real'] + x['num_fake'] for x in own] == [40, 39, 38]
  for line in own:
    name = f'faces-blur-{line["level"]}:test' if line['level'] else 'faces:test'
    (row,) = [
      r
      for r in made.rows
      if (r.system, r.dataset, r.part, r.figure, r.convention, r.level)
      == ('b', name, 'all', 'auc', 'ours', 'video')
    ]
    assert (line['value'], line['low']) == (
      row.estimate.value,
      row.estimate.low,
    )


def test_curves_are_drawn_and_stand_in_the_report(tmp_path):
  made = make_rows(make_scores())
  study.write(made, tmp_path)
  drawn = sorted((tmp_path / 'plots').glob('robustness-*.svg'))
  assert len(drawn) == 4
  for file in drawn:
    root = xml.etree.ElementTree.parse(file).getroot()
    space = '{http://www.w3.org/2000/svg}'
    names = [text.text for text in root.iter(f'{space}text')]
    assert {'none', '1', 'level of damage'} <= set(names)
    # A dot for each level, also for none.
    dots = len([*root.iter(f'{space}circle')])
    assert dots == (3 if 'blur' in names else 2)
  assert (tmp_path / 'robustness.csv').exists()


def test_a_value_above_all_others_is_drawn_higher():
  low, high = (plots.bootstrap.Estimate(x, x, x) for x in (0.55, 0.95))
  svg = plots.by_level({'blur': [(0, high), (3, low)]}, 'AUC')
  root = xml.etree.ElementTree.fromstring(svg)
  dots = [*root.iter('{http://www.w3.org/2000/svg}circle')]
  at = [float(dot.get('cy')) for dot in dots]
  assert at[0] < at[1]
