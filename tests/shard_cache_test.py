"""Copies of shards: made once, whole, within their bound, by any process."""

from concurrent import futures
import dataclasses
import multiprocessing
import pathlib
import pickle
import threading

import pytest

from data_pipeline import shard_cache, shards


def write_shards(folder: pathlib.Path, name: str, count: int, num_bytes: int):
  """Files of a data set, all different, and what describes them."""
  folder.mkdir(parents=True, exist_ok=True)
  written = []
  for i in range(count):
    path = folder / f'{name}-{i}'
    path.write_bytes(bytes([len(name), i]) * (num_bytes // 2))
    written.append(shards.Shard.of_file(path, 1))
  return written


def copies(folder: pathlib.Path) -> list[str]:
  """Names of the copies, those under way included."""
  files = folder.glob('*/*')
  return sorted(path.name for path in files if path.name != 'in_use')


@pytest.fixture
def cache(tmp_path) -> shard_cache.ShardCache:
  """Of room for ten shards of 1,000 bytes."""
  return shard_cache.ShardCache(tmp_path / 'cache', 10_000)


def test_a_shard_is_copied_once_and_then_read_from_its_copy(tmp_path, cache):
  (shard,) = write_shards(tmp_path, 'far', 1, 1000)
  source = tmp_path / shard.name
  held = cache.hold([shard])
  copy = held.fetch(source, shard)
  assert copy.is_relative_to(cache.folder)
  assert copy.read_bytes() == source.read_bytes()
  source.unlink()  # so it is not read again, in this process or another
  assert held.fetch(source, shard) == copy
  assert cache.hold([shard]).fetch(source, shard) == copy
  assert copies(cache.folder) == [shard.name]


@pytest.mark.parametrize('change', [b'x', b''])
def test_a_shard_of_other_bytes_is_refused_and_leaves_nothing(
  tmp_path, cache, change
):
  (shard,) = write_shards(tmp_path, 'far', 1, 1000)
  source = tmp_path / shard.name
  source.write_bytes(source.read_bytes()[:-1] + change)
  with pytest.raises(
    ValueError, match=rf'far-0: its SHA-256 is .*{shard.sha256}'
  ):
    cache.hold([shard]).fetch(source, shard)
  assert copies(cache.folder) == []


def test_what_does_not_fit_is_read_where_it_lies(tmp_path, cache):
  written = write_shards(tmp_path, 'far', 12, 1000)
  held = cache.hold(written)
  found = [held.fetch(tmp_path / shard.name, shard) for shard in written]
  assert [path.parent == tmp_path for path in found] == [False] * 10 + [
    True
  ] * 2
  assert len(copies(cache.folder)) == 10


def test_room_is_made_of_the_data_set_that_is_unused_longest(tmp_path, cache):
  kept = {}
  for name in ('first', 'second', 'used'):
    written = write_shards(tmp_path, name, 3, 1000)
    kept[name] = cache.hold(written)
    for shard in written:
      kept[name].fetch(tmp_path / shard.name, shard)
  # 'first' was begun first, but is read again after 'second'.
  del kept['first'], kept['second']
  written = write_shards(tmp_path, 'first', 3, 1000)
  cache.hold(written)
  (large,) = write_shards(tmp_path, 'large', 1, 4000)
  copy = cache.hold([large]).fetch(tmp_path / large.name, large)
  assert copy.read_bytes() == (tmp_path / large.name).read_bytes()
  left = {name.split('-')[0] for name in copies(cache.folder)}
  assert left == {'first', 'used', 'large'}


def test_what_is_in_use_is_not_removed(tmp_path, cache):
  written = write_shards(tmp_path, 'used', 10, 1000)
  held = pickle.loads(pickle.dumps(cache.hold(written)))  # as in a worker
  for shard in written:
    held.fetch(tmp_path / shard.name, shard)
  (other,) = write_shards(tmp_path, 'other', 1, 1000)
  source = tmp_path / other.name
  assert cache.hold([other]).fetch(source, other) == source
  assert len(copies(cache.folder)) == 10


def test_a_copy_that_was_interrupted_is_made_anew(tmp_path, cache):
  (shard,) = write_shards(tmp_path, 'far', 1, 1000)
  held = cache.hold([shard])
  copy = held.fetch(tmp_path / shard.name, shard)
  copy.write_bytes(b'half' * 250)
  copy.rename(copy.with_name(f'{shard.name}.partial'))  # as a kill leaves it
  assert held.fetch(tmp_path / shard.name, shard) == copy
  assert copy.read_bytes() == (tmp_path / shard.name).read_bytes()
  assert copies(cache.folder) == [shard.name]


class CountedPath(type(pathlib.Path())):
  """A path that counts how often it is opened."""

  opened: list = []  # noqa: RUF012 of all paths together

  def open(self, *arguments, **options):
    CountedPath.opened.append(self)
    return super().open(*arguments, **options)


def test_threads_that_want_the_same_shard_wait_for_one_copy(tmp_path, cache):
  written = write_shards(tmp_path, 'far', 4, 2000)
  held = cache.hold(written)
  CountedPath.opened.clear()
  start = threading.Barrier(8)

  def fetch(i):
    start.wait()
    shard = written[i % 4]
    return held.fetch(CountedPath(tmp_path / shard.name), shard)

  with futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(fetch, range(8)))
  assert len(CountedPath.opened) == 4
  assert {path.parent for path in found} == {found[0].parent}


def fetch_all(cache, folder, written):
  """What a process of a run does; returns what it read."""
  held = cache.hold(written)
  return [held.fetch(folder / s.name, s).read_bytes() for s in written]


def test_processes_share_the_copies_and_the_bound(tmp_path, cache):
  cache = dataclasses.replace(cache, max_bytes=25_000)
  sets = [write_shards(tmp_path, n, 10, 1000) for n in ('one', 'another')]
  sets.append(write_shards(tmp_path, 'the third', 10, 1000))
  context = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(3, context) as pool:
    found = [
      pool.submit(fetch_all, cache, tmp_path, sets[i % 3]) for i in range(9)
    ]
    for i, future in enumerate(found):
      expected = [(tmp_path / s.name).read_bytes() for s in sets[i % 3]]
      assert future.result() == expected
  total = sum(path.stat().st_size for path in cache.folder.glob('*/*'))
  assert 20_000 <= total <= 25_000
