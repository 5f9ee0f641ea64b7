"""Every figure is of the videos that it says it is of."""

import dataclasses
import math

import numpy as np
import pytest

from stormer_jax.scoring import (
  aggregation,
  measurement,
  metrics,
  protocol,
  score_file,
)

PROTOCOL = protocol.Protocol(num_bootstrap=50, threshold=0.6)
TEXTS = {name: '' for name in score_file.TEXTS}


def saved(seed=0, num=40, system='a', dataset='faces:test', clips=4, **columns):
  rng = np.random.default_rng(seed)
  labels = np.arange(num) % 2
  logits = rng.normal(size=(num, clips)) + labels[:, None]
  texts = {
    name: tuple(columns.get(name, [''] * num)) for name in score_file.TEXTS
  }
  return score_file.SavedScores(
    system=system,
    dataset=dataset,
    video=tuple(f'v{i}' for i in range(num)),
    labels=labels,
    scores=metrics.sigmoid(logits.mean(1)),
    reason=('',) * num,
    clip_logits=tuple(map(tuple, logits.tolist())),
    settings={},
    **texts,
  )


def find(rows, **wanted):
  wanted = {'convention': 'ours', 'part': 'all', 'level': 'video'} | wanted
  (row,) = [
    row for row in rows if all(getattr(row, k) == v for k, v in wanted.items())
  ]
  return row


def value(rows, **wanted):
  return find(rows, **wanted).estimate.value


def test_figures_are_of_the_scores_at_the_threshold_of_the_protocol():
  scores = saved()
  rows = measurement.measure(scores, PROTOCOL)
  for name in metrics.figures():
    want = metrics.single(name, scores.labels, scores.scores, 0.6)
    assert value(rows, figure=name) == pytest.approx(want, abs=1e-12)
  assert value(rows, figure='coverage') == 1.0


def test_fakes_of_a_method_meet_the_real_videos_of_their_groups_alone():
  method = [('', 'swap', '', 'talk')[i % 4] for i in range(40)]
  group = [('g', 'g', 'h', 'h')[i % 4] for i in range(40)]
  scores = saved(method=method, group=group)
  rows = measurement.measure(scores, PROTOCOL)
  for name, own in (('swap', 'g'), ('talk', 'h')):
    kept = np.array(group) == own
    want = metrics.auc(scores.labels[kept], scores.scores[kept])
    got = value(rows, figure='auc', part='method', name=name)
    assert got == pytest.approx(want, abs=1e-12)
  # Where the group of a fake has no real video, all of them count.
  lonely = saved(method=method, group=['g', 'x', 'h', 'h'] * 10)
  rows = measurement.measure(lonely, PROTOCOL)
  kept = (scores.labels == 0) | (np.array(method) == 'swap')
  want = metrics.auc(scores.labels[kept], scores.scores[kept])
  got = value(rows, figure='auc', part='method', name='swap')
  assert got == pytest.approx(want, abs=1e-12)


def test_a_failed_video_is_left_out_and_counted_or_half_if_asked():
  scores = saved()
  scores.scores[:3] = np.nan
  lost = dataclasses.replace(
    scores, clip_logits=((),) * 3 + scores.clip_logits[3:]
  )
  rows = measurement.measure(lost, PROTOCOL)
  kept = slice(3, None)
  want = metrics.auc(lost.labels[kept], lost.scores[kept])
  assert value(rows, figure='auc') == pytest.approx(want)
  assert value(rows, figure='coverage') == 37 / 40
  assert find(rows, figure='auc').num_real == 18
  half = dataclasses.replace(PROTOCOL, failed_videos='half')
  rows = measurement.measure(lost, half)
  filled = np.where(np.isnan(lost.scores), 0.5, lost.scores)
  want = metrics.auc(lost.labels, filled)
  assert value(rows, figure='auc') == pytest.approx(want)
  assert value(rows, figure='coverage') == 37 / 40  # all the same
  assert value(rows, figure='auc', convention='deepsafe_bench') != value(
    rows, figure='auc', convention='paper'
  )


