"""The contact-sheet command writes a picture and a looping video."""

import pathlib

import cv2
import pytest

from data_pipeline import contact_sheet
from data_pipeline import sheet as sheet_lib

CONFIG = str(pathlib.Path(__file__).parents[1] / 'configs' / 'tiny.py')


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory):
  folder = tmp_path_factory.mktemp('sheet')
  status = contact_sheet.main(
    [
      f'--records={data_root / "demo" / "consecutive"}',
      f'--out={folder / "pairs" / "sheet.png"}',
      f'--video={folder / "loop.mp4"}',
      f'--config={CONFIG}',
      '--split=val',
      '--num_pairs=2',
      '--cell=48',
    ]
  )
  assert status == 0
  return folder


def test_the_sheet_has_six_pictures_a_frame_and_two_pairs(run):
  sheet = cv2.imread(str(run / 'pairs' / 'sheet.png'))
  pair = contact_sheet._HEADER + 4 * (48 + sheet_lib.GAP)
  assert sheet.shape == (2 * pair, 6 * (48 + sheet_lib.GAP), 3)
  # Below the header: faces, mask and boundary each show something.
  step = 48 + sheet_lib.GAP
  for column in range(4):
    picture = sheet[contact_sheet._HEADER :][:48, column * step :][:, :48]
    assert picture.std() > 5


def test_the_video_loops_forth_and_back(run):
  video = cv2.VideoCapture(str(run / 'loop.mp4'))
  frames = []
  while (read := video.read())[0]:
    frames.append(read[1])
  assert len(frames) == contact_sheet._LOOPS * 6  # 0 1 2 3 2 1
  height, width, _ = frames[0].shape
  assert width == 3 * height


def test_missing_records_are_one_line_and_status_two(tmp_path, capsys):
  arguments = [
    f'--records={tmp_path / "nothing" / "consecutive"}',
    f'--out={tmp_path / "sheet.png"}',
    f'--config={CONFIG}',
  ]
  assert contact_sheet.main(arguments) == 2
  message = capsys.readouterr().err
  assert message.startswith('error: ') and 'nothing' in message
  assert not (tmp_path / 'sheet.png').exists()


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--num_pairs=0'], '--num_pairs is 0; at least 1'),
    (['--cell=0'], '--cell is 0'),
    (['--seed=-1'], '--seed is -1'),
    (['--out=.'], '--out=.: a folder; name a file'),
    (['--nonsense'], 'unrecognized arguments'),
  ],
)
def test_a_wrong_flag_is_one_line(capsys, flags, says):
  with pytest.raises(SystemExit) as status:
    contact_sheet.main(['--records=x', '--out=a.png', *flags])
  assert status.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ') and says in line
