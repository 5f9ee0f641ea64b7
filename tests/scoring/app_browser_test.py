"""The page in a real browser: from a dropped video to an answer that is shown.

The browser is Debian's Chromium, or Chrome, where the system has one;
CHROMIUM=PATH names another. Playwright drives it (extra `browser`). Run with
`make test-browser`.
"""

import os
import pathlib
import shutil
import threading

import bright_faces
import pytest

from data_pipeline import demo_videos
from stormer_jax.scoring import jobs, video_detector

playwright_api = pytest.importorskip('playwright.sync_api')

pytestmark = pytest.mark.browser

_SIZES = {'desktop': (1280, 900), 'phone': (390, 844)}
_WAIT = 240_000  # ms; a busy machine is slow
_PACKAGES = pathlib.Path(
  os.environ.get(
    'STORMER_DEMO_PACKAGES',
    pathlib.Path(__file__).parents[2] / '.demo' / 'packages',
  )
)


def find_browser() -> str:
  names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
  found = os.environ.get('CHROMIUM') or next(
    filter(None, map(shutil.which, names)), None
  )
  assert found, f'no browser on PATH: none of {", ".join(names)}'
  return found


@pytest.fixture(scope='module')
def browser():
  with playwright_api.sync_playwright() as playwright:
    # Root, as in a container, has no sandbox of Chromium.
    arguments = ['--no-sandbox'] if os.geteuid() == 0 else []
    opened = playwright.chromium.launch(
      executable_path=find_browser(), args=arguments
    )
    yield opened
    opened.close()


@pytest.fixture
def open_page(browser):
  """Opens the page of a server as a user of its own; any error fails."""
  opened, wrong = [], []

  def open_it(server, size='desktop'):
    width, height = _SIZES[size]
    context = browser.new_context(viewport={'width': width, 'height': height})
    opened.append(context)
    page = context.new_page()
    page.set_default_timeout(_WAIT)
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on(
      'request',
      lambda request: (
        request.url.startswith(('data:', server.url))
        or wrong.append(f'asked for {request.url}')
      ),
    )
    page.goto(server.url)
    return page

  yield open_it
  for context in opened:
    context.close()
  assert not wrong


class Held:
  """A detector that answers when it is let go."""

  card = ''

  def __init__(self, ready):
    self.ready = ready
    self.go = threading.Event()

  def predict(self, video, look, watch):
    while not self.go.wait(0.01):
      watch(0.5)
    return self.ready.predict(video, look, watch)


@pytest.fixture(scope='module')
def ready():
  return bright_faces.make_ready()


def make_film(path, red):
  return bright_faces.write_squares(path, 40, lambda t: [(100, 100, red)])


def uploads(server):
  return [p for p in server.jobs._folder.rglob('*') if p.is_file()]


def shown(page):
  """Waits for the answer and returns the frame that it is shown in."""
  page.locator('#result').wait_for(state='visible')
  report = page.frame_locator('#report')
  report.locator('h1').wait_for(state='visible')
  return report


def is_as_wide_as_its_window(page):
  return page.evaluate(
    'document.documentElement.scrollWidth <= window.innerWidth'
  )


@pytest.mark.skipif(
  not all((_PACKAGES / v.source).is_file() for v in demo_videos.DEMO_VIDEOS),
  reason='the demo packages are not installed; `make test` installs them',
)
def test_a_real_video_is_uploaded_and_its_answer_shown(
  start_server, open_page, tmp_path
):
  """By the detector that ships, on a desktop and on a phone."""
  demo_videos.lay_out(_PACKAGES, tmp_path)
  server = start_server(video_detector.Detector.load())
  page = open_page(server)
  page.get_by_text('forgotten after 60 minutes').wait_for()
  page.set_input_files('#file', tmp_path / 'carphone_pristine.mp4')
  report = shown(page)
  assert report.locator('h1').inner_text() in (
    *('Likely real', 'Uncertain', 'Likely fake'),
  )
  assert 'probability of fake' in report.locator('header').inner_text()
  # Pictures are there: the policy of the page lets those of the file in.
  pictures = report.locator('.strip img')
  assert pictures.count() > 4
  assert pictures.first.evaluate('image => image.naturalWidth') == 96
  assert not uploads(server)
  address = page.locator('#page').get_attribute('href')
  said = page.evaluate(
    "fetch(document.getElementById('json').href).then(x => x.json())"
  )
  assert said['status'] == 'ok' and said['video'] == 'carphone_pristine.mp4'
  for size in _SIZES:
    alone = open_page(server, size)
    alone.goto(server.url.rstrip('/') + address)
    assert alone.locator('h1').is_visible()
    assert is_as_wide_as_its_window(alone), size


