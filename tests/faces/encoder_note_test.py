"""x264's own note says how strongly a file was compressed."""

import made_videos
import pytest

from data_pipeline.faces import encoder_note


@pytest.mark.parametrize('crf', [0, 23, 40])
def test_the_rate_factor_is_read_from_a_file(tmp_path, crf):
  path = tmp_path / 'a.mp4'
  made_videos.write(
    path,
    made_videos.numbered(range(3)),
    options={**made_videos.PLAIN, 'crf': str(crf)},
  )
  assert encoder_note.read_crf(path) == crf


def test_a_file_of_another_encoder_has_none(tmp_path):
  path = tmp_path / 'a.mp4'
  made_videos.write(path, made_videos.numbered(range(3)), 'mpeg4', options={})
  assert encoder_note.read_crf(path) is None
  path.write_bytes(b'')
  assert encoder_note.read_crf(path) is None
