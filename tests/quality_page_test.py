"""What report.csv says becomes a page."""

import re

from data_pipeline import duplicates, prepared_video, quality_page


def row(video_id, split='val', label='real', status='kept', **fields):
  """What became of a video."""
  figures = {
    'rule': 'consecutive',
    'num_frames': 30,
    'num_asked': 32,
    'face_size': 120.0,
    'jitter': 0.5,
    'source_digest': video_id,
  }
  return prepared_video.Outcome(
    video_id=video_id,
    split=split,
    label=label,
    status=status,
    **(figures | fields),
  )


def cells(page: str, first: str) -> list[str]:
  """The cells of the table's line that begins with some text."""
  plain = re.sub(r'</?span[^>]*>', '', page)
  (line,) = re.findall(rf'<tr><td>({first}.*?)</td></tr>', plain)
  return line.split('</td><td>')


def test_the_table_counts_frames_and_reasons_by_split_and_class():
  rows = [
    row('a'),
    row('b', num_frames=10, face_size=60.0, jitter=1.5),
    row('c', status='skipped', reason='no_face', num_frames=0, jitter=0.0),
    row('d', status='skipped', reason='unreadable', num_frames=0,
        num_asked=0),
    row('e', label='fake', num_frames=32),
  ]  # fmt: skip
  page = make(rows, 'mine')
  assert cells(page, 'val real') == [
    'val real',
    '4',
    '2',
    '40',
    '56',
    '41.7 %',
    '90 (63 to 117)',
    '1.00 (0.55 to 1.45)',
    '1 no_face, 1 unreadable',
  ]
  assert page.index('"real">real') < page.index('"fake">fake')
  assert cells(page, 'val fake')[1:6] == ['1', '1', '32', '0', '100.0 %']
  assert '2 real' in page and '1 fake' in page  # below the plots


def make(rows, dataset):
  return quality_page.make(rows, duplicates.find(rows), dataset)


def test_what_is_there_twice_is_named_with_its_splits():
  rows = [
    row('a.mp4', 'train', source_digest='1'),
    row('copy.mp4', 'val', source_digest='1'),
    *(row(f'{i}.mp4', looks=f'{i % 2}f' * 24) for i in range(4)),
  ]
  page = make(rows, 'mine')
  assert 'there more than once: 1; in more than one split,' in page
  assert 'a.mp4 (train); copy.mp4 (val)' in page
  assert 'in one place: 2.' in page
  assert '0.mp4 (val); 2.mp4 (val)' in page


def test_the_videos_worth_a_look_come_worst_first():
  rows = [row(f'v{i}', num_frames=20 + i) for i in range(20)]
  page = make(rows, 'mine')
  found = page.partition('Face found least often')[2].partition('<h3>')[0]
  assert re.findall(r'<td>(v\d+)', found) == [f'v{i}' for i in range(12)]


def test_lines_of_an_older_command_and_odd_names_make_a_page_too():
  old = row('<b>.mp4', num_asked=0, face_size=0.0, jitter=0.0, source_digest='')
  page = make([old, row('caf\udce9.mp4')], 'a & b')
  assert '<b>.mp4' not in page and 'a &amp; b' in page
  page.encode('utf-8')
  assert 'No two files' in make([], 'empty')
