"""report.csv -> a page that says how well a data set was cut out.

What enters: what `outcome_report` says. What leaves: one HTML file without
scripts or links to elsewhere: per rule, split and class how many videos were
kept, in what share of the frames the face was found, its size, how far the
landmarks tremble and which frames were dropped; the distributions of real and
fake beside each other, for a detector may learn what differs; the videos worth
a look; and what is in the data set twice (`duplicates`).
"""

from collections.abc import Callable, Mapping, Sequence
import html
import os
import pathlib

import numpy as np

from data_pipeline import duplicates, prepared_video, staging
from data_pipeline.sources import file_names

_WORST = 12  # videos that are named
_BINS = 24
_SPLITS = {'train': 0, 'val': 1, 'test': 2}
_COLOURS = {'real': '#0072b2', 'fake': '#d55e00'}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em;
  padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: .5em 0 1.5em }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
figure { display: inline-block; margin: 0 1em 1em 0 }
figcaption { font-size: 13px }
.real { color: #0072b2 } .fake { color: #d55e00 }
"""


def write(
  path: str | os.PathLike,
  rows: Sequence[prepared_video.Outcome],
  found: duplicates.Duplicates,
  dataset: str,
) -> None:
  """Writes the page, whole or not at all."""
  staging.write_whole(pathlib.Path(path), make(rows, found, dataset))


def make(
  rows: Sequence[prepared_video.Outcome],
  found: duplicates.Duplicates,
  dataset: str,
) -> str:
  """The page as text."""
  rules = list(dict.fromkeys(row.rule for row in rows))
  body = [f'<h1>{_text(dataset)}: how well faces were cut out</h1>']
  body += [_same_files(found.same_files), _look_alikes(found.look_alikes)]
  for rule in rules:
    of_rule = [row for row in rows if row.rule == rule]
    body += [
      f'<h2>{_text(rule)}</h2>',
      _table(of_rule),
      _plots(of_rule),
      _worst(of_rule),
    ]
  return (
    '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
    f'<title>{_text(dataset)}: quality</title>\n<style>{_STYLE}</style>\n'
    + '\n'.join(body)
    + '\n</html>\n'
  )


def _same_files(groups: Sequence[duplicates.Group]) -> str:
  if not groups:
    return '<p>No two files are the same.</p>'
  return _named(f'Files that are there more than once: {len(groups)}', groups)


def _look_alikes(groups: Sequence[duplicates.Group]) -> str:
  if not groups:
    return ''
  return _named(
    'Pairs that look alike, the same footage in another form or one person in'
    f' one place: {len(groups)}',
    groups,
  )


def _named(said: str, groups: Sequence[duplicates.Group]) -> str:
  across = sum(map(duplicates.is_across, groups))
  if across:
    said += (
      '; in more than one split, so that figures on the later one are too'
      f' good: {across}'
    )
  lines = [
    '<li>' + '; '.join(f'{_text(name)} ({split})' for name, split in group)
    for group in groups[:_WORST]
  ]
  if len(groups) > _WORST:
    lines.append(f'<li>and {len(groups) - _WORST} more')
  return f'<p><b>{said}.</b></p><ul>{"".join(lines)}</ul>'


def _table(rows: Sequence[prepared_video.Outcome]) -> str:
  head = (
    'split, class', 'videos', 'kept', 'frames kept', 'frames dropped',
    'face found in', 'face size, px', 'jitter, px', 'skipped',
  )  # fmt: skip
  lines = [''.join(f'<th>{name}</th>' for name in head)]
  keys = sorted(
    {(row.split, row.label) for row in rows},
    key=lambda key: (_SPLITS.get(key[0], len(_SPLITS)), key[1] != 'real'),
  )
  for split, label in keys:
    part = [r for r in rows if (r.split, r.label) == (split, label)]
    kept = [r for r in part if r.status == 'kept']
    asked = [r for r in part if r.num_asked]
    num_asked = sum(r.num_asked for r in asked)
    num_found = sum(r.num_frames for r in asked)
    reasons: dict[str, int] = {}
    for row in part:
      if row.status != 'kept':
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    cells = (
      f'{split} <span class="{_text(label)}">{_text(label)}</span>',
      len(part),
      len(kept),
      sum(r.num_frames for r in kept),
      num_asked - num_found,
      f'{100 * num_found / num_asked:.1f} %' if num_asked else '',
      _spread([r.face_size for r in kept if r.face_size], '.0f'),
      _spread([r.jitter for r in kept if r.jitter], '.2f'),
      ', '.join(f'{count} {_text(name)}' for name, count in reasons.items()),
    )
    lines.append(''.join(f'<td>{cell}</td>' for cell in cells))
  return (
    f'<table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'
    '<p>Size and jitter: median, and the range of nine tenths of the videos.'
    ' Jitter is how far a landmark stands off the line between the frames'
    ' around it, px of the 256 px crop; frames spread over a video have none.'
    '</p>'
  )


def _spread(values: Sequence[float], form: str) -> str:
  if not values:
    return ''
  low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
  return f'{middle:{form}} ({low:{form}} to {high:{form}})'


_SHARE = 'face found in, share of frames'
_FIGURES: dict[str, Callable[[prepared_video.Outcome], float | None]] = {
  _SHARE: lambda row: _share(row),
  'face size, px': lambda row: row.face_size or None,
  'jitter, px': lambda row: row.jitter or None,
}


def _plots(rows: Sequence[prepared_video.Outcome]) -> str:
  """Histograms of the kept videos, real and fake in one."""
  figures = []
  for title, figure in _FIGURES.items():
    values = {
      label: [
        value
        for row in rows
        if row.label == label and row.status == 'kept'
        if (value := figure(row)) is not None
      ]
      for label in _COLOURS
    }
    if any(values.values()):
      figures.append(_histogram(title, values))
  return ''.join(figures)


def _histogram(title: str, values: Mapping[str, Sequence[float]]) -> str:
  everything = [value for of in values.values() for value in of]
  low, high = min(everything), max(everything)
  if title == _SHARE:
    low, high = 0.0, 1.0
  if high <= low:
    low, high = low - 0.5, high + 0.5
  width, height = 260, 90
  parts = []
  for label, of in values.items():
    if not of:
      continue
    counts, _ = np.histogram(of, _BINS, (low, high))
    shares = counts / counts.max()
    steps = []
    for place, share in enumerate(shares.tolist()):
      x, y = place * width / _BINS, height * (1 - share)
      steps.append(f'{x:.1f},{y:.1f} {x + width / _BINS:.1f},{y:.1f}')
    parts.append(
      f'<polyline points="0,{height} {" ".join(steps)} {width},{height}" '
      f'fill="{_COLOURS[label]}" fill-opacity=".15" '
      f'stroke="{_COLOURS[label]}"/>'
    )
  names = ', '.join(
    f'<span class="{label}">{len(of)} {label}</span>'
    for label, of in values.items()
    if of
  )
  return (
    f'<figure><svg width="{width}" height="{height + 16}" role="img" '
    f'aria-label="{_text(title)}">{"".join(parts)}'
    f'<text y="{height + 13}" font-size="11">{low:.3g}</text>'
    f'<text x="{width}" y="{height + 13}" font-size="11" text-anchor="end">'
    f'{high:.3g}</text></svg>'
    f'<figcaption>{_text(title)}: {names}</figcaption></figure>'
  )


def _worst(rows: Sequence[prepared_video.Outcome]) -> str:
  """Names the videos in which least was found, or most trembles."""
  kept = [row for row in rows if row.status == 'kept']
  lists = []
  for title, figure, least in (
    ('Face found least often', _share, True),
    ('Smallest faces', _FIGURES['face size, px'], True),
    ('Most jitter', _FIGURES['jitter, px'], False),
  ):
    known = [(value, r) for r in kept if (value := figure(r)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=not least)
    lines = [
      f'<tr><td>{_text(row.video_id)}</td><td>{row.split}</td>'
      f'<td>{value:.3g}</td></tr>'
      for value, row in known[:_WORST]
      if title != 'Face found least often' or value < 1
    ]
    if lines:
      lists.append(f'<h3>{title}</h3><table>{"".join(lines)}</table>')
  return ''.join(lists)


def _share(row: prepared_video.Outcome) -> float | None:
  return row.num_frames / row.num_asked if row.num_asked else None


def _text(text: str) -> str:
  return html.escape(file_names.printable(text))
