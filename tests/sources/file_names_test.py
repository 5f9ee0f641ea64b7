"""Names of any bytes are shown, and forge nothing."""

import os

import pytest

from data_pipeline.sources import file_names


@pytest.mark.parametrize(
  ('raw', 'shown'),
  [
    (b'caf\xe9.mp4', r'caf\xe9.mp4'),
    ('café [1] 12:30.mp4'.encode(), 'café [1] 12:30.mp4'),
    (b'a\nb\x1b[31m.mp4', r'a\nb\x1b[31m.mp4'),
    ('a\u202eb.mp4'.encode(), r'a\u202eb.mp4'),
  ],
)
def test_a_name_is_written_so_that_every_terminal_shows_it(raw, shown):
  name = os.fsdecode(raw)
  assert file_names.printable(name) == shown
  assert file_names.is_text(name) == (b'\xe9' not in raw or b'\xc3' in raw)
  file_names.printable(name).encode()
