"""Number by number against the original code, whose results are golden arrays.

A model of width 48 with random weights, in three variants: the released code
as it is (`official`); with its temporal token repaired (`fixed_temp`); with its
map layout repaired too (`fixed_both`, the paper). tests/golden/README.md says
what the arrays are. All in float32 under the highest matmul precision.
"""

import functools

from einops import pack, rearrange
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormer_jax import losses, model, optimizer
from stormer_jax.weights import pretrained

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
TERMS = {'hm': 'spatial', 'cls': 'classification', 'temp_loc': 'temporal'}
# Their true gradient is zero: a bias before BatchNorm, and (not a whole
# tensor) the key third of a qkv bias. Rounding alone moves them.
NO_GRADIENT = (
  'keypoint_head.hm.before_proj.0.0.bias',
  'keypoint_head.hm.proj.0.0.bias',
)

# float32 against float64 of the original itself: 6e-7 on outputs, 0.0035 x lr
# on parameters after three steps. The bars leave room for another order of
# summation, and none for another formula.
OUTPUT_TOLERANCE = 2e-5  # of the largest value
TOKEN_TOLERANCE = 3e-6  # the same; tells LayerNorm's eps of 1e-6 from 1e-5
GRADIENT_TOLERANCE = 1e-4  # of the tensor's norm
MOVE_TOLERANCE = 0.01  # of the learning rate, per parameter


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision('highest'):
    yield


@pytest.fixture(scope='module')
def weights(golden):
  """Model fields, parameters, statistics and the original's own tensors."""
  state_dict = _arrays(golden / 'model_tiny_state_dict.npz')
  fields, params, stats = pretrained.from_official(state_dict, num_heads=4)
  return fields, *jax.tree.map(jnp.asarray, (params, stats)), state_dict


def _arrays(path):
  with np.load(path) as arrays:
    return dict(arrays)


def _config(fields, variant):
  return model.StormerConfig(
    **fields,
    **VARIANTS[variant],
    drop_path=0.0,
    head_dropout=0.0,
    dtype='float32',
    attention='xla',
    remat='none',
    scan_layers=True,
  )


def _detector(fields, variant, params, stats):
  config = _config(fields, variant)
  abstract = nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0)))
  graphdef = nnx.graphdef(abstract)
  return nnx.merge(graphdef, nnx.State(params), nnx.State(stats), copy=True)