@pytest.mark.parametrize('how', aggregation.AGGREGATIONS)
def test_clips_become_videos_by_the_aggregation_of_the_protocol(how):
  scores = saved()
  changed = dataclasses.replace(PROTOCOL, aggregation=how, clip_length=4)
  rows = measurement.measure(scores, changed)
  videos = [
    aggregation.aggregate(np.array(logits), how, frames_per_clip=4)
    for logits in scores.clip_logits
  ]
  want = metrics.auc(scores.labels, np.array(videos))
  assert value(rows, figure='auc') == pytest.approx(want)


def test_each_convention_has_its_own_aggregation_and_figures():
  scores = saved()
  rows = measurement.measure(scores, PROTOCOL)
  mean = np.array(
    [metrics.sigmoid(np.array(c)).mean() for c in scores.clip_logits]
  )
  for name, eer, precision in (
    ('deepfakebench', 'eer_vertex', 'average_precision'),
    ('gend', 'eer', 'average_precision_macro'),
    ('deepsafe_bench', 'eer_threshold', 'average_precision'),
  ):
    for figure in ('auc', eer, precision, 'accuracy'):
      want = metrics.single(figure, scores.labels, mean, 0.5)
      got = value(rows, figure=figure, convention=name)
      assert got == pytest.approx(want, abs=1e-12), (name, figure)


def test_clips_are_ranked_one_by_one_and_drawn_with_their_video():
  scores = saved(num=60)
  rows = measurement.measure(scores, PROTOCOL)
  logits = np.array(scores.clip_logits)
  want = metrics.auc(scores.labels.repeat(4), logits.reshape(-1))
  assert value(rows, figure='auc', level='clip') == pytest.approx(want)
  assert value(rows, figure='auc', level='frame') == pytest.approx(want)
  clip = find(rows, figure='auc', level='clip')
  assert (clip.num_real, clip.num_fake) == (120, 120)
  # Clips that repeat each other are no more than their video.
  same = dataclasses.replace(
    scores, clip_logits=tuple((c[0],) * 4 for c in scores.clip_logits)
  )
  rows = measurement.measure(same, PROTOCOL)
  of_clips = find(rows, figure='auc', level='clip').estimate
  of_videos = find(rows, figure='auc').estimate
  assert of_clips.value == pytest.approx(of_videos.value)
  assert (of_clips.low, of_clips.high) == pytest.approx(
    (of_videos.low, of_videos.high)
  )


def test_a_level_without_clip_logits_is_refused_with_the_way_out():
  scores = dataclasses.replace(saved(), clip_logits=((),) * 40)
  clip = dataclasses.replace(PROTOCOL, level='clip')
  with pytest.raises(ValueError, match=r'eval\.level=video does not'):
    measurement.measure(scores, clip)


def test_methods_and_scenarios_are_measured_against_all_real_videos():
  methods = ['', 'swap', '', 'talk'] * 10
  scenarios = ['', 'face', '', 'speech'] * 10
  scores = saved(method=methods, scenario=scenarios)
  rows = measurement.measure(scores, PROTOCOL)
  for part, name in (('method', 'swap'), ('scenario', 'speech')):
    column = np.array(getattr(scores, part))
    own = (scores.labels == 0) | (column == name)
    want = metrics.auc(scores.labels[own], scores.scores[own])
    found = find(rows, part=part, name=name, figure='auc')
    assert found.estimate.value == pytest.approx(want)
    assert (found.num_real, found.num_fake) == (20, 10)
  lowest = measurement.worst(rows)
  others = [
    value(rows, part='method', name=n, figure='auc') for n in ('swap', 'talk')
  ]
  assert lowest.estimate.value == min(others)


