"""Notices within a second that another process of the job is gone.

Enter: the connections over which the processes met (`roll_call`), left open.
Leave: nothing while all goes well. A process that is killed, or ends without a
farewell, closes its connections; the others then say so and end. JAX would
notice too, after a heartbeat or in the middle of a collective, and would end
them from C++ with a stack trace.

Process 0 is connected to every other process, and the others to process 0, so
that whoever is lost, process 0 ends, and with it all.
"""

from collections.abc import Callable, Sequence
import contextlib
import os
import selectors
import socket
import sys
import threading

_FAREWELL = b'.'


class Peers:
  """Watches the other processes in a thread of its own."""

  def __init__(
    self,
    connections: Sequence[tuple[socket.socket, str]],
    *,
    on_loss: Callable[[str], None] | None = None,
  ):
    """Begins to watch.

    Args:
      connections: To other processes, with their names.
      on_loss: Called with the message; the default prints it to stderr and
        ends the process with status 143, by which launchers know that the
        command is to be started again.
    """
    self._connections = list(connections)
    self._on_loss = on_loss or _end_process
    self._selector = selectors.DefaultSelector()
    for connection, name in self._connections:
      # Here and not in the thread, which may come after a quick farewell.
      self._selector.register(connection, selectors.EVENT_READ, name)
      connection.settimeout(None)
      # A machine that loses its power closes nothing: ask it now and then.
      connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
      for option, seconds in (
        ('TCP_KEEPIDLE', 10),
        ('TCP_KEEPINTVL', 5),
        ('TCP_KEEPCNT', 4),
      ):
        if hasattr(socket, option):
          connection.setsockopt(
            socket.IPPROTO_TCP, getattr(socket, option), seconds
          )
    if self._connections:
      threading.Thread(target=self._watch, daemon=True).start()

  def leave(self) -> None:
    """Says farewell: from now on this process may end."""
    for connection, _ in self._connections:
      with contextlib.suppress(OSError):
        connection.sendall(_FAREWELL)

  def _watch(self) -> None:
    with self._selector as selector:
      while selector.get_map():
        for key, _ in selector.select():
          assert isinstance(key.fileobj, socket.socket)
          try:
            said = key.fileobj.recv(1)
          except OSError:
            said = b''
          ours = key.fileobj.fileno() < 0  # closed at this end
          selector.unregister(key.fd)
          if said != _FAREWELL and not ours:
            self._on_loss(
              f'another process of this run failed or is gone ({key.data}); see'
              ' what it said, and start the same command again on every host:'
              ' it continues from the last checkpoint'
            )


def _end_process(message: str) -> None:
  print(f'error: {message}', file=sys.stderr, flush=True)
  os._exit(143)