def _relative(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


def _sequence(tokens):
  """All tokens of a clip in the original's order, tube by tube."""
  patches = rearrange(tokens.patches, 't n b d -> b n t d')
  parts = [tokens.class_token, patches, tokens.temporal_token]
  return pack(parts, 'b * d')[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _intermediates(fields, variant, params, stats, clip):
  """Everything between the clip and the outputs, by the original's names."""
  detector = _detector(dict(fields), variant, params, stats)
  detector.eval()
  config, found = detector.config, {}
  frames = rearrange(clip, 'b t h w c -> (b t) h w c')
  found['patch_embed'] = detector.patch_embed(frames)
  tokens = detector.embed(clip)
  found['tokens_in'] = _sequence(tokens)
  graphdef, stacked = nnx.split(detector.blocks)

  def run_block(tokens, block):
    tokens, frame_classes = nnx.merge(graphdef, block)(
      tokens, jnp.zeros(()), None
    )
    frame_classes = rearrange(frame_classes, 't b d -> b t d')
    return tokens, (_sequence(tokens), frame_classes)

  _, (all_tokens, all_classes) = jax.lax.scan(run_block, tokens, stacked)
  for i in range(config.depth):
    found[f'block{i}'] = all_tokens[i]
    found[f'block{i}_s_cls'] = all_classes[i]
  found['norm'] = tokens = detector.norm(all_tokens[-1])
  found['cls_token'] = tokens[:, -1:]
  found['s_cls_token_normed'] = detector.class_norm(all_classes[-1])
  head = detector.soft_label_head
  found['temp_loc_fc1'] = jax.nn.gelu(
    head.fc1(found['s_cls_token_normed']), approximate=False
  )
  sizes = {'gh': config.grid_size, 'gw': config.grid_size}
  order = 'gh gw t' if config.map_layout == 'thw' else 't gh gw'
  grid = rearrange(tokens[:, 1:-1], f'b ({order}) d -> b (gh gw) t d', **sizes)

  def picture(x):
    return rearrange(x, 'b (gh gw) t d -> b d t gh gw', **sizes)

  head = detector.map_head
  found['embed'] = picture(grid)
  x = jax.nn.gelu(head.norm1(head.conv1(grid)), approximate=False)
  found['hm_before_proj'] = picture(x)
  x = jax.nn.gelu(head.norm2(head.conv2(x)), approximate=False)
  found['hm_proj0'] = picture(x)
  outputs = detector(clip)
  found['out_cls'] = outputs.logits[:, None]
  found['out_temp_loc'] = outputs.soft_label_logits
  found['out_hm'] = outputs.vulnerability_map[:, None]
  return found


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('size', [3, 1])
def test_every_intermediate_is_the_originals(golden, weights, variant, size):
  fields, params, stats, _ = weights
  arrays = _arrays(golden / 'model_tiny_io.npz')
  clips = rearrange(arrays['x'], 'b c t h w -> b t h w c')
  run = functools.partial(
    _intermediates, tuple(fields.items()), variant, params, stats
  )
  batches = (
    {'b3': clips}
    if size == 3
    else {f'b1_{i}': clips[i : i + 1] for i in range(3)}
  )
  for batch, clip in batches.items():
    found = run(clip)
    # What map layout cannot change is stored once.
    compared = 0
    for name, ours in found.items():
      if f'{variant}/{batch}/{name}' in arrays:
        theirs = arrays[f'{variant}/{batch}/{name}']
        limit = OUTPUT_TOLERANCE if 'out_' in name else TOKEN_TOLERANCE
        assert _relative(ours, theirs) < limit, (batch, name)
        compared += 1
    assert compared == {'b3': 18, 'b1_0': 18}.get(batch, 3) - (
      12 if variant == 'fixed_temp' and batch in ('b3', 'b1_0') else 0
    )


def _batch(arrays, i):
  """A batch of the original's loader in our layout."""

  def get(name):
    return jnp.asarray(arrays[f'batch{i}/{name}'], jnp.float32)

  return {
    'clip': rearrange(get('img'), 'b c t h w -> b t h w c'),
    'label': get('label')[:, 0],
    'vulnerability_map': get('heatmap')[:, 0],
    'soft_label': get('temp_loc'),
    'kept': get('mask_out_p')[:, 0],
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loss(fields, variant, params, stats, batch):
  detector = _detector(dict(fields), variant, params, stats)
  detector.train()
  outputs = detector(batch['clip'])
  total, terms = losses.three_task_loss(outputs, batch, **LOSS_WEIGHTS)
  new_stats = nnx.to_pure_dict(nnx.split(detector, nnx.Param, ...)[2])
  return total, ({**terms, 'outputs': outputs}, new_stats)


def _sam(fields, variant, params, stats, batch, rho=0.05):
  """As in training, but jitted pass by pass: one program for all passes."""
  return optimizer.sam_gradients(
    lambda params, stats: _loss(fields, variant, params, stats, batch),
    params,
    stats,
    rho=rho,
    batch_stats='both_passes',
  )


def _close_gradients(ours, arrays, prefix):
  compared = 0
  for name, ours_i in ours.items():
    if f'{prefix}/{name}' not in arrays or name in NO_GRADIENT:
      continue
    theirs = arrays[f'{prefix}/{name}']
    difference = np.linalg.norm(ours_i - theirs)
    limit = GRADIENT_TOLERANCE * np.linalg.norm(theirs)
    assert difference <= limit, (prefix, name, difference, limit)
    compared += 1
  assert compared == 84


def _close_statistics(ours, arrays, prefix, drift=None):
  names = [name for name in ours if 'running' in name or 'tracked' in name]
  assert len(names) == 6
  for name, difference in (drift or {}).items():
    mean = name.replace('0.0.bias', '0.1.running_mean')
    ours = {**ours, mean: ours[mean] - difference}
  for name in names:
    theirs = arrays[f'{prefix}/{name}']
    if 'tracked' in name:
      assert ours[name] == theirs
    else:
      assert _relative(ours[name], theirs) < OUTPUT_TOLERANCE, (prefix, name)


@pytest.mark.parametrize('variant', VARIANTS)
def test_loss_and_gradients_at_both_points_are_the_originals(
  golden, weights, variant
):
  fields, params, stats, _ = weights
  fields = tuple(fields.items())
  arrays = _arrays(golden / f'losses_tiny_{variant}.npz')
  batch = _batch(_arrays(golden / 'losses_tiny_inputs.npz'), 0)

  gradients, new_stats, loss, terms = _sam(
    fields, variant, params, stats, batch, rho=0.0
  )
  np.testing.assert_allclose(loss, arrays['total_batch0'], rtol=1e-5)
  for theirs, ours in TERMS.items():
    expected = arrays[f'terms_batch0/{theirs}']
    np.testing.assert_allclose(terms[ours], expected, rtol=1e-5)
  outputs = terms['outputs']
  for ours, theirs in (
    (outputs.logits[:, None], 'cls'),
    (outputs.soft_label_logits, 'temp_loc'),
    (outputs.vulnerability_map[:, None], 'hm'),
  ):
    expected = arrays[f'out_train_batch0/{theirs}']
    assert _relative(ours, expected) < OUTPUT_TOLERANCE, theirs
  _close_statistics(
    pretrained.to_official(params, new_stats), arrays, 'bn_after_1_fwd'
  )
  _close_gradients(pretrained.to_official(gradients, stats), arrays, 'grad_w')
  np.testing.assert_allclose(
    optax.tree.norm(gradients), arrays['grad_norm'], rtol=1e-5
  )

  gradients, _, loss, _ = _sam(fields, variant, params, stats, batch)
  np.testing.assert_allclose(loss, arrays['total_batch0'], rtol=1e-5)
  _close_gradients(
    pretrained.to_official(gradients, stats), arrays, 'grad_w_plus_e'
  )
  # The token that is not read has a zero gradient, not a missing one: Adam
  # takes its L2 decay up to a learning rate a step (D5), as seen below.
  unread = variant == 'official'
  assert (np.abs(gradients['temporal_token']).max() == 0) == unread


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('lr', ['5e-05', '0.001'])
def test_three_sam_steps_end_where_the_original_ends(
  golden, weights, variant, lr
):
  fields, start, stats, state_dict = weights
  arrays = _arrays(golden / f'losses_tiny_{variant}.npz')
  inputs = _arrays(golden / 'losses_tiny_inputs.npz')
  tx = optimizer.make_optimizer(
    np.array([float(lr)]),
    steps_per_epoch=1,
    b1=0.9,
    b2=0.995,
    eps=1e-8,
    weight_decay=1e-4,
    decoupled_weight_decay=False,
    freeze_epochs=0,
  )
  update = jax.jit(tx.update)
  params, opt_state = start, tx.init(start)
  drift = dict.fromkeys(NO_GRADIENT, 0.0)
  for step in (1, 2, 3):
    gradients, stats, _, _ = _sam(
      tuple(fields.items()), variant, params, stats, _batch(inputs, step - 1)
    )
    updates, opt_state = update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    prefix = f'lr{lr}/step{step}'
    all_ours = pretrained.to_official(params, stats)
    _close_statistics(all_ours, arrays, f'{prefix}/buffer', drift)
    compared = 0
    for name, ours in all_ours.items():
      if f'{prefix}/move/{name}' not in arrays:
        continue
      # Stored in steps of 1/8192 of the learning rate.
      theirs = arrays[f'{prefix}/move/{name}'] / 8192
      move = ours.astype(np.float64) - state_dict[name]
      difference = move / float(lr) - theirs
      if name in NO_GRADIENT:
        # Both passes of the next step move the running mean by it.
        kept = 0.95**2
        drift[name] = kept * drift[name] + (1 - kept) * difference * float(lr)
        continue
      difference = np.abs(difference)
      if name.endswith('qkv.bias'):
        query, _, value = np.split(difference, 3)
        difference = np.stack([query, value])
      assert difference.max() < MOVE_TOLERANCE, (prefix, name)
      compared += 1
    # 86 trained tensors less two, and the norm that nothing trains.
    assert compared == 86


@pytest.mark.parametrize(
  ('name', 'num_epochs', 'init_lr', 'boost', 'warmup_epochs'),
  [
    ('base_c23_epochs200_sd4_boost500_lr1e-7', 200, 1e-7, 500, 50),
    ('large_c23_epochs100_sd4_boost1_lr5e-5', 100, 5e-5, 1, 25),
    ('base_c23_224p8_epochs100_sd2.5_boost1_lr5e-5', 100, 5e-5, 1, 40),
    ('base_c0_epochs120_sd4_boost500_lr1e-7', 120, 1e-7, 500, 30),
  ],
)
def test_learning_rate_of_every_epoch_is_the_originals(
  golden, name, num_epochs, init_lr, boost, warmup_epochs
):
  theirs = _arrays(golden / 'schedule.npz')[name]
  ours = optimizer.learning_rate(
    num_epochs, init_lr, boost * init_lr, warmup_epochs
  )
  np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0)
