"""Saved scores -> a study: every figure, table and plot, in files.

Enter: `SavedScores` of one or more systems on one or more data sets. Leave: a
`Study`, and of it report.md, report.html (one file, readable offline),
figures.csv, differences.csv, roc.csv, robustness.csv where there are damaged
sets, and plots/. Media, weights and jax are not
needed: `--mode=report` makes every table again, anywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import html
import io
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from stormer_jax.scoring import (
  bootstrap,
  measurement,
  metrics,
  plots,
  published_figures,
  robustness,
  score_file,
  tables,
)
from stormer_jax.scoring import protocol as protocol_lib
from stormer_jax.scoring import report as report_lib

_MOST_DRAWN = 60  # parts in a plot
_MOST_LISTED = 20  # parts and failed videos in a table; files hold all
_STYLE = (
  ':root{color-scheme:light dark}'
  'body{font:16px/1.5 sans-serif;max-width:70rem;margin:auto;padding:1rem}'
  '.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}'
  'th,td{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #8886}'
  'td.estimate{white-space:nowrap}'
  'figure{display:inline-block;margin:1rem 1rem 0 0;max-width:100%;'
  'vertical-align:top}'
  'svg{max-width:100%;height:auto}'
)


@dataclasses.dataclass(frozen=True)
class Study:
  """Scores, the protocol of each, and what was measured."""

  scores: tuple[score_file.SavedScores, ...]
  protocols: tuple[protocol_lib.Protocol, ...]
  rows: tuple[measurement.Row, ...]
  differences: tuple[measurement.Difference, ...]
  changes: tuple[robustness.Change, ...] = ()  # by damage

  @property
  def systems(self) -> list[str]:
    """Names of the systems, in their order."""
    return list(dict.fromkeys(s.system for s in self.scores))

  @property
  def datasets(self) -> list[str]:
    """Names of the data sets, in their order, without damaged ones."""
    return list(dict.fromkeys(s.dataset for s, _ in self.undamaged))

  @property
  def undamaged(
    self,
  ) -> list[tuple[score_file.SavedScores, protocol_lib.Protocol]]:
    """Scores and protocols of what is no damaged copy of another set here."""
    return _undamaged(self.scores, self.protocols)


@dataclasses.dataclass(frozen=True)
class Plot:
  """One plot: the name of its file, its title, and the SVG."""

  name: str
  title: str
  svg: str


def report(
  sources: Sequence[str],
  out: str | os.PathLike[str],
  *,
  columns: Mapping[str, str] | None = None,
  measuring: Mapping[str, Any] | None = None,
  groups: Sequence[str] = (),
) -> Study:
  """Measures saved scores and writes the report: `--mode=report --scores`.

  Args:
    sources: As in `score_file.read_all`.
    out: Folder of the report.
    columns: As in `score_file.read`.
    measuring: Fields of `protocol.MEASURING` chosen anew.
    groups: Of the videos to measure on; of none named, all.

  Raises:
    FileNotFoundError: No such file.
    ValueError: A file that cannot be read, or has a group named not.
  """
  scores = score_file.read_all(sources, columns)
  if groups:
    scores = tuple(s.of_groups(groups) for s in scores)
  study = make_study(scores, measuring)
  write(study, out)
  return study


def make_study(
  scores: Sequence[score_file.SavedScores],
  measuring: Mapping[str, Any] | None = None,
) -> Study:
  """Measures all scores, and the differences of systems on the same data."""
  protocols = [_protocol(s, measuring) for s in scores]
  by_key = {
    (s.system, s.dataset): (s, p)
    for s, p in zip(scores, protocols, strict=True)
  }
  rows: list[measurement.Row] = []
  for s, p in by_key.values():
    brief = robustness.is_of_crops(s.dataset)
    rows += measurement.measure(s, p, brief=brief)
  undamaged = _undamaged(scores, protocols)
  systems = list(dict.fromkeys(s.system for s in scores))
  for system in systems:
    own = [(s, p) for s, p in undamaged if s.system == system]
    rows += measurement.over_sets([s for s, _ in own], [p for _, p in own])
  differences: list[measurement.Difference] = []
  for first, second in measurement.pairs(systems):
    for dataset in dict.fromkeys(s.dataset for s, _ in undamaged):
      if (first, dataset) in by_key and (second, dataset) in by_key:
        (one, one_protocol), (two, two_protocol) = (
          by_key[name, dataset] for name in (first, second)
        )
        differences += measurement.compare(one, two, one_protocol, two_protocol)
  return Study(
    tuple(scores),
    tuple(protocols),
    tuple(rows),
    tuple(differences),
    robustness.changes(zip(scores, protocols, strict=True)),
  )


def of_run(system: str, results: Sequence[report_lib.Scores]) -> Study:
  """Makes the study of what `evaluate` has measured already."""
  scores = tuple(
    report_lib.saved_scores(r.rows, f'{r.dataset}:{r.split}', system)
    for r in results
  )
  protocols = tuple(r.protocol for r in results)
  rows = [
    dataclasses.replace(row, system=system)
    for r in results
    for row in r.measured
  ]
  own = _undamaged(scores, protocols)
  rows += measurement.over_sets([s for s, _ in own], [p for _, p in own])
  return Study(
    scores,
    protocols,
    tuple(rows),
    (),
    robustness.changes(zip(scores, protocols, strict=True)),
  )


def _undamaged(
  scores: Sequence[score_file.SavedScores],
  protocols: Sequence[protocol_lib.Protocol],
) -> list[tuple[score_file.SavedScores, protocol_lib.Protocol]]:
  left_out = robustness.damaged(s.dataset for s in scores)
  return [
    (s, p)
    for s, p in zip(scores, protocols, strict=True)
    if s.dataset not in left_out
  ]


def _protocol(
  scores: score_file.SavedScores, measuring: Mapping[str, Any] | None
) -> protocol_lib.Protocol:
  protocol = protocol_lib.from_saved(
    scores.settings.get('protocol', {}), measuring
  )
  dataset, _, split = scores.dataset.partition(':')
  protocol = dataclasses.replace(protocol, dataset=dataset, split=split)
  if any(scores.clip_logits):
    return protocol
  return dataclasses.replace(protocol, aggregation='as given')


def write(study: Study, out: str | os.PathLike[str]) -> None:
  """Writes the files of a report, each whole or not at all."""
  out = pathlib.Path(out)
  (out / 'plots').mkdir(parents=True, exist_ok=True)
  made_tables, made_plots = make_tables(study), make_plots(study)
  for plot in made_plots:
    _write(out / 'plots' / f'{plot.name}.svg', plot.svg + '\n')
  _write(out / 'figures.csv', figures_csv(study.rows))
  _write(out / 'differences.csv', differences_csv(study.differences))
  _write(out / 'roc.csv', roc_csv(study))
  if damaged := robustness.lines(study.rows, study.changes):
    _write(out / 'robustness.csv', _csv([*robustness.HEADER], damaged))
  _write(out / 'report.md', _markdown(made_tables, made_plots))
  _write(out / 'report.html', _html(made_tables, made_plots))


def make_tables(study: Study) -> list[tables.Table]:
  """Returns the tables that there is something to say in."""
  made = [_overview(study)]
  made += [_figures(study, dataset) for dataset in study.datasets]
  made += robustness.make_tables(study.rows, study.changes)
  made += [_conventions(study), _levels(study)]
  made += [
    _parts(study, dataset, part)
    for dataset in study.datasets
    for part in ('method', 'scenario', 'group', 'identity')
  ]
  made += [_differences(study), _failed(study), _protocols(study)]
  return [table for table in made if table.rows]


def _overview(study: Study) -> tables.Table:
  """AUC of every data set, their mean and pool, beside the paper's."""
  rows = []
  for dataset in (*study.datasets, 'mean', 'pooled'):
    of_set = [
      _cell(study.rows, system=s, dataset=dataset, figure='auc')
      for s in study.systems
    ]
    if any(of_set):
      rows.append((_named(dataset), *of_set, _published(study, dataset)))
  note = 'Over videos, in %, with 95 % intervals.'
  if len(study.datasets) > 1:
    note += (
      ' mean: of the data sets. pooled: all videos ranked together, as one'
      ' threshold for a mixture of sources asks.'
    )
  header = ('data set', *study.systems, 'paper')
  if not any(published for *_, published in rows):
    header, rows = header[:-1], [row[:-1] for row in rows]
  return tables.Table('AUC', header, tuple(rows), note)


