"""containers: the weights are found wherever a program keeps them, or named."""

import itertools

import numpy as np
import pytest

from stormer_jax.weights import containers


def weights(seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  names = ('backbone.cls_token', 'backbone.norm.weight', 'keypoint_head.cls.b')
  return {name: rng.standard_normal(3) for name in names}


def prefixed(prefix: str, seed: int = 0) -> dict[str, np.ndarray]:
  return {prefix + name: value for name, value in weights(seed).items()}


def assert_found(content, key='', seed=0) -> str:
  found, said = containers.find_state_dict(content, key)
  wanted = weights(seed)
  assert list(found) == list(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(found[name], value)
  return said


def test_a_plain_state_dict_is_taken_without_a_word():
  assert assert_found(weights()) == ''


@pytest.mark.parametrize(
  'prefixes',
  [
    mix
    for n in (1, 2, 3)
    for mix in itertools.permutations(
      ('module.', 'model.', 'net.', '_orig_mod.'), n
    )
  ],
)
def test_any_mix_of_prefixes_is_removed_and_said(prefixes):
  assert ''.join(prefixes) in assert_found(prefixed(''.join(prefixes)))


def test_wrappers_of_parts_are_removed_from_within_names():
  content = {
    'backbone._orig_mod.cls_token': weights()['backbone.cls_token'],
    'backbone.norm.module.weight': weights()['backbone.norm.weight'],
    'module.keypoint_head.cls._checkpoint_wrapped_module.b': weights()[
      'keypoint_head.cls.b'
    ],
  }
  said = assert_found(content)
  assert '_orig_mod.' in said and '_checkpoint_wrapped_module.' in said


def test_some_names_may_have_a_prefix_and_others_not():
  (first, *rest) = weights().items()
  assert_found({f'module.{first[0]}': first[1], **dict(rest)})


@pytest.mark.parametrize(
  'key',
  [
    *('state_dict', 'state_dict_ema', 'ema', 'weights', 'network', 'params'),
    *('student', 'teacher', 'model', 'model_state_dict', 'model_ema', 'net'),
  ],
)
def test_the_key_that_was_taken_is_said(key):
  optimizer = {'state': {0: {'exp_avg': np.ones(3)}}}
  content = {'epoch': 3, 'optimizer': optimizer, key: prefixed('module.')}
  assert (
    assert_found(content) == f"weights under {key!r}; names without 'module.'"
  )
  assert f"'model.{key}'" in assert_found({'model': content, 'best': 0.5})


def test_a_tensor_beside_the_weights_is_not_taken_for_them():
  assert_found({'best': np.ones(()), 'state_dict': weights()})


@pytest.mark.parametrize(
  ('content', 'keys'),
  [
    ({'model': weights(), 'model_ema': weights(1)}, ['model', 'model_ema']),
    (
      {'model': {'student': weights(), 'teacher': weights(1)}},
      ['model.student', 'model.teacher'],
    ),
    (
      {'state_dict': prefixed('model.') | prefixed('ema_model.module.', 1)},
      ['state_dict.model', 'state_dict.ema_model.module'],
    ),
    (weights() | prefixed('teacher.', 1), ['', 'teacher']),
  ],
)
def test_of_two_candidates_the_flag_chooses(content, keys):
  with pytest.raises(ValueError, match='--weights_key=') as error:
    containers.find_state_dict(content)
  for seed, key in enumerate(keys):
    assert key in str(error.value)
    if key:
      assert_found(content, key, seed)
  assert '2 sets of weights' in str(error.value)


def test_weights_under_another_key_are_pointed_at():
  content = {'generator': weights(), 'nets': {'a': prefixed('module.', 1)}}
  with pytest.raises(
    ValueError, match=r'under generator, nets.*--weights_key=generator'
  ):
    containers.find_state_dict(content)
  with pytest.raises(
    ValueError, match=r'under nets\.a; .*--weights_key=nets\.a'
  ):
    containers.find_state_dict({'nets': content['nets']})
  assert_found(content, 'generator')
  assert_found(content, 'nets.a', 1)


def test_a_key_that_is_not_there_is_an_error_that_lists_what_is():
  with pytest.raises(ValueError, match=r"nothing under 'ema'; it has .*model"):
    containers.find_state_dict({'model': weights(), 'epoch': 1}, 'ema')


def test_tensors_that_would_fall_together_are_an_error():
  x = np.ones(2)
  with pytest.raises(ValueError, match='3 tensors have but 2 names'):
    containers.find_state_dict({'a.module.b': x, 'a.b': x, 'c': x})


class Net:
  """What a program that saves its whole model leaves."""


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    ({}, 'no tensors'),
    ({'epoch': 3, 'state_dict': {}}, 'no tensors'),
    ({'epoch': 3, 'best': {'a': 1}}, 'its keys there: best, epoch'),
    (Net(), 'lies a Net, not a state dict'),
    ({'model': Net()}, "under 'model' lies a Net"),
  ],
)
def test_what_holds_no_weights_says_what_it_holds(content, reason):
  with pytest.raises(ValueError, match=reason):
    containers.find_state_dict(content)
