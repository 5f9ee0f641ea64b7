"""What a decoder says is heard by who asked it, whoever else decodes."""

from concurrent import futures

from av import logging as av_logging
import pytest

from data_pipeline.faces import decoder


def say(text: str) -> None:
  av_logging.log(av_logging.ERROR, 'h264', text)


@pytest.fixture
def other_thread():
  with futures.ThreadPoolExecutor(1) as pool:
    yield lambda call: pool.submit(call).result()


def test_who_stops_listening_does_not_stop_another(other_thread):
  def listen() -> list[str]:
    with decoder._decoder_messages() as messages:
      say('theirs')
    return messages

  with decoder._decoder_messages() as messages:
    assert other_thread(listen) == ['theirs']
    say('ours')
    say('ours')  # a second block of a frame may be guessed like the first
  assert messages == ['ours', 'ours']


def test_what_another_thread_says_is_neither_heard_nor_printed(
  other_thread, caplog
):
  with decoder._decoder_messages() as messages:
    other_thread(lambda: say('of no interest'))
  assert messages == [] and caplog.records == []


def test_pyav_is_silent_when_nobody_listens(caplog):
  with pytest.raises(ZeroDivisionError), decoder._decoder_messages():
    raise ZeroDivisionError
  say('nobody listens')
  assert av_logging.get_level() is None and av_logging.get_skip_repeated()
  assert caplog.records == []
