"""report.csv -> a page that says how well a data set was cut out.

What enters: what `outcome_report` says. What leaves: one HTML file without
scripts or links to elsewhere: per rule, split and class how many videos were
kept, in what share of the frames the face was found, its size, how far the
landmarks tremble and which frames were dropped; the distributions of real and
fake beside each other, for a detector may learn what differs; the videos worth
a look; and what is in the data set twice (`duplicates`).
"""

import array
import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import html
import os
import pathlib

from jaxtyping import Float64
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
  rows: Iterable[prepared_video.Outcome],
  found: duplicates.Duplicates,
  dataset: str,
) -> None:
  """Writes the page, whole or not at all."""
  staging.write_whole(pathlib.Path(path), make(rows, found, dataset))


def make(
  rows: Iterable[prepared_video.Outcome],
  found: duplicates.Duplicates,
  dataset: str,
) -> str:
  """The page as text. Rows are gone through once, and none is held."""
  rules: dict[str, _OfRule] = {}
  for row in rows:
    rules.setdefault(row.rule, _OfRule()).add(row)
  body = [f'<h1>{_text(dataset)}: how well faces were cut out</h1>']
  body += [_same_files(found.same_files), _look_alikes(found.look_alikes)]
  for rule, of_rule in rules.items():
    body += [
      f'<h2>{_text(rule)}</h2>',
      _table(of_rule.parts),
      _plots(of_rule.parts),
      _worst(of_rule.worst),
    ]
  return (
    '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
    f'<title>{_text(dataset)}: quality</title>\n<style>{_STYLE}</style>\n'
    + '\n'.join(body)
    + '\n</html>\n'
  )


_SHARE, _SIZE, _JITTER = (
  *('face found in, share of frames', 'face size, px', 'jitter, px'),
)
_FIGURES: dict[str, Callable[[prepared_video.Outcome], float | None]] = {
  _SHARE: lambda row: row.num_frames / row.num_asked if row.num_asked else None,
  _SIZE: lambda row: row.face_size or None,
  _JITTER: lambda row: row.jitter or None,
}
# What is named: title, figure, and whether little of it is bad or much.
_LISTS = (
  ('Face found least often', _SHARE, 1),
  ('Smallest faces', _SIZE, 1),
  ('Most jitter', _JITTER, -1),
)


@dataclasses.dataclass
class _Part:
  """The videos of one split and class, added up.

  Attributes:
    num_videos: listed.
    num_asked: frames that were looked at.
    num_found: of them with a face.
    num_frames: of kept videos.
    reasons: how many videos are not kept, and why.
    num_kept: videos.
    figures: of kept videos, by name, as far as they are known.
  """

  num_videos: int = 0
  num_kept: int = 0
  num_frames: int = 0
  num_asked: int = 0
  num_found: int = 0
  reasons: dict[str, int] = dataclasses.field(default_factory=dict)
  figures: dict[str, 'array.array[float]'] = dataclasses.field(
    default_factory=lambda: {name: array.array('d') for name in _FIGURES}
  )

  def add(self, row: prepared_video.Outcome) -> None:
    """Counts a video in."""
    self.num_videos += 1
    if row.num_asked:
      self.num_asked += row.num_asked
      self.num_found += row.num_frames
    if row.status != 'kept':
      self.reasons[row.reason] = self.reasons.get(row.reason, 0) + 1
      return
    self.num_kept += 1
    self.num_frames += row.num_frames
    for name, figure in _FIGURES.items():
      if (value := figure(row)) is not None:
        self.figures[name].append(value)


class _OfRule:
  """All that the page says of one rule.

  Attributes:
    parts: by split and class.
    worst: by title the videos that are named, with their figure.
  """

  def __init__(self):
    self.parts: dict[tuple[str, str], _Part] = {}
    self.worst: dict[str, list[tuple[float, str, str]]] = {
      title: [] for title, *_ in _LISTS
    }

  def add(self, row: prepared_video.Outcome) -> None:
    """Counts a video in."""
    self.parts.setdefault((row.split, row.label), _Part()).add(row)
    if row.status != 'kept':
      return
    for title, name, sign in _LISTS:
      value, worst = _FIGURES[name](row), self.worst[title]
      if value is None or (
        len(worst) == _WORST and sign * value >= sign * worst[-1][0]
      ):
        continue
      place = bisect.bisect(worst, sign * value, key=lambda w: sign * w[0])
      worst.insert(place, (value, row.video_id, row.split))
      del worst[_WORST:]


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


def _table(parts: Mapping[tuple[str, str], _Part]) -> str:
  head = (
    'split, class', 'videos', 'kept', 'frames kept', 'frames dropped',
    'face found in', 'face size, px', 'jitter, px', 'skipped',
  )  # fmt: skip
  lines = [''.join(f'<th>{name}</th>' for name in head)]
  keys = sorted(
    parts,
    key=lambda key: (_SPLITS.get(key[0], len(_SPLITS)), key[1] != 'real'),
  )
  for split, label in keys:
    part = parts[split, label]
    asked, found = part.num_asked, part.num_found
    cells = (
      f'{split} <span class="{_text(label)}">{_text(label)}</span>',
      part.num_videos,
      part.num_kept,
      part.num_frames,
      asked - found,
      f'{100 * found / asked:.1f} %' if asked else '',
      _spread(part.figures[_SIZE], '.0f'),
      _spread(part.figures[_JITTER], '.2f'),
      ', '.join(f'{n} {_text(name)}' for name, n in part.reasons.items()),
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


def _plots(parts: Mapping[tuple[str, str], _Part]) -> str:
  """Histograms of the kept videos, real and fake in one."""
  plots = []
  for title in _FIGURES:
    values = {
      label: np.concatenate(
        [
          np.zeros(0),
          *(p.figures[title] for key, p in parts.items() if key[1] == label),
        ]
      )
      for label in _COLOURS
    }
    if any(len(of) for of in values.values()):
      plots.append(_histogram(title, values))
  return ''.join(plots)


def _histogram(
  title: str, values: Mapping[str, Float64[np.ndarray, '_']]
) -> str:
  ends = [
    end for of in values.values() if len(of) for end in (of.min(), of.max())
  ]
  low, high = min(ends), max(ends)
  if title == _SHARE:
    low, high = 0.0, 1.0
  if high <= low:
    low, high = low - 0.5, high + 0.5
  width, height = 260, 90
  parts = []
  for label, of in values.items():
    if not len(of):
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
    if len(of)
  )
  return (
    f'<figure><svg width="{width}" height="{height + 16}" role="img" '
    f'aria-label="{_text(title)}">{"".join(parts)}'
    f'<text y="{height + 13}" font-size="11">{low:.3g}</text>'
    f'<text x="{width}" y="{height + 13}" font-size="11" text-anchor="end">'
    f'{high:.3g}</text></svg>'
    f'<figcaption>{_text(title)}: {names}</figcaption></figure>'
  )


def _worst(worst: Mapping[str, Sequence[tuple[float, str, str]]]) -> str:
  """Names the videos in which least was found, or most trembles."""
  lists = []
  for title, name, _ in _LISTS:
    lines = [
      f'<tr><td>{_text(video_id)}</td><td>{split}</td><td>{value:.3g}</td></tr>'
      for value, video_id, split in worst[title]
      if name != _SHARE or value < 1
    ]
    if lines:
      lists.append(f'<h3>{title}</h3><table>{"".join(lines)}</table>')
  return ''.join(lists)


def _text(text: str) -> str:
  return html.escape(file_names.printable(text))
