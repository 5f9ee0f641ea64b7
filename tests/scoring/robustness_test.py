"""Tables and curves of robustness hold the figures of the damaged sets."""

import dataclasses
import xml.etree.ElementTree

import measurement_test
import numpy as np
import pytest
import scipy.stats

from stormer_jax.scoring import (
  delong,
  measurement,
  plots,
  robustness,
  study,
  tables,
)


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
    for table in robustness.make_tables(made.rows, made.changes)
    if 'Robustness: faces:test, a' in table.title
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


def with_scores(values, name='faces', labels=None, **columns):
  own = measurement_test.saved(
    num=len(values), dataset=f'{name}:test', **columns
  )
  labels = own.labels if labels is None else labels
  return dataclasses.replace(
    own,
    labels=labels,
    scores=np.array(values, float),
    clip_logits=((),) * len(values),
  )


def change(whole, damaged, num_bootstrap=4000):
  made = study.make_study([whole, damaged], {'num_bootstrap': num_bootstrap})
  (found,) = [c for c in made.changes if c.part == 'all']
  return found


def test_the_change_of_fakes_that_fall_below_all_reals_is_a_binomial_one():
  """Each resample holds Binomial(40, 1/4) of the 10 fakes that fell."""
  labels = np.arange(80) % 2
  fell = (np.arange(80) < 20) & (labels == 1)
  before = np.where(labels == 1, 0.9, 0.5)
  found = change(
    with_scores(before, labels=labels),
    with_scores(np.where(fell, 0.1, before), 'faces-blur-2', labels),
  )
  share = scipy.stats.binom(40, 0.25)
  assert found.estimate.value == -0.25 and found.num_videos == 80
  assert found.estimate.low == pytest.approx(-share.ppf(0.975) / 40, abs=0.026)
  assert found.estimate.high == pytest.approx(-share.ppf(0.025) / 40, abs=0.026)


def test_the_interval_of_a_change_is_delongs_and_not_that_of_two_samples():
  rng = np.random.default_rng(0)
  labels = np.arange(400) % 2
  before = scipy.special.expit(rng.normal(labels, 1))
  after = np.clip(before - 0.1 * labels + rng.normal(0, 0.05, 400), 0, 1)
  found = change(
    with_scores(before, labels=labels),
    with_scores(after, 'faces-crops-noise-4', labels),
  ).estimate
  want = delong.compare(labels, after, before)
  assert found.value == pytest.approx(want.difference, abs=1e-12)
  width = want.high - want.low
  assert found.low == pytest.approx(want.low, abs=0.1 * width)
  assert found.high == pytest.approx(want.high, abs=0.1 * width)
  # Of videos that are others each time it would be several times as wide.
  alone = [delong.compare(labels, s, 1 - s) for s in (before, after)]
  assert width < 0.5 * np.hypot(*(x.standard_error / 2 for x in alone)) * 3.92


def test_damage_that_keeps_the_order_changes_nothing():
  whole = measurement_test.saved()
  whole = dataclasses.replace(whole, clip_logits=((),) * 40)
  found = change(whole, with_scores(whole.scores / 2, 'faces-blur-1')).estimate
  assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_change_is_of_the_videos_that_have_a_score_both_ways():
  made = make_rows(make_scores(['g', 'h'] * 10 + ['h', 'g'] * 10))
  by_key = {(c.system, c.dataset, c.part): c for c in made.changes}
  assert len(by_key) == 2 * 3 * 2  # systems, damaged sets, all and mean
  whole, _, damaged, *_ = make_scores()
  left = np.arange(2, 40)  # two have no score any more
  areas = [
    measurement.metrics.auc(s.labels[left], s.scores[left])
    for s in (damaged, whole)
  ]
  found = by_key['a', 'faces-blur-3:test', 'all']
  assert found.num_videos == 38
  assert found.estimate.value == pytest.approx(areas[0] - areas[1], abs=1e-12)
  groups = np.array(['g', 'h'] * 10 + ['h', 'g'] * 10)[left]
  by_group = [
    measurement.metrics.auc(s.labels[own], s.scores[own])
    * (1 if s is damaged else -1)
    for s in (damaged, whole)
    for own in (left[groups == 'g'], left[groups == 'h'])
  ]
  mean = by_key['a', 'faces-blur-3:test', 'mean'].estimate
  assert mean.value == pytest.approx(sum(by_group) / 2, abs=1e-12)
  assert mean.low <= mean.value <= mean.high


def test_changes_stand_in_a_table_of_their_own_and_in_the_lines():
  made = make_rows(make_scores())
  (table, _) = [
    table
    for table in study.make_tables(made)
    if 'Change by damage: faces:test, b' in table.title
  ]
  (found,) = [
    c
    for c in made.changes
    if (c.system, c.dataset) == ('b', 'faces-blur-1:test')
  ]
  text = tables.shown_difference('auc', found.estimate)
  assert table.rows[0][:3] == ('blur', text, '')
  lines = [
    dict(zip(robustness.HEADER, line, strict=True))
    for line in robustness.lines(made.rows, made.changes)
  ]
  none, first, _ = [
    x for x in lines if (x['system'], x['kind']) == ('b', 'blur')
  ]
  assert np.isnan(none['change']) and np.isnan(none['num_both'])
  assert (first['change'], first['num_both']) == (found.estimate.value, 39)


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
