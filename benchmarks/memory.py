"""Prints the tables of docs/scaling.md: memory and FLOPs of every size.

  python -m benchmarks.memory            # a minute of one core
  python -m benchmarks.memory --compile  # and the second table, some more

Markdown, for bfloat16 computation and clips of 224 px. The first table is
counted (stormer_jax/plan.py): parameters, state of one device under each
sharding, what a clip keeps for the way back under each remat, FLOPs. The
second asks XLA for CPU for the temporaries of whole SAM steps.
"""

import argparse

import jax
from ml_collections import config_dict

from configs import ffpp_c23, vit_large, vit_small
from stormer_jax import flops, model, plan

_MODELS = {'S': vit_small, 'B': ffpp_c23, 'L': vit_large}
_SHARDINGS = {
  '1': (1, {}),
  'fsdp 8': (8, {'train.mesh_fsdp': 8}),
  'fsdp 4, tensor 2': (8, {'train.mesh_fsdp': 4, 'train.mesh_tensor': 2}),
}
_REMATS = ('none', 'dots', 'full')


def main() -> None:
  """Prints the tables."""
  arguments = _parse()
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', 8)
  print(
    '| ViT | T | parameters | '
    + ' | '.join(f'state GiB, {name}' for name in _SHARDINGS)
    + ' | '
    + ' | '.join(f'kept MiB a clip, {remat}' for remat in _REMATS)
    + ' | GFLOP a clip, forward | TFLOP a pair, SAM |\n|'
    + ' --- |' * (5 + len(_SHARDINGS) + len(_REMATS)),
    flush=True,
  )
  for name in arguments.models:
    for frames in arguments.frames:
      print(_counted(name, frames), flush=True)
  if arguments.compile:
    print(
      '\n| ViT | T | devices | pairs a device | remat | accumulate |'
      ' at least GiB | about at most GiB |\n|' + ' --- |' * 8,
      flush=True,
    )
    for row in (
      ('S', 4, '1', 'none', 1),
      ('B', 4, '1', 'full', 4),
      *(
        (name, frames, sharding, 'full', 1)
        for sharding in _SHARDINGS
        for frames in arguments.frames
        for name in arguments.models
      ),
    ):
      print(_compiled(*row), flush=True)


def _counted(name, frames):
  cells = [name, frames]
  for sharding, (devices, changes) in _SHARDINGS.items():
    config = _config(name, frames, devices, changes)
    params, state = plan.state_bytes(config, devices)
    if sharding == '1':
      cells.append(f'{params / 1e6:.1f} M')
    cells.append(f'{state / 2**30:.2f}')
  for remat in _REMATS:
    config = _config(name, frames, 1, {'model.remat': remat})
    cells.append(f'{plan.kept_bytes_per_clip(config) / 2**20:.0f}')
  needed = model.StormerConfig(**config.model)
  cells.append(f'{flops.forward_flops(needed, 1) / 1e9:.1f}')
  cells.append(f'{flops.train_step_flops(needed, 2, rho=0.05) / 1e12:.2f}')
  return f'| {" | ".join(map(str, cells))} |'


def _compiled(name, frames, sharding, remat, accumulate):
  devices, changes = _SHARDINGS[sharding]
  changes = changes | {'model.remat': remat, 'train.accumulate': accumulate}
  config = _config(name, frames, devices, changes)
  planned = plan.make_plan(config, 'cpu', devices)
  cells = (
    name,
    frames,
    sharding,
    config.data.batch_size // devices,
    remat,
    accumulate,
    f'{planned.least / 2**30:.2f}',
    f'{planned.most / 2**30:.2f}',
  )
  return f'| {" | ".join(map(str, cells))} |'


def _config(name, frames, devices, changes) -> config_dict.ConfigDict:
  config = _MODELS[name].get_config()
  config.update_from_flattened_dict(
    {
      'model.dtype': 'bfloat16',
      'model.num_frames': frames,
      'data.batch_size': 8 * devices,
      **changes,
    }
  )
  return config


def _parse():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', nargs='*', default=list(_MODELS))
  parser.add_argument('--frames', type=int, nargs='+', default=[4, 8, 16])
  parser.add_argument('--compile', action='store_true')
  return parser.parse_args()


if __name__ == '__main__':
  main()
