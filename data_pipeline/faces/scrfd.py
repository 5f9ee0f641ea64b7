"""Boxes by SCRFD (Guo et al., ICLR 2022), from the user's ONNX file.

What enters: a frame of any size, RGB uint8. It is scaled, aspect kept, into the
upper left corner of a square that the network takes, black elsewhere, and
brought to (x - 127.5) / 128. The network gives three tensors (score, four
distances, five points) for each of its strides of 8, 16 and 32 px: distances
and points count from the middle of a cell, in strides. What leaves: boxes from
forehead to chin (the convention of WIDER FACE) and five points.
"""

from collections.abc import Sequence

from jaxtyping import UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import boxes as boxes_lib
from data_pipeline.faces import canvas, onnx_model

_STRIDES = (8, 16, 32)
_WIDTHS = {'scores': 1, 'distances': 4, 'points': 10}
_SIDE = 640  # px, where the file leaves it open
_MIN_SCORE = 0.5
_MAX_OVERLAP = 0.4


class Scrfd:
  """Finds faces with SCRFD; safe to use from several threads."""

  def __init__(self, model_file: str, threads: int = 1):
    """Loads the detector.

    Args:
      model_file: an ONNX file with five points a face (scrfd_*_bnkps.onnx,
        det_10g.onnx).
      threads: of onnxruntime.

    Raises:
      ValueError: the file is no such model.
    """
    self.name = f'scrfd-{backend_lib.file_digest(model_file)}'
    self._session = onnx_model.open_session(model_file, threads)
    (inlet, *others) = self._session.get_inputs()
    self._input = inlet.name
    shape = inlet.shape
    outputs = self._session.get_outputs()
    if others or len(shape) != 4 or shape[1] != 3:
      raise ValueError(
        f'--face_model={model_file}: not SCRFD: it takes '
        f'{[i.shape for i in (inlet, *others)]}, not one [1, 3, height, width]'
      )
    if len(outputs) == 2 * len(_STRIDES):
      raise ValueError(
        f'--face_model={model_file}: an SCRFD without the five points of a '
        'face; take the file whose name has kps'
      )
    if len(outputs) != len(_WIDTHS) * len(_STRIDES):
      raise ValueError(
        f'--face_model={model_file}: not SCRFD: it has {len(outputs)} outputs, '
        f'not {len(_WIDTHS) * len(_STRIDES)}'
      )
    self._size = canvas.side_lengths(shape, _SIDE)
    self._file = model_file

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> backend_lib.Faces:
    """Finds all faces of a frame, best first."""
    picture, to_frame = canvas.fit(frame, self._size)
    image = (picture.astype(np.float32) - 127.5) / 128
    outputs = self._session.run(
      None, {self._input: image.transpose(2, 0, 1)[None]}
    )
    scores, boxes, points = self._decode(outputs)
    kept = boxes_lib.suppress(boxes, scores, _MAX_OVERLAP)
    return backend_lib.on_frame(
      boxes[kept], points[kept], scores[kept], to_frame
    )

  def _decode(
    self, outputs: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores [f], boxes [f, 4] and points [f, 5, 2] on the canvas."""
    by_kind = {
      name: sorted(
        (
          output.reshape(-1, width)
          for output in outputs
          if output.shape[-1] == width
        ),
        key=len,
        reverse=True,  # a small stride has many cells
      )
      for name, width in _WIDTHS.items()
    }
    found = []
    for level, stride in enumerate(_STRIDES):
      columns, rows = (side // stride for side in self._size)
      scores, distances, points = (
        of_kind[level] if level < len(of_kind) else np.empty((0, 0))
        for of_kind in by_kind.values()
      )
      per_cell, rest = divmod(len(scores), rows * columns)
      if (
        rest
        or not per_cell
        or len({*map(len, (scores, distances, points))}) > 1
      ):
        raise ValueError(
          f'--face_model={self._file}: not SCRFD: its outputs for strides of '
          f'{stride} px are {[x.shape for x in (scores, distances, points)]}, '
          f'not the same number for each of {rows} x {columns} cells'
        )
      cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
      middles = (cells.reshape(-1, 2) * stride).repeat(per_cell, 0)
      is_face = scores[:, 0] >= _MIN_SCORE
      middle = middles[is_face].astype(np.float64)
      reach = distances[is_face] * stride
      found.append(
        (
          scores[is_face, 0],
          np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], 1),
          middle[:, None] + points[is_face].reshape(-1, 5, 2) * stride,
        )
      )
    scores, boxes, points = (
      np.concatenate(x) for x in zip(*found, strict=True)
    )
    return scores, boxes, points
