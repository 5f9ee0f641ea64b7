"""What reading a video costs: PyAV as we use it beside cv2.VideoCapture.

  python -m benchmarks.video_decoding FILE [--frames=256] [--repeat=3]

Each reader runs in a process of its own, in turns, decodes the first frames of
the file and counts them twice over, as `prepare` does: once to count, once to
decode. Prints CPU-ms a frame (user and system, all threads), peak memory and
the largest difference between the pixels of the two.
"""

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import cv2
import numpy as np

from data_pipeline.faces import video

READERS = ('pyav', 'opencv')


def read_with_pyav(path: str, num_frames: int):
  """Yields images; counts before that, as `prepare` does."""
  count = video.probe(path).num_frames
  for frame in video.decode_frames(path, range(min(count, num_frames))):
    yield frame.image


def read_with_opencv(path: str, num_frames: int):
  """The same, as it was done up to commit 993733e."""
  packets = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
  count = 0
  while packets.grab():
    count += 1
  packets.release()
  capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
  for _ in range(min(count, num_frames)):
    capture.grab()
    decoded, image = capture.retrieve()
    if decoded:
      yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def measure(reader: str, path: str, num_frames: int) -> dict:
  """Reads a file in this process; says what it cost."""
  read = read_with_pyav if reader == 'pyav' else read_with_opencv
  cv2.setNumThreads(1)
  before = time.process_time()
  digest = hashlib.sha256()
  count, hashing = 0, 0.0
  for image in read(path, num_frames):
    start = time.process_time()
    digest.update(image)
    hashing += time.process_time() - start
    count += 1
  spent = time.process_time() - before - hashing
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {
    'frames': count,
    'cpu_ms': 1000 * spent / max(count, 1),
    'peak_mib': peak,
    'digest': digest.hexdigest(),
  }


def largest_difference(path: str, num_frames: int) -> str:
  """Compares the pixels of both, frame by frame."""
  worst = 0
  for ours, theirs in itertools.zip_longest(
    read_with_pyav(path, num_frames), read_with_opencv(path, num_frames)
  ):
    if ours is None or theirs is None or ours.shape != theirs.shape:
      return 'other frames or sizes'
    worst = max(worst, int(np.abs(ours.astype(int) - theirs).max()))
  return f'{worst} levels'


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('file', type=pathlib.Path)
  parser.add_argument('--frames', type=int, default=256)
  parser.add_argument('--repeat', type=int, default=3)
  parser.add_argument('--reader', choices=READERS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  path = os.fspath(args.file)
  if args.reader:
    print(json.dumps(measure(args.reader, path, args.frames)))
    return 0
  print(f'{path}: {video.probe(path)}')
  for _ in range(args.repeat):
    for reader in READERS:
      command = [sys.executable, '-m', 'benchmarks.video_decoding', path]
      command += [f'--frames={args.frames}', f'--reader={reader}']
      done = subprocess.run(command, capture_output=True, check=True)
      got = json.loads(done.stdout)
      print(
        f'{reader:<8} {got["frames"]} frames  {got["cpu_ms"]:6.2f} CPU-ms a '
        f'frame  peak {got["peak_mib"]:.0f} MiB'
      )
  print(f'largest difference: {largest_difference(path, args.frames)}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
