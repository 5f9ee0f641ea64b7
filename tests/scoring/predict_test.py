"""The command answers for one video or many, and goes on where it stopped."""

import csv
import json
import os

import bright_faces
import pytest
from random_detector import make_detector

from configs import tiny
from stormer_jax.scoring import evaluate, predict, video_detector


@pytest.fixture(scope='module')
def ready():
  detector = make_detector(tiny.get_config())
  return video_detector.Detector(
    detector,
    evaluate.EvalConfig(**detector.config.eval),
    backend=bright_faces.BrightFaces(),
  )


@pytest.fixture
def folder(tmp_path):
  """Two videos, one that is none, one without a face."""
  place = tmp_path / 'videos'
  place.mkdir()
  bright_faces.write_video(place / 'a.mp4', 12)
  bright_faces.write_video(place / 'b.mp4', 16)
  (place / 'c.mp4').write_text('no video')
  bright_faces.write_video(place / 'd.mp4', 12, face=False)
  return place


def test_one_answer_goes_to_the_file_or_to_standard_output(
  ready, tmp_path, capsys
):
  video = str(bright_faces.write_video(tmp_path / 'a.mp4', 12))
  out = tmp_path / 'answers' / 'a.json'
  assert predict.predict(ready, [video], predict.Outputs(out)) == []
  written = json.loads(out.read_text())
  said = capsys.readouterr().out
  assert f'a.mp4: score {written["score"]:.3f} ' in said and 'a.json' in said
  predict.predict(ready, [video])
  assert json.loads(capsys.readouterr().out) == written


def test_one_bad_file_is_a_row_and_no_end(ready, folder, capsys):
  failures = predict.predict(ready, [str(folder)])
  rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [row['status'] for row in rows] == [
    *('ok', 'ok', 'unreadable', 'no_face')
  ]
  assert len(failures) == 2 and 'c.mp4: unreadable' in failures[0]


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_a_stopped_table_is_gone_on_with(
  ready, folder, tmp_path, monkeypatch, suffix
):
  whole, part = tmp_path / f'whole{suffix}', tmp_path / f'part{suffix}'
  first = predict.predict(ready, [str(folder)], predict.Outputs(whole))
  content = whole.read_bytes()
  cut = len(content) * 2 // 3
  part.write_bytes(content[:cut])  # killed in the middle of a row
  asked = []
  answers = ready.predict
  monkeypatch.setattr(
    ready,
    'predict',
    lambda video, *how: asked.append(video) or answers(video, *how),
  )
  again = predict.predict(ready, [str(folder)], predict.Outputs(part))
  assert part.read_bytes() == content and again == first
  assert 0 < len(asked) < 4


def test_a_csv_has_a_row_of_figures_for_each_video(ready, folder, tmp_path):
  out = tmp_path / 'a.csv'
  predict.predict(ready, [str(folder)], predict.Outputs(out))
  rows = list(csv.DictReader(out.read_text().splitlines()))
  assert [row['status'] for row in rows] == [
    *('ok', 'ok', 'unreadable', 'no_face')
  ]
  assert 0 < float(rows[0]['score']) < 1 and rows[2]['score'] == ''
  assert rows[0]['frames_with_face'] == '12' and len(rows[0]['sha256']) == 64


def test_a_table_of_other_settings_is_not_mixed_with_these(
  ready, folder, tmp_path
):
  out = predict.Outputs(tmp_path / 'a.jsonl')
  predict.predict(ready, [str(folder)], out)
  with pytest.raises(ValueError, match='other weights or settings'):
    predict.predict(
      ready, [str(folder)], out, video_detector.Look(max_frames=8)
    )
  (tmp_path / 'a.jsonl').write_text('{"a": 1}\n')
  with pytest.raises(ValueError, match='no table of answers'):
    predict.predict(ready, [str(folder)], out)


def test_files_that_cannot_be_opened_are_rows_among_others(
  ready, tmp_path, capsys
):
  video = bright_faces.write_video(tmp_path / 'a.mp4', 12)
  odd = tmp_path / os.fsdecode(b'caf\xe9.mp4')
  odd.touch()
  named = [str(odd), str(tmp_path / 'gone.mp4'), 300 * 'x', str(video)]
  predict.predict(ready, named)
  rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [row['message'] for row in rows] == [
    *('its name is not UTF-8; rename the file', 'no such video file'),
    *('cannot be opened (File name too long)', ''),
  ]
  assert rows[0]['video'].endswith('caf\\xe9.mp4')


def test_a_single_file_that_is_not_there_is_named(ready, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'a\.mp4: no such video file'):
    predict.predict(ready, [str(tmp_path / 'a.mp4')])


def test_answers_to_many_need_a_table(ready, folder, tmp_path):
  with pytest.raises(ValueError, match=r'\.jsonl or \.csv'):
    predict.predict(ready, [str(folder)], predict.Outputs(tmp_path / 'a.json'))


def test_pages_and_films_stand_beside_the_rows(ready, folder, tmp_path):
  outputs = predict.Outputs(
    tmp_path / 'a.csv', tmp_path / 'pages', tmp_path / 'films'
  )
  predict.predict(ready, [str(folder)], outputs)
  pages = sorted(path.name for path in (tmp_path / 'pages').iterdir())
  assert [name.split('-')[0] for name in pages] == ['a', 'b', 'c', 'd']
  films = sorted(path.name for path in (tmp_path / 'films').iterdir())
  assert [name.split('-')[0] for name in films] == ['a', 'b']


def test_a_page_alone_leaves_standard_output_to_people(
  ready, folder, tmp_path, capsys
):
  page = tmp_path / 'a.html'
  predict.predict(ready, [str(folder / 'a.mp4')], predict.Outputs(html=page))
  said = capsys.readouterr().out
  assert said.rstrip().endswith(f'written to {page}') and page.exists()
  with pytest.raises(ValueError, match=r'a folder; name the \.html file'):
    predict.predict(
      ready, [str(folder / 'a.mp4')], predict.Outputs(html=tmp_path)
    )