def _published(study: Study, dataset: str) -> str:
  for _, protocol in study.undamaged:
    found = published_figures.find(dataset, protocol.trained_on)
    if found:
      estimate = bootstrap.Estimate(found.auc, found.low, found.high)
      return f'{found.trained_on}: {tables.shown("auc", estimate)}'
  return ''


def _figures(study: Study, dataset: str) -> tables.Table:
  """All figures of a data set, a column a system."""
  rows = []
  for figure in (*metrics.figures(), 'coverage'):
    cells = [
      _cell(study.rows, system=s, dataset=dataset, figure=figure)
      for s in study.systems
    ]
    if any(cells):
      rows.append((metrics.TITLES[figure], *cells))
  for part in ('method', 'scenario'):
    lowest = [
      measurement.worst(_found(study.rows, system=s, dataset=dataset), part)
      for s in study.systems
    ]
    if any(lowest):
      rows.append(
        (
          f'worst {part}, AUC',
          *(
            f'{row.name}: {tables.shown("auc", row.estimate)}' if row else ''
            for row in lowest
          ),
        )
      )
  cells = [
    _cell(study.rows, system=s, dataset=dataset, figure='auc', part='mean')
    for s in study.systems
  ]
  if any(cells):
    rows.append(('mean of the groups, AUC', *cells))
  return tables.Table(
    f'Figures: {_named(dataset)}',
    ('figure', *study.systems),
    tuple(rows),
    _counted(study, dataset),
  )


