"""Draws pairs as a picture to look at, and one pair as a looping video.

  python -m data_pipeline.contact_sheet --records DATA/ffpp_c23/consecutive \
      --out sheet.png --video loop.mp4

`--records` is DATA_ROOT/DATASET/RULE. One row a frame: real, pseudo-fake,
blending mask, boundary map, temporal target, cut-out patches; the soft label
of the frame stands in the last one. Images and maps are in [0, 1], RGB.
"""

import functools
import pathlib
import runpy
import sys

import cv2
import jax
import numpy as np

from data_pipeline import command_line, pipeline, records, sheet
from data_pipeline.synthesis import blending

_COLUMNS = ('real', 'pseudo-fake', 'mask', 'boundary', 'target', 'cutout')
_HEADER = 20  # px
_FRAMES_PER_SECOND = 4
_LOOPS = 6


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  command_line.open_streams()
  arguments = _parse(argv)
  try:
    config = runpy.run_path(arguments.config)['get_config']()
    frames, landmarks = _read(arguments, config.model.num_frames)
  except (OSError, ValueError) as error:
    return command_line.fail(error)
  make = jax.jit(
    functools.partial(
      pipeline.make_pair,
      synthesis=blending.SynthesisConfig(**config.synthesis),
      image_size=config.model.image_size,
      patch_size=config.model.patch_size,
    )
  )
  pairs = [
    make(clip, points, np.uint32(seed))
    for seed, (clip, points) in enumerate(
      zip(frames, landmarks, strict=True), start=arguments.seed
    )
  ]
  sheet.save(arguments.out, draw_sheet(pairs, arguments.cell))
  if arguments.video:
    _write_video(arguments.video, pairs[0])
  return 0


def draw_sheet(pairs: list[pipeline.Pair], cell: int) -> np.ndarray:
  """Returns the sheet of some pairs as uint8 (h, w, 3); `cell` px a picture."""
  return np.concatenate([_draw_pair(pair, cell) for pair in pairs])


def _draw_pair(pair: pipeline.Pair, cell: int) -> np.ndarray:
  width = len(_COLUMNS) * (cell + sheet.GAP)
  header = np.full((_HEADER, width, 3), 255, np.uint8)
  for index, name in enumerate(_COLUMNS):
    sheet.write_text(
      header, name, (index * (cell + sheet.GAP) + 2, _HEADER - 6)
    )
  margin = int(pair.params.margin)
  largest = float(np.abs(pair.vulnerability_map).max())
  rows = [header]
  for t in range(len(pair.real)):
    pictures = [
      pair.real[t],
      pair.pseudo_fake[t],
      _crop(pair.mask[t], margin),
      _crop(pair.boundary[t], margin),
      _heat(pair.vulnerability_map[t], largest),
      pair.kept,
    ]
    pictures = [sheet.picture(picture, cell) for picture in pictures]
    sheet.write_text(
      pictures[-1], f'{pair.soft_label[t]:.2f}', (4, cell - 6), (200, 0, 0)
    )
    rows.append(sheet.row(pictures))
  return np.concatenate(rows)


def _crop(image, margin):
  height, width = image.shape
  return image[margin : height - margin, margin : width - margin]


def _heat(values, largest):
  """Blue below zero, red above."""
  share = np.asarray(values) / max(largest, 1e-6)
  return np.stack(
    [1 + np.minimum(share, 0), 1 - np.abs(share), 1 - np.maximum(share, 0)],
    axis=-1,
  )


def _write_video(path, pair):
  """Real, pseudo-fake and boundary side by side, forth and back."""
  size = pair.real.shape[1]
  frames = [
    np.concatenate(
      [
        sheet.picture(pair.real[t], size),
        sheet.picture(pair.pseudo_fake[t], size),
        sheet.picture(_crop(pair.boundary[t], int(pair.params.margin)), size),
      ],
      axis=1,
    )
    for t in range(len(pair.real))
  ]
  code = cv2.VideoWriter.fourcc(*'mp4v')
  writer = cv2.VideoWriter(path, code, _FRAMES_PER_SECOND, (3 * size, size))
  if not writer.isOpened():
    raise OSError(f'{path} could not be opened; end the name in .mp4')
  for _ in range(_LOOPS):
    for frame in frames + frames[-2:0:-1]:
      writer.write(frame[..., ::-1])
  writer.release()


def _read(arguments, num_frames):
  """First clips of the first videos that are long enough."""
  folder = pathlib.Path(arguments.records)
  videos = records.open_records(
    folder.parent.parent, folder.parent.name, folder.name, arguments.split
  )
  long_enough = [
    index
    for index, video in enumerate(videos.videos)
    if video.num_frames >= num_frames
  ]
  clips = [
    videos.read(index, range(num_frames))
    for index in long_enough[: arguments.num_pairs]
  ]
  if not clips:
    raise ValueError(
      f'no video of {folder} has {num_frames} frames; prepare longer ones'
    )
  return zip(*clips, strict=True)


def _parse(argv):
  parser = command_line.Parser(description=__doc__.splitlines()[0])
  parser.add_argument('--records', required=True, help='DATA_ROOT/NAME/RULE')
  parser.add_argument('--out', required=True, help='picture, .png or .jpg')
  parser.add_argument('--video', help='looping video of the first pair, .mp4')
  parser.add_argument('--config', default='configs/base.py')
  parser.add_argument('--split', default='train')
  parser.add_argument('--num_pairs', type=int, default=4)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--cell', type=int, default=140, help='px a picture')
  arguments = parser.parse_args(argv)
  for name, least in (('num_pairs', 1), ('seed', 0), ('cell', 8)):
    if getattr(arguments, name) < least:
      parser.error(f'--{name} is {getattr(arguments, name)}; at least {least}')
  for name in ('out', 'video'):
    place = getattr(arguments, name)
    if place and pathlib.Path(place).is_dir():
      parser.error(f'--{name}={place}: a folder; name a file')
  return arguments


if __name__ == '__main__':
  sys.exit(main())
