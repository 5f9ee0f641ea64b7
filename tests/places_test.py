"""Records of a bucket are those of a folder, or are refused with a reason."""

import http.server
import json
import pathlib
import subprocess
import sys
import threading
import urllib.parse

import pytest
from records_test import write_example

from data_pipeline import places

ROOT = pathlib.Path(__file__).parent.parent
# In a process of its own: the libraries read their environment once.
READ = """
import pathlib, sys
import numpy as np
from data_pipeline import records, shard_cache
here, cache = sys.argv[1:]
cached = shard_cache.ShardCache(pathlib.Path(cache), 2**30)
ours = records.open_records(here, 'mine', 'consecutive', 'train')
for options in ((), (cached,)):
  far = records.open_records(
    'gs://bucket/data', 'mine', 'consecutive', 'train', *options
  )
  for index in range(0, len(ours), 3):
    for one, other in zip(ours.read(index, [0, 2]), far.read(index, [0, 2])):
      np.testing.assert_array_equal(one, other)
try:
  records.open_records('gs://bucket/data', 'none', 'consecutive', 'train')
except ValueError as error:
  print(error)
"""


class Bucket(http.server.BaseHTTPRequestHandler):
  """As much of Cloud Storage as its readers ask for, over a folder."""

  folder = pathlib.Path()

  def log_message(self, *_):
    pass

  def do_GET(self):
    address = urllib.parse.urlsplit(self.path)
    query = urllib.parse.parse_qs(address.query)
    _, of_api, rest = address.path.partition('/b/bucket/o')
    if of_api and not rest.strip('/'):
      prefix = query.get('prefix', [''])[0]
      found = [
        self.described(path)
        for path in sorted(self.folder.rglob('*'))
        if path.is_file() and self.name(path).startswith(prefix)
      ]
      self.answer(200, json.dumps({'items': found}).encode())
      return
    name = rest if of_api else address.path.removeprefix('/bucket')
    path = self.folder / urllib.parse.unquote(name).strip('/')
    if not path.is_file():
      self.answer(404, b'{}')
    elif of_api and query.get('alt') != ['media']:
      self.answer(200, json.dumps(self.described(path)).encode())
    else:
      content = path.read_bytes()
      asked = self.headers.get('Range')
      if asked is None:
        self.answer(200, content)
        return
      first, last = asked.removeprefix('bytes=').split('-')
      start = int(first) if first else max(0, len(content) - int(last))
      end = int(last) + 1 if first and last else len(content)
      end = min(end, len(content))
      self.answer(
        206,
        content[start:end],
        {'Content-Range': f'bytes {start}-{end - 1}/{len(content)}'},
      )

  def name(self, path):
    return path.relative_to(self.folder).as_posix()

  def described(self, path):
    size = str(path.stat().st_size)
    name = self.name(path)
    return {
      'kind': 'storage#object',
      'name': name,
      'bucket': 'bucket',
      'size': size,
      'generation': '1',
      'updated': '2026-01-01T00:00:00Z',
    }

  def answer(self, status, content, headers=()):
    self.send_response(status)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('Content-Type', 'application/json')
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.end_headers()
    try:
      self.wfile.write(content)
    except (BrokenPipeError, ConnectionResetError):
      pass  # a reader hangs up when it has its record


@pytest.mark.extra
def test_records_of_a_bucket_are_those_of_the_folder(tmp_path, monkeypatch):
  pytest.importorskip('gcsfs')
  write_example(tmp_path / 'data')
  bucket = type('Bucket', (Bucket,), {'folder': tmp_path})
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), bucket)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  url = f'http://127.0.0.1:{server.server_port}'
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', url)
  monkeypatch.setenv('CLOUD_STORAGE_EMULATOR_ENDPOINT', url)
  try:
    said = subprocess.run(
      [sys.executable, '-c', READ, tmp_path / 'data', tmp_path / 'cache'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=120,
    )
  finally:
    server.shutdown()
    server.server_close()
  assert said.returncode == 0, said.stderr
  assert 'no prepared dataset in gs://bucket/data/none' in said.stdout


@pytest.mark.parametrize('address', ['s3://bucket/data', 'hdfs://a/b'])
def test_an_address_that_cannot_be_read_is_refused(address):
  with pytest.raises(ValueError, match=r'only gs:// .*mount the bucket'):
    places.path(address)


def test_a_bucket_without_the_extra_is_refused_with_the_command(monkeypatch):
  import fsspec

  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(fsspec, 'get_filesystem_class', missing)
  with pytest.raises(ValueError, match=r"stormer-jax\[gcs\]'; or mount"):
    places.path('gs://bucket/data')
