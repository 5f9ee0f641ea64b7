"""A page holds the answer, its pictures, and nothing from elsewhere."""

import dataclasses
import html.parser
import math
import re

import bright_faces
import pytest
from random_detector import make_detector

from configs import tiny
from stormer_jax.scoring import (
  answer,
  answer_page,
  calibration,
  evaluate,
  timeline,
  video_detector,
)


class Checked(html.parser.HTMLParser):
  """Fails where a tag is closed that is not the last one open."""

  def __init__(self):
    super().__init__()
    self.open, self.seen, self.words = [], [], []

  def handle_starttag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


def read(page):
  checked = Checked()
  checked.feed(page)
  assert not checked.open
  return checked


@pytest.fixture(scope='module')
def ready():
  detector = make_detector(tiny.get_config())
  made = calibration.Calibration(
    method='platt',
    slope=1.0,
    intercept=0.0,
    threshold=0.5,
    at_fpr={},
    uncertain=(0.4, 0.6),
    frame_rule='dense',
    weights='',
    fitted_on='faces:val',
    num_real=20,
    num_fake=20,
    ece_before=0.2,
    ece_after=0.1,
    brier_before=0.2,
    brier_after=0.1,
  )
  options = evaluate.EvalConfig(
    **{**detector.config.eval, 'frame_rule': 'dense'}
  )
  ready = video_detector.Detector(
    detector, options, made, bright_faces.BrightFaces()
  )
  ready._scorer = bright_faces.red_is_fake
  return ready


@pytest.fixture(scope='module')
def said(ready, tmp_path_factory):
  video = bright_faces.write_squares(
    tmp_path_factory.mktemp('page') / '<b>&film.mp4',
    100,
    lambda t: [(20, 120, False), (200, 80, 50 <= t < 75)],
  )
  return ready.predict(video)


@pytest.mark.parametrize(
  ('state', 'words'),
  [
    ('none', 'carries no C2PA manifest'),
    ('valid', 'Whether its signer is who they say was not checked'),
    ('invalid', 'does not fit it or is damaged'),
    ('remote', 'It was not fetched'),
    ('not_checked', 'c2pa-python is not installed'),
  ],
)
def test_what_the_file_says_of_its_origin_is_told_and_is_no_proof(
  said, state, words
):
  found = answer.Credentials(state, generator='<i>Camera', problems=('a.b',))
  page = answer_page.make(dataclasses.replace(said, credentials=found))
  text = ' '.join(read(page).words)
  assert words in text and 'This is no proof, either way.' in text
  assert '<i>Camera' in text and 'a.b' in text


def test_a_page_says_who_when_and_what_was_not_looked_at(said):
  page = answer_page.make(said, '# Card\n<script>')
  checked = read(page)
  words = ' '.join(checked.words)
  (segment,) = said.segments
  for want in (
    'Uncertain',
    '<b>&film.mp4',
    f'{timeline.clock(segment.start)} to {timeline.clock(segment.end)}',
    'person 2',
    'sound, and whether it fits the lips',
    'faces:val',
    said.hashes['video'],
    '# Card',
    'no proof either way',
  ):
    assert want in words, want
  bars = [a for tag, a in checked.seen if tag == 'rect' and 'class' in a]
  assert sum(a['class'] == 'fake' for a in bars) == segment.num_clips


def test_a_page_needs_nothing_else_and_is_small(said):
  page = answer_page.make(said)
  checked = read(page)
  for tag, attributes in checked.seen:
    assert tag not in ('script', 'link', 'iframe')
    source = attributes.get('src', 'data:')
    assert source.startswith('data:image/jpeg;base64,') or source == 'data:'
  assert not re.search(r'https?://|url\(', page)
  assert len(page) < 5e6


@pytest.mark.parametrize(
  ('status', 'message'),
  [('unreadable', 'not a video'), ('no_face', 'face in 0 of 12 frames')],
)
def test_a_page_of_no_answer_says_why(ready, status, message):
  said = ready.refuse('a.mp4', message)
  said = dataclasses.replace(
    said, status=status, sentence=f'No answer: {message}.'
  )
  words = ' '.join(read(answer_page.make(said)).words)
  assert 'No answer' in words and message[1:] in words


def test_without_a_calibration_there_is_no_verdict(ready, said, monkeypatch):
  monkeypatch.setattr(ready, 'calibration', None)
  plain = ready.predict(said.video)
  words = ' '.join(read(answer_page.make(plain)).words)
  assert 'No verdict' in words and 'score, not calibrated' in words
  assert 'Likely' not in words


def test_heads_without_training_are_not_shown(said):
  trained = {'vulnerability_map': False, 'soft_labels': False}
  blind = dataclasses.replace(
    said, provenance={**said.provenance, 'trained_heads': trained}
  )
  page, full = answer_page.make(blind), answer_page.make(said)
  assert 'vulnerability map' in full and 'class="soft"' in full
  assert 'alt="vulnerability map"' not in page and 'class="soft"' not in page
  assert 'was not trained to show where' in page


def test_frames_without_times_have_no_timeline(said):
  clips = tuple(
    dataclasses.replace(clip, times=(math.nan,) * 4) for clip in said.clips
  )
  assert timeline.draw(dataclasses.replace(said, clips=clips)) == ''
  read(answer_page.make(dataclasses.replace(said, clips=clips, segments=())))


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0, '0 s'), (7.5, '7.5 s'), (65.2, '1:05'), (3605, '1:00:05')],
)
def test_times_read_as_on_a_clock(seconds, text):
  assert timeline.clock(float(seconds)) == text


def test_ticks_are_few_and_round():
  for length in (0.3, 2.8, 60.0, 600.0, 7200.0):
    ticks = timeline.ticks(length)
    assert 2 <= len(ticks) <= 8 and ticks[0] == 0 and ticks[-1] <= length


def test_an_answer_is_known_by_its_class(said):
  assert isinstance(said, answer.Answer)
  assert timeline.kind(0.2, said) == 'real'
  assert timeline.kind(0.5, said) == 'unsure'
  assert timeline.kind(0.9, said) == 'fake'
