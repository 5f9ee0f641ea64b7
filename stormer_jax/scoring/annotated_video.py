"""The answer to one video, drawn into the video: an MP4 without sound.

Enters: the video and its `answer.Answer`. Leaves: H.264 in MP4, every frame at
its own time: a box around everybody who was scored, with the value of the clip
nearest in time and the vulnerability map over the face, and along the lower
edge the clips of the person who decides. Frame after frame, in flat memory.
"""

import bisect
import dataclasses
import fractions
import itertools
import math
import os
import pathlib

import av
import cv2
import numpy as np

from data_pipeline.faces import crops, footage
from stormer_jax.scoring import answer, heat, timeline

_LONG_SIDE = 1280  # px; larger frames are made smaller
_STRIP = 10  # px
_TIME_BASE = fractions.Fraction(1, 90_000)
_COLOURS = {  # RGB
  'real': (31, 111, 178),
  'unsure': (138, 143, 152),
  'fake': (200, 64, 30),
  'plain': (107, 95, 181),
}
_CROP_MARGIN = 0.25  # of the box, as `prepare` adds it


def write(
  said: answer.Answer,
  video: str | os.PathLike[str],
  out: pathlib.Path,
) -> None:
  """Writes the annotated video, whole or not at all.

  Args:
    said: With its snapshots, as `Detector.predict` returned it.
    video: What it is about.
    out: MP4 file.

  Raises:
    ValueError: There is no score to draw.
  """
  if said.status != 'ok' or said.sampling is None:
    raise ValueError(f'{video}: {said.status}: there is nothing to draw')
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(f'{out.name}.partial')
  try:
    _encode(said, pathlib.Path(video).absolute(), partial)
    partial.replace(out)
  finally:
    partial.unlink(missing_ok=True)


def _encode(
  said: answer.Answer, video: pathlib.Path, out: pathlib.Path
) -> None:
  assert said.sampling is not None and said.quality is not None
  people = [_Person(said, track.number) for track in said.tracks]
  strip = _Strip(said)
  rate = said.quality.fps if said.quality.fps > 0 else 25.0
  reading = footage.decode_frames(video, range(said.sampling.frames_in_file))
  latest = -1
  with av.open(str(out), 'w', format='mp4') as container:
    stream = container.add_stream('libx264', rate=max(round(rate), 1))
    stream.pix_fmt = 'yuv420p'
    stream.options = {'crf': '20', 'preset': 'veryfast'}
    stream.codec_context.time_base = _TIME_BASE
    size: tuple[int, int] | None = None
    for frame in reading:
      image = frame.image.copy()
      for person in people:
        person.draw(image, frame.index)
      if size is None:
        size = _even_size(image)
        stream.width, stream.height = size
      shown = np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8
      )
      strip.draw(shown, frame.index)
      time = frame.time if math.isfinite(frame.time) else frame.index / rate
      latest = max(round(time / _TIME_BASE), latest + 1)
      picture = av.VideoFrame.from_ndarray(shown, format='rgb24')
      picture.pts, picture.time_base = latest, _TIME_BASE
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def _even_size(image: np.ndarray) -> tuple[int, int]:
  height, width = image.shape[:2]
  scale = min(_LONG_SIDE / max(height, width), 1)
  return (
    max(round(width * scale / 2) * 2, 2),
    max(round(height * scale / 2) * 2, 2),
  )


@dataclasses.dataclass(frozen=True)
class _Shown:
  """A scored frame of a person."""

  index: int
  box: np.ndarray
  value: float
  kind: str
  map: np.ndarray