def _counted(study: Study, dataset: str) -> str:
  texts = []
  for scores, protocol in study.undamaged:
    if scores.dataset != dataset:
      continue
    kinds = [
      int(np.sum(scores.scored & (scores.labels == label))) for label in (0, 1)
    ]
    how = protocol.aggregation.replace('_', ' ')
    texts.append(
      f'{scores.system}: {kinds[0]} real and {kinds[1]} fake videos scored,'
      f' {len(scores.video) - sum(kinds)} without a score; level'
      f' {protocol.level}, aggregation {how},'
      f' threshold {protocol.threshold:g} ({protocol.threshold_from}).'
    )
  return ' '.join(texts)


def _conventions(study: Study) -> tables.Table:
  """The same scores by the rules of others."""
  rows = []
  for scores, protocol in study.undamaged:
    for name in protocol.conventions:
      convention = protocol_lib.CONVENTIONS[name]
      found = _found(
        study.rows,
        system=scores.system,
        dataset=scores.dataset,
        convention=name,
      )
      if found:
        how = convention.aggregation
        if not any(scores.clip_logits):
          how = 'as given'
        rows.append(
          (
            scores.system,
            _named(scores.dataset),
            name,
            how.replace('_', ' '),
            *(tables.shown(row.figure, row.estimate) for row in found),
          )
        )
  return tables.Table(
    'Conventions of others',
    (
      *('system', 'data set', 'convention', 'aggregation'),
      *protocol_lib.CONVENTION_TITLES,
    ),
    tuple(rows),
    'AP is of the fakes (gend: the mean over both classes). EER: deepfakebench'
    ' takes the nearest vertex of the ROC curve, deepsafe_bench the least of'
    ' max(FPR, FNR), the others the joined curve. deepfakebench calls a score'
    ' of exactly 0.5 real; deepsafe_bench counts a video without a score as'
    ' 0.5. docs/evaluation.md names the sources.',
  )


def _levels(study: Study) -> tables.Table:
  rows = []
  for scores, _ in study.undamaged:
    for level in protocol_lib.LEVELS:
      cells = [
        _cell(
          study.rows,
          system=scores.system,
          dataset=scores.dataset,
          figure=figure,
          level=level,
        )
        for figure in ('auc', 'eer')
      ]
      if any(cells) and any(scores.clip_logits):
        rows.append((scores.system, _named(scores.dataset), level, *cells))
  return tables.Table(
    'Levels',
    ('system', 'data set', 'level', 'AUC', 'EER'),
    tuple(rows),
    'A frame has the score of its clip. Clips and frames of one video are'
    ' resampled together.',
  )


def _parts(study: Study, dataset: str, part: str) -> tables.Table:
  """A part of the fakes, or of the videos, a row."""
  found = _found(study.rows, dataset=dataset, part=part, figure='auc')
  names = list(dict.fromkeys(row.name for row in found))
  lowest = {
    name: min(
      (r.estimate.value for r in found if r.name == name), key=_nan_last
    )
    for name in names
  }
  names.sort(key=lambda name: _nan_last(lowest[name]))
  rows = []
  for name in names[:_MOST_LISTED]:
    own = [row for row in found if row.name == name]
    cells = []
    for system in study.systems:
      cells += [
        _cell(
          study.rows,
          system=system,
          dataset=dataset,
          part=part,
          name=name,
          figure=figure,
        )
        for figure in measurement.PART_FIGURES
      ]
    rows.append((name, str(own[0].num_real), str(own[0].num_fake), *cells))
  titles = [metrics.TITLES[figure] for figure in measurement.PART_FIGURES]
  note = {
    'method': 'Fakes of each method against the real videos of their groups'
    ' (all, where there are no groups); lowest AUC first.',
    'scenario': 'Fakes of each scenario, likewise.',
    'group': 'Fakes of each group against the real videos of that group.',
    'identity': 'Videos of each person who has real and fake ones.',
  }[part]
  if len(names) > _MOST_LISTED:
    note += f' {len(names) - _MOST_LISTED} more stand in figures.csv.'
  return tables.Table(
    f'By {part}: {_named(dataset)}',
    (
      *(part, 'real', 'fake'),
      *(f'{system} {title}' for system in study.systems for title in titles),
    ),
    tuple(rows),
    note,
  )


