"""Compares the detector with its PyTorch twin; writes docs/jax_vs_pytorch.md.

The last section is that of benchmarks/train_both.py, which trains both to the
end on the demo's videos.

  python -m benchmarks.parity [--steps=100] [--sizes=tiny,base] \
    [--timings=timings.json] [--training=.demo/train_both] \
    [--out=docs/jax_vs_pytorch.md]

Needs the extra `torch`. The same random weights go through both programs, and
through the twin in float64, which shows how much of a difference is rounding.
Times and memory come from benchmarks/side_by_side.py, one process a figure, on
as many threads for one framework as for the other; `--timings` keeps them in a
file and takes from it what it has. A GPU is measured where both find one.
"""

import argparse
from collections.abc import Callable
import copy
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
from typing import Any

from einops import pack, rearrange
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import machine, side_by_side, torch_twin, train_both
from data_pipeline.synthesis import targets
from stormer_jax import losses, model, optimizer
from stormer_jax.weights import pretrained, tensor_file, weight_file

ROOT = pathlib.Path(__file__).parent.parent
SEMANTICS = {
  'paper': {'temporal_token': 'learned', 'map_layout': 'thw'},
  'official': {'temporal_token': 'first_clip', 'map_layout': 'scrambled'},
}
SIZES = side_by_side.SIZES['tiny']
NUM_CLIPS = 4
LR = 1e-4
# Their true gradient is zero; Adam turns its rounding into whole steps.
NO_GRADIENT = ('before_proj.0.0.bias', 'hm.proj.0.0.bias')


class Ours:
  """The detector as functions of plain trees."""

  def __init__(
    self, semantics: str, state_dict: pretrained.StateDict, num_heads: int
  ):
    values, self.params, self.stats = pretrained.from_official(
      state_dict, num_heads
    )
    config = model.StormerConfig(
      **values,
      **SEMANTICS[semantics],
      drop_path=0.0,
      head_dropout=0.0,
      dtype='float32',
      attention='xla',
      remat='none',
      scan_layers=True,
    )
    self._graphdef = nnx.graphdef(
      nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0)))
    )

  def detector(self, params, stats) -> model.Stormer:
    params, stats = nnx.State(params), nnx.State(stats)
    return nnx.merge(self._graphdef, params, stats, copy=True)

  @functools.partial(jax.jit, static_argnums=0)
  def outputs(self, params, stats, clip) -> dict[str, jax.Array]:
    """Returns the outputs in eval mode, by the names of the table."""
    detector = self.detector(params, stats)
    detector.eval()
    outputs = detector(clip)
    return {
      'class logit': outputs.logits,
      'soft-label logits': outputs.soft_label_logits,
      'vulnerability map': outputs.vulnerability_map,
    }

  @functools.partial(jax.jit, static_argnums=0)
  def layers(self, params, stats, clip) -> dict[str, jax.Array]:
    """Returns what each layer says in eval mode, by the twin's names."""
    detector = self.detector(params, stats)
    detector.eval()
    tokens = detector.embed(clip)
    found = {'embed': _sequence(tokens)}
    graphdef, stacked = nnx.split(detector.blocks)
    for i in range(detector.config.depth):
      block = nnx.merge(graphdef, jax.tree.map(lambda x, i=i: x[i], stacked))
      tokens, frame_class = block(tokens, jnp.zeros(()), None)
      frame_class = rearrange(frame_class, 't b d -> b t d')
      found[f'block {i}'] = _sequence(tokens)
      found[f'block {i}, frame classes'] = frame_class
    found['norm'] = detector.norm(found[f'block {i}'])
    found['frame class norm'] = detector.class_norm(frame_class)
    return found | self.outputs(params, stats, clip)

  @functools.partial(jax.jit, static_argnums=0)
  def sam(self, params, stats, batch):
    """Returns gradients at w, then what `optimizer.sam_gradients` gives."""

    def loss_fn(params, stats):
      detector = self.detector(params, stats)
      detector.train()
      outputs = detector(batch['clip'])
      total, terms = losses.three_task_loss(
        outputs, batch, **side_by_side.LOSS_WEIGHTS
      )
      stats = nnx.to_pure_dict(nnx.split(detector, nnx.Param, ...)[2])
      return total, (terms, stats)

    first = jax.grad(loss_fn, has_aux=True)(params, stats)[0]
    return first, *optimizer.sam_gradients(
      loss_fn, params, stats, rho=0.05, batch_stats='first_pass'
    )


