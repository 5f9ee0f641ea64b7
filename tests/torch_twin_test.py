"""The PyTorch twin is the original, and ours is the twin at every size.

With torch absent nothing here can run: official_parity_test compares with the
original's own arrays, but at one size only.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormer_jax import losses, model
from stormer_jax.weights import pretrained

torch = pytest.importorskip(
  'torch', reason='torch is not installed: pip install -e ".[torch]"'
)
twin_lib = pytest.importorskip('benchmarks.torch_twin')

pytestmark = pytest.mark.extra

VARIANTS = {
  'official': {'temporal_token': 'first_clip', 'map_layout': 'scrambled'},
  'fixed_temp': {'temporal_token': 'learned', 'map_layout': 'scrambled'},
  'fixed_both': {'temporal_token': 'learned', 'map_layout': 'thw'},
}
LOSS_WEIGHTS = {
  'classification_weight': 0.8,
  'spatial_weight': 100.0,
  'temporal_weight': 0.2,
  'temperature': 2.0,
}
GOLDEN = {
  'width': 48,
  'depth': 3,
  'num_heads': 4,
  'mlp_ratio': 4.0,
  'image_size': 32,
  'patch_size': 8,
  'num_frames': 4,
}
# variant, width, heads, depth, mlp ratio, image, patch, frames, clips
SIZES = {
  'one block, head and frame': ('fixed_both', 4, 1, 1, 0.5, 12, 6, 1, 2),
  'more clips than patches': ('official', 8, 2, 2, 2.0, 8, 8, 2, 3),
  'wide heads, many frames': ('fixed_both', 24, 2, 1, 3.0, 12, 4, 7, 2),
  'small patches': ('official', 32, 4, 2, 1.25, 14, 2, 3, 1),
  'deep, one clip': ('fixed_temp', 16, 4, 5, 4.0, 10, 5, 4, 1),
}
# Biases before BatchNorm: their true gradient is zero.
NO_GRADIENT = ('before_proj.0.0.bias', 'hm.proj.0.0.bias')
# Both sides are float32 and sum in different orders: the error of either
# against float64 is below 1e-6 of an output and 3e-6 of a gradient's norm.
OUTPUT_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def quiet_and_exact():
  torch.set_num_threads(1)
  with jax.default_matmul_precision('highest'):
    yield


def make_twin(sizes, variant, seed):
  twin = twin_lib.TorchTwin(twin_lib.TwinConfig(**sizes, **VARIANTS[variant]))
  twin_lib.randomise(twin, seed)
  return twin


def state_dict_of(twin):
  return {name: x.detach().numpy() for name, x in twin.state_dict().items()}


def random_batch(sizes, num_clips, seed):
  """A batch in our layout."""
  rng = np.random.default_rng(seed)
  t, size = sizes['num_frames'], sizes['image_size']
  grid = size // sizes['patch_size']
  maps = (num_clips, t, grid, grid)
  return {
    'clip': rng.standard_normal((num_clips, t, size, size, 3)),
    'label': np.arange(num_clips) % 2,
    'vulnerability_map': rng.standard_normal(maps),
    'soft_label': rng.uniform(size=(num_clips, t)),
    'kept': rng.uniform(size=maps) < 0.8,
  }


def to_torch(batch):
  batch = {k: torch.from_numpy(np.float32(v)) for k, v in batch.items()}
  return batch | {'clip': batch['clip'].permute(0, 4, 1, 2, 3)}


def to_jax(batch):
  return {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}


def golden_batch(arrays, i):
  def get(name):
    return arrays[f'batch{i}/{name}']

  return {
    'clip': get('img').transpose(0, 2, 3, 4, 1),
    'label': get('label')[:, 0],
    'vulnerability_map': get('heatmap')[:, 0],
    'soft_label': get('temp_loc'),
    'kept': get('mask_out_p')[:, 0],
  }


def twin_loss(twin, batch):
  batch = to_torch(batch)
  return lambda: twin_lib.three_task_loss(twin(batch['clip']), batch)[0]


def test_weights_of_the_original_load_strictly(golden):
  arrays = np.load(golden / 'model_tiny_state_dict.npz')
  twin = make_twin(GOLDEN, 'official', 0)
  twin.load_state_dict(
    {k: torch.from_numpy(arrays[k]) for k in arrays.files}, strict=True
  )
  assert list(twin.state_dict()) == arrays.files
  for name, x in twin.state_dict().items():
    assert str(x.dtype) == f'torch.{arrays[name].dtype}'


def golden_twin(golden, variant):
  arrays = np.load(golden / 'model_tiny_state_dict.npz')
  twin = make_twin(GOLDEN, variant, 0)
  twin.load_state_dict({k: torch.from_numpy(arrays[k]) for k in arrays.files})
  return twin


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_twin_gives_the_originals_outputs(golden, variant):
  arrays = np.load(golden / 'model_tiny_io.npz')
  twin = golden_twin(golden, variant).eval()
  for batch, rows in (('b3', slice(None)), ('b1_1', slice(1, 2))):
    with torch.no_grad():
      outputs = twin(torch.from_numpy(arrays['x'][rows]))
    compared = 0
    for name, ours in (
      ('out_cls', outputs.logits[:, None]),
      ('out_temp_loc', outputs.soft_label_logits),
      ('out_hm', outputs.vulnerability_map[:, None]),
    ):
      if f'{variant}/{batch}/{name}' in arrays:
        theirs = arrays[f'{variant}/{batch}/{name}']
        np.testing.assert_allclose(ours.numpy(), theirs, atol=3e-6)
        compared += 1
    assert compared


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_twin_takes_the_originals_sam_steps(golden, variant):
  arrays = np.load(golden / f'losses_tiny_{variant}.npz')
  inputs = np.load(golden / 'losses_tiny_inputs.npz')
  start = np.load(golden / 'model_tiny_state_dict.npz')
  twin, lr = golden_twin(golden, variant).train(), 1e-3
  adam = twin_lib.make_adam(twin, lr)
  for step in (1, 2, 3):
    loss, gradients = twin_lib.sam_step(
      twin,
      adam,
      twin_loss(twin, golden_batch(inputs, step - 1)),
      batch_stats='both_passes',
    )
    if step == 1:
      np.testing.assert_allclose(loss, arrays['total_batch0'], rtol=1e-5)
      at_worst = {k: p.grad for k, p in twin.named_parameters()}
      for prefix, found in (
        ('grad_w', gradients),
        ('grad_w_plus_e', at_worst),
      ):
        for name in (n for n in arrays.files if n.startswith(prefix + '/')):
          theirs = arrays[name]
          ours = found[name.removeprefix(prefix + '/')].numpy()
          norm = np.linalg.norm(theirs)
          if norm > 1e-3:  # else its true value is zero
            assert np.linalg.norm(ours - theirs) < 1e-5 * norm, name
  for name, ours in state_dict_of(twin).items():
    if 'running' in name or 'tracked' in name:
      theirs = arrays[f'lr0.001/step3/buffer/{name}']
      # The mean carries a bias that rounding alone moves, by lr a step.
      atol = lr if name.endswith('mean') else 1e-6
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=atol)
    elif f'lr0.001/step3/move/{name}' in arrays:
      if name.endswith(NO_GRADIENT):
        continue
      move = (ours.astype(np.float64) - start[name]) / lr
      difference = np.abs(move - arrays[f'lr0.001/step3/move/{name}'] / 8192)
      if name.endswith('qkv.bias'):  # so has the key's third
        query, _, value = np.split(difference, 3)
        difference = np.stack([query, value])
      assert difference.max() < 0.01, name


# Compiled without optimisation, in half the time.
@functools.partial(
  jax.jit,
  static_argnums=(0, 1),
  compiler_options={'xla_backend_optimization_level': 0},
)
def eval_and_gradient(fields, variant, params, stats, batch):
  """Eval-mode outputs, and training-mode loss, statistics and gradients."""
  config = model.StormerConfig(
    **dict(fields),
    **VARIANTS[variant],
    drop_path=0.0,
    head_dropout=0.0,
    dtype='float32',
    attention='xla',
    remat='none',
    scan_layers=True,
  )
  abstract = nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0)))
  graphdef = nnx.graphdef(abstract)

  def merge(params):
    return nnx.merge(graphdef, nnx.State(params), nnx.State(stats), copy=True)

  def loss_fn(params):
    detector = merge(params)
    detector.train()
    outputs = detector(batch['clip'])
    loss, _ = losses.three_task_loss(outputs, batch, **LOSS_WEIGHTS)
    return loss, nnx.to_pure_dict(nnx.split(detector, nnx.Param, ...)[2])

  detector = merge(params)
  detector.eval()
  outputs = detector(batch['clip'])
  return outputs, *jax.value_and_grad(loss_fn, has_aux=True)(params)


@pytest.mark.parametrize(
  'size',
  [
    pytest.param(size, marks=[pytest.mark.slow] if i > 2 else [])
    for i, size in enumerate(SIZES)
  ],
)
def test_ours_is_the_twin_at_any_size(size):
  variant, width, heads, depth, ratio, image, patch, frames, clips = SIZES[size]
  sizes = {
    'width': width,
    'depth': depth,
    'num_heads': heads,
    'mlp_ratio': ratio,
    'image_size': image,
    'patch_size': patch,
    'num_frames': frames,
  }
  twin = make_twin(sizes, variant, seed=1)
  values, params, stats = pretrained.from_official(state_dict_of(twin), heads)
  assert values == sizes
  batch = random_batch(sizes, clips, seed=2)
  run = functools.partial(
    eval_and_gradient, tuple(values.items()), variant, batch=to_jax(batch)
  )
  outputs, (loss, new_stats), first = run(params, stats)

  with torch.no_grad():
    theirs = twin.eval()(to_torch(batch)['clip'])
  for name in theirs._fields:
    ours, expected = getattr(outputs, name), getattr(theirs, name).numpy()
    limit = OUTPUT_TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, atol=limit, err_msg=name)

  # The gradient at w, that at w + e, and statistics of the first pass.
  scale = 0.05 / optax.tree.norm(first)
  worst = jax.tree.map(lambda w, g: np.asarray(w + scale * g), params, first)
  _, _, second = run(worst, stats)
  twin.train()
  adam = twin_lib.make_adam(twin, 1e-3)
  their_loss, their_first = twin_lib.sam_step(
    twin, adam, twin_loss(twin, batch)
  )
  np.testing.assert_allclose(loss, their_loss, rtol=1e-5)
  their_second = {
    k: p.grad for k, p in twin.named_parameters() if p.grad is not None
  }
  for ours, expected in ((first, their_first), (second, their_second)):
    official = pretrained.to_official(ours, stats)
    for name, gradient in expected.items():
      if name.endswith(NO_GRADIENT):
        continue
      difference = np.linalg.norm(official[name] - gradient.numpy())
      limit = GRADIENT_TOLERANCE * float(gradient.norm())
      assert difference <= limit, (name, difference, limit)
  new = pretrained.to_official(params, new_stats)
  for name, value in state_dict_of(twin).items():
    if 'running' in name or 'tracked' in name:
      np.testing.assert_allclose(
        new[name], value, rtol=1e-5, atol=1e-5, err_msg=name
      )
