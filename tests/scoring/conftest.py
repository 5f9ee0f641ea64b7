"""The page's server, for its tests over HTTP and in a browser."""

import threading

import pytest

from stormer_jax.scoring import app, jobs


@pytest.fixture
def start_server():
  """Starts servers of a detector, with limits; ends them."""
  started = []

  def start(ready, **limits):
    server = app.Server(jobs.Jobs(ready, jobs.Limits(**limits)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    started.append((server, thread))
    return server

  yield start
  for server, thread in started:
    server.shutdown()
    thread.join()
    server.close()
