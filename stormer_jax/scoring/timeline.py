"""Clips of a video through time -> one row of bars a person, as HTML.

Enters: an `answer.Answer`. Leaves: a fragment of HTML with SVG in it. What is
stretched to the width of the page are bars alone; words stand outside of the
SVG, so that they keep their size on a phone.
"""

from collections.abc import Iterator
import html
import math

import numpy as np

from stormer_jax.scoring import answer

_HEIGHT = 100.0  # of a row of bars, in its own units


def draw(said: answer.Answer) -> str:
  """Draws all people; '' where the file has no times."""
  ends = [t for clip in said.clips for t in clip.times if math.isfinite(t)]
  if not ends or len(said.clips) != sum(
    math.isfinite(clip.times[0]) for clip in said.clips
  ):
    return ''
  length = max([*ends, said.quality.duration if said.quality else 0.0, 1e-3])
  rows = ''.join(_row(said, track, length) for track in said.tracks)
  marks = ''.join(
    f'<span style="left:{100 * at / length:.2f}%">{clock(at)}</span>'
    for at in ticks(length)
  )
  return (
    f'<div class="timeline">{rows}'
    f'<div class="row axis"><div></div><div class="marks">{marks}</div></div>'
    '</div>'
  )


def _row(said: answer.Answer, track: answer.Track, length: float) -> str:
  clips = [clip for clip in said.clips if clip.track == track.number]
  width = _bar_width(clips, length)
  bars = ''.join(_bars(said, clips, width, length))
  band = ''
  if said.uncertain:
    low, high = said.uncertain
    band = (
      f'<rect class="band" x="0" width="1000" y="{_HEIGHT * (1 - high):.2f}"'
      f' height="{_HEIGHT * (high - low):.2f}"/>'
    )
  segments = ''.join(
    f'<span class="passage" style="left:{100 * s.start / length:.2f}%;'
    f'width:max(3px,{100 * (s.end - s.start) / length:.2f}%)"'
    f' title="{s.start:.1f} to {s.end:.1f} s"></span>'
    for s in said.segments
    if s.track == track.number
  )
  soft = ''
  if is_trained(said, 'soft_labels'):
    cells = ''.join(_soft(said, track.number, width, length))
    soft = (
      '<svg class="soft" viewBox="0 0 1000 1" preserveAspectRatio="none"'
      f' role="img" aria-label="soft labels">{cells}</svg>'
    )
  name = f'Person {track.number}' if len(said.tracks) > 1 else 'Clips'
  return (
    f'<div class="row"><div class="who">{html.escape(name)}</div>'
    f'<div class="plot"><div class="passages">{segments}</div>'
    f'<svg viewBox="0 0 1000 {_HEIGHT:.0f}" preserveAspectRatio="none"'
    f' role="img" aria-label="{html.escape(name)}: how forged each clip'
    f' looks, through time">{band}{bars}</svg>{soft}</div></div>'
  )


def _bar_width(clips: list[answer.ClipScore], length: float) -> float:
  """s that a bar is wide: the distance of two clips, if they lie evenly."""
  starts = np.array([clip.times[0] for clip in clips])
  if len(starts) < 2:
    return length / 40
  return min(float(np.median(np.diff(starts))), length / 8) or length / 40


def _bars(
  said: answer.Answer,
  clips: list[answer.ClipScore],
  width: float,
  length: float,
) -> Iterator[str]:
  for clip in clips:
    value = clip.score if math.isnan(clip.probability) else clip.probability
    middle = (clip.times[0] + clip.times[-1]) / 2
    left = max(middle - 0.42 * width, 0.0)
    height = max(_HEIGHT * value, 1.5)
    yield (
      f'<rect class="{kind(value, said)}" x="{1000 * left / length:.2f}"'
      f' width="{1000 * 0.84 * width / length:.2f}"'
      f' y="{_HEIGHT - height:.2f}" height="{height:.2f}">'
      f'<title>{clock(clip.times[0])}: {value:.2f}</title></rect>'
    )


def _soft(
  said: answer.Answer, track: int, width: float, length: float
) -> Iterator[str]:
  """A cell for each frame, the darker the stronger its soft label."""
  per_frame = width / max(len(said.clips[0].times), 1)
  of_clip = len(said.clips[0].times)
  frames = [frame for frame in said.frames if frame.track == track]
  for start in range(0, len(frames), of_clip):
    clip = frames[start : start + of_clip]
    middle = (clip[0].time + clip[-1].time) / 2
    for place, frame in enumerate(clip):
      left = middle - width / 2 + place * per_frame
      yield (
        f'<rect x="{1000 * max(left, 0) / length:.2f}" y="0" height="1"'
        f' width="{1000 * per_frame / length:.2f}"'
        f' fill-opacity="{frame.soft_label:.2f}"/>'
      )


def is_trained(said: answer.Answer, head: str) -> bool:
  """Whether what a head says means anything."""
  return said.provenance.get('trained_heads', {}).get(head, True)


def kind(value: float, said: answer.Answer) -> str:
  """The class of a probability, or of a score: its colour."""
  if not said.uncertain:
    return 'plain'
  low, high = said.uncertain
  if value < low:
    return 'real'
  return 'fake' if value > high else 'unsure'


def ticks(length: float) -> list[float]:
  """Four to eight round times from 0 on."""
  for step in (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
  ):
    if length / step <= 7:
      break
  return [
    round(float(i * step), 6) for i in range(int(length / step + 1e-9) + 1)
  ]


def clock(seconds: float) -> str:
  """A time as 7.5 s, 1:05 or 1:00:05."""
  if not math.isfinite(seconds):
    return 'no time'
  if seconds < 60:
    return f'{seconds:.1f} s' if seconds % 1 else f'{seconds:.0f} s'
  whole = round(seconds)
  hours, minutes = divmod(whole // 60, 60)
  tail = (
    f'{minutes:02d}:{whole % 60:02d}'
    if hours
    else f'{minutes}:{whole % 60:02d}'
  )
  return f'{hours}:{tail}' if hours else tail