class _Person:
  """Boxes and values of one person through the video."""

  def __init__(self, said: answer.Answer, number: int):
    self._name = f'person {number}: ' if len(said.tracks) > 1 else ''
    self._with_map = timeline.is_trained(said, 'vulnerability_map')
    self._inset = float(said.provenance.get('margin', 0)) / crops.CROP_SIZE
    boxes = {
      (frame.track, frame.frame_index): frame.box for frame in said.frames
    }
    self._shown: list[_Shown] = []
    for snapshot in said.snapshots:
      if snapshot.track != number:
        continue
      clip = said.clips[snapshot.clip]
      value = clip.score if math.isnan(clip.probability) else clip.probability
      self._shown += [
        _Shown(
          index,
          np.array(boxes[number, index]),
          value,
          timeline.kind(value, said),
          snapshot.maps[place],
        )
        for place, index in enumerate(clip.frame_indices)
      ]
    self._indices = [shown.index for shown in self._shown]
    # Further than a usual gap from a scored frame, nobody knows where the face
    # is: the person may have left.
    gaps = np.diff(self._indices) if len(self._indices) > 1 else np.ones(1)
    self._reach = max(float(np.percentile(gaps, 90)), 1.0)

  def draw(self, image: np.ndarray, index: int) -> None:
    """Draws the person into a frame, RGB, in place."""
    after = bisect.bisect_left(self._indices, index)
    around = self._shown[max(after - 1, 0) : after + 1]
    nearest = min(around, key=lambda shown: abs(shown.index - index))
    if abs(nearest.index - index) > self._reach:
      return
    box = nearest.box
    if len(around) == 2 and around[1].index > around[0].index:
      first, last = around
      if last.index - first.index <= self._reach:
        share = (index - first.index) / (last.index - first.index)
        box = (1 - share) * first.box + share * last.box
    if self._with_map:
      self._glow(image, box, nearest.map)
    colour = _COLOURS[nearest.kind]
    thick = max(round(max(image.shape[:2]) / 400), 1)
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2 * thick)
    text = f'{self._name}{nearest.value:.2f}'
    scale = max(image.shape[:2]) / 1600
    (width, height), _ = cv2.getTextSize(
      text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick
    )
    top = max(y0 - height - 4 * thick, 0)
    cv2.rectangle(
      image,
      (x0, top),
      (x0 + width + 4 * thick, top + height + 4 * thick),
      colour,
      -1,
    )
    cv2.putText(
      image,
      text,
      (x0 + 2 * thick, top + height + 2 * thick),
      cv2.FONT_HERSHEY_SIMPLEX,
      scale,
      (255, 255, 255),
      thick,
      cv2.LINE_AA,
    )

  def _glow(
    self, image: np.ndarray, box: np.ndarray, values: np.ndarray
  ) -> None:
    """Paints the map over what of the crop the detector saw."""
    corners = crops.enlarge_box(
      box.astype(np.float32), image.shape[0], image.shape[1], _CROP_MARGIN
    )
    if corners is None:
      return
    x0, y0, x1, y1 = corners
    cut_x, cut_y = (
      round(self._inset * (x1 - x0)),
      round(self._inset * (y1 - y0)),
    )
    part = image[y0 + cut_y : y1 - cut_y, x0 + cut_x : x1 - cut_x]
    if part.size:
      part[:] = heat.overlay(np.ascontiguousarray(part), values)


class _Strip:
  """The clips of the person who decides, and where the film is."""

  def __init__(self, said: answer.Answer):
    assert said.sampling is not None
    self._length = said.sampling.frames_in_file
    number = next(t.number for t in said.tracks if t.decides)
    self._cells = [
      (
        clip.frame_indices[len(clip.frame_indices) // 2],
        timeline.kind(
          clip.score if math.isnan(clip.probability) else clip.probability, said
        ),
      )
      for clip in said.clips
      if clip.track == number
    ]

  def draw(self, image: np.ndarray, index: int) -> None:
    """Draws the strip along the lower edge, RGB, in place."""
    height, width = image.shape[:2]
    strip = image[height - _STRIP :]
    strip[:] = 20
    places = [place * width / self._length for place, _ in self._cells]
    edges = [
      0.0,
      *((a + b) / 2 for a, b in itertools.pairwise(places)),
    ]
    for (left, right), (_, kind) in zip(
      zip(edges, [*edges[1:], float(width)], strict=True),
      self._cells,
      strict=True,
    ):
      strip[2:, round(left) : max(round(right) - 1, round(left) + 1)] = (
        _COLOURS[kind]
      )
    at = round(index * width / self._length)
    strip[:, max(at - 1, 0) : at + 2] = 255
