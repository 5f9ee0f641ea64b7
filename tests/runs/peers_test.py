"""Who is lost is noticed, who said farewell is not."""

import socket
import threading

import pytest

from stormer_jax.runs import peers


@pytest.fixture
def pair():
  """The two ends of a connection on loopback."""
  with socket.create_server(('localhost', 0)) as server:
    ours = socket.create_connection(server.getsockname())
    theirs, _ = server.accept()
  with ours, theirs:
    yield ours, theirs


def watch(connection):
  lost = threading.Event()
  messages = []

  def on_loss(message):
    messages.append(message)
    lost.set()

  return (
    peers.Peers([(connection, 'process 1, at home')], on_loss=on_loss),
    messages,
    lost,
  )


def test_a_process_that_is_gone_is_named(pair):
  ours, theirs = pair
  _, messages, lost = watch(ours)
  theirs.close()
  assert lost.wait(10)
  assert 'failed or is gone (process 1, at home)' in messages[0]


def test_a_process_that_said_farewell_may_go(pair):
  ours, theirs = pair
  _, messages, lost = watch(ours)
  other = peers.Peers([(theirs, 'process 0')], on_loss=messages.append)
  other.leave()
  theirs.close()
  assert not lost.wait(0.5)
  assert not messages
