"""What a command leaves outside of the folders that it was given: nothing.

Of train, evaluate and predict, end_to_end_test asks the same.
"""

import pathlib
import subprocess
import sys

import face_videos
import private_home

ROOT = pathlib.Path(__file__).parent.parent


def test_prepare_leaves_no_trace_in_the_home_of_its_user(tmp_path):
  face_videos.write_face_video(tmp_path / 'videos/a.mp4', 6)
  home = private_home.PrivateHome(tmp_path / 'user')
  command = [sys.executable, '-m', 'data_pipeline.prepare', '--workers=1']
  command += [f'--root={tmp_path / "videos"}', f'--out={tmp_path / "out"}']
  done = subprocess.run(
    command, cwd=ROOT, env=home.environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert home.list_traces() == []
  inside = sorted(p.name for p in tmp_path.iterdir())
  assert inside == ['out', 'user', 'videos']
