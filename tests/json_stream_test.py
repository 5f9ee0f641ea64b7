"""A JSON document is read piece by piece, and is what it is as a whole."""

import io
import json
import tracemalloc

import pytest

from data_pipeline import json_stream

TEXT = (
  ' {"a": 12.5e3, "b" : [ ], "c": {"d": [1, "}]\\"ü", {"e": null}], "f": {}}}\n'
)


def walk(stream):
  """All that the document above says, taken as it comes."""
  known = {}
  for key in stream.keys():
    if key == 'b':
      known[key] = list(stream.items())
    elif key == 'c':
      known[key] = inner = {}
      for name in stream.keys():
        inner[name] = (
          list(stream.items()) if name == 'd' else dict.fromkeys(stream.keys())
        )
    else:
      known[key] = stream.value()
  stream.end()
  return known


@pytest.mark.parametrize('chunk', [1, 2, 3, 7, 1000])
def test_however_much_is_read_at_once_it_says_the_same(chunk):
  stream = json_stream.JsonStream(io.StringIO(TEXT), chunk)
  assert walk(stream) == json.loads(TEXT)


@pytest.mark.parametrize('length', [*range(len(TEXT.rstrip())), None])
def test_a_text_that_is_cut_off_or_goes_on_is_no_json(length):
  text = TEXT.rstrip()[:length] if length is not None else f'{TEXT}x'
  with pytest.raises(json.JSONDecodeError):
    walk(json_stream.JsonStream(io.StringIO(text), 4))


@pytest.mark.parametrize('text', ['3', '{3: 4}', '{"b" 4}', '{"b": {}}'])
def test_another_kind_of_value_than_is_asked_for_is_refused(text):
  with pytest.raises(json.JSONDecodeError, match='expected'):
    walk(json_stream.JsonStream(io.StringIO(text)))


def test_of_a_long_list_one_item_is_held(tmp_path):
  path = tmp_path / 'list.json'
  path.write_text(json.dumps([{'name': f'{i:090}'} for i in range(20_000)]))
  assert path.stat().st_size > 2_000_000
  tracemalloc.start()
  try:
    with path.open() as file:
      count = sum(1 for _ in json_stream.JsonStream(file).items())
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert count == 20_000
  assert peak < 600_000  # bytes


@pytest.mark.parametrize('chunk', [1, 3, 2**16])
@pytest.mark.parametrize('text', ['[1x]', '  [1x]', '[ 1x]'])
def test_nothing_is_skipped_behind_a_number(text, chunk):
  with pytest.raises(json.JSONDecodeError):
    list(json_stream.JsonStream(io.StringIO(text), chunk).items())
