"""What the field's copies of data sets hold, all of it in one: nothing is lost.

A header-less list and a published set's own, over real short films: endings in
capitals, blanks and letters of any script, links, nested parts, 1 and 120
frames a second, images with transparency, a file that is there twice, empty
ones, sound alone, and one that is listed and missing.
"""

import csv
import pathlib
import shutil

import av
import cv2
import made_videos
import numpy as np

from data_pipeline import check, prepare

STILL = pathlib.Path(__file__).parent / 'golden' / 'face_carphone.png'
KEPT = {
  'plain.mp4': 6,
  'UPPER.MP4': 6,
  'mit Leerzeichen, ü 视频.mp4': 6,
  'linked/a.mp4': 6,
  'part_1/part_2/deep.mp4': 6,
  'twice.mp4': 6,
  'slow.mp4': 6,
  'fast.mp4': 6,
  'faces': 6,
}
SKIPPED = {
  'missing.mp4': 'missing',
  'empty.mp4': 'unreadable',
  'sound.mp4': 'unreadable',
}


def faces() -> list[np.ndarray]:
  """Six frames of a face, panned 1 px each."""
  still = cv2.cvtColor(cv2.imread(str(STILL)), cv2.COLOR_BGR2RGB)
  return [np.ascontiguousarray(still[:, t : t + 160]) for t in range(6)]


def write_all(root: pathlib.Path) -> None:
  """Every file of KEPT and of SKIPPED but the missing one."""
  (root / 'part_1/part_2').mkdir(parents=True)
  for name in ('plain.mp4', 'part_1/part_2/deep.mp4'):
    made_videos.write(root / name, faces())
  made_videos.write(root / 'upper.mp4', faces()).rename(root / 'UPPER.MP4')
  made_videos.write(root / 'mit Leerzeichen, ü 视频.mp4', faces())
  made_videos.write(root / 'slow.mp4', faces(), rate=1)
  made_videos.write(root / 'fast.mp4', faces(), rate=120)
  shutil.copy(root / 'plain.mp4', root / 'twice.mp4')
  elsewhere = root.with_name('elsewhere')
  elsewhere.mkdir()
  made_videos.write(elsewhere / 'a.mp4', faces())
  (root / 'linked').symlink_to(elsewhere)
  (root / 'faces').mkdir()
  for number, face in enumerate(faces()):
    clear = np.dstack([face[..., ::-1], np.full(face.shape[:2], 255, np.uint8)])
    cv2.imwrite(str(root / f'faces/{number}.png'), clear)
  (root / 'empty.mp4').touch()
  with av.open(str(root / 'sound.mp4'), 'w') as out:
    audio = made_videos.add_silence(out)
    for packet in made_videos.silence(audio, 0, 20):
      out.mux(packet)


def test_every_line_of_a_list_is_a_row(tmp_path, capsys):
  root = tmp_path / 'videos'
  write_all(root)
  lines = [f'{name} 0\n' for name in (*KEPT, *SKIPPED)]
  (tmp_path / 'test_list.txt').write_text(''.join(lines), encoding='utf-8')
  flags = [f'--out={tmp_path}/out', '--dataset=d', '--rule=uniform']
  listing = [f'--root={root}', f'--csv={tmp_path}/test_list.txt']
  assert prepare.main([*listing, *flags, '--engine=in_process']) == 0
  with (tmp_path / 'out/d/report.csv').open(encoding='utf-8') as file:
    rows = {row['video_id']: row for row in csv.DictReader(file)}
  assert rows.keys() == KEPT.keys() | SKIPPED.keys()
  kept = {n: int(r['num_frames']) for n, r in rows.items() if not r['reason']}
  assert kept == KEPT
  assert {n: r['reason'] for n, r in rows.items() if r['reason']} == SKIPPED
  digests = {rows[n]['source_digest'] for n in ('plain.mp4', 'twice.mp4')}
  assert len(digests) == 1
  page = (tmp_path / 'out/d/quality.html').read_text(encoding='utf-8')
  assert 'there more than once: 1' in page
  assert 'Traceback' not in capsys.readouterr().err


def test_a_line_that_is_there_twice_is_one_line(tmp_path, capsys):
  (tmp_path / 'list.txt').write_text('a.mp4 0\na.mp4 0\n')
  flags = f'--root={tmp_path} --csv={tmp_path}/list.txt --out={tmp_path}/out'
  assert prepare.main(flags.split()) != 0
  (said,) = capsys.readouterr().err.splitlines()[-1:]
  assert 'a.mp4' in said and 'twice' in said


def test_a_deep_check_of_a_published_set_names_each(tmp_path, capsys):
  root = tmp_path / 'Celeb-DF-v2/Celeb-real'
  write_all(root)
  for name in ('YouTube-real', 'Celeb-synthesis'):
    (root.parent / name).mkdir()
    shutil.copy(root / 'plain.mp4', root.parent / name / 'id0_id1_0000.mp4')
  lines = [f'1 Celeb-real/{n}\n' for n in (*KEPT, *SKIPPED) if '.' in n]
  listing = root.parent / 'List_of_testing_videos.txt'
  listing.write_text(''.join(lines), encoding='utf-8')
  flags = ['--source=celebdf_v2', f'--root={tmp_path}', '--workers=1']
  assert check.main([*flags, '--deep']) == 1
  said = ' '.join(capsys.readouterr().err.split())
  folder = 'Celeb-DF-v2/Celeb-real'
  assert f'missing: {folder}/missing.mp4' in said
  assert f'empty: {folder}/empty.mp4' in said
  assert f'unreadable: {folder}/sound.mp4' in said
  assert said.count('unreadable:') == said.count('missing:') == 1
