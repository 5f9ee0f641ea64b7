"""A real video -> the same video with its face forged by our own blending.

  python -m data_pipeline.pseudo_fake_video --video=REAL.mp4 --out=FAKE.mp4 \
    [--passage 12 14] [--seed 1]

What training shows as crops, as a file that anybody can play and score: every
frame's crop is blended as in METHOD 2, with one draw for the whole video, put
back where it came from, and the frames are compressed anew with H.264. With
--passage only the frames between two times, in seconds, are forged.
"""

import argparse
from collections.abc import Iterator, Mapping
import dataclasses
import fractions
import functools
import os
import pathlib
import runpy
import sys

import av
import cv2
import jax
from jaxtyping import Float32, UInt8
import numpy as np

from data_pipeline import command_line, pipeline
from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import crops as crops_lib
from data_pipeline.faces import embedded, extraction, footage
from data_pipeline.synthesis import blending

# Frames that are blended at a time. Choice: 16, for little memory.
_CHUNK = 16
_MARGIN = 0.25  # of the crop (METHOD 1.1)
_BASE = str(pathlib.Path(__file__).parent.parent / 'configs' / 'base.py')


@dataclasses.dataclass(frozen=True)
class _Patch:
  """A forged crop and how much of it replaces each pixel."""

  image: UInt8[np.ndarray, '256 256 3']
  weight: Float32[np.ndarray, '256 256']  # 0 or 1
  corners: tuple[int, int, int, int]  # of the crop, px of the frame


def make_pseudo_fake_video(
  video: str | os.PathLike,
  out: str | os.PathLike,
  synthesis: blending.SynthesisConfig,
  backend: backend_lib.FaceBackend,
  *,
  seed: int = 0,
  passage: tuple[float, float] | None = None,
  crf: int = 20,
) -> int:
  """Writes the forged video, an MP4 without sound.

  Args:
    video: A file that `footage` reads.
    out: File to write; whole or not at all.
    synthesis: Ranges of the draws. Margin, flip, cutout and what is done to
      both versions after blending are left out.
    backend: Finds the face and its landmarks.
    seed: Of the one draw.
    passage: First and last second to forge; None is the whole video.
    crf: Of H.264; lower is better.

  Returns:
    How many frames were forged.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no video, or shows no face there.
  """
  stream = footage.probe(video)
  rate = fractions.Fraction(stream.fps or 25).limit_denominator(1001)
  first, last = 0, stream.num_frames - 1
  if passage:
    first, last = (round(float(time) * rate) for time in passage)
  wanted = range(max(first, 0), min(last, stream.num_frames - 1) + 1)
  clips, _ = extraction.extract_faces(video, {'all': wanted}, backend, _MARGIN)
  if not len(clips['all'].frames):
    raise ValueError(f'{video}: no face to forge in frames {first} to {last}')
  patches = _forge(clips['all'], synthesis, seed, stream.width, stream.height)
  out = pathlib.Path(out)
  part = out.with_name(f'.{out.name}.part')
  try:
    with av.open(str(part), 'w', format='mp4') as target:
      encoded = target.add_stream('libx264', rate=rate)
      encoded.width, encoded.height = stream.width & ~1, stream.height & ~1
      encoded.pix_fmt = 'yuv420p'
      encoded.options = {'crf': str(crf), 'threads': '1'}
      frames = footage.decode_frames(video, range(stream.num_frames))
      for number, frame in enumerate(frames):
        image = _put_back(frame.image, patches.get(frame.index))
        image = np.ascontiguousarray(image[: encoded.height, : encoded.width])
        picture = av.VideoFrame.from_ndarray(image, 'rgb24')
        picture.pts, picture.time_base = number, 1 / rate
        target.mux(encoded.encode(picture))
      target.mux(encoded.encode(None))
    part.replace(out)
  finally:
    part.unlink(missing_ok=True)
  return len(patches)


def _forge(
  clip: extraction.FaceClip,
  synthesis: blending.SynthesisConfig,
  seed: int,
  width: int,
  height: int,
) -> dict[int, _Patch]:
  """Blends all crops of a clip; returns them by frame number."""
  make = jax.jit(
    functools.partial(
      pipeline.make_pair,
      synthesis=dataclasses.replace(
        synthesis,
        margin=(0, 0),
        flip_prob=0.0,
        post_rgb_shift_prob=0.0,
        post_hsv_shift_prob=0.0,
        post_brightness_contrast_prob=0.0,
        post_blur_prob=0.0,
        jpeg_prob=0.0,
        cutout_prob=0.0,
        temporal_jitter=0.0,
      ),
      image_size=crops_lib.CROP_SIZE,
      patch_size=16,
    )
  )
  patches = {}
  for rows in _chunks(len(clip.frames)):
    frames = np.stack([clip.frames[row] for row in rows])
    pair = make(frames, clip.landmarks[rows], np.uint32(seed))
    images = np.asarray(pair.levels[1].transpose(0, 2, 3, 1))
    weights = np.asarray(pair.mask > 0, np.float32)
    for row, image, weight in zip(rows, images, weights, strict=True):
      corners = crops_lib.enlarge_box(clip.boxes[row], height, width, _MARGIN)
      if corners is not None:
        index = int(clip.frame_indices[row])
        patches[index] = _Patch(image, weight, corners)
  return patches


def _chunks(length: int) -> Iterator[np.ndarray]:
  """Rows in chunks of one size, so that one program serves all of them."""
  for start in range(0, length, _CHUNK):
    yield np.minimum(np.arange(start, start + _CHUNK), length - 1)


def _put_back(image: np.ndarray, patch: _Patch | None) -> np.ndarray:
  if patch is None:
    return image
  x0, y0, x1, y1 = patch.corners
  size = (x1 - x0, y1 - y0)
  forged = cv2.resize(patch.image, size, interpolation=cv2.INTER_LINEAR)
  weight = cv2.resize(patch.weight, size, interpolation=cv2.INTER_LINEAR)
  weight = weight[..., None]
  image = image.copy()
  real = image[y0:y1, x0:x1]
  image[y0:y1, x0:x1] = np.rint(weight * forged + (1 - weight) * real)
  return image


def main() -> int:
  """Makes one video; returns the exit status."""
  command_line.open_streams()
  arguments = _parse()
  try:
    config: Mapping = runpy.run_path(arguments.config)['get_config']()
    count = make_pseudo_fake_video(
      arguments.video,
      arguments.out,
      blending.SynthesisConfig(**config['synthesis']),
      embedded.EmbeddedBackend(),
      seed=arguments.seed,
      passage=arguments.passage and tuple(arguments.passage),
      crf=arguments.crf,
    )
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(f'{arguments.out}: {count} frames forged')
  return 0


def _parse() -> argparse.Namespace:
  parser = command_line.Parser(
    prog='python -m data_pipeline.pseudo_fake_video',
    description=__doc__.splitlines()[0],
  )
  parser.add_argument('--video', required=True, help='a real video')
  parser.add_argument('--out', required=True, help='MP4 to write')
  parser.add_argument(
    '--passage',
    type=float,
    nargs=2,
    metavar=('FROM', 'TO'),
    help='seconds; default: all of it',
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--crf', type=int, default=20, help='of H.264')
  parser.add_argument(
    '--config', default=_BASE, help='ranges of the draws; default: base.py'
  )
  return parser.parse_args()


if __name__ == '__main__':
  sys.exit(main())
