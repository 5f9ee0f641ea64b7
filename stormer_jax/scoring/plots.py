"""Plots as SVG text, readable in a browser, on paper and without a network.

Enter: numbers. Leaves: one `<svg>` element each. Written by hand: five kinds
of plot need lines, dots and rectangles, for which matplotlib would be the
largest dependency of the project, and its output 30 times the size.
"""

from collections.abc import Mapping, Sequence
import html
import math

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import bootstrap

# Okabe and Ito's colours, told apart by colour-blind people too.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
_DASHES = ('', '6 3', '2 3', '8 3 2 3')
_LEFT, _TOP, _SIDE = (
  58.0,
  14.0,
  300.0,
)  # px: of the square that data is drawn in


def roc(
  curves: Mapping[
    str, tuple[Float[np.ndarray, 'points'], Float[np.ndarray, 'points']]
  ],
) -> str:
  """Draws ROC curves: (false-positive rate, true-positive rate) by name."""
  parts = [_axes('false-positive rate', 'true-positive rate')]
  parts.append(_line([0.0, 1.0], [0.0, 1.0], colour='#999', dash='2 4'))
  for i, (name, (fpr, tpr)) in enumerate(curves.items()):
    parts.append(_line(fpr, tpr, colour=_colour(i), dash=_dash(i), name=name))
  return _svg(parts, _legend(list(curves)), 'ROC curves')


def reliability(
  bins: Mapping[
    str,
    tuple[
      Float[np.ndarray, 'bins'],
      Float[np.ndarray, 'bins'],
      Int[np.ndarray, 'bins'],
    ],
  ],
) -> str:
  """Draws the share of fakes over the mean score: (mean, share, count)."""
  parts = [_axes('mean score', 'share of fake videos')]
  parts.append(_line([0.0, 1.0], [0.0, 1.0], colour='#999', dash='2 4'))
  for i, (name, (mean, share, count)) in enumerate(bins.items()):
    parts.append(
      _line(mean, share, colour=_colour(i), dash=_dash(i), name=name)
    )
    most = max(int(count.max(initial=1)), 1)
    parts += [
      f'<circle cx="{_x(m):.1f}" cy="{_y(s):.1f}"'
      f' r="{2 + 4 * math.sqrt(c / most):.1f}" fill="{_colour(i)}">'
      f'<title>{_escape(name)}: {int(c)} videos, score {m:.3f}, share of fakes'
      f' {s:.3f}</title></circle>'
      for m, s, c in zip(mean, share, count, strict=True)
    ]
  return _svg(parts, _legend(list(bins)), 'Reliability diagram')


def histogram(
  labels: Int[np.ndarray, 'n'],
  scores: Float[np.ndarray, 'n'],
  threshold: float,
) -> str:
  """Draws how the scores of real and of fake videos are spread."""
  low, high = float(scores.min()), float(scores.max())
  if low >= 0 and high <= 1:
    low, high = 0.0, 1.0
  elif low == high:
    low, high = low - 0.5, high + 0.5
  edges = np.linspace(low, high, 31)
  shares = [
    np.histogram(scores[labels == kind], edges)[0]
    / max(1, int(np.sum(labels == kind)))
    for kind in (0, 1)
  ]
  top = max(float(s.max()) for s in shares)
  parts = [_axes('score', 'share of the class', (low, high), (0.0, top))]
  width = _SIDE / 30
  for kind, share in enumerate(shares):
    parts += [
      f'<rect x="{_LEFT + i * width:.1f}" y="{_y(s / top):.1f}"'
      f' width="{width:.1f}" height="{_SIDE * s / top:.1f}"'
      f' fill="{_colour(kind)}" fill-opacity="0.5"/>'
      for i, s in enumerate(share)
      if s
    ]
  if low <= threshold <= high:
    at = (threshold - low) / (high - low)
    parts.append(_line([at, at], [0.0, 1.0], colour='#999', dash='4 3'))
  return _svg(parts, _legend(['real', 'fake']), 'Scores of real and fake')


