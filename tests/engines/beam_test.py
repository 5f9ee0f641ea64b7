"""A pipeline of Apache Beam does what worker processes do."""

import hashlib
import pathlib

import face_videos
import pytest

from data_pipeline import prepare
from tests.engines import small_work

pytest.importorskip('apache_beam')
from data_pipeline.engines import beam

pytestmark = pytest.mark.extra

HERE = ('runner=DirectRunner', 'direct_running_mode=in_memory')
APART = (
  *('runner=DirectRunner', 'direct_running_mode=multi_processing'),
  'direct_num_workers=2',
)


@pytest.mark.parametrize('options', [HERE, APART])
def test_every_task_is_done_and_a_process_starts_once(tmp_path, options):
  (tmp_path / 'work').mkdir()
  work, ticks = small_work.SmallWork(tmp_path / 'work'), []
  tasks = [f'täsk {i}' for i in range(30)]
  engine = beam.Beam(options, tmp_path / 'names [of *]')
  engine.run(work, tasks, lambda: ticks.append(1))
  assert work.done() == set(tasks) and len(ticks) == 30
  assert len(set(work.starts())) == len(work.starts())
  assert not list((tmp_path / 'names [of *]').iterdir())


def test_what_ends_all_work_is_one_line(tmp_path):
  (tmp_path / 'work').mkdir()
  work = small_work.SmallWork(tmp_path / 'work')
  engine = beam.Beam(HERE, tmp_path / 'names')
  with pytest.raises(ChildProcessError, match='No space left') as error:
    engine.run(work, ['a', 'full'])
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'names').iterdir())


def test_records_are_those_of_worker_processes_byte_for_byte(tmp_path):
  root = tmp_path / 'videos'
  for name, num_frames in (('a', 6), ('b', 9), ('c', 2), ('d', 7)):
    face_videos.write_face_video(root / f'train/real/{name}.mp4', num_frames)
  (root / 'train/real/e.mp4').write_text('no film')
  flags = {
    'one': ['--engine=in_process'],
    'many': ['--engine=processes', '--workers=2'],
    'beam': ['--engine=beam', f'--beam_pipeline_options={",".join(HERE)}'],
  }
  for name, engine in flags.items():
    where = ['--root', str(root), '--out', str(tmp_path / name), '--dataset=d']
    assert prepare.main([*where, *engine]) == 0
  assert written(tmp_path / 'one') == written(tmp_path / 'many')
  assert written(tmp_path / 'one') == written(tmp_path / 'beam')
  # Five files of each rule, report.csv and quality.html.
  assert len(written(tmp_path / 'one')) == 12


def written(out: pathlib.Path) -> dict[str, str]:
  """SHA-256 of report and records, by path."""
  return {
    str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(out.rglob('*'))
    if path.is_file() and '.staging' not in path.parts
  }
