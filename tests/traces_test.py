"""What a command leaves outside of the folders that it was given: nothing."""

import os
import pathlib
import subprocess
import sys

import face_videos

ROOT = pathlib.Path(__file__).parent.parent


def test_prepare_leaves_no_trace_in_the_home_of_its_user(tmp_path):
  face_videos.write_face_video(tmp_path / 'videos/a.mp4', 6)
  places = {
    'HOME': tmp_path / 'home',
    'TMPDIR': tmp_path / 'tmp',
    'XDG_CACHE_HOME': tmp_path / 'home/c',
    'XDG_CONFIG_HOME': tmp_path / 'home/f',
    'XDG_DATA_HOME': tmp_path / 'home/d',
    'XDG_STATE_HOME': tmp_path / 'home/s',
  }
  for place in places.values():
    place.mkdir(parents=True)
  before = sorted(tmp_path.rglob('*'))
  environment = os.environ | {name: str(p) for name, p in places.items()}
  environment.pop('ORT_DISABLE_TELEMETRY', None)
  command = [sys.executable, '-m', 'data_pipeline.prepare', '--workers=1']
  command += [f'--root={tmp_path / "videos"}', f'--out={tmp_path / "out"}']
  done = subprocess.run(
    command, cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  after = sorted(p for p in tmp_path.rglob('*') if 'out' not in p.parts)
  assert after == before