def _differences(study: Study) -> tables.Table:
  return tables.Table(
    'Differences',
    (
      *('first', 'second', 'data set', 'figure', 'first - second'),
      *('videos', "DeLong's p"),
    ),
    tuple(
      (
        *(d.first, d.second, _named(d.dataset), metrics.TITLES[d.figure]),
        tables.shown_difference(d.figure, d.estimate),
        str(d.num_videos),
        '' if math.isnan(d.p_value) else f'{d.p_value:.2g}',
      )
      for d in study.differences
    ),
    'In points, on the videos that both have scored, with the 95 % interval of'
    ' the paired bootstrap. An interval without 0 is a difference that the'
    " number of videos does not explain. DeLong's test, of the AUC, takes"
    ' videos for independent and is left out where they belong together.',
  )


def _failed(study: Study) -> tables.Table:
  rows = []
  for scores, _ in study.undamaged:
    missing = np.flatnonzero(~scores.scored).tolist()
    rows += [
      (
        scores.system,
        _named(scores.dataset),
        scores.video[i],
        ('real', 'fake')[scores.labels[i]],
        scores.reason[i],
      )
      for i in missing[:_MOST_LISTED]
    ]
    if len(missing) > _MOST_LISTED:
      rest = len(missing) - _MOST_LISTED
      rows.append(
        (scores.system, _named(scores.dataset), f'and {rest} more', '', '')
      )
  return tables.Table(
    'Videos without a score',
    ('system', 'data set', 'video', 'label', 'reason'),
    tuple(rows),
  )


def _protocols(study: Study) -> tables.Table:
  """What every figure above depends on, a column a system and data set."""
  lines = [
    [line.split(': ', 1) for line in protocol.lines()]
    for _, protocol in study.undamaged
  ]
  names = [name for name, _ in lines[0]]
  return tables.Table(
    'Protocol',
    (
      'field',
      *(f'{s.system} {s.dataset}'.strip() for s, _ in study.undamaged),
    ),
    tuple(
      (name, *(own[i][1] for own in lines)) for i, name in enumerate(names)
    ),
  )


def make_plots(study: Study) -> list[Plot]:
  """Returns the plots that there are numbers for."""
  made = []
  for dataset in study.datasets:
    curves, bins = {}, {}
    for scores, protocol in study.undamaged:
      if scores.dataset != dataset:
        continue
      labels, values = _scored(scores, protocol)
      if not len(labels):
        continue
      if not metrics.undefined('auc', labels, values):
        curve = metrics.curve(labels, values)
        curves[scores.system] = (curve.fpr[0], curve.tpr[0])
      if not metrics.undefined('ece', labels, values):
        bins[scores.system] = metrics.reliability(labels, values)
      made.append(
        Plot(
          _file_name('scores', dataset, scores.system),
          f'Scores of {scores.system}: {_named(dataset)}',
          plots.histogram(labels, values, protocol.threshold),
        )
      )
    if curves:
      made.append(
        Plot(
          _file_name('roc', dataset),
          f'ROC: {_named(dataset)}',
          plots.roc(curves),
        )
      )
    if bins:
      made.append(
        Plot(
          _file_name('reliability', dataset),
          f'Reliability: {_named(dataset)}',
          plots.reliability(bins),
        )
      )
    for part in ('method', 'scenario', 'group'):
      rows = _found(study.rows, dataset=dataset, part=part, figure='auc')
      if rows and len({row.name for row in rows}) <= _MOST_DRAWN:
        made.append(
          Plot(
            _file_name(part, dataset),
            f'AUC by {part}: {_named(dataset)}',
            plots.intervals(
              [(r.name, r.system, r.estimate) for r in rows], 'AUC, %'
            ),
          )
        )
  made += [
    Plot(_file_name('robustness', str(number)), title, svg)
    for number, (title, svg) in enumerate(robustness.make_plots(study.rows))
  ]
  return made


