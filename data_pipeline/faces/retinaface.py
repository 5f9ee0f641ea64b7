"""Boxes by RetinaFace (Deng et al., CVPR 2020), from the user's ONNX file.

The form is that which the PyTorch implementations export: a picture in, BGR
less its mean of (104, 117, 123); out come, for every anchor, the box, two
scores (background, face) and five points. Anchors are squares of two sizes
around the middle of every cell of 8, 16 and 32 px; boxes and points are told as
steps from them. The released code finds its boxes with a RetinaFace (METHOD
1.1). Boxes reach from forehead to chin.
"""

from collections.abc import Sequence
import functools

from jaxtyping import UInt8
import numpy as np

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import boxes as boxes_lib
from data_pipeline.faces import canvas, onnx_model

_ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # px, by cell
_STEP_OF_CENTRE, _STEP_OF_SIZE = 0.1, 0.2
_MEAN_BGR = np.array([104, 117, 123], np.float32)
_WIDTHS = (4, 2, 10)  # of an anchor: box, scores, points
_SIDE = 640  # px, where the file leaves it open
_MIN_SCORE = 0.5
_MAX_OVERLAP = 0.4


class RetinaFace:
  """Finds faces with RetinaFace; safe to use from several threads."""

  def __init__(self, model_file: str, threads: int = 1):
    """Loads the detector.

    Args:
      model_file: an ONNX file with three outputs.
      threads: of onnxruntime.

    Raises:
      ValueError: the file is no such model.
    """
    self.name = f'retinaface-{backend_lib.file_digest(model_file)}'
    self._session = onnx_model.open_session(model_file, threads)
    inlets, outputs = self._session.get_inputs(), self._session.get_outputs()
    shape = inlets[0].shape
    widths = [outlet.shape[-1] for outlet in outputs]
    if (
      len(inlets) != 1
      or len(shape) != 4
      or shape[1] != 3
      or sorted(map(str, widths)) != sorted(map(str, _WIDTHS))
    ):
      raise ValueError(
        f'--face_model={model_file}: not RetinaFace: it takes '
        f'{[inlet.shape for inlet in inlets]} and gives '
        f'{[outlet.shape for outlet in outputs]}, not [1, 3, height, width]'
        ' and three outputs of 4, 2 and 10 numbers an anchor'
      )
    self._order = [widths.index(width) for width in _WIDTHS]
    self._input = inlets[0].name
    self._size = canvas.side_lengths(shape, _SIDE)
    self._file = model_file

  def detect(self, frame: UInt8[np.ndarray, 'h w 3']) -> backend_lib.Faces:
    """Finds all faces of a frame, best first."""
    picture, to_frame = canvas.fit(frame, self._size)
    image = picture[..., ::-1].astype(np.float32) - _MEAN_BGR
    outputs = self._session.run(
      None, {self._input: image.transpose(2, 0, 1)[None]}
    )
    scores, boxes, points = self._decode([outputs[i] for i in self._order])
    kept = boxes_lib.suppress(boxes, scores, _MAX_OVERLAP)
    return backend_lib.on_frame(
      boxes[kept], points[kept], scores[kept], to_frame
    )

  def _decode(
    self, outputs: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores [f], boxes [f, 4] and points [f, 5, 2] on the canvas."""
    anchors = _anchors(self._size)
    steps, scores, points = (
      output.reshape(-1, width)
      for output, width in zip(outputs, _WIDTHS, strict=True)
    )
    if not len(steps) == len(scores) == len(points) == len(anchors):
      raise ValueError(
        f'--face_model={self._file}: not RetinaFace: it gives '
        f'{[len(x) for x in (steps, scores, points)]} boxes, scores and points '
        f'for a picture of {self._size[0]} x {self._size[1]} px, which has '
        f'{len(anchors)} anchors'
      )
    # Some exports leave the softmax out.
    if not np.allclose(scores.sum(1), 1, atol=1e-3):
      scores = np.exp(scores - scores.max(1, keepdims=True))
      scores /= scores.sum(1, keepdims=True)
    is_face = scores[:, 1] >= _MIN_SCORE
    centre, size = anchors[is_face, :2], anchors[is_face, 2:]
    steps = steps[is_face]
    middle = centre + _STEP_OF_CENTRE * steps[:, :2] * size
    half = size * np.exp(_STEP_OF_SIZE * steps[:, 2:]) / 2
    five = points[is_face].reshape(-1, backend_lib.NUM_KEYPOINTS, 2)
    return (
      scores[is_face, 1],
      np.concatenate([middle - half, middle + half], 1),
      centre[:, None] + _STEP_OF_CENTRE * five * size[:, None],
    )


@functools.cache
def _anchors(size: tuple[int, int]) -> np.ndarray:
  """Middle x, y and width, height of all anchors of a canvas, px [n, 4]."""
  parts = []
  for cell, sides in _ANCHORS.items():
    columns, rows = (-(-side // cell) for side in size)
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
    middles = (cells.reshape(-1, 1, 2) + 0.5) * cell
    squares = np.repeat(np.array(sides, float)[:, None], 2, 1)
    parts.append(
      np.concatenate(
        np.broadcast_arrays(middles, squares[None]), axis=-1
      ).reshape(-1, 4)
    )
  return np.concatenate(parts)
