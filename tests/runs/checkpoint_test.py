"""Checkpoints: what is kept, who can restore them, what is refused."""

import os
import shutil
import signal

import jax
import numpy as np
import pytest

from stormer_jax import sharding
from stormer_jax.runs import checkpoint


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
      writer.save(step, make_state(step), {'place': step}, {}, selection)
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
  writer.save(7, jax.device_put(state, first), {'place': 70}, {'elapsed': 0.5})
  writer.wait()
  found = writer.restore_latest(abstract, second)
  writer.close()
  assert (found.step, found.data) == (7, {'place': 70})
  assert found.clock == {'elapsed': 0.5}
  jax.tree.map(np.testing.assert_array_equal, found.state, state)
  kernel = found.state['params']['kernel']
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
    reader.restore_latest(wanted, None)
  reader.close()


def test_saving_happens_at_the_asked_steps_alone(tmp_path):
  writer = checkpoint.Checkpointer(
    tmp_path, save_steps=lambda step: step % 2 == 0
  )
  for step in range(5):
    writer.save(step, make_state(), {}, {})
  writer.close()
  reader = checkpoint.Checkpointer(tmp_path, keep_last=5)
  assert reader.all_steps() == [2, 4] or reader.all_steps() == [0, 2, 4]
  reader.close()


def whole(abstract):
  """Shardings on one device."""
  return sharding.state_shardings(abstract, sharding.make_mesh())


def tear(folder, how):
  """What a power cut leaves of files that were never flushed."""
  for path in folder.rglob('*'):
    if path.is_file() and how == 'empty':
      path.write_bytes(b'')
    elif path.is_file() and how == 'short' and path.stat().st_size > 64:
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif path.is_file() and how == 'missing' and 'state' in path.parts:
      path.unlink()


@pytest.mark.parametrize('how', ['empty', 'short', 'missing'])
def test_a_torn_newest_checkpoint_gives_way_to_the_one_before(save, how):
  folder = save({1: None, 2: None, 3: None}, keep_last=3)
  tear(folder / '3', how)
  writer = checkpoint.Checkpointer(folder, save_steps=lambda step: True)
  abstract = abstract_of(make_state())
  found = writer.restore_latest(abstract, whole(abstract))
  assert (found.step, found.data) == (2, {'place': 2})
  assert float(found.state['params']['kernel'][0, 0]) == 2
  assert (folder / 'damaged-3').exists()  # nothing is thrown away
  writer.save(3, make_state(3.0), {'place': 3}, {})
  writer.close()
  reader = checkpoint.Checkpointer(folder)
  assert reader.latest_step() == 3
  reader.close()


def test_a_run_whose_checkpoints_are_all_torn_is_not_begun_anew(save):
  folder = save({1: None, 2: None})
  for step in ('1', '2'):
    tear(folder / step, 'missing')
  writer = checkpoint.Checkpointer(folder, save_steps=lambda step: True)
  abstract = abstract_of(make_state())
  with pytest.raises(ValueError, match=r'none of the checkpoints \[1, 2\]'):
    writer.restore_latest(abstract, whole(abstract))
  writer.close()


def test_a_kill_during_removal_leaves_no_half_checkpoint(save):
  folder = save({1: None, 2: None, 3: None}, keep_last=2)
  # Where Orbax moves what is no longer kept; the kill came before it was gone.
  (folder / 'deleted/1/state').mkdir(parents=True)
  reader = checkpoint.Checkpointer(folder)
  assert reader.all_steps() == [2, 3]
  reader.close()
  checkpoint.Checkpointer(folder, save_steps=lambda step: True).close()
  assert not list((folder / 'deleted').glob('*'))


def test_milestones_are_kept_for_ever(save):
  folder = save(dict.fromkeys(range(1, 8)), keep_last=1, keep_every=3)
  reader = checkpoint.Checkpointer(folder)
  assert reader.all_steps() == [3, 6, 7]
  reader.close()


def test_another_dtype_restores_the_same_values(save):
  folder = save({2: None})
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, np.float16),
    abstract_of(make_state()),
  )
  reader = checkpoint.Checkpointer(folder)
  found = reader.restore_latest(abstract, whole(abstract))
  reader.close()
  kernel = found.state['params']['kernel']
  assert kernel.dtype == np.float16 and float(kernel[0, 0]) == 2


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path, monkeypatch):
  writer = checkpoint.Checkpointer(tmp_path, save_steps=lambda step: True)
  writer.save(1, make_state(), {}, {})
  writer.wait()

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(writer._manager, 'save', full)
  with pytest.raises(OSError, match=r'No space left.*continues from step 1'):
    writer.save(2, make_state(), {}, {})
  writer.close()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
  writer = checkpoint.Checkpointer(tmp_path, save_steps=lambda step: True)
  writer.save(1, make_state(), {}, {})
  writer.wait()
  usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(OSError, match=r'0 MB free.* takes 1;.* from step 1'):
    writer.save(2, make_state(), {}, {})
  writer.close()
  assert sorted(p.name for p in tmp_path.glob('[0-9]*')) == ['1']


def test_sigterm_forces_a_save_at_the_next_step(tmp_path):
  writer = checkpoint.Checkpointer(tmp_path, save_steps=lambda step: False)
  assert not writer.should_save(3)
  os.kill(os.getpid(), signal.SIGTERM)
  assert writer.reached_preemption(3) and writer.should_save(3)
  assert writer.save(3, make_state(), {}, {})
  writer.close()
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
