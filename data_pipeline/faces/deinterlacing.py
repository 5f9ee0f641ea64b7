"""Interlaced pictures -> whole ones.

What enters: a picture that holds two fields of different moments, and its
neighbours. What leaves: the picture of the first field's moment, its missing
lines filled in by libavfilter's bwdif.
"""

import fractions

import av
from av import filter as av_filter

from data_pipeline.faces import decoder

_TICK = fractions.Fraction(1, 1000)


class Deinterlacer:
  """Keeps the filter from one picture to the next of the same kind."""

  def __init__(self) -> None:
    self._graph: av_filter.Graph | None = None
    self._kind: tuple[int, int, str] | None = None
    self._last = -1  # number of the picture fed last

  def whole(
    self,
    before: decoder.Picture | None,
    picture: decoder.Picture,
    after: decoder.Picture | None,
  ) -> av.VideoFrame:
    """Returns a picture's frame, deinterlaced where it is flagged.

    Args:
      before: the picture before it, None for the first.
      picture: the one that is wanted; numbers ascend from call to call.
      after: the one after it, None for the last.
    """
    frame = picture.frame
    if not frame.interlaced_frame:
      return frame
    kind = frame.width, frame.height, frame.format.name
    if kind != self._kind:
      self._graph, self._kind, self._last = _make_graph(frame), kind, -1
    assert self._graph is not None
    for neighbour in (before, picture, after):
      if (
        neighbour is not None
        and neighbour.number > self._last
        and _kind(neighbour.frame) == kind
      ):
        self._push(neighbour)
    if self._last == picture.number:  # nothing of its kind comes after
      self._graph.vpush(None)
      self._kind = None
    while True:
      whole = self._graph.vpull()
      # The filter counts in ticks of half the length.
      assert whole.pts is not None and whole.time_base is not None
      if whole.pts * whole.time_base == picture.number * _TICK:
        return whole

  def _push(self, picture: decoder.Picture) -> None:
    assert self._graph is not None
    frame = picture.frame
    # To know it again; its own time is read already.
    frame.pts, frame.time_base = picture.number, _TICK
    self._graph.vpush(frame)
    self._last = picture.number


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
  return frame.width, frame.height, frame.format.name


def _make_graph(frame: av.VideoFrame) -> av_filter.Graph:
  graph = av_filter.Graph()
  graph.threads = 1
  graph.link_nodes(
    graph.add_buffer(
      width=frame.width,
      height=frame.height,
      format=frame.format,
      time_base=_TICK,
    ),
    graph.add('bwdif', 'mode=send_frame:deint=interlaced'),
    graph.add('buffersink'),
  ).configure()
  return graph