def test_a_text_file_is_told_to_be_none(
  start_server, open_page, ready, tmp_path
):
  server = start_server(ready)
  page = open_page(server, 'phone')
  (tmp_path / 'letter.mp4').write_text('Dear Sir or Madam')
  page.set_input_files('#file', tmp_path / 'letter.mp4')
  report = shown(page)
  assert report.locator('h1').inner_text() == 'No answer'
  words = report.locator('.words').inner_text()
  assert 'letter.mp4 is not a video' in words
  assert is_as_wide_as_its_window(page)


def test_two_users_at_once_get_their_own_answers(
  start_server, open_page, ready, tmp_path
):
  server = start_server(ready)
  held = server.jobs._detector = Held(ready)
  first, second = open_page(server), open_page(server, 'phone')
  first.set_input_files('#file', make_film(tmp_path / 'red.mp4', True))
  first.get_by_text('Looking: 50 %').wait_for()
  second.set_input_files('#file', make_film(tmp_path / 'grey.mp4', False))
  second.get_by_text('Waiting').wait_for()
  held.go.set()
  for page, name, score in (
    (first, 'red.mp4', '0.95'),
    (second, 'grey.mp4', '0.05'),
  ):
    header = shown(page).locator('header').inner_text()
    assert name in header and score in header
  assert not uploads(server)
  # And again, without loading the page anew.
  second.locator('#again').click()
  second.set_input_files('#file', tmp_path / 'red.mp4')
  assert 'red.mp4' in shown(second).locator('header').inner_text()


def test_a_user_can_cancel_and_begin_again(
  start_server, open_page, ready, tmp_path
):
  server = start_server(ready)
  held = server.jobs._detector = Held(ready)
  page = open_page(server)
  page.set_input_files('#file', make_film(tmp_path / 'red.mp4', True))
  page.get_by_text('Looking: 50 %').wait_for()
  (job,) = server.jobs._jobs.values()
  assert job.file.is_file()
  page.locator('#cancel').click()
  page.locator('#drop').wait_for(state='visible')
  for _ in range(3000):
    if job.state == 'cancelled' and not uploads(server):
      break
    page.wait_for_timeout(20)
  assert job.state == 'cancelled' and not uploads(server)
  held.go.set()
  page.set_input_files('#file', tmp_path / 'red.mp4')
  assert 'red.mp4' in shown(page).locator('header').inner_text()


def test_what_is_refused_is_said_on_the_page(
  start_server, open_page, ready, tmp_path
):
  server = start_server(ready, most_bytes=2**20)
  page = open_page(server)
  page.get_by_text('Files of up to 1 MiB').wait_for()
  (tmp_path / 'long.mp4').write_bytes(bytes(2**20 + 1))
  page.set_input_files('#file', tmp_path / 'long.mp4')
  page.locator('#error').wait_for(state='visible')
  assert 'at most 1 MiB' in page.locator('#error').inner_text()
  assert page.locator('#drop').is_visible() and not server.jobs._jobs
  # What the page does not know the server says.
  server.jobs.limits = jobs.Limits(most_bytes=100)
  page.set_input_files('#file', make_film(tmp_path / 'red.mp4', True))
  page.get_by_text('at most 100').wait_for()
