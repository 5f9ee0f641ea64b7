"""What a plan says, and that it counts what training has."""

import dataclasses
import functools
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import base, tiny
from data_pipeline import pipeline
from data_pipeline.synthesis import blending
from stormer_jax import flops, model, objectives, plan

ROOT = pathlib.Path(__file__).parent.parent
H100 = 'NVIDIA H100 80GB HBM3'
PLAN = plan.Plan(
  device_kind=H100,
  num_devices=8,
  mesh={'data': 8, 'fsdp': 1, 'tensor': 1},
  num_parameters=433_515_270,
  params=2**31,
  moments=2**32,
  ema=0,
  batch=2**28,
  kept=75 * 2**30,
  temporaries=100 * 2**30,
  compiler='XLA for CPU',
  memory=80 * 2**30,
  clips=32,
  flops=8e15,
  peak=8e15,
)


def test_the_command_plans_without_the_hardware():
  command = [
    *(sys.executable, '-m', 'stormer_jax.main', '--mode=plan'),
    *('--config=configs/tiny.py', '--devices=2', f'--device_kind={H100}'),
    *('--config.train.mesh_fsdp=2', '--config.optimizer.rho=0.0'),
  ]
  output = subprocess.run(
    command, cwd=ROOT, check=True, capture_output=True, text=True
  ).stdout
  config = tiny.get_config()
  sizes = dict(re.findall(r'^  (\w+).*? ([\d.]+) MiB', output, re.M))
  assert f'2 x {H100} (data 1 x fsdp 2 x tensor 1), 16 clips' in output
  assert re.search(r'^parameters +42,216$', output, re.M)
  # 42,216 floats, of which fsdp splits the 18,432 of the patch embedding.
  split = 4 * (42_216 - 18_432 // 2) / 2**20
  np.testing.assert_allclose(float(sizes['parameters']), split, atol=0.06)
  np.testing.assert_allclose(float(sizes['moments']), 2 * split, atol=0.06)
  assert 1 < float(sizes['temporaries']) < 100
  needed = flops.train_step_flops(
    model.StormerConfig(**config.model), 16, rho=0.0
  )
  (teraflops,) = re.findall(r'FLOPs a step +([\d.e-]+) TFLOP', output)
  np.testing.assert_allclose(float(teraflops), needed / 1e12, rtol=1e-3)
  (speed,) = re.findall(r'bound at 100% MFU.* ([\d,]+) clips/s', output)
  assert int(speed.replace(',', '')) == round(16 * 2 * 494.5e12 / needed)
  assert '80.00 GiB  fits' in output
  assert 0 < float(sizes['kept']) < float(sizes['temporaries'])


def test_the_batch_planned_for_is_the_batch_of_training(tiny_config):
  shape = jax.ShapeDtypeStruct
  made = jax.eval_shape(
    functools.partial(
      pipeline.make_pairs,
      synthesis=blending.SynthesisConfig(**tiny_config.synthesis),
      image_size=tiny_config.model.image_size,
      patch_size=tiny_config.model.patch_size,
    ),
    shape((8, 4, 256, 256, 3), np.uint8),
    shape((8, 4, 81, 2), np.float32),
    shape((8,), np.uint32),
  )
  assert made == objectives.choose(tiny_config).batch


def test_what_does_not_fit_says_so_and_what_would_help():
  config = base.get_config()
  config.model.remat = 'dots'
  told = dataclasses.replace(PLAN, advice=tuple(plan._advice(PLAN, config)))
  assert told.verdict == 'does NOT fit'
  text = plan.text(told)
  assert 'does NOT fit' in text and '106.25 GiB' in text
  for change in (
    'model.dtype=bfloat16',
    'model.remat=full',
    'train.accumulate=2',
    'more devices than 8',
  ):
    assert f'change: {change}' in text
  assert 'remat=dots' not in text  # the configuration has it
  assert 'mesh_fsdp' not in text  # the state is not what is too large
  heavy = dataclasses.replace(PLAN, moments=80 * 2**30)
  assert any('mesh_fsdp=8' in change for change in plan._advice(heavy, config))


def test_a_plan_bounds_the_speed_by_the_peak():
  text = plan.text(PLAN)
  assert 'bound at 100% MFU     1000.0 ms a step, 32 clips/s, 8.68 h' in text
  assert 'hope at  40% MFU     2500.0 ms a step, 13 clips/s, 21.7 h a m' in text
  assert 'seen' not in text
  seen = plan.text(dataclasses.replace(PLAN, device_kind='NVIDIA H200'))
  assert 'seen at  33% MFU     3030.3 ms a step, 11 clips/s, 26.3 h' in seen
  unknown = dataclasses.replace(PLAN, device_kind='cpu', memory=None, peak=None)
  assert unknown.verdict == 'not known'
  assert 'no bound on the speed' in plan.text(unknown)


def test_between_least_and_most_nobody_knows():
  # 6.25 GiB of state and batch; 72 of 80 GiB are there to be used.
  for kept, temporaries, verdict in (
    (65, 65, 'fits'),
    (20, 65, 'fits'),
    (20, 66, 'may fit'),
    (66, 66, 'does NOT fit'),
  ):
    told = dataclasses.replace(
      PLAN, kept=kept * 2**30, temporaries=temporaries * 2**30
    )
    assert told.verdict == verdict
    assert bool(plan._advice(told, base.get_config())) == (verdict != 'fits')


def test_remat_and_bfloat16_keep_less_for_the_way_back(tiny_config):
  def kept(**changes):
    config = tiny_config.copy_and_resolve_references()
    config.model.update(**changes)
    return plan.kept_bytes_per_clip(config)

  full = kept(remat='full')
  assert full < kept(remat='dots') < kept()
  assert kept(dtype='bfloat16') < 0.8 * kept()
  # Full: a block keeps its tokens alone, [2 + 16 patches x 4 frames, width].
  another_block = kept(remat='full', depth=3) - full
  tokens, classes = 4 * (2 + 16 * 4) * 24, 4 * 4 * 24
  assert tokens <= another_block <= tokens + classes


@pytest.mark.parametrize(
  ('kind', 'devices', 'words'),
  [
    ('TPU v9', 1, '--device_kind=TPU v9: unknown; one of cpu, TPU v2'),
    ('cpu', 9, '--devices=9: this process has 8'),
    ('cpu', 3, 'data.batch_size is 8 .* over 3 devices'),
  ],
)
def test_what_cannot_be_planned_is_refused(tiny_config, kind, devices, words):
  with pytest.raises(ValueError, match=words):
    plan.make_plan(tiny_config, kind, devices)
