"""Whether a copy of a data set is whole, and what would make it misleading."""

import json

import face_videos
import made_videos
import pytest

from data_pipeline import check
from data_pipeline.sources import published
from tests.sources.published_test import (
  celebdf_tree,
  faceforensics_tree,
  plant,
)


def run(capsys, *arguments: str) -> tuple[int, str]:
  code = check.main(arguments)
  return code, capsys.readouterr().err


def counted(findings: check.Findings) -> dict[tuple[str, str], tuple[int, int]]:
  return {(c.split, c.method): (c.expected, c.found) for c in findings.counts}


def test_published_numbers_are_held_against_what_is_there(tmp_path):
  findings = check.check('ffpp_c23', faceforensics_tree(tmp_path))
  assert counted(findings)['train', ''] == (720, 2)
  assert counted(findings)['test', 'FaceShifter'] == (140, 2)
  assert not findings.missing and not findings.complete


def test_a_listed_video_that_is_not_there_is_missing_by_name(tmp_path):
  root = celebdf_tree(tmp_path)
  (root / 'YouTube-real/00170.mp4').unlink()
  findings = check.check('celebdf_v2', root)
  assert findings.missing == ('YouTube-real/00170.mp4',)
  assert counted(findings)['test', ''] == (178, 1)


def test_an_empty_file_is_not_found(tmp_path):
  root = celebdf_tree(tmp_path)
  (root / 'Celeb-real/id1_0003.mp4').write_bytes(b'')
  findings = check.check('celebdf_v2', root)
  assert findings.empty == ('Celeb-real/id1_0003.mp4',)
  assert counted(findings)['test', ''] == (178, 1)


def test_a_variant_of_which_nothing_is_there_is_short(tmp_path):
  plant(tmp_path, 'manipulated_videos/end_to_end/977_M1.mp4')
  for split in ('train', 'val', 'test'):
    content = '977_M1.mp4' if split == 'test' else ''
    plant(tmp_path, f'lists/splits/{split}.txt', content=content)
  findings = check.check('deeperforensics', tmp_path)
  assert counted(findings)['', 'reenact_postprocess'] == (1000, 0)
  assert not findings.complete and not findings.missing


def test_what_is_on_no_list_is_extra(tmp_path):
  root = faceforensics_tree(tmp_path)
  plant(root, 'original_sequences/youtube/c23/videos/999.mp4')
  findings = check.check('ffpp_c23', root)
  assert findings.extra == ('original_sequences/youtube/c23/videos/999.mp4',)


def test_people_in_two_splits_are_a_warning(tmp_path):
  plant(
    tmp_path, 'List_of_testing_videos.txt', content='1 Celeb-real/id0_1.mp4'
  )
  plant(tmp_path, 'Celeb-real/id0_1.mp4', 'Celeb-real/id0_2.mp4')
  plant(tmp_path, 'Celeb-synthesis/id3_id4_0.mp4')
  (warning,) = check.check('celebdf_v2', tmp_path).warnings
  assert warning.startswith('1 of 2 people are in more than one split, as id0')


def test_a_complete_set_ends_with_zero(tmp_path, capsys):
  entries = [
    {'image_path': f'/x/test/frames/{kind}/a/0.png', 'label': label}
    for kind, label in (('Real', 0), ('Swap', 1))
  ]
  plant(tmp_path, 'test/frames/Real/a/0.png', 'test/frames/Swap/a/0.png')
  plant(tmp_path, 'test.json', content=json.dumps({'data': entries}))
  code, text = run(capsys, '--source=fakestormer', f'--root={tmp_path}')
  assert code == 0
  assert '2 expected, 2 found' in text


def test_an_incomplete_set_ends_with_one_and_a_file_of_everything(
  tmp_path, capsys
):
  root = celebdf_tree(tmp_path / 'set')
  (root / 'Celeb-synthesis/id1_id0_0003.mp4').unlink()
  found = tmp_path / 'found.json'
  code, text = run(
    capsys, '--source=celebdf_v2', f'--root={root}', f'--json={found}'
  )
  assert code == 1
  assert 'missing: Celeb-synthesis/id1_id0_0003.mp4' in text
  assert '6529 expected, 4 found' in text
  assert json.loads(found.read_text())['missing'] == [
    'Celeb-synthesis/id1_id0_0003.mp4'
  ]


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--source=celebdf', '--root=.'], 'no source'),
    (['--source=celebdf_v2', '--root=nowhere'], 'no such folder'),
    (['--source=celebdf_v2', '--root=.', '--workers=0'], 'at least 1'),
  ],
)
def test_a_wrong_call_is_one_line_and_two(
  tmp_path, capsys, monkeypatch, arguments, words
):
  monkeypatch.chdir(tmp_path)
  code, text = run(capsys, *arguments)
  assert code == 2
  assert text.startswith('error: ') and text.count('\n') == 1
  assert words in text


