"""The page for a video: drop it in, see how far it is, read the answer.

Enters: a `Detector`. Leaves: a server of HTTP for people (a page) and for
programs (docs/app.md). It answers on this machine alone unless it is told
otherwise, asks no other machine for anything, and needs no package beyond
those of `predict`.
"""

import http.server
import importlib.resources
import json
import re
import socket
from typing import Any
import urllib.parse

from stormer_jax.scoring import jobs as jobs_lib
from stormer_jax.scoring import video_detector

_PIECE = 2**20  # bytes read at once
_IDLE = 60.0  # s without a byte after which an upload is given up
_FILES = {
  '/': ('app.html', 'text/html; charset=utf-8'),
  '/app.css': ('app.css', 'text/css; charset=utf-8'),
  '/app.js': ('app.js', 'text/javascript; charset=utf-8'),
}
_OF_PAGE = "default-src 'self'; img-src data:; frame-ancestors 'none'"
_OF_REPORT = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
  " frame-ancestors 'self'"
)


class Server(http.server.ThreadingHTTPServer):
  """A server with its jobs; `close` it."""

  daemon_threads = True

  def __init__(
    self,
    jobs: jobs_lib.Jobs,
    host: str = '127.0.0.1',
    port: int = 0,
    about: dict[str, Any] | None = None,
  ):
    """Binds; `serve_forever` begins.

    Raises:
      OSError: The port is taken.
    """
    if ':' in host:
      self.address_family = socket.AF_INET6
    self.jobs = jobs
    self.about = {
      'most_bytes': jobs.limits.most_bytes,
      'keep_seconds': jobs.limits.keep_seconds,
      **(about or {}),
    }
    super().__init__((host, port), _Handler)
    self.host = host

  @property
  def url(self) -> str:
    """Where a browser finds it."""
    name = f'[{self.host}]' if ':' in self.host else self.host
    return f'http://{name}:{self.server_address[1]}/'

  def close(self) -> None:
    """Stops, and removes all uploads."""
    self.server_close()
    self.jobs.close()


def serve(
  detector: video_detector.Detector,
  host: str,
  port: int,
  look: video_detector.Look | None = None,
  limits: jobs_lib.Limits | None = None,
) -> None:
  """Serves until it is interrupted.

  Raises:
    OSError: The port is taken.
  """
  jobs = jobs_lib.Jobs(detector, limits, look)
  try:
    server = Server(
      jobs,
      host,
      port,
      about={
        'calibration': detector.calibration.said()
        if detector.calibration
        else 'This detector is not calibrated: it gives scores, no verdicts',
      },
    )
  except OSError as error:
    jobs.close()
    raise OSError(
      f'--host={host} --port={port}: cannot serve there ({error.strerror})'
    ) from error
  print(f'open {server.url} in a browser; Ctrl-C ends it', flush=True)
  try:
    server.serve_forever()
  finally:
    server.close()


class _Handler(http.server.BaseHTTPRequestHandler):
  """One request."""

  server: Server
  protocol_version = 'HTTP/1.1'
  server_version = 'stormer-jax'
  sys_version = ''
  timeout = _IDLE

  def do_GET(self) -> None:
    """Answers with the page, a status, or an answer."""
    if not self._is_ours():
      return
    path = urllib.parse.urlsplit(self.path).path
    if path in _FILES:
      name, kind = _FILES[path]
      content = importlib.resources.files(__package__).joinpath(name)
      self._send(200, content.read_bytes(), kind, _OF_PAGE)
      return
    if path == '/api/detector':
      self._say(200, self.server.about)
      return
    job, what = self._job(path)
    if job is None:
      return
    if what == '':
      self._say(200, self.server.jobs.status(job))
    elif job.said is None:
      self._refuse(404, f'no answer: {job.state}')
    elif what == 'answer.json':
      self._send(200, job.said.to_json().encode(), 'application/json')
    elif what == 'report.html':
      kind = 'text/html; charset=utf-8'
      self._send(200, job.page.encode(), kind, _OF_REPORT)
    else:
      self._refuse(404, 'no such thing')

  def do_POST(self) -> None:
    """Takes a video: POST /api/jobs?name=NAME, its bytes the body."""
    if not self._is_ours():
      return
    parts = urllib.parse.urlsplit(self.path)
    if parts.path != '/api/jobs':
      self._refuse(404, 'no such thing')
      return
    length = self.headers.get('Content-Length', '')
    if not length.isdecimal():
      self._refuse(411, 'say how long the file is (Content-Length)')
      return
    if int(length) > (most := self.server.jobs.limits.most_bytes):
      self._refuse(413, f'the file has {length} bytes; at most {most}')
      return
    names = urllib.parse.parse_qs(parts.query).get('name', ['video'])
    try:
      job = self.server.jobs.begin(names[0])
    except ValueError as error:
      self._refuse(503, str(error))
      return
    if self._receive(job, int(length)):
      self.server.jobs.submit(job)
      self._say(201, self.server.jobs.status(job))
    else:
      self.server.jobs.cancel(job)
      self.close_connection = True

  def do_DELETE(self) -> None:
    """Cancels a job, and forgets its answer."""
    if not self._is_ours():
      return
    job, _ = self._job(urllib.parse.urlsplit(self.path).path)
    if job is not None:
      self.server.jobs.cancel(job)
      self._say(200, self.server.jobs.status(job))

  def _receive(self, job: jobs_lib.Job, length: int) -> bool:
    """Writes the body to the job's file; False if it did not come whole."""
    try:
      with job.file.open('wb') as file:
        while length and job.state == 'uploading':
          piece = self.rfile.read(min(length, _PIECE))
          if not piece:
            return False
          file.write(piece)
          length -= len(piece)
    except OSError:  # the connection or the disk
      return False
    return not length

  def _job(self, path: str) -> tuple[jobs_lib.Job | None, str]:
    """The job that a path names, and what of it; else says 404."""
    found = re.fullmatch(r'/api/jobs/([\w-]{10,40})(?:/([\w.]+))?', path)
    job = self.server.jobs.find(found[1]) if found else None
    if found is None or job is None:
      self._refuse(404, 'no such thing')
      return None, ''
    return job, found[2] or ''

  def _is_ours(self) -> bool:
    """Refuses what another site makes a browser ask for.

    A page elsewhere may point its own name at this machine (DNS rebinding), or
    send a form here; neither knows this name.
    """
    host = self.headers.get('Host', '')
    origin = self.headers.get('Origin')
    name = urllib.parse.urlsplit(f'//{host}').hostname or ''
    known = {'localhost', '127.0.0.1', '::1', self.server.host}
    if self.server.host in ('0.0.0.0', '::'):
      known.add(name)  # whoever binds to all names knows no name
    same = origin is None or urllib.parse.urlsplit(origin).netloc == host
    if name in known and same:
      return True
    self._refuse(403, 'asked for by another site')
    return False

  def _refuse(self, status: int, why: str) -> None:
    # What is left of the body is not read: the connection ends.
    self.close_connection = True
    self._say(status, {'error': why})

  def _say(self, status: int, content: Any) -> None:
    self._send(status, json.dumps(content).encode(), 'application/json')

  def _send(
    self, status: int, content: bytes, kind: str, policy: str = _OF_REPORT
  ) -> None:
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('Content-Security-Policy', policy)
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.send_header('Referrer-Policy', 'no-referrer')
    self.send_header('Cache-Control', 'no-store')
    if self.close_connection:
      self.send_header('Connection', 'close')
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """Says nothing: names of files are nobody's business."""
