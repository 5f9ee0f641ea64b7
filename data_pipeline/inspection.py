"""Prepared videos -> a sheet of their crops with the landmarks on them.

One row a video: crops spread over its frames, the 81 landmarks drawn in (jaw,
brows, nose, eyes, mouth and forehead each in a colour), above them what it is.
"""

from collections.abc import Sequence
import itertools
import os
import pathlib

import cv2
from jaxtyping import Float, UInt8
import numpy as np

from data_pipeline import clip_quality, metadata, records, sheet

_PER_ROW = 8
_CELL = 144  # px
_HEADER = 18  # px
# Points of dlib's order up to here, and their colour.
_PARTS = (
  (17, (255, 255, 0)),  # jaw
  (27, (0, 255, 255)),  # brows
  (36, (255, 128, 0)),  # nose
  (48, (0, 255, 0)),  # eyes
  (68, (255, 0, 128)),  # mouth
  (81, (160, 160, 255)),  # forehead
)


def write_sheet(
  out: str | os.PathLike, dataset: str, rule: str, num_videos: int
) -> pathlib.Path:
  """Writes OUT/DATASET/inspect-RULE.png, of videos spread over all splits.

  Raises:
    ValueError: no such data set or rule, or a damaged record.
    OSError: the sheet cannot be written.
  """
  splits = metadata.list_splits(out, dataset, rule)
  stored = [records.open_records(out, dataset, rule, split) for split in splits]
  places = [(s, v) for s, of in enumerate(stored) for v in range(len(of))]
  chosen = np.unique(
    np.linspace(0, len(places) - 1, min(num_videos, len(places))).astype(int)
  )
  rows = []
  for place in chosen.tolist():
    split, video = places[place]
    rows.append(draw_video(stored[split].read_record(video), splits[split]))
  path = pathlib.Path(out) / dataset / f'inspect-{rule}.png'
  sheet.save(path, np.concatenate(rows))
  return path


def draw_video(
  record: records.VideoRecord, split: str
) -> UInt8[np.ndarray, 'h w 3']:
  """One row of the sheet."""
  count = len(record.frames)
  slots = np.unique(np.linspace(0, count - 1, _PER_ROW).astype(int)).tolist()
  pictures = [
    draw_landmarks(
      records.decode_frame(record.frames[slot]), record.landmarks[slot]
    )
    for slot in slots
  ]
  blank = np.full((_CELL, _CELL, 3), 255, np.uint8)
  pictures += [blank] * (_PER_ROW - len(pictures))
  drawn = sheet.row(pictures)
  header = np.full((_HEADER, drawn.shape[1], 3), 255, np.uint8)
  size = clip_quality.face_size(record.boxes)
  text = (
    f'{record.video_id}  {split} {records.LABELS[record.label]}  {count} frames'
    f'  face {size:.0f} px'
  )
  sheet.write_text(header, text, (2, _HEADER - 5))
  return np.concatenate([header, drawn])


def draw_landmarks(
  crop: UInt8[np.ndarray, '256 256 3'], landmarks: Float[np.ndarray, '81 2']
) -> UInt8[np.ndarray, 'h w 3']:
  """A crop as a small picture with a dot for each landmark."""
  drawn = sheet.picture(crop, _CELL)
  # Pixel centres are at whole numbers, as cv2.resize has them.
  places = (np.asarray(landmarks) + 0.5) * (_CELL / len(crop)) - 0.5
  starts = itertools.chain([0], (end for end, _ in _PARTS))
  for start, (end, colour) in zip(starts, _PARTS, strict=False):
    for x, y in np.rint(places[start:end]).astype(int).tolist():
      cv2.circle(drawn, (x, y), 1, colour, -1)
  return drawn


def stored_rules(
  out: str | os.PathLike, dataset: str, rules: Sequence[str]
) -> list[str]:
  """Those of the rules that the data set has records of."""
  return [
    rule for rule in rules if metadata.dataset_dir(out, dataset, rule).is_dir()
  ]
