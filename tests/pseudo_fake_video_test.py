"""A pseudo-fake video is its real one, but for the face, where it was asked."""

import sys

import av
import face_videos
import numpy as np
import pytest

from configs import base
from data_pipeline import pseudo_fake_video
from data_pipeline.faces import embedded
from data_pipeline.synthesis import blending


def frames(path):
  with av.open(str(path)) as container:
    return np.stack(
      [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
    ).astype(int)


def make(video, out, **options):
  synthesis = blending.SynthesisConfig(**base.get_config().synthesis)
  return pseudo_fake_video.make_pseudo_fake_video(
    video, out, synthesis, embedded.EmbeddedBackend(), seed=1, **options
  )


def test_only_the_face_of_the_passage_is_forged(tmp_path):
  video = face_videos.write_face_video(tmp_path / 'real.mp4', 24)
  out = tmp_path / 'fake.mp4'
  # At 30 frames a second: frames 8 to 15.
  assert make(video, out, passage=(8 / 30, 15 / 30), crf=10) == 8
  real, fake = frames(video), frames(out)
  assert fake.shape == real.shape
  change = abs(fake - real).mean(axis=-1)
  assert change[8:16].max((1, 2)).min() > 4 * change[[*range(8)]].max()
  changed = change[8:16] > 4 * change[:8].max()
  assert 0.005 < changed.mean() < 0.3
  assert not changed[:, :8].any()  # above the hair
  assert [path.name for path in sorted(tmp_path.iterdir())] == [
    'fake.mp4',
    'real.mp4',
  ]


def test_a_video_without_a_face_is_refused(tmp_path):
  video = face_videos.write_numbered_video(tmp_path / 'a.mp4', 20)
  with pytest.raises(ValueError, match=r'a\.mp4: no face to forge in frames'):
    make(video, tmp_path / 'fake.mp4')
  assert not (tmp_path / 'fake.mp4').exists()


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    (['--video=none.mp4'], 'none.mp4'),
    ([f'--video={__file__}'], 'is not a video'),
    ([f'--video={__file__}', '--config=none.py'], 'none.py'),
  ],
)
def test_a_mistake_is_one_line(options, said, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'fake.mp4'
  monkeypatch.setattr(sys, 'argv', ['forge', *options, f'--out={out}'])
  assert pseudo_fake_video.main() == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and said in error
  assert error.count('\n') == 1 and not out.exists()
