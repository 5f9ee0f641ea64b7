"""The page's server: upload to answer, limits, cancelling, and no traces."""

import functools
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import bright_faces
import pytest

from stormer_jax.scoring import jobs

_WAIT = 120.0  # s; a busy machine is slow


@pytest.fixture(scope='module')
def ready():
  return bright_faces.make_ready()


@pytest.fixture
def make_server(start_server, ready):
  return functools.partial(start_server, ready)


@pytest.fixture
def server(make_server):
  return make_server()


@pytest.fixture
def film(tmp_path):
  path = bright_faces.write_squares(
    tmp_path / 'film.mp4', 40, lambda t: [(100, 100, True)]
  )
  return path.read_bytes()


def ask(server, method, path, body=None, **headers):
  connection = http.client.HTTPConnection(*server.server_address, timeout=_WAIT)
  try:
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, reply.read(), reply.headers
  finally:
    connection.close()


def upload(server, content, name='film.mp4'):
  status, reply, _ = ask(server, 'POST', f'/api/jobs?name={name}', content)
  assert status == 201, reply
  return json.loads(reply)['id']


def wait(server, number, *states):
  end = time.monotonic() + _WAIT
  while time.monotonic() < end:
    said = json.loads(ask(server, 'GET', f'/api/jobs/{number}')[1])
    if said['state'] in states:
      return said
    time.sleep(0.02)
  raise AssertionError(f'still {said}')


def uploads(server):
  return [p for p in server.jobs._folder.rglob('*') if p.is_file()]


def test_a_video_is_answered_for_and_removed(server, film):
  number = upload(server, film)
  assert wait(server, number, 'done', 'failed')['share'] == 1.0
  said = json.loads(ask(server, 'GET', f'/api/jobs/{number}/answer.json')[1])
  assert said['status'] == 'ok' and said['video'] == 'film.mp4'
  assert said['score'] > 0.9
  status, page, headers = ask(server, 'GET', f'/api/jobs/{number}/report.html')
  assert status == 200 and b'film.mp4' in page
  assert headers['Content-Security-Policy'].startswith("default-src 'none'")
  assert not uploads(server)


def test_a_text_file_gets_an_answer_that_says_so(server):
  number = upload(server, b'no video', 'text.mp4')
  assert wait(server, number, 'done', 'failed')['state'] == 'done'
  said = json.loads(ask(server, 'GET', f'/api/jobs/{number}/answer.json')[1])
  assert said['status'] == 'unreadable'
  assert said['message'].startswith('text.mp4 is not a video')


def test_two_users_at_once_get_their_own_answers(server, film, tmp_path):
  other = bright_faces.write_squares(
    tmp_path / 'b.mp4', 40, lambda t: [(100, 100, False)]
  ).read_bytes()
  numbers = {}

  def user(name, content):
    numbers[name] = upload(server, content, name)

  users = [
    threading.Thread(target=user, args=given)
    for given in (('a.mp4', film), ('b.mp4', other))
  ]
  for thread in users:
    thread.start()
  for thread in users:
    thread.join()
  scores = {}
  for name, number in numbers.items():
    assert wait(server, number, 'done', 'failed')['name'] == name
    said = ask(server, 'GET', f'/api/jobs/{number}/answer.json')[1]
    scores[name] = json.loads(said)['score']
  assert scores['a.mp4'] > 0.9 and scores['b.mp4'] < 0.1


class _Held:
  """Stands in for a detector: answers when it is let go."""

  card = ''

  def __init__(self):
    self.go = threading.Event()
    self.stopped = ''

  def predict(self, video, look, watch):
    try:
      while not self.go.wait(0.01):
        watch(0.5)
    except jobs._StoppedError as error:
      self.stopped = str(error)
      raise
    raise ValueError(f'{video}: let go')


def test_a_job_is_cancelled_while_it_runs_and_leaves_nothing(make_server):
  server = make_server()
  held = server.jobs._detector = _Held()
  number = upload(server, b'abc')
  wait(server, number, 'running')
  behind = upload(server, b'abc')
  said = json.loads(ask(server, 'GET', f'/api/jobs/{behind}')[1])
  assert said['state'] == 'queued' and said['ahead'] == 0
  assert ask(server, 'DELETE', f'/api/jobs/{number}')[0] == 200
  wait(server, behind, 'running')
  assert held.stopped == 'cancelled'
  held.go.set()
  said = wait(server, behind, 'failed')
  assert said['error'] == 'film.mp4: let go'
  assert wait(server, number, 'cancelled')
  assert not uploads(server)


def test_what_takes_too_long_is_stopped(make_server):
  server = make_server(most_seconds=0.05)
  server.jobs._detector = _Held()
  said = wait(server, upload(server, b'abc'), 'failed')
  assert 'not done after 0 s' in said['error']


