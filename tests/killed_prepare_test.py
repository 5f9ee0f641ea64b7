"""A command that is killed again and again writes what one clean run does."""

import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import face_videos
import pytest

ROOT = pathlib.Path(__file__).parent.parent
_NUM_KILLS = 20
_NUM_VIDEOS = 18  # two shards a rule, the last of two


def start(root: pathlib.Path, out: pathlib.Path) -> subprocess.Popen:
  """Starts the command in a group of its own, with its workers."""
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'data_pipeline.prepare', '--workers=2'),
      *(f'--root={root}', f'--out={out}', '--dataset=d'),
    ],
    cwd=ROOT,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )


def written(out: pathlib.Path) -> dict[str, str]:
  """SHA-256 of report and records, by path."""
  return {
    str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(out.rglob('*'))
    if path.is_file() and '.staging' not in path.parts
  }


@pytest.mark.slow
def test_killed_twenty_times_it_writes_what_a_clean_run_does(tmp_path):
  root, killed = tmp_path / 'videos', tmp_path / 'killed'
  for number in range(_NUM_VIDEOS):
    name = f'train/real/{number:02}.mp4'
    if number % 8 == 3:
      (root / name).write_text('no film')
    else:
      face_videos.write_face_video(root / name, 5 + number % 7)
  began = time.monotonic()
  assert start(root, tmp_path / 'clean').wait() == 0
  seconds = time.monotonic() - began
  clean = written(tmp_path / 'clean')
  assert len(clean) == 14  # two for all; two shards, four others a rule
  draw = random.Random(0)
  kills = whole = 0
  while kills < _NUM_KILLS:
    command = start(root, killed)
    try:
      assert command.wait(timeout=draw.uniform(0, seconds)) == 0
      # Done before the kill: judged, and begun anew.
      assert written(killed) == clean
      shutil.rmtree(killed)
      whole += 1
    except subprocess.TimeoutExpired:
      os.killpg(command.pid, signal.SIGKILL)
      command.wait()
      kills += 1
  assert start(root, killed).wait() == 0
  assert written(killed) == clean
  assert not list(killed.rglob('*.partial'))
