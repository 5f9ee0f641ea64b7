"""Made-up videos and faces, and how one of them is prepared."""

import pathlib
import struct

import cv2
import numpy as np

from data_pipeline import prepared_video
from data_pipeline.faces import backend as backend_lib
from data_pipeline.sources import catalogue

_BITS = 8


def write_face_video(path: pathlib.Path, num_frames: int) -> pathlib.Path:
  """A film of the still face of tests/golden, panned 1 px a frame."""
  path.parent.mkdir(parents=True, exist_ok=True)
  golden = pathlib.Path(__file__).parent / 'golden' / 'face_carphone.png'
  still = cv2.imread(str(golden))
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30.0, (160, 144)
  )
  for t in range(num_frames):
    writer.write(np.ascontiguousarray(still[:, t % 16 : t % 16 + 160]))
  writer.release()
  return path


def video(path: str, split: str = 'train', **fields) -> catalogue.Video:
  return catalogue.Video(
    path=path, label=0, video_id=path, dataset='d', split=split, **fields
  )


def prepare_one(
  root, video, rules=('consecutive', 'uniform'), backend=None, **settings
):
  return prepared_video.prepare_video(
    root,
    video,
    rules,
    prepared_video.Settings(**settings),
    backend or FixedBackend(),
  )


def make_faces(
  *boxes: tuple[float, ...], score: float = 0.9
) -> backend_lib.Faces:
  """Faces with the given x0, y0, x1, y1, and keypoints in their middles."""
  array = np.array(boxes, np.float32).reshape(-1, 4)
  centres = (array[:, :2] + array[:, 2:]) / 2
  return backend_lib.Faces(
    boxes=array,
    keypoints=np.repeat(centres[:, None], 5, 1),
    scores=np.full(len(array), score, np.float32),
  )


class FixedBackend:
  """Puts all landmarks of a face at its box's upper left corner."""

  name = 'centerface+facemesh_v2'  # in whose place it stands

  def detect(self, frame):
    return make_faces((10, 10, 30, 30))

  def landmarks(self, frame, box, keypoints):
    return np.tile(box[:2], (81, 1)).astype(np.float32)


def write_numbered_video(
  path: pathlib.Path, num_frames: int, size: tuple[int, int] = (128, 64)
) -> pathlib.Path:
  """Writes a video whose frames carry their number as eight bright bars."""
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25.0, size
  )
  assert writer.isOpened()
  for number in range(num_frames):
    writer.write(numbered_image(number, size)[..., ::-1])
  writer.release()
  return path


def numbered_image(number: int, size: tuple[int, int]) -> np.ndarray:
  width, height = size
  bits = [(number >> bit) & 1 for bit in range(_BITS)]
  bars = np.repeat(np.array(bits, np.uint8) * 200, width // _BITS)
  frame = np.zeros((height, width, 3), np.uint8)
  frame[: height // 2, :, 0] = bars  # red in the upper half
  frame[height // 2 :, :, 2] = bars  # blue in the lower
  return frame


def read_number(frame: np.ndarray) -> int:
  row = frame[frame.shape[0] // 4, :, 0].reshape(_BITS, -1).mean(1)
  return int(sum(int(value > 100) << bit for bit, value in enumerate(row)))


def index_first(raw: bytes) -> bytes:
  """Moves the index (moov) before the frames, as files made to stream do."""
  boxes = _boxes(raw)
  start, size = boxes[b'moov']
  moov = bytearray(raw[start : start + size])
  offsets = moov.find(b'stco')
  (count,) = struct.unpack('>I', moov[offsets + 8 : offsets + 12])
  for entry in range(count):
    place = offsets + 12 + 4 * entry
    (offset,) = struct.unpack('>I', moov[place : place + 4])
    moov[place : place + 4] = struct.pack('>I', offset + size)
  head = boxes[b'ftyp'][1]
  return raw[:head] + bytes(moov) + raw[head:start] + raw[start + size :]


def _boxes(raw: bytes) -> dict[bytes, tuple[int, int]]:
  """Start and size of the outermost boxes of an MP4 file."""
  boxes, position = {}, 0
  while position < len(raw):
    size, kind = struct.unpack('>I4s', raw[position : position + 8])
    boxes[kind] = (position, size)
    position += size
  return boxes