def test_limits_are_kept_and_said(make_server):
  server = make_server(most_bytes=10, most_waiting=1)
  held = server.jobs._detector = _Held()
  status, reply, _ = ask(server, 'POST', '/api/jobs?name=a', b'x' * 11)
  assert status == 413 and b'at most 10' in reply
  number = upload(server, b'x' * 10)
  status, reply, _ = ask(server, 'POST', '/api/jobs?name=a', b'x')
  assert status == 503 and b'are waiting already' in reply
  held.go.set()
  wait(server, number, 'failed')


def test_an_answer_is_forgotten_when_its_time_is_over(
  make_server, film, monkeypatch
):
  monkeypatch.setattr(jobs, '_LOOK_SECONDS', 0.01)
  server = make_server(keep_seconds=0.2)
  number = upload(server, film)
  end = time.monotonic() + _WAIT
  while ask(server, 'GET', f'/api/jobs/{number}')[0] == 200:
    assert time.monotonic() < end
    time.sleep(0.02)
  kept = make_server()
  number = upload(kept, film)
  wait(kept, number, 'done')
  # Without being asked for, too.
  kept.jobs.limits = jobs.Limits(keep_seconds=0.01)
  while kept.jobs._jobs:
    assert time.monotonic() < end
    time.sleep(0.02)


def test_a_limit_of_nothing_is_refused():
  with pytest.raises(ValueError, match='most_waiting is 0; above 0'):
    jobs.Limits(most_waiting=0)


def test_an_upload_that_breaks_off_leaves_nothing(server):
  connection = http.client.HTTPConnection(*server.server_address)
  connection.putrequest('POST', '/api/jobs?name=a.mp4')
  connection.putheader('Content-Length', '1000')
  connection.endheaders()
  connection.send(b'only this')
  connection.close()
  end = time.monotonic() + _WAIT
  while not server.jobs._jobs and time.monotonic() < end:
    time.sleep(0.01)
  (job,) = server.jobs._jobs.values()
  while job.state != 'cancelled' and time.monotonic() < end:
    time.sleep(0.01)
  assert job.state == 'cancelled' and not uploads(server)


@pytest.mark.parametrize(
  ('name', 'kept'),
  [
    ('film.mp4', 'film.mp4'),
    ('../../etc/passwd', 'passwd'),
    ('..\\..\\a.mp4', 'a.mp4'),
    ('..', 'video'),
    ('', 'video'),
    ('.hidden', 'hidden'),
    ('a\0b\n.mp4', 'a_b_.mp4'),
    ('Café (1).mp4', 'Café (1).mp4'),
    ('x' * 300 + '.mp4', 'x' * 96 + '.mp4'),
    ('\u5f71' * 200 + '.mp4', '\u5f71' * 32 + '.mp4'),  # three bytes each
  ],
)
def test_a_name_cannot_leave_its_folder(name, kept):
  assert jobs.safe_name(name) == kept


@pytest.mark.parametrize(
  'path', ['/../app.py', '/api/jobs/../x', '/api/jobs/' + 'a' * 22, '/x']
)
def test_there_is_nothing_else_to_be_had(server, path):
  assert ask(server, 'GET', path)[0] == 404


def test_another_site_cannot_use_it(server):
  assert ask(server, 'GET', '/', Host='evil.example:80')[0] == 403
  port = server.server_address[1]
  host = f'127.0.0.1:{port}'
  assert ask(server, 'GET', '/', Host=host)[0] == 200
  status, _, _ = ask(
    server, 'POST', '/api/jobs', b'x', Origin='http://evil.example'
  )
  assert status == 403
  status, _, _ = ask(
    server, 'POST', '/api/jobs', b'x', Host=host, Origin=f'http://{host}'
  )
  assert status == 201


def test_the_page_asks_no_other_machine(server):
  for path in ('/', '/app.js', '/app.css'):
    status, content, headers = ask(server, 'GET', path)
    assert status == 200 and b'://' not in content
    assert "default-src 'self'" in headers['Content-Security-Policy']
  about = json.loads(ask(server, 'GET', '/api/detector')[1])
  assert about['most_bytes'] == 2**30


def test_uploads_go_when_the_process_is_killed(tmp_path):
  program = (
    'import time\n'
    'from stormer_jax.scoring import jobs\n'
    'made = jobs.Jobs(None)\n'
    "job = made.begin('a.mp4')\n"
    "job.file.write_bytes(b'abc')\n"
    'print(job.file, flush=True)\n'
    'time.sleep(600)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', program],
    stdout=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parent.parent.parent,
    env=os.environ | {'TMPDIR': str(tmp_path)},
  )
  assert process.stdout is not None
  with process.stdout:
    file = pathlib.Path(process.stdout.readline().strip())
    assert file.is_file() and tmp_path in file.parents
    process.send_signal(signal.SIGKILL)
    process.wait()
  end = time.monotonic() + _WAIT
  while any(tmp_path.iterdir()) and time.monotonic() < end:
    time.sleep(0.02)
  assert not any(tmp_path.iterdir())
