"""Whatever a file holds, the shipped detector ends in a state."""

import collections
import contextlib
import os
import pathlib
import random
import socket
import tempfile
import zipfile

import cv2
import made_videos
import numpy as np
import pytest

import stormer_jax

_STATES = {'ok', 'no_face', 'too_short', 'unreadable'}
# Container -> codec that it holds: six of each.
_KINDS = {
  'a.mp4': 'libx264',
  'a.mkv': 'libx264',
  'a.avi': 'mpeg4',
  'a.webm': 'libvpx',
  'a.mov': 'libx265',
  'a.ts': 'mpeg2video',
}
_EACH = 80  # damaged copies of a kind


@pytest.fixture(scope='module')
def ready():
  return stormer_jax.Detector.load()


@pytest.fixture(scope='module')
def states():
  """Counts states; `pytest -s` shows them."""
  found = collections.Counter()
  yield found
  print(f'\n{sum(found.values())} files: {dict(found)}')


@pytest.fixture
def place(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder to work in; whatever is written elsewhere is found below."""
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  for name in 'temporary', 'here', 'files':
    (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  return tmp_path / 'files'


def assert_nothing_left(place: pathlib.Path, *names: str) -> None:
  assert sorted(path.name for path in place.iterdir()) == sorted(names)
  for name in 'temporary', 'here':
    assert not list((place.parent / name).iterdir())


def face(number: int) -> np.ndarray:
  """The still face of tests/golden, panned 1 px a frame."""
  golden = pathlib.Path(__file__).parents[1] / 'golden' / 'face_carphone.png'
  still = cv2.imread(str(golden), cv2.IMREAD_COLOR_RGB)
  return np.ascontiguousarray(still[:, number : number + 160])


def damage(whole: bytes, number: int, rng: random.Random) -> bytes:
  """Cuts, takes out, puts in, overwrites, zeroes or moves parts."""
  content = bytearray(whole)
  begin = rng.randrange(len(content))
  end = begin + rng.randrange(4000)
  match number % 8:
    case 0:
      del content[begin:]
    case 1:
      del content[begin:end]
    case 2:
      content[begin:begin] = rng.randbytes(end - begin)
    case 3:
      for _ in range(rng.randrange(1, 200)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    case 4:
      content[begin:end] = bytes(len(content[begin:end]))
    case 5:
      content = content[begin:] + content[:begin]
    case 6:  # the head, where sizes and names of codecs stand
      for _ in range(rng.randrange(1, 30)):
        content[rng.randrange(min(600, len(content)))] = rng.randrange(256)
    case 7:
      content *= 2
      del content[begin : begin + len(whole) // 2]
  return bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize('name', _KINDS)
def test_damaged_videos_end_in_a_state_and_leave_nothing(
  ready, states, place, name
):
  quiet = {'x265-params': 'log-level=none'}  # others do not know it
  made_videos.write(
    place / name,
    [face(t) for t in range(16)],
    _KINDS[name],
    options=quiet if name == 'a.mov' else {},
  )
  whole = (place / name).read_bytes()
  assert ready.predict(place / name).status == 'ok'
  rng = random.Random(name)
  for number in range(_EACH):
    content = damage(whole, number, rng)
    (place / name).write_bytes(content)
    said = ready.predict(place / name)
    assert said.status in _STATES and said.to_json()
    states[said.status] += 1
  assert_nothing_left(place, name)


def _broken(folder: pathlib.Path) -> None:
  """Lays out what is no video, under the name of one."""
  write = {
    'empty.mp4': b'',
    'byte.mp4': b'\0',
    'text.mp4': b'no film at all\n' * 100,
    'page.mp4': b'<!doctype html><html><body>404</body></html>',
    'pointer.mp4': b'version https://git-lfs.github.com/spec/v1\noid sha256:',
    'noise.mp4': random.Random(0).randbytes(100_000),
    'zeros.mp4': bytes(100_000),
    'list.mp4': b'ffconcat version 1.0\nfile /etc/passwd\n',
    'stream.m3u8': b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n',
    'head.mp4': b'\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41',
    'huge.mp4': b'\0\0\0\x01mdat' + b'\xff' * 8 + bytes(100),
    'half.png': cv2.imencode('.png', face(0))[1].tobytes()[:500],
    'drawing.svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    'sound.wav': b'RIFF\x24\x10\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80'
    b'\x3e\0\0\2\0\x10\0data\0\x10\0\0' + bytes(4096),
  }
  for name, content in write.items():
    (folder / name).write_bytes(content)
  with zipfile.ZipFile(folder / 'archive.mp4', 'w') as archive:
    archive.writestr('a.txt', 'text')
  (folder / 'folder.mp4').mkdir()
  (folder / 'images').mkdir()
  for number in range(4):
    (folder / 'images' / f'{number}.png').write_bytes(b'no image')
  os.mkfifo(folder / 'pipe.mp4')
  (folder / 'device.mp4').symlink_to('/dev/zero')
  # By its name alone: 107 bytes are the most that it may have.
  with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(folder):
    made.bind('socket.mp4')


def test_what_is_no_video_is_unreadable_and_leaves_nothing(
  ready, states, place
):
  _broken(place)
  names = [path.name for path in place.iterdir()]
  assert len(names) == 20
  for name in names:
    said = ready.predict(place / name)
    assert said.status == 'unreadable' and said.message, name
    states[said.status] += 1
  assert_nothing_left(place, *names)
