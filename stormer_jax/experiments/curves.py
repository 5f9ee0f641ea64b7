"""Plots of many runs, as SVG text: their curves, and their differences.

Enter: numbers by entry. Leaves: one `<svg>` each, by hand: lines, bands and
dots need no library.
"""

from collections.abc import Mapping, Sequence
import html
import math

# Okabe and Ito's colours, told apart by colour-blind people too; the base of a
# comparison is black.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
_DASHES = ('', '7 3', '2 3', '9 3 2 3')
_WIDTH, _HEIGHT, _LEFT, _TOP, _ROW = 520.0, 300.0, 60.0, 20.0, 16.0

Curve = Sequence[tuple[int, float]]  # (step, figure)


def draw_curves(
  curves: Mapping[str, Sequence[Curve]], base: str, title: str
) -> str:
  """Draws the mean over the seeds of each entry, and a band from least to most.

  Args:
    curves: A curve for each seed, by entry. A step counts where all seeds have
      it.
    base: Entry drawn in black.
    title: What the figure is.
  """
  means: dict[str, list[tuple[int, float, float, float]]] = {}
  for name, runs in curves.items():
    columns = [dict(run) for run in runs]
    shared = sorted(set.intersection(*map(set, columns))) if columns else []
    means[name] = []
    for step in shared:
      values = [column[step] for column in columns]
      mean = sum(values) / len(values)
      means[name].append((step, mean, min(values), max(values)))
  points = [point for line in means.values() for point in line]
  if not points:
    return ''
  most = max(point[0] for point in points)
  low = min(point[2] for point in points)
  high = max(point[3] for point in points)
  low, high = math.floor(20 * low) / 20, math.ceil(20 * high + 1e-9) / 20
  high = max(high, low + 0.05)

  def place(step: int, value: float) -> str:
    x = _LEFT + _WIDTH * step / most
    y = _TOP + _HEIGHT * (high - value) / (high - low)
    return f'{x:.1f},{y:.1f}'

  parts = []
  for i in range(6):
    value = low + (high - low) * i / 5
    x, y = _LEFT + _WIDTH * i / 5, _TOP + _HEIGHT * (1 - i / 5)
    parts.append(
      f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}"'
      ' stroke="#ddd"/>'
    )
    parts.append(_text(_LEFT - 6, y + 4, f'{value:.3g}', 'end'))
    below = _TOP + _HEIGHT + 16
    parts.append(_text(x, below, f'{most * i / 5:.0f}', 'middle'))
  parts.append(_text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 34, 'step', 'middle'))
  legend = _TOP + _HEIGHT + 56
  styles = _styles(means, base)
  for i, (name, line) in enumerate(means.items()):
    colour, dash = styles[name]
    # A band needs two seeds, a line two steps.
    if len(curves[name]) > 1:
      edge = [place(p[0], p[3]) for p in line]
      edge += [place(p[0], p[2]) for p in reversed(line)]
      parts.append(
        f'<polygon points="{" ".join(edge)}" fill="{colour}"'
        ' fill-opacity="0.12"/>'
      )
    parts.append(
      f'<polyline points="{" ".join(place(p[0], p[1]) for p in line)}"'
      f' fill="none" stroke="{colour}" stroke-width="2"'
      f' stroke-dasharray="{dash}"><title>{html.escape(name)}</title>'
      '</polyline>'
    )
    y = legend + _ROW * i
    parts.append(
      f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + 28}" y2="{y}"'
      f' stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
    )
    parts.append(_text(_LEFT + 36, y + 4, name, 'start'))
  return _svg(parts, _LEFT + _WIDTH + 20, legend + _ROW * len(means), title)


def draw_differences(
  differences: Sequence[tuple[str, float, tuple[float, float]]],
  base: str,
  title: str,
) -> str:
  """Draws each entry's difference to the base with its interval.

  Args:
    differences: (entry, difference, interval) in shares; nan is left out.
    base: Entry at zero.
    title: What the figure is.
  """
  shown = [item for item in differences if not math.isnan(item[1])]
  if not shown:
    return ''
  ends = [
    end
    for _, value, interval in shown
    for end in (value, *interval)
    if not math.isnan(end)
  ]
  reach = math.ceil(100 * max(map(abs, ends)) + 1e-9) / 100 or 0.01
  left = 20 + 7.0 * max(len(name) for name, *_ in shown)
  bottom = _TOP + _ROW * len(shown)

  def place(value: float) -> float:
    return left + _WIDTH * (value + reach) / (2 * reach)

  parts = []
  for i in range(-2, 3):
    x = place(reach * i / 2)
    colour = '#444' if i == 0 else '#ddd'
    parts.append(
      f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"'
      f' stroke="{colour}"/>'
    )
    parts.append(_text(x, bottom + 16, f'{50 * reach * i:+.3g}', 'middle'))
  parts.append(
    _text(place(0.0), bottom + 34, f'points more than {base}', 'middle')
  )
  for i, (name, value, (low, high)) in enumerate(shown):
    y = _TOP + _ROW * (i + 0.5)
    # An interval without zero is drawn full, one with it pale.
    clear = not math.isnan(low) and (low > 0 or high < 0)
    colour = _COLOURS[1] if clear and value < 0 else _COLOURS[0]
    style = f'stroke="{colour}" stroke-opacity="{1 if clear else 0.45}"'
    parts.append(_text(left - 8, y + 4, name, 'end'))
    if not math.isnan(low):
      parts.append(
        f'<line x1="{place(low):.1f}" y1="{y}" x2="{place(high):.1f}"'
        f' y2="{y}" stroke-width="3" {style}/>'
      )
    parts.append(
      f'<circle cx="{place(value):.1f}" cy="{y}" r="4" fill="{colour}">'
      f'<title>{html.escape(name)} {100 * value:+.2f}</title></circle>'
    )
  return _svg(parts, left + _WIDTH + 30, bottom + 44, title)


def _styles(names: Mapping[str, object], base: str) -> dict:
  others = [name for name in names if name != base]
  styles = {
    name: (
      _COLOURS[i % len(_COLOURS)],
      _DASHES[i // len(_COLOURS) % len(_DASHES)],
    )
    for i, name in enumerate(others)
  }
  return styles | {base: ('#000', '')}


def _text(x: float, y: float, text: str, anchor: str) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f'{html.escape(text)}</text>'
  )


def _svg(parts: Sequence[str], width: float, height: float, title: str) -> str:
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}"'
    f' height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    ' role="img" font-family="sans-serif" font-size="12">'
    f'<title>{html.escape(title)}</title>'
    f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
  )
