"""`prepare --verify` finds what is not as it was written, and names it."""

import pytest

from data_pipeline import metadata, prepare
from tests.records_test import write_example


@pytest.fixture
def folder(tmp_path):
  return write_example(tmp_path)


def run(tmp_path, capsys):
  code = prepare.main(['--verify', '--out', str(tmp_path), '--dataset', 'mine'])
  return code, capsys.readouterr().err.splitlines()


def test_what_was_written_is_as_written(folder, tmp_path, capsys):
  code, lines = run(tmp_path, capsys)
  assert code == 0
  assert [line.rpartition(': ')[2] for line in lines] == ['as written'] * 2
  assert '20 videos, 2 files' in lines[0] and '2 videos, 1 files' in lines[1]


@pytest.mark.parametrize('place', [0, 100, 70_000, -1])
def test_one_changed_bit_anywhere_is_found(folder, tmp_path, capsys, place):
  shard = folder / 'mine-train.array_record-00001-of-00002'
  raw = bytearray(shard.read_bytes())
  raw[place] ^= 1
  shard.write_bytes(raw)
  code, lines = run(tmp_path, capsys)
  assert code == 1
  assert lines[0].startswith(f'{shard}: its SHA-256 is ')
  assert '1 faults' in lines[-2] and 'as written' in lines[-1]


def test_a_missing_and_a_cut_off_file_are_named_once(folder, tmp_path, capsys):
  first, second = sorted(folder.glob('mine-train*'))
  first.unlink()
  second.write_bytes(second.read_bytes()[:1000])
  code, lines = run(tmp_path, capsys)
  assert code == 1
  assert lines[0] == f'{first}: there is no such file'
  assert lines[1].startswith(f'{second}: it has 1000 bytes, ')
  assert '2 faults' in lines[2]


@pytest.mark.parametrize(
  ('was', 'becomes'),
  [('"label": 0', '"label": 1'), ('"num_frames": 10', '"num_frames": 12')],
)
def test_metadata_that_the_records_deny_is_named(
  folder, tmp_path, capsys, was, becomes
):
  path = folder / 'metadata.json'
  text = path.read_text()
  assert was in text
  path.write_text(text.replace(was, becomes, 1))
  code, lines = run(tmp_path, capsys)
  assert code == 1 and '1 faults' in lines[-2]


def test_no_such_data_set_is_a_wrong_call(folder, tmp_path, capsys):
  code = prepare.main(['--verify', '--out', str(tmp_path), '--dataset', 'no'])
  assert code == 2
  assert 'no prepared dataset' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    prepare.main(['--verify', '--out', str(tmp_path)])
  folder.rename(folder.with_name('1.1.0'))
  assert run(tmp_path, capsys)[0] == 2
  assert metadata.VERSION != '1.1.0'