def figures_csv(rows: Iterable[measurement.Row]) -> str:
  """Returns a line per figure, every digit kept."""
  names = [
    *('system', 'dataset', 'convention', 'level', 'part', 'name', 'figure'),
    *('value', 'low', 'high', 'num_real', 'num_fake', 'note'),
  ]
  return _csv(
    names,
    (
      [
        *(getattr(row, name) for name in names[:7]),
        *(row.estimate.value, row.estimate.low, row.estimate.high),
        *(row.num_real, row.num_fake, row.estimate.note),
      ]
      for row in rows
    ),
  )


def differences_csv(differences: Iterable[measurement.Difference]) -> str:
  """Returns a line per figure of each two systems."""
  return _csv(
    [
      *('first', 'second', 'dataset', 'figure', 'difference', 'low', 'high'),
      *('num_videos', 'delong_p', 'note'),
    ],
    (
      [
        *(d.first, d.second, d.dataset, d.figure),
        *(d.estimate.value, d.estimate.low, d.estimate.high),
        *(d.num_videos, d.p_value, d.estimate.note),
      ]
      for d in differences
    ),
  )


def roc_csv(study: Study) -> str:
  """Returns the points of every ROC curve with the threshold of each."""
  lines = []
  for scores, protocol in study.undamaged:
    labels, values = _scored(scores, protocol)
    if metrics.undefined('auc', labels, values):
      continue
    curve = metrics.curve(labels, values)
    for fpr, tpr, threshold in zip(
      curve.fpr[0].tolist(),
      curve.tpr[0].tolist(),
      [math.inf, *curve.scores.tolist()],
      strict=True,
    ):
      lines.append([scores.system, scores.dataset, fpr, tpr, threshold])
  return _csv(['system', 'dataset', 'fpr', 'tpr', 'threshold'], lines)


def _scored(
  scores: score_file.SavedScores, protocol: protocol_lib.Protocol
) -> tuple[np.ndarray, np.ndarray]:
  values = measurement.video_scores(scores, protocol)
  kept = np.isfinite(values)
  return scores.labels[kept], values[kept]


def _found(
  rows: Iterable[measurement.Row], **wanted: str
) -> list[measurement.Row]:
  """Rows with some attributes; by our convention unless another is asked."""
  wanted = {'convention': 'ours'} | wanted
  return [
    row
    for row in rows
    if all(getattr(row, name) == value for name, value in wanted.items())
  ]


def _cell(rows: Iterable[measurement.Row], **wanted: str) -> str:
  """Shows the first row of the whole, or of a part, that fits; '' if none."""
  found = _found(rows, **({'part': 'all'} | wanted))
  return tables.shown(found[0].figure, found[0].estimate) if found else ''


def _markdown(made: list[tables.Table], drawn: list[Plot]) -> str:
  lines = ['# Report', '', *map(tables.markdown, made)]
  if drawn:
    lines += ['## Plots', '']
    lines += [f'![{plot.title}](plots/{plot.name}.svg)' for plot in drawn]
  return '\n'.join(lines) + '\n'


def _html(made: list[tables.Table], drawn: list[Plot]) -> str:
  figures = ''.join(
    f'<figure><figcaption>{html.escape(plot.title)}</figcaption>'
    f'{plot.svg}</figure>'
    for plot in drawn
  )
  sections = [tables.to_html(table) for table in made]
  # The plots come after the first figures, before the long tables.
  sections.insert(1, f'<section><h2>Plots</h2>{figures}</section>')
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>Report</title><style>{_STYLE}</style></head>'
    f'<body><h1>Report</h1>{"".join(sections)}</body></html>\n'
  )


def _csv(header: list[str], lines: Iterable[list]) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(header)
  writer.writerows([map(_text, line) for line in lines])
  return text.getvalue()


def _text(value: Any) -> str:
  if isinstance(value, float):
    return '' if math.isnan(value) else repr(value)
  return str(value)


def _named(dataset: str) -> str:
  return dataset or 'data set'


def _nan_last(value: float) -> float:
  return math.inf if math.isnan(value) else value


def _file_name(*parts: str) -> str:
  return '-'.join(
    re.sub(r'[^A-Za-z0-9_.]+', '_', part) for part in parts if part
  )


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text, encoding='utf-8')
  partial.replace(path)
