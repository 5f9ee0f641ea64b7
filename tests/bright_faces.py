"""Videos of bright squares, and a backend that takes them for faces.

No model, and no person needed. A red square stands for a forged face: a
detector with `red_is_fake` in place of its scorer tells them apart.
"""

from collections.abc import Callable
import pathlib

import cv2
import numpy as np
import random_detector

from configs import tiny
from data_pipeline.faces import backend as backend_lib
from stormer_jax.scoring import clip_scorer, evaluate, video_detector


class BrightFaces:
  """Takes what is bright for a face."""

  name = 'bright'

  def detect(self, frame):
    bright = (frame.max(-1) > 90).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
    found = [s for s in stats[1:].tolist() if s[4] > 500]
    boxes = [(x, y, x + w - 1, y + h - 1) for x, y, w, h, _ in found]
    return backend_lib.Faces(
      boxes=np.array(boxes, np.float32).reshape(-1, 4),
      keypoints=np.zeros((len(found), 5, 2), np.float32),
      scores=np.ones(len(found), np.float32),
    )

  def landmarks(self, frame, box, keypoints):
    angle = np.linspace(0, 2 * np.pi, 81)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return (centre + 0.8 * half * ring).astype(np.float32)


def write_video(path, num_frames, face=True, fps=25):
  """A bright, textured, moving square on a dark ground."""
  rng = np.random.default_rng(0)
  texture = rng.integers(120, 250, (10, 10, 3)).astype(np.uint8)
  size = (320, 240)
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, size
  )
  for t in range(num_frames):
    frame = np.full((240, 320, 3), 20, np.uint8)
    if face:
      patch = np.roll(texture, t % 10, axis=0).repeat(11, 0).repeat(10, 1)
      frame[60 : 60 + 110, 80 + t : 180 + t] = patch
    writer.write(frame)
  writer.release()
  return path


def write_squares(
  path: pathlib.Path,
  num_frames: int,
  squares: Callable[[int], list[tuple[int, int, bool]]],
  fps: int = 25,
) -> pathlib.Path:
  """Writes squares: of each frame (x, side in px, whether it is red)."""
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (320, 240)
  )
  for t in range(num_frames):
    frame = np.full((240, 320, 3), 20, np.uint8)
    for x, side, red in squares(t):
      frame[60 : 60 + side, x : x + side] = (40, 40, 240) if red else 200
    writer.write(frame)
  writer.release()
  return path


def red_is_fake(frames: np.ndarray) -> clip_scorer.ClipOutputs:
  """A scorer of stored frames: 3 for a clip that is red throughout, else -3."""
  centre = frames[:, :, 96:160, 96:160].astype(float).mean((2, 3))
  red = centre[..., 0] > 1.5 * centre[..., 1]
  num_clips, num_frames = red.shape
  return clip_scorer.ClipOutputs(
    logits=np.where(red.all(1), 3, -3).astype(np.float32),
    soft_label_logits=np.where(red, 3, -3).astype(np.float32),
    vulnerability_map=np.tile(
      np.linspace(-1, 2, 16, dtype=np.float32).reshape(4, 4),
      (num_clips, num_frames, 1, 1),
    ),
  )


def make_ready() -> video_detector.Detector:
  """A detector of the rule 'dense' that takes red squares for fakes."""
  detector = random_detector.make_detector(tiny.get_config())
  ready = video_detector.Detector(
    detector,
    evaluate.EvalConfig(**{**detector.config.eval, 'frame_rule': 'dense'}),
    backend=BrightFaces(),
  )
  ready._scorer = red_is_fake
  return ready
