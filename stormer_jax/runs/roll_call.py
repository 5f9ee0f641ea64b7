"""Waits until every process of a job is there, before JAX looks for them.

Enter: the address of process 0, an index and a count. Leave: the connections
between process 0 and the others, once all have called (`peers` goes on to use
them); or a ValueError that says who is missing, or who took whose number. JAX
by itself would end the process from C++ with a stack trace.

Process 0 listens at the very port that JAX will use; the others say who they
are, in one line of JSON, and wait for its one line: 'go', or what is wrong.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import socket
import time

_GO = 'go'
_PORT_SECONDS = 30.0  # for a predecessor on this machine to let go of its port
_HELLO_SECONDS = 5.0
_RETRY_SECONDS = 0.2

# A connection to another process, and its name for messages.
Connection = tuple[socket.socket, str]
_Present = dict[int, Connection]  # by index


def wait_for_all(
  address: str, index: int, count: int, *, seconds: float, source: str
) -> list[Connection]:
  """Returns when all processes of the job have called.

  Args:
    address: 'host:port' of process 0; the port is free there.
    index: Of this process, from 0.
    count: Processes of the job.
    seconds: How long to wait for the others.
    source: What names the job, for messages.

  Returns:
    Process 0: its connections to all others. The others: that to process 0.

  Raises:
    ValueError: If one is missing, comes twice or counts otherwise, if process
      0 cannot be reached or its port is taken.
  """
  host, _, port = address.rpartition(':')
  deadline = time.monotonic() + seconds
  try:
    if index == 0:
      return _receive_all(int(port), count, deadline)
    return [_report(host.strip('[]'), int(port), index, count, deadline)]
  except TimeoutError as error:
    raise ValueError(
      f'{source}: after {seconds:.0f} s, {error} (process 0 is at {address})'
    ) from None
  except ValueError as error:
    raise ValueError(f'{source}: {error}') from None


def _receive_all(port: int, count: int, deadline: float) -> list[Connection]:
  present: _Present = {}
  answer = 'process 0 stopped'
  try:
    with _listen(port, deadline) as listener:
      while len(present) < count - 1:
        _receive_one(listener, count, present, deadline)
        _drop_the_gone(present)
    # The port is free again before anybody is told to look for JAX there.
    answer = _GO
  except (TimeoutError, ValueError) as error:
    answer = f'{error}'
    raise
  finally:
    for connection, _ in present.values():
      _answer(connection, answer)
  return [
    (connection, f'process {index}, {name}')
    for index, (connection, name) in sorted(present.items())
  ]


@contextlib.contextmanager
def _listen(port: int, deadline: float) -> Iterator[socket.socket]:
  patience = min(deadline, time.monotonic() + _PORT_SECONDS)
  while True:
    try:
      if socket.has_dualstack_ipv6():
        listener = socket.create_server(
          ('', port), family=socket.AF_INET6, dualstack_ipv6=True
        )
      else:
        listener = socket.create_server(('', port))
      break
    except OSError as error:
      if time.monotonic() > patience:
        raise ValueError(
          f'process 0 cannot listen at port {port} ({error}); end the program'
          ' that holds it, or choose another port in JAX_COORDINATOR_ADDRESS or'
          ' JAX_COORDINATOR_PORT'
        ) from error
    time.sleep(_RETRY_SECONDS)
  with listener:
    yield listener


def _receive_one(
  listener: socket.socket, count: int, present: _Present, deadline: float
) -> None:
  """Adds one process to `present`; what is no process of ours is sent off."""
  try:
    listener.settimeout(max(deadline - time.monotonic(), 0.001))
    connection, (address, *_) = listener.accept()
  except TimeoutError:
    missing = sorted({*range(1, count)} - {*present})
    raise TimeoutError(
      f'{len(missing)} of {count} processes have not come: number'
      f' {", ".join(map(str, missing))}; start them all, or correct the count'
    ) from None
  try:
    connection.settimeout(_HELLO_SECONDS)
    with connection.makefile('rb') as lines:
      hello = json.loads(lines.readline(1000))
    index, theirs = int(hello['index']), int(hello['count'])
    name = f'{hello["name"]} at {address}'
  except (OSError, ValueError, KeyError, TypeError):
    connection.close()
    return
  _drop_the_gone(present)
  if theirs == count and 0 < index < count and index not in present:
    present[index] = connection, name
    return
  if theirs != count:
    problem = f'counts {theirs} processes, and process 0 counts {count}'
  else:
    holder = present[index][1] if index in present else _own_name()
    problem = f'calls itself number {index}, and so does {holder}'
  problem = f'{name} {problem}; give all one count, and each its own number'
  _answer(connection, problem)
  raise ValueError(problem)


def _answer(connection: socket.socket, text: str) -> None:
  """Answers; only who may go keeps the connection."""
  with contextlib.suppress(OSError):
    connection.sendall(f'{text}\n'.encode())
  if text != _GO:
    connection.close()


def _drop_the_gone(present: _Present) -> None:
  """Who ended while waiting is missing again, and may be started anew."""
  for index in [i for i, (there, _) in present.items() if _is_gone(there)]:
    present.pop(index)[0].close()


def _is_gone(connection: socket.socket) -> bool:
  """Whether the other end, which has nothing more to say, has hung up."""
  connection.setblocking(False)
  try:
    return not connection.recv(1, socket.MSG_PEEK)
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    connection.setblocking(True)


def _report(
  host: str, port: int, index: int, count: int, deadline: float
) -> Connection:
  hello = {'index': index, 'count': count, 'name': _own_name()}
  line = json.dumps(hello).encode() + b'\n'
  problem = 'nobody answered'
  while (left := deadline - time.monotonic()) > 0:
    try:
      connection = socket.create_connection((host, port), timeout=left)
      try:
        connection.sendall(line)
        answer = _read_line(connection)
      except OSError:
        connection.close()
        raise
      if answer == _GO:
        return connection, f'process 0 at {host}'
      connection.close()
      if answer:
        raise ValueError(answer)
    except OSError as error:
      problem = str(error)
    time.sleep(_RETRY_SECONDS)
  raise TimeoutError(
    f'process {index} has no word from process 0 ({problem}); check that'
    ' process 0 runs, that its name is known here, that the port is open'
  )


def _read_line(connection: socket.socket) -> str:
  """One line and not a byte more: what follows is for `peers`."""
  line = b''
  while not line.endswith(b'\n') and len(line) < 2000:
    byte = connection.recv(1)
    if not byte:
      break
    line += byte
  return line.decode(errors='replace').strip()


def _own_name() -> str:
  return f'process {os.getpid()} on {socket.gethostname()}'
