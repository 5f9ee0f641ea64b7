"""Prints what an answer for a video takes, and what intervals take.

  python -m benchmarks.answers [--seconds 60 600]

Markdown. A film shows a real video of the demo (`make demo` fetches them) over
and over: 10 seconds in 1280 x 720, the others in 640 x 360. Each is asked about
by `stormer-jax predict` in a process of its own, the first one twice: with no
compiled program kept, and with that of before. Wall time says nothing on a
machine with other work. Then 2,000 resamples of 5,000 videos.
"""

import argparse
from collections.abc import Iterator
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import av
import numpy as np

from benchmarks import machine
from data_pipeline import demo_videos
from stormer_jax.scoring import bootstrap

_PACKAGES = pathlib.Path(__file__).parent.parent / '.demo' / 'packages'
_SOURCE = 'WolfgangLanger_Pexels.mp4'


def main() -> None:
  """Prints both tables."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--seconds', type=int, nargs='*', default=[60, 600], help='of other films'
  )
  arguments = parser.parse_args()
  versions = ('jax', 'av', 'onnxruntime', 'numpy')
  print(machine.describe('cpu', versions))
  print(
    '\n| film | program | frames looked at | CPU-s | wall s | peak MiB |'
    ' page |\n|' + ' --- |' * 7
  )
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    demo_videos.lay_out(_PACKAGES, folder)
    films = [(10, (1280, 720)), *((s, (640, 360)) for s in arguments.seconds)]
    for number, (seconds, size) in enumerate(films):
      film = folder / f'{seconds}.mp4'
      write_film(folder / _SOURCE, film, seconds, size)
      for kept in ('compiled', 'kept') if not number else ('kept',):
        name = f'{seconds} s, {size[0]} x {size[1]}'
        print(f'| {name} | {kept} | {_ask(film, folder)} |', flush=True)
  print('\n| 2,000 resamples of 5,000 videos | CPU-s |\n| --- | --- |')
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 5000)
  scores = 1 / (1 + np.exp(-rng.normal(size=5000) - labels))
  for said, names in (('the AUC', ['auc']), ('all figures', None)):
    before = time.process_time()
    bootstrap.estimates(labels, scores, names=names, num_bootstrap=2000)
    print(f'| {said} | {time.process_time() - before:.2f} |', flush=True)


def write_film(
  source: pathlib.Path, out: pathlib.Path, seconds: int, size: tuple[int, int]
) -> None:
  """Writes a film that shows another one over and over, in a size."""
  frames = _over_and_over(source)
  first = next(frames)
  rate = 1 / (first.duration * first.time_base)
  with av.open(str(out), 'w') as film:
    options = {'preset': 'veryfast', 'crf': '20'}
    track = film.add_stream('libx264', rate, options=options)
    track.width, track.height = size
    track.pix_fmt = 'yuv420p'
    for number, frame in enumerate(itertools.chain([first], frames)):
      if number == round(seconds * rate):
        break
      frame = frame.reformat(*size, 'yuv420p')
      frame.pts, frame.time_base = number, 1 / rate
      film.mux(track.encode(frame))
    film.mux(track.encode())


def _over_and_over(source: pathlib.Path) -> Iterator[av.VideoFrame]:
  """Decodes again and again: what is kept counts for the children's memory."""
  while True:
    with av.open(str(source)) as container:
      yield from container.decode(video=0)


def _ask(film: pathlib.Path, folder: pathlib.Path) -> str:
  """Cells of one call: frames, CPU and wall time, memory, size of the page."""
  out, page = film.with_suffix('.json'), film.with_suffix('.html')
  env = {**os.environ, 'XDG_CACHE_HOME': str(folder / 'cache')}
  env.pop('JAX_COMPILATION_CACHE_DIR', None)  # it would be used instead
  before = time.perf_counter()
  child = subprocess.Popen(
    [
      *(sys.executable, '-m', 'stormer_jax.cli', 'predict', str(film)),
      *(f'--out={out}', f'--html={page}'),
    ],
    env=env,
    stdout=subprocess.DEVNULL,
  )
  _, status, used = os.wait4(child.pid, 0)
  wall = time.perf_counter() - before
  child.returncode = os.waitstatus_to_exitcode(status)
  if child.returncode:
    raise SystemExit(f'{film}: predict ended with {child.returncode}')
  looked_at = json.loads(out.read_text())['sampling']['frames_decoded']
  return (
    f'{looked_at} | {used.ru_utime + used.ru_stime:.1f} | {wall:.1f} |'
    # ru_maxrss of a child starts at what this process held; the child ends
    # above that.
    f' {used.ru_maxrss / 1024:.0f} | {page.stat().st_size / 1e6:.2f} MB'
  )


if __name__ == '__main__':
  main()