def intervals(
  estimates: Sequence[tuple[str, str, bootstrap.Estimate]], title: str
) -> str:
  """Draws values with their intervals, one below the other.

  Args:
    estimates: (what is measured, system, estimate in [0, 1]).
    title: Of the axis.
  """
  systems = list(dict.fromkeys(system for _, system, _ in estimates))
  names = list(dict.fromkeys(name for name, _, _ in estimates))
  known = [
    x
    for _, _, e in estimates
    for x in (e.value, e.low, e.high)
    if not math.isnan(x)
  ]
  low = max(0.0, math.floor(10 * min(known, default=0.0)) / 10)
  low = min(low, 0.9)
  row = 10 + 14 * len(systems)
  left = 24.0 + 6.5 * max(map(len, names))
  height = _TOP + row * len(names)
  parts = []
  for tick in _ticks(low):
    x = left + _SIDE * (tick - low) / (1 - low)
    parts.append(
      f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height}"'
      ' stroke="#ccc"/>' + _label(x, height + 16, f'{100 * tick:.0f}', 'middle')
    )
  parts.append(_label(left + _SIDE / 2, height + 34, title, 'middle'))
  for i, name in enumerate(names):
    middle = _TOP + row * (i + 0.5)
    parts.append(_label(left - 8, middle + 4, name, 'end'))
    for j, system in enumerate(systems):
      y = middle + 14 * (j - (len(systems) - 1) / 2)
      for estimate in (e for n, s, e in estimates if (n, s) == (name, system)):
        if math.isnan(estimate.value):
          continue
        at = [
          left + _SIDE * (max(v, low) - low) / (1 - low)
          for v in (estimate.low, estimate.value, estimate.high)
        ]
        if not math.isnan(estimate.low):
          parts.append(
            f'<line x1="{at[0]:.1f}" y1="{y:.1f}" x2="{at[2]:.1f}"'
            f' y2="{y:.1f}" stroke="{_colour(j)}" stroke-width="2"/>'
          )
        parts.append(
          f'<circle cx="{at[1]:.1f}" cy="{y:.1f}" r="4" fill="{_colour(j)}"/>'
        )
  legend = _legend(systems) if len(systems) > 1 else []
  return _frame(
    parts, legend, title, left + _SIDE + 20, height + 44, left_of_legend=left
  )


def by_level(
  curves: Mapping[str, Sequence[tuple[int, bootstrap.Estimate]]], title: str
) -> str:
  """Draws a figure over the level of damage, intervals as bars.

  Args:
    curves: (level, estimate in [0, 1]) by name; level 0 is no damage.
    title: Of the vertical axis.
  """
  known = [
    x
    for curve in curves.values()
    for _, e in curve
    for x in (e.value, e.low, e.high)
    if not math.isnan(x)
  ]
  low = min(0.9, max(0.0, math.floor(10 * min(known, default=0.0)) / 10))
  most = max((level for curve in curves.values() for level, _ in curve))
  parts = [
    _axes(
      'level of damage',
      title,
      y_names={(t - low) / (1 - low): f'{100 * t:.0f}' for t in _ticks(low)},
      x_names={
        _share(i, most): str(i) if i else 'none' for i in range(most + 1)
      },
    )
  ]
  for i, curve in enumerate(curves.values()):
    # Side by side, so that intervals of one level can be told apart.
    shift = 0.02 * (i - (len(curves) - 1) / 2)
    points = [
      (_share(level, most) + (shift if level else 0), e)
      for level, e in curve
      if not math.isnan(e.value)
    ]
    heights = [(e.value - low) / (1 - low) for _, e in points]
    parts.append(
      _line([x for x, _ in points], heights, colour=_colour(i), dash=_dash(i))
    )
    for (x, e), height in zip(points, heights, strict=True):
      parts.append(
        f'<circle cx="{_x(x):.1f}" cy="{_y(height):.1f}" r="3"'
        f' fill="{_colour(i)}"/>'
      )
      if not math.isnan(e.low):
        ends = [(end - low) / (1 - low) for end in (e.low, e.high)]
        parts.append(_line([x, x], ends, colour=_colour(i), dash='', width=1))
  return _svg(parts, _legend(list(curves)), title)