def _sequence(tokens: model.Tokens) -> jax.Array:
  """All tokens of a clip, [b, tokens, d], in the twin's order."""
  patches = rearrange(tokens.patches, 't n b d -> b n t d')
  parts = [tokens.class_token, patches, tokens.temporal_token]
  return pack(parts, 'b * d')[0]


def make_twin(semantics: str, sizes: dict = SIZES) -> torch_twin.TorchTwin:
  """The twin, every tensor random."""
  config = torch_twin.TwinConfig(**sizes, **SEMANTICS[semantics])
  twin = torch_twin.TorchTwin(config)
  torch_twin.randomise(twin, seed=0)
  return twin


def state_dict_of(twin: torch.nn.Module) -> dict[str, np.ndarray]:
  """Copies the twin's tensors."""
  return {k: x.detach().numpy().copy() for k, x in twin.state_dict().items()}


def to_torch(batch: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
  """Turns a batch of ours into one of the twin's."""
  moved = {name: torch.from_numpy(x).to(dtype) for name, x in batch.items()}
  return moved | {'clip': moved['clip'].permute(0, 4, 1, 2, 3)}


def twin_layers(twin: torch_twin.TorchTwin, clip: torch.Tensor) -> dict:
  """Returns what each layer of the twin says in eval mode."""
  found, handles = {}, []

  def keep(name):
    def hook(module, inputs, output):
      if isinstance(output, tuple):
        found[name], found[f'{name}, frame classes'] = output
      else:
        found[name] = output

    return hook

  backbone = twin.eval().backbone
  for i, block in enumerate(backbone.blocks):
    handles.append(block.register_forward_hook(keep(f'block {i}')))
  handles.append(backbone.norm.register_forward_hook(keep('norm')))
  handles.append(
    backbone.norm_s_cls.register_forward_hook(keep('frame class norm'))
  )
  with torch.no_grad():
    found['embed'] = backbone.embed(clip)
    outputs = twin(clip)
  for handle in handles:
    handle.remove()
  names = ('class logit', 'soft-label logits', 'vulnerability map')
  found |= dict(zip(names, outputs, strict=True))
  return {name: x.numpy() for name, x in found.items()}


def compare_layers(
  semantics: str, size: str, num_clips: int
) -> tuple[list[str], float]:
  """Tabulates the layers' differences; also the largest, relative.

  At any size but 'tiny' the outputs alone.
  """
  sizes = side_by_side.SIZES[size]
  twin = make_twin(semantics, sizes)
  ours = Ours(semantics, state_dict_of(twin), sizes['num_heads'])
  batch = side_by_side.random_batch(sizes, num_clips, seed=1)
  compute = ours.layers if size == 'tiny' else ours.outputs
  found = compute(ours.params, ours.stats, batch['clip'])
  theirs = twin_layers(twin, to_torch(batch, torch.float32)['clip'])
  exact = twin_layers(twin.double(), to_torch(batch, torch.float64)['clip'])
  rows = [
    '| layer | largest value | largest difference | relative | ours to float64 '
    '| twin to float64 |',
    '|' + ' --- |' * 6,
  ]
  worst = 0.0
  for name in exact:  # in the order of the walk
    if name not in found:
      continue
    x = np.asarray(found[name], np.float64)
    scale = np.abs(exact[name]).max()
    largest = np.abs(x - theirs[name]).max()
    rows.append(
      f'| {name} | {scale:.3g} | {largest:.1e} | {largest / scale:.1e} '
      f'| {np.abs(x - exact[name]).max() / scale:.1e} '
      f'| {np.abs(theirs[name] - exact[name]).max() / scale:.1e} |'
    )
    worst = max(worst, float(largest / scale))
  return rows, worst


def _group(name: str) -> str:
  """Names the part of the model that a parameter belongs to."""
  if '.blocks.' in name:
    return f'block {name.split(".")[2]}'
  if name.startswith('backbone.'):
    return 'embeddings and norms'
  return {'hm': 'map head', 'cls': 'class head'}.get(
    name.split('.')[1], 'soft-label head'
  )


def compare_gradients(semantics: str) -> tuple[list[str], list[str], float]:
  """Tabulates loss terms and gradient norms; also the largest difference."""
  twin = make_twin(semantics)
  ours = Ours(semantics, state_dict_of(twin), SIZES['num_heads'])
  batch = side_by_side.random_batch(SIZES, NUM_CLIPS, seed=1)
  first, second, _, _, terms = ours.sam(ours.params, ours.stats, batch)
  moved = to_torch(batch, torch.float32)
  twin.train()

  def loss_fn():
    return torch_twin.three_task_loss(twin(moved['clip']), moved)[0]

  buffers = {k: x.clone() for k, x in twin.named_buffers()}
  _, their_terms = torch_twin.three_task_loss(twin(moved['clip']), moved)
  for name, buffer in twin.named_buffers():
    buffer.copy_(buffers[name])
  _, their_first = torch_twin.sam_step(
    twin, torch_twin.make_adam(twin, LR), loss_fn
  )
  term_rows = [
    '| term | ours | twin | relative difference |',
    '|' + ' --- |' * 4,
  ]
  for name, value in their_terms.items():
    a, b = float(terms[name]), float(value.detach())
    term_rows.append(f'| {name} | {a:.8g} | {b:.8g} | {abs(a - b) / b:.1e} |')
  rows = [
    '| parameters of | norm at w, ours | twin | relative difference | norm at '
    'w + e, ours | twin | relative difference |',
    '|' + ' --- |' * 7,
  ]
  their_second = {
    k: p.grad for k, p in twin.named_parameters() if p.grad is not None
  }
  cells: dict[str, list[str]] = {}
  worst = 0.0
  for gradients, theirs in ((first, their_first), (second, their_second)):
    official = pretrained.to_official(gradients, ours.stats)
    for group in dict.fromkeys(map(_group, theirs)):
      names = [n for n in theirs if _group(n) == group]
      a = np.concatenate([official[n].ravel() for n in names])
      b = np.concatenate([theirs[n].numpy().ravel() for n in names])
      relative = np.linalg.norm(a - b) / np.linalg.norm(b)
      cells.setdefault(group, []).append(
        f'{np.linalg.norm(a):.7g} | {np.linalg.norm(b):.7g} | {relative:.1e}'
      )
      worst = max(worst, float(relative))
  rows += [f'| {group} | {" | ".join(row)} |' for group, row in cells.items()]
  return term_rows, rows, worst


def compare_drift(num_steps: int) -> tuple[list[str], float, float]:
  """Trains ours, the twin and the twin in float64 on the same batches.

  Returns:
    The table, and at the last step how far ours is from the twin, and the twin
    from float64, relative to the way gone.
  """
  twin = make_twin('paper')
  exact = copy.deepcopy(twin).double()
  start = state_dict_of(twin)
  ours = Ours('paper', start, SIZES['num_heads'])
  params, stats = ours.params, ours.stats
  tx = optimizer.make_optimizer(
    np.array([LR]), 1, 0.9, 0.995, 1e-8, 1e-4, False, 0
  )
  update = jax.jit(tx.update)
  opt_state = tx.init(params)
  programs = [
    (t.train(), torch_twin.make_adam(t, LR), dtype)
    for t, dtype in ((twin, torch.float32), (exact, torch.float64))
  ]
  rows = [
    '| step | loss, ours | twin | twin, float64 | weights: ours to twin '
    '| ours to float64 | twin to float64 |',
    '|' + ' --- |' * 7,
  ]
  apart = (0.0, 0.0, 0.0)
  for step in range(1, num_steps + 1):
    batch = side_by_side.random_batch(SIZES, NUM_CLIPS, seed=step)
    _, gradients, stats, loss, _ = ours.sam(params, stats, batch)
    updates, opt_state = update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    their_losses = []
    for program, adam, dtype in programs:
      moved = to_torch(batch, dtype)

      def loss_fn(program=program, moved=moved):
        return torch_twin.three_task_loss(program(moved['clip']), moved)[0]

      their_losses.append(float(torch_twin.sam_step(program, adam, loss_fn)[0]))
    if step in (1, 2, 3, 10, 30, num_steps):
      a, b, c = (
        _trained(x, start)
        for x in (
          pretrained.to_official(params, stats),
          state_dict_of(twin),
          state_dict_of(exact),
        )
      )
      way = np.linalg.norm(c)
      apart = tuple(np.linalg.norm(x) / way for x in (a - b, a - c, b - c))
      rows.append(
        f'| {step} | {float(loss):.6f} | {their_losses[0]:.6f} '
        f'| {their_losses[1]:.6f} | '
        + ' | '.join(f'{x:.1e}' for x in apart)
        + ' |'
      )
  return rows, float(apart[0]), float(apart[2])


def _trained(state_dict: dict, start: dict) -> np.ndarray:
  """The way that the parameters went, those without a gradient left out."""
  parts = []
  for name, x in state_dict.items():
    if 'running' in name or 'tracked' in name or name.endswith(NO_GRADIENT):
      continue
    way = x.astype(np.float64) - start[name]
    if name.endswith('qkv.bias'):
      query, _, value = np.split(way, 3)
      way = np.concatenate([query, value])
    parts.append(way.ravel())
  return np.concatenate(parts)


def compare_targets() -> list[str]:
  """Compares temporal targets with a NumPy rewrite in 8-bit integers."""
  rows = [
    '| boundary change | clips | largest difference |',
    '| --- | --- | --- |',
  ]
  rng = np.random.default_rng(0)
  cells = rng.integers(0, 256, (50, 4, 14, 14), dtype=np.uint8)
  for change in ('absolute', 'uint8_wrap'):
    ours = jax.jit(
      functools.partial(
        targets.vulnerability_map, change=change, kind='standardized'
      )
    )
    worst = 0.0
    for clip in cells:
      if change == 'uint8_wrap':
        changes = (clip[1:] - clip[:-1]).astype(np.float64)
      else:
        changes = np.abs(np.diff(clip.astype(np.float64), axis=0))
      maps = np.concatenate([np.zeros((1, 14, 14)), changes])
      expected = (maps - changes.mean()) / changes.std()
      fake, real = ours(clip.astype(np.float32))
      worst = max(worst, np.abs(fake - expected).max())
      constant = -changes.mean() / changes.std()
      worst = max(worst, np.abs(real - constant).max())
    rows.append(f'| {change} | {len(cells)} | {worst:.1e} |')
  return rows


def compare_round_trip() -> str:
  """Sends weights torch -> ours -> torch and compares bit by bit."""
  twin = make_twin('official')
  written = state_dict_of(twin)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'a.pth'
    torch.save({'state_dict': twin.state_dict()}, path)
    ours = pretrained.from_official(
      weight_file.read_state_dict(path), SIZES['num_heads']
    )
    back = pretrained.to_official(*ours[1:])
    tensor_file.write_torch_file(path, back)
    loaded = torch.load(path, weights_only=True)
  keys = make_twin('official').load_state_dict(loaded, strict=True)
  same = sum(
    np.array_equal(loaded[name].numpy(), x)
    and loaded[name].numpy().dtype == x.dtype
    for name, x in written.items()
  )
  return (
    f'{same} of {len(written)} tensors come back bit by bit through .pth, '
    'parameters and .pth again, and load strictly with '
    f'{len(keys.missing_keys + keys.unexpected_keys)} missing or unexpected '
    'names.'
  )


def time_programs(
  sizes: list[str], path: pathlib.Path | None
) -> dict[str, dict[str, float]]:
  """Measures what is not in the file yet; keys are the program's flags."""
  known = json.loads(path.read_text()) if path and path.exists() else {}
  for flags in _programs(sizes):
    if flags not in known:
      command = [sys.executable, '-m', 'benchmarks.side_by_side']
      done = subprocess.run(
        command + flags.split(), cwd=ROOT, capture_output=True, text=True
      )
      if done.returncode:  # on a GPU: too many clips for its memory
        known[flags] = {'failed': True}
      else:
        known[flags] = json.loads(done.stdout.splitlines()[-1])
        known[flags]['load'] = os.getloadavg()[0]
      if path:
        path.write_text(json.dumps(known, indent=2) + '\n')
  return known


def _programs(sizes: list[str]) -> list[str]:
  counts = {
    ('tiny', 'forward'): (2, 20),
    ('tiny', 'sam'): (2, 10),
    ('base', 'forward'): (1, 3),
    ('base', 'sam'): (1, 1),
  }
  programs = [
    f'--framework={framework} --size={size} --work={work} '
    f'--clips={counts[size, work][0]} --iterations={counts[size, work][1]}'
    for size in sizes
    for work in ('forward', 'sam')
    for framework in ('torch', 'jax')
  ]
  if jax.default_backend() == 'gpu' and torch.cuda.is_available():
    programs += [
      f'--framework={framework} --size=base --work={work} --clips={clips} '
      f'--iterations=10 --precision={precision} --gpu{extra}'
      for work in ('forward', 'sam')
      for clips in (2, 8, 32, 128)
      for precision in ('float32', 'tf32', 'bfloat16')
      for framework, extra in (
        ('torch', ''),
        ('torch', ' --compile'),
        ('jax', ''),
      )
    ]
  return programs


def timing_table(timings: dict[str, dict[str, Any]]) -> list[str]:
  """Tabulates times and memory, and the twin's time over ours."""
  rows = [
    '| program | clips | CPU ms, ours | twin | ratio | wall ms, ours | twin '
    '| ratio | first call s, ours | twin | memory MB, ours | twin | load |',
    '|' + ' --- |' * 13,
  ]
  for flags, ours in timings.items():
    theirs = timings.get(flags.replace('=jax', '=torch'))
    if '=jax' not in flags or theirs is None or 'failed' in ours | theirs:
      continue
    values = dict(x.lstrip('-').split('=') for x in flags.split() if '=' in x)
    name = ' '.join(
      [values['size'], values['work'], values.get('precision', '')]
    ).strip() + (' GPU' if '--gpu' in flags else '')
    rows.append(
      f'| {name} | {values["clips"]} '
      + ''.join(
        f'| {ours[k]:.4g} | {theirs[k]:.4g} | {theirs[k] / ours[k]:.2f} '
        for k in ('cpu_ms', 'wall_ms')
      )
      + f'| {ours["first_s"]:.1f} | {theirs["first_s"]:.1f} '
      f'| {ours["memory_mb"]:.0f} | {theirs["memory_mb"]:.0f} '
      f'| {ours["load"]:.1f}, {theirs["load"]:.1f} |'
    )
  return rows


def write(args: argparse.Namespace) -> str:
  """Measures everything and returns the page."""
  torch.set_num_threads(1)
  sizes = [size for size in args.sizes.split(',') if size]
  with jax.default_matmul_precision('highest'):
    layers = {
      f'{size} size, {name} semantics': compare_layers(name, size, num_clips)
      for size, num_clips in (('tiny', NUM_CLIPS), ('base', 1))
      for name in SEMANTICS
      if size == 'tiny' or (size in sizes and name == 'paper')
    }
    gradients = {name: compare_gradients(name) for name in SEMANTICS}
    drift, ours_apart, twin_apart = compare_drift(args.steps)
    target_rows = compare_targets()
  round_trip = compare_round_trip()
  timings = time_programs(sizes, args.timings)
  worst_layer = max(worst for _, worst in layers.values())
  worst_gradient = max(worst for _, _, worst in gradients.values())
  join: Callable[[list[str]], str] = '\n'.join
  gpu_note = ''
  if not any('--gpu' in flags for flags in timings):
    gpu_note = 'No GPU was at hand: nothing here speaks of one. '
  sections = ''
  for name, (table, _) in layers.items():
    sections += f'\n### Layers, {name}\n\n{join(table)}\n'
  for name, (terms, table, _) in gradients.items():
    sections += (
      f'\n### Loss terms and gradients, {name} semantics\n\n{join(terms)}\n\n'
      f'{join(table)}\n'
    )
  conclusions = [
    textwrap.fill(text, 80, subsequent_indent='  ', break_on_hyphens=False)
    for text in (
      '- **It is the same function.** With the same weights and inputs every '
      f'layer agrees within {worst_layer:.0e} of its largest value and every '
      'group of gradients, at w and at w + e, within '
      f"{worst_gradient:.0e} of its norm, in the paper's semantics and in the "
      "released code's. Either program is as far from float64 as from the "
      'other: what is left is the rounding of float32.',
      f'- **It trains the same way.** After {args.steps} SAM steps on the same '
      f'batches ours and the twin are apart by {ours_apart:.0e} of the way '
      'gone; the twin is apart from itself in float64 by '
      f'{twin_apart:.0e}. Nobody could tell by its losses which program made a '
      'run.',
      f'- **Weights move freely.** {round_trip}',
      '- **Speed is a matter of the machine.** The last table has CPU and wall '
      'time of both; a ratio above 1 says that the twin took longer. '
      f'{gpu_note}The first call of ours compiles, once per program; a '
      'compilation cache keeps it.',
    )
  ]
  return f"""# JAX against PyTorch

Written by `python -m benchmarks.parity`; do not edit by hand.
{
    textwrap.fill(
      machine.describe(jax.default_backend()), 80, break_on_hyphens=False
    )
  }

## What to conclude

{join(conclusions)}

The twin (`benchmarks/torch_twin.py`) is our own rewrite of the model in
PyTorch. That it computes what the released code computes is shown by
tests/torch_twin_test.py against arrays which that code produced;
tests/official_parity_test.py shows the same of ours, without torch.

## Outputs, losses, gradients

Tiny is width {SIZES['width']}, depth {SIZES['depth']}, {
    SIZES['num_heads']
  } heads, {SIZES['image_size']} px in patches of {SIZES['patch_size']}, T = {
    SIZES['num_frames']
  }, {NUM_CLIPS}
clips of noise; base is ViT-B/16 at 224 px, one clip. Every tensor is random;
float32, highest matmul precision, dropout off. "Relative" is to the layer's
largest value; a group's gradient is all its tensors as one vector.
{sections}
## Drift over {args.steps} steps

SAM around Adam, learning rate {LR:g}, a new batch of {NUM_CLIPS} clips each
step. Weights: distance between two programs, divided by the way that they went
in float64. Left out are the parameters whose true gradient is zero (the key
third of every qkv bias, the two biases before BatchNorm): rounding alone moves
those.

{join(drift)}

## Temporal targets

Against a rewrite in NumPy, random boundary maps in 8-bit levels, 4 frames of
14 x 14 cells, pseudo-fake and real target.

{join(target_rows)}

## Time and memory

Median of the calls after the first (tiny: 20 forwards, 10 steps; base: 3
forwards, 1 step), float32, dropout off, one thread for either framework, eager
PyTorch; `base` is ViT-B/16 at 224 px, 123.6 M parameters; `sam` is a whole
training step, two passes forward and back and Adam. Memory is the growth of the
process's peak after importing the framework; for ours it includes the
compiler's. Load is the machine's, ours and twin: where it is above the number
of cores, trust CPU time and not wall time.

{join(timing_table(timings))}
"""


def main() -> None:
  """Parses the flags and writes the page."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--steps', type=int, default=100)
  parser.add_argument('--sizes', default='tiny,base', help='to time')
  parser.add_argument('--timings', type=pathlib.Path, help='file to keep them')
  parser.add_argument(
    '--training', type=pathlib.Path, default=train_both.OUT, help='its folder'
  )
  parser.add_argument(
    '--out', type=pathlib.Path, default=ROOT / 'docs' / 'jax_vs_pytorch.md'
  )
  args = parser.parse_args()
  args.out.write_text(write(args))
  # The last section, trained where that has not been done yet.
  train_both.write_section(
    train_both.parse([f'--out={args.training}', f'--page={args.out}'])
  )
  print(f'wrote {args.out}')


if __name__ == '__main__':
  main()
