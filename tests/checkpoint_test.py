"""Checkpoints: what is kept, who can restore them, what is refused."""

import os
import signal

import jax
import numpy as np
import pytest

from stormer_jax import checkpoint, sharding


def make_state(value: float = 0.0, width: int = 256):
  return {
    'params': {'kernel': np.full((width, width), value, np.float32)},
    'stats': {'mean': np.full(3, value, np.float32)},
    'opt_state': {'mu': np.full((width, width), -value, np.float32)},
    'ema': None,
  }


def abstract_of(state):
  return jax.eval_shape(lambda: state)


@pytest.fixture
def save(tmp_path):
  """Saves {step: selection} and gives the folder."""

  def run(selections, **options):
    writer = checkpoint.Checkpointer(
      tmp_path, save_steps=lambda step: True, **options
    )
    for step, selection in selections.items():
      writer.save(step, make_state(step), {'place': step}, selection)
    writer.close()
    return tmp_path

  return run


def test_the_newest_and_the_best_are_kept(save):
  folder = save({1: 0.6, 2: 0.9, 3: 0.7, 4: 0.8, 5: None, 6: 0.5}, keep_last=2)
  reader = checkpoint.Checkpointer(folder)
  assert reader.all_steps() == [2, 5, 6]
  assert (reader.best_step(), reader.latest_step()) == (2, 6)
  reader.close()


def test_of_equal_scores_the_first_is_the_best(save):
  reader = checkpoint.Checkpointer(save({1: 0.5, 2: 0.9, 3: 0.9, 4: 0.9}))
  assert reader.best_step() == 2
  reader.close()


def test_another_mesh_restores_the_same_numbers(tmp_path):
  state = make_state(3.5)
  abstract = abstract_of(state)
  meshes = [sharding.make_mesh(fsdp=n) for n in (1, 8)]
  first, second = (sharding.state_shardings(abstract, m) for m in meshes)
  writer = checkpoint.Checkpointer(tmp_path, save_steps=lambda step: True)
  writer.save(7, jax.device_put(state, first), {'place': 70})
  writer.wait()
  restored, place = writer.restore(7, abstract, second)
  writer.close()
  assert place == {'place': 70}
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  kernel = restored['params']['kernel']
  assert kernel.addressable_shards[0].data.shape == (32, 256)


def test_parts_are_restored_without_the_moments(save):
  reader = checkpoint.Checkpointer(save({2: None}))
  abstract = abstract_of(make_state())
  parts = {name: abstract[name] for name in ('params', 'stats')}
  restored = reader.restore_weights(2, parts)
  assert restored.keys() == parts.keys()
  np.testing.assert_array_equal(restored['stats']['mean'], [2, 2, 2])
  assert not reader.has_part(2, 'ema') and reader.has_part(2, 'params')
  reader.close()


def test_a_checkpoint_of_another_model_is_refused_by_name(save):
  reader = checkpoint.Checkpointer(save({2: None}))
  wanted = abstract_of(make_state(width=128))
  with pytest.raises(ValueError, match=r'params/kernel is \(256, 256\)'):
    reader.restore_weights(2, {'params': wanted['params']})
  with pytest.raises(ValueError, match=r'the model wants \(128, 128\)'):
    reader.restore(2, wanted, None)
  reader.close()


def test_saving_happens_at_the_asked_steps_alone(tmp_path):
  writer = checkpoint.Checkpointer(
    tmp_path, save_steps=lambda step: step % 2 == 0
  )
  for step in range(5):
    writer.save(step, make_state(), {})
  writer.close()
  reader = checkpoint.Checkpointer(tmp_path, keep_last=5)
  assert reader.all_steps() == [2, 4] or reader.all_steps() == [0, 2, 4]
  reader.close()


def test_sigterm_forces_a_save_at_the_next_step(tmp_path):
  writer = checkpoint.Checkpointer(tmp_path, save_steps=lambda step: False)
  assert not writer.should_save(3)
  os.kill(os.getpid(), signal.SIGTERM)
  assert writer.reached_preemption(3) and writer.should_save(3)
  assert writer.save(3, make_state(), {})
  writer.close()
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