def _ticks(low: float) -> list[float]:
  """Round shares from `low`, a tenth of them, to 1."""
  step = 1 if low >= 0.5 else 2
  return [i / 10 for i in range(10, round(10 * low) - 1, -step)]


def _share(level: int, most: int) -> float:
  """Where a level lies on the axis, with room at both sides."""
  return 0.08 + 0.84 * level / max(most, 1)


def _axes(
  x_title: str,
  y_title: str,
  x_range: tuple[float, float] = (0.0, 1.0),
  y_range: tuple[float, float] = (0.0, 1.0),
  x_names: Mapping[float, str] | None = None,
  y_names: Mapping[float, str] | None = None,
) -> str:
  parts = [
    f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"'
    ' fill="none" stroke="currentColor"/>'
  ]
  shares = (0.0, 0.25, 0.5, 0.75, 1.0)
  below = x_names or {
    share: f'{x_range[0] + (x_range[1] - x_range[0]) * share:.3g}'
    for share in shares
  }
  beside = y_names or {
    share: f'{y_range[0] + (y_range[1] - y_range[0]) * share:.2g}'
    for share in shares
  }
  parts += [
    _label(_x(share), _TOP + _SIDE + 16, name, 'middle')
    for share, name in below.items()
  ]
  parts += [
    _label(_LEFT - 6, _y(share) + 4, name, 'end')
    for share, name in beside.items()
  ]
  middle = _TOP + _SIDE / 2
  parts.append(
    _label(_LEFT + _SIDE / 2, _TOP + _SIDE + 34, x_title, 'middle')
    + f'<text x="14" y="{middle}" text-anchor="middle"'
    f' transform="rotate(-90 14 {middle})" fill="currentColor">'
    f'{_escape(y_title)}</text>'
  )
  return ''.join(parts)


def _line(
  x, y, *, colour: str, dash: str, name: str = '', width: int = 2
) -> str:
  points = ' '.join(
    f'{_x(a):.2f},{_y(b):.2f}' for a, b in zip(x, y, strict=True)
  )
  title = f'<title>{_escape(name)}</title>' if name else ''
  return (
    f'<polyline points="{points}" fill="none" stroke="{colour}"'
    f' stroke-width="{width}" stroke-dasharray="{dash}">{title}</polyline>'
  )


def _legend(names: list[str]) -> list[tuple[str, str, str]]:
  return [(name, _colour(i), _dash(i)) for i, name in enumerate(names)]


def _svg(
  parts: list[str], legend: list[tuple[str, str, str]], title: str
) -> str:
  return _frame(
    parts,
    legend,
    title,
    _LEFT + _SIDE + 20,
    _TOP + _SIDE + 44,
    left_of_legend=_LEFT,
  )


def _frame(
  parts: list[str],
  legend: list[tuple[str, str, str]],
  title: str,
  width: float,
  height: float,
  *,
  left_of_legend: float,
) -> str:
  for i, (name, colour, dash) in enumerate(legend):
    y = height + 8 + 16 * i
    parts = [
      *parts,
      f'<line x1="{left_of_legend}" y1="{y}" x2="{left_of_legend + 26}"'
      f' y2="{y}" stroke="{colour}" stroke-width="3"'
      f' stroke-dasharray="{dash}"/>'
      + _label(left_of_legend + 32, y + 4, name, 'start'),
    ]
  height += 16 * len(legend) + 8
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f}'
    f' {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img"'
    ' font-family="sans-serif" font-size="12">'
    f'<title>{_escape(title)}</title>{"".join(parts)}</svg>'
  )


def _label(x: float, y: float, text: str, anchor: str) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    f' fill="currentColor">{_escape(text)}</text>'
  )


def _x(share: float) -> float:
  return _LEFT + _SIDE * share


def _y(share: float) -> float:
  return _TOP + _SIDE * (1 - share)


def _colour(i: int) -> str:
  return _COLOURS[i % len(_COLOURS)]


def _dash(i: int) -> str:
  return _DASHES[(i // len(_COLOURS)) % len(_DASHES)]


def _escape(text: str) -> str:
  return html.escape(text, quote=True)
