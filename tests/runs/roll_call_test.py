"""Who is there, who is missing, and who took whose number."""

import concurrent.futures
import socket
import threading
import time

import pytest

from stormer_jax.runs import roll_call


@pytest.fixture
def port() -> int:
  """A port that was free a moment ago."""
  with socket.create_server(('localhost', 0)) as server:
    return server.getsockname()[1]


@pytest.fixture
def call(port):
  """Starts the roll call of one process of a job in a thread."""
  with concurrent.futures.ThreadPoolExecutor(8) as pool:

    def start(index, count, seconds=10.0):
      return pool.submit(
        roll_call.wait_for_all,
        f'localhost:{port}',
        index,
        count,
        seconds=seconds,
        source='JOB',
      )

    yield start


def say(port, text):
  """Says something to process 0, as soon as it listens."""
  for _ in range(100):
    try:
      connection = socket.create_connection(('localhost', port), timeout=5)
    except OSError:
      time.sleep(0.05)
      continue
    connection.sendall(text)
    return connection
  raise AssertionError(f'nobody listens at port {port}')


def met(calls):
  """The names of the connections of each, which it hangs up."""
  names = []
  for c in calls:
    connections = c.result()
    names.append([name for _, name in connections])
    for connection, _ in connections:
      connection.close()
  return names


def test_all_return_once_all_are_there(call):
  calls = [call(index, 4) for index in (3, 1, 0, 2)]
  *others, zero = sorted(met(calls), key=len)
  assert [len(names) for names in others] == [1, 1, 1]
  assert [name.split(',')[0] for name in zero] == [
    f'process {i}' for i in (1, 2, 3)
  ]


def test_nobody_returns_before_the_last_one_came(call):
  early = [call(index, 3) for index in (0, 1)]
  done, _ = concurrent.futures.wait(early, timeout=0.5)
  assert not done
  assert len(met([call(2, 3), *early])) == 3


def test_the_port_is_free_again_when_all_are_there(call, port):
  calls = [call(index, 2) for index in (0, 1)]
  connections = [pair for c in calls for pair in c.result()]
  # Also while they stay connected, as they do for the whole run.
  socket.create_server(('', port)).close()
  for connection, _ in connections:
    connection.close()


def test_the_missing_ones_are_named_to_all(call):
  calls = [call(0, 5, seconds=1.0), call(2, 5), call(4, 5)]
  for c in calls:
    with pytest.raises(ValueError, match=r'JOB: .*2 of 5 .*number 1, 3;'):
      c.result()


def test_without_process_0_the_others_name_its_address(call, port):
  match = rf'process 1 has no word from process 0 .*localhost:{port}'
  with pytest.raises(ValueError, match=match):
    call(1, 2, seconds=0.5).result()


def test_a_name_that_does_not_resolve_is_said():
  with pytest.raises(ValueError, match=r'no-such-host\.invalid:1'):
    roll_call.wait_for_all(
      'no-such-host.invalid:1', 1, 2, seconds=0.5, source='JOB'
    )


def test_two_processes_of_one_number_are_refused(call):
  calls = [call(0, 3), call(1, 3), call(1, 3)]
  for c in calls:
    with pytest.raises(ValueError, match='calls itself number 1, and so does'):
      c.result()


def test_the_number_of_process_0_and_those_beyond_are_refused(call, port):
  zero = call(0, 2)
  connection = say(port, b'{"index": 0, "count": 2, "name": "impostor"}\n')
  with pytest.raises(ValueError, match=r'impostor .* calls itself number 0'):
    zero.result()
  assert b'impostor' in connection.recv(1000)
  connection.close()


def test_processes_that_count_otherwise_are_refused(call):
  calls = [call(0, 2), call(1, 3)]
  for c in calls:
    with pytest.raises(ValueError, match=r'counts 3 .* process 0 counts 2'):
      c.result()


@pytest.mark.parametrize('text', [b'GET / HTTP/1.1\r\n\r\n', b'{}\n', b'7\n'])
def test_strangers_are_sent_off(call, port, text):
  zero = call(0, 2)
  stranger = say(port, text)
  assert stranger.recv(100) == b''
  stranger.close()
  one = call(1, 2)
  assert len(met([zero, one])) == 2


@pytest.mark.parametrize('order', [(1, 2), (2, 1)])
def test_a_process_may_be_started_anew_before_all_are_there(call, port, order):
  zero = call(0, 3)
  say(port, b'{"index": 1, "count": 3, "name": "the killed one"}\n').close()
  first = call(order[0], 3)
  concurrent.futures.wait([first], timeout=0.3)
  assert len(met([zero, first, call(order[1], 3)])) == 3


def test_a_port_that_another_program_holds_is_named(call, port, monkeypatch):
  monkeypatch.setattr(roll_call, '_PORT_SECONDS', 0.3)
  with socket.create_server(('', port)):
    with pytest.raises(ValueError, match=f'cannot listen at port {port}'):
      call(0, 2).result()


def test_a_port_that_becomes_free_is_taken(call, port):
  holder = socket.create_server(('', port))
  threading.Timer(0.5, holder.close).start()
  calls = [call(0, 2), call(1, 2)]
  assert len(met(calls)) == 2