def test_a_deep_check_opens_the_videos(tmp_path, capsys):
  plant(tmp_path, 'original_videos/7/text.mp4')
  plant(tmp_path, 'synthesized_videos/m/7/text.mp4')
  face_videos.write_numbered_video(tmp_path / 'original_videos/7/a.mp4', 6)
  code, text = run(
    capsys, '--source=kodf', f'--root={tmp_path}', '--deep', '--workers=1'
  )
  assert code == 1
  assert 'unreadable: original_videos/7/text.mp4' in text
  assert 'unreadable: original_videos/7/a.mp4' not in text


def test_a_frame_rate_that_tells_real_from_fake_is_a_warning(tmp_path):
  reals = [f'original_videos/{i}/a.mp4' for i in range(12)]
  fakes = [f'synthesized_videos/m/{i}/a.mp4' for i in range(12)]
  plant(tmp_path, *reals, *fakes)
  facts = {path: check.Facts(30.0, 640, 480, 100) for path in reals}
  facts |= {path: check.Facts(25.0, 640, 480, 100) for path in fakes}
  (warning,) = check.check('kodf', tmp_path, facts).warnings
  assert warning.startswith('frame rate alone tells real from fake (AUC 1.00')
  assert 'median 30 against 25' in warning
  same = {path: check.Facts(30.0, 640, 480, 100) for path in facts}
  assert not check.check('kodf', tmp_path, same).warnings


def test_videos_of_another_compression_than_their_folder_says_are_named(
  tmp_path, capsys
):
  root = faceforensics_tree(tmp_path)
  for name, crf in (('071', 23), ('054', 40), ('720', 24)):
    made_videos.write(
      root / f'original_sequences/youtube/c23/videos/{name}.mp4',
      made_videos.numbered(range(4)),
      options={'preset': 'ultrafast', 'crf': str(crf)},
    )
  code, text = run(
    capsys, '--source=ffpp_c23', f'--root={root}', '--deep', '--workers=1'
  )
  assert code == 1
  said = ' '.join(text.split())  # the terminal's lines are short
  assert said.count('other compression') == 1
  assert (
    'other compression: original_sequences/youtube/c23/videos/054.mp4 '
    '(x264 noted a rate factor of 40, that of the set is 23)'
  ) in said


def test_a_set_of_one_other_compression_is_not_complete(tmp_path):
  root = faceforensics_tree(tmp_path)
  paths = [v.path for v in published.list_published('ffpp_c23', root, 'd')]
  right = {path: check.Facts(crf=23.0) for path in paths}
  assert not check.check('ffpp_c23', root, right).other_compression
  wrong = {path: check.Facts(crf=0.0) for path in paths}
  assert len(check.check('ffpp_c23', root, wrong).other_compression) == 36


def test_files_that_are_too_small_for_their_compression_are_a_warning(tmp_path):
  root = faceforensics_tree(tmp_path)
  paths = [v.path for v in published.list_published('ffpp_c23', root, 'd')]
  facts = {path: check.Facts(bits=0.007) for path in paths}
  (warning,) = check.check('ffpp_c23', root, facts).warnings
  assert 'as if compressed with a rate factor of 40; that of the set' in warning
  facts = {path: check.Facts(bits=0.07) for path in paths}
  assert not check.check('ffpp_c23', root, facts).warnings


def test_a_name_that_is_no_text_is_printed_all_the_same(tmp_path, capsys):
  plant(tmp_path, 'original_videos/7/a.mp4', 'synthesized_videos/m/7/[b].mp4')
  (tmp_path / 'original_videos/7').joinpath('\udcff.mp4').write_bytes(b'')
  code, text = run(capsys, '--source=kodf', f'--root={tmp_path}')
  assert code == 1
  assert 'empty: original_videos/7/\\xff.mp4' in text
