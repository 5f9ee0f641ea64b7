"""The JSON of an answer is what its schema says, field by field."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from stormer_jax.scoring import answer

_ROOT = pathlib.Path(__file__).parent.parent.parent
SCHEMA = json.loads((_ROOT / 'docs' / 'answer.schema.json').read_text())
_TYPES = {
  'object': dict,
  'array': list,
  'string': str,
  'integer': int,
  'number': (int, float),
  'null': type(None),
  'boolean': bool,
}
# Keywords that speak of values of a kind alone.
_ABOUT = {
  **dict.fromkeys(('properties', 'required', 'additionalProperties'), dict),
  **dict.fromkeys(('items', 'minItems', 'maxItems'), list),
  **dict.fromkeys(('minimum', 'maximum'), (int, float)),
}
_IGNORED = ('$schema', 'title', 'description', '$defs')


def problems(value, schema, place='answer'):
  """What in a value the schema does not allow; knows what the schema uses."""
  found = []
  for keyword, rule in schema.items():
    if keyword in _IGNORED or not isinstance(
      value, _ABOUT.get(keyword, object)
    ):
      continue
    if keyword == '$ref':
      found += problems(value, SCHEMA['$defs'][rule.split('/')[-1]], place)
    elif keyword == 'anyOf':
      if all(problems(value, one, place) for one in rule):
        found.append(f'{place} is none of {rule}')
    elif keyword == 'type':
      allowed = [_TYPES[n] for n in ([rule] if isinstance(rule, str) else rule)]
      is_flag = isinstance(value, bool) and rule != 'boolean'
      if is_flag or not any(isinstance(value, kind) for kind in allowed):
        found.append(f'{place} is {value!r}, not {rule}')
    elif keyword == 'const':
      found += [f'{place} is {value!r}'] * (value != rule)
    elif keyword == 'enum':
      found += [f'{place} is {value!r}'] * (value not in rule)
    elif keyword == 'properties':
      for name in value.keys() & rule.keys():
        found += problems(value[name], rule[name], f'{place}.{name}')
    elif keyword == 'required':
      found += [f'{place} lacks {name}' for name in rule if name not in value]
    elif keyword == 'additionalProperties':
      others = value.keys() - schema.get('properties', {}).keys()
      for name in others:
        if rule is False:
          found.append(f'{place} has {name}')
        else:
          found += problems(value[name], rule, f'{place}.{name}')
    elif keyword == 'items':
      for i, item in enumerate(value):
        found += problems(item, rule, f'{place}[{i}]')
    elif keyword in ('minItems', 'maxItems'):
      over = len(value) - rule
      wrong = over < 0 if keyword == 'minItems' else over > 0
      found += [f'{place} has {len(value)} items'] * wrong
    elif keyword in ('minimum', 'maximum'):
      wrong = value < rule if keyword == 'minimum' else value > rule
      found += [f'{place} is {value}'] * wrong
    else:
      raise AssertionError(f'the schema uses {keyword}, which is not checked')
  return found


@pytest.fixture
def said():
  """An answer with something in every field."""
  return answer.Answer(
    video='a.mp4',
    status='ok',
    sentence='Likely fake: the face looks forged.',
    message='',
    notes=('interlaced, deinterlaced',),
    provenance={'step': 3},
    calibration='calibrated',
    answer='likely fake',
    logit=0.5,
    score=0.62,
    probability=0.9,
    interval=(0.8, 0.95),
    uncertain=(0.3, 0.6),
    segments=(answer.Segment(1, 0.0, 0.3, 1, 0.5, 0.62, 0.9),),
    tracks=(
      answer.Track(
        number=1,
        decides=True,
        left_out='',
        first_time=0.0,
        last_time=math.nan,
        num_frames=2,
        num_clips=1,
        face_size=80.0,
        logit=0.5,
        score=0.62,
        interval=(),
        probability=math.nan,
        answer='likely fake',
      ),
    ),
    clips=(answer.ClipScore((0, 9), (0.0, math.nan), 0.5, 0.62),),
    frames=(answer.FrameScore(0, 0.0, 0.25, (1.0, 2.0, 3.0, 4.5)),),
    sampling=answer.Sampling('dense', 4, 8, 0.5, 2400, False, 250, 32, 32, 30),
    quality=answer.Quality(640, 360, 25.0, 10.0, 80.0, 100.0, 120.0),
    not_looked_at=('sound',),
    hashes={'video': 'ab'},
    snapshots=(
      answer.Snapshot(1, 0, b'jpeg', np.zeros((2, 4, 4), np.float16)),
    ),
  )


def test_an_answer_is_what_the_schema_says(said):
  content = json.loads(said.to_json())
  assert problems(content, SCHEMA) == []
  assert next(iter(content)) == 'schema_version'
  assert content['tracks'][0]['last_time'] is None
  assert content['clips'][0]['times'] == [0.0, None]


def test_an_answer_without_a_score_is_what_the_schema_says():
  said = answer.Answer(
    video='a.mp4',
    status='no_face',
    sentence='No answer: no face was found.',
    message='face in 0 of 12 frames',
    notes=(),
    provenance={},
    calibration='not calibrated',
  )
  content = json.loads(said.to_json())
  assert problems(content, SCHEMA) == []
  assert content['score'] is None and content['quality'] is None


@pytest.mark.parametrize(
  'change',
  [
    {'score': 1.5},
    {'status': 'fine'},
    {'tracks': [{}]},
    {'colour': 'red'},
    {'notes': 'one'},
    {'schema_version': '1.0'},
    {'interval': [0.1, 0.2, 0.3]},
  ],
)
def test_the_schema_refuses_what_is_no_answer(said, change):
  assert problems({**said.to_dict(), **change}, SCHEMA)


def test_the_schema_describes_every_field():
  kinds = {
    kind.__name__: kind
    for kind in vars(answer).values()
    if dataclasses.is_dataclass(kind)
  }
  del kinds['Snapshot']
  for name, kind in kinds.items():
    schema = SCHEMA if name == 'Answer' else SCHEMA['$defs'][name]
    fields = {f.name for f in dataclasses.fields(kind)} - {'snapshots'}
    assert set(schema['required']) == fields
    assert all(
      len(schema['properties'][field]['description']) > 4 for field in fields
    )


def test_an_answer_is_written_whole(said, tmp_path):
  said.write(tmp_path / 'new' / 'a.json')
  assert (tmp_path / 'new' / 'a.json').read_text() == said.to_json()
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['a.json']