def test_a_group_is_measured_against_its_own_real_videos_and_averaged():
  groups = ['x'] * 20 + ['y'] * 20
  scores = saved(group=groups)
  rows = measurement.measure(scores, PROTOCOL)
  areas = []
  for name, own in (('x', slice(0, 20)), ('y', slice(20, 40))):
    areas.append(metrics.auc(scores.labels[own], scores.scores[own]))
    got = value(rows, part='group', name=name, figure='auc')
    assert got == pytest.approx(areas[-1])
  got = value(rows, part='mean', figure='auc')
  assert got == pytest.approx(np.mean(areas))


def test_only_people_with_both_kinds_of_video_are_measured():
  people = ['ann', 'ann'] * 5 + ['bob', ''] * 15
  rows = measurement.measure(saved(identity=people), PROTOCOL)
  assert {r.name for r in rows if r.part == 'identity'} == {'ann'}


def test_one_class_alone_has_reasons_instead_of_figures():
  scores = saved().select(np.arange(0, 40, 2))
  rows = measurement.measure(scores, PROTOCOL)
  estimate = find(rows, figure='auc').estimate
  assert math.isnan(estimate.value)
  assert estimate.note == 'no fake video has a score'
  assert not math.isnan(value(rows, figure='accuracy'))


def test_a_pair_is_drawn_together_where_the_data_name_pairs():
  # The fake of a pair always scores what its real one does.
  scores = saved(clips=1, pair=[f'p{i // 2}' for i in range(40)])
  logits = np.repeat(np.random.default_rng(0).normal(size=20), 2)
  same = dataclasses.replace(
    scores, clip_logits=tuple((x,) for x in logits.tolist())
  )
  auto = find(measurement.measure(same, PROTOCOL), figure='auc').estimate
  assert auto.low == auto.high == 0.5
  apart = dataclasses.replace(PROTOCOL, resample_by='video')
  estimate = find(measurement.measure(same, apart), figure='auc').estimate
  assert estimate.high - estimate.low > 0.1


def test_sets_are_averaged_and_pooled():
  sets = [saved(seed, dataset=f'd{seed}') for seed in range(3)]
  rows = measurement.over_sets(sets, [PROTOCOL] * 3)
  areas = [metrics.auc(s.labels, s.scores) for s in sets]
  assert value(rows, dataset='mean', figure='auc') == pytest.approx(
    np.mean(areas)
  )
  want = metrics.auc(
    np.concatenate([s.labels for s in sets]),
    np.concatenate([s.scores for s in sets]),
  )
  assert value(rows, dataset='pooled', figure='auc') == pytest.approx(want)
  assert measurement.over_sets(sets[:1], [PROTOCOL]) == ()


def test_systems_are_compared_on_the_videos_that_both_have_scored():
  first, second = saved(0), saved(1, system='b')
  second.scores[:4] = np.nan
  second = dataclasses.replace(
    second, clip_logits=((),) * 4 + second.clip_logits[4:]
  ).select(np.arange(38)[::-1])  # in another order, two videos less
  found = measurement.compare(first, second, PROTOCOL, PROTOCOL)
  (area,) = [d for d in found if d.figure == 'auc']
  shared = slice(4, 38)
  other = saved(1)
  want = metrics.auc(first.labels[shared], first.scores[shared])
  want -= metrics.auc(other.labels[shared], other.scores[shared])
  assert area.num_videos == 34
  assert area.estimate.value == pytest.approx(want)
  assert area.estimate.low < want < area.estimate.high
  assert 0 < area.p_value <= 1
  assert all(math.isnan(d.p_value) for d in found if d.figure != 'auc')


def test_systems_without_a_common_video_have_a_reason():
  other = dataclasses.replace(
    saved(1, system='b'), video=tuple(f'w{i}' for i in range(40))
  )
  found = measurement.compare(saved(0), other, PROTOCOL, PROTOCOL)
  assert {d.estimate.note for d in found} == {'no video has a score'}


def test_of_many_systems_each_is_compared_with_the_first():
  assert measurement.pairs(['a', 'b', 'c']) == [
    ('a', 'b'),
    ('a', 'c'),
    ('b', 'c'),
  ]
  names = list('abcdefgh')
  assert measurement.pairs(names) == [('a', name) for name in names[1:]]
