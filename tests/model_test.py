"""What the detector promises at any size, beyond parity with the original."""

import dataclasses
import functools
import re

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest
import quick_compile

from configs import base
from stormer_jax import model, sharding

CONFIG = model.StormerConfig(
  width=16,
  depth=2,
  num_heads=2,
  mlp_ratio=2.0,
  image_size=12,
  patch_size=4,
  num_frames=3,
  drop_path=0.0,
  head_dropout=0.0,
  temporal_token='learned',
  map_layout='thw',
  dtype='float32',
  attention='xla',
  remat='none',
  scan_layers=True,
)


def _config(**changes):
  return dataclasses.replace(CONFIG, **changes)


@functools.cache
def _parts(config, seed=0):
  """A detector whose every parameter matters: nothing is left at zero."""

  def build():
    detector = model.Stormer(config, rngs=nnx.Rngs(seed))
    return nnx.split(detector, nnx.Param, ...)

  # Drawn by NumPy: to compile the model's own start takes seconds.
  graphdef, params, stats = nnx.eval_shape(build)
  random = np.random.default_rng(seed)

  def fill(path, leaf, noise):
    ones = any(getattr(k, 'key', None) in ('scale', 'var') for k in path)
    values = ones + noise * random.normal(size=leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  fill_all = jax.tree_util.tree_map_with_path
  return (
    graphdef,
    fill_all(functools.partial(fill, noise=0.2), params),
    fill_all(functools.partial(fill, noise=0.0), stats),
  )


def _clips(config, num_clips=2, seed=0):
  shape = (num_clips, config.num_frames, *[config.image_size] * 2, 3)
  random = np.random.default_rng(seed)
  return jnp.asarray(random.normal(size=shape), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _apply(config, parts, clip, train, key=None):
  """Outputs, and the statistics after them; `parts` is (params, stats)."""
  detector = nnx.merge(_parts(config)[0], *parts, copy=True)
  detector.train() if train else detector.eval()
  rngs = None if key is None else nnx.Rngs(dropout=key)
  outputs = detector(clip, rngs=rngs)
  return outputs, nnx.split(detector, nnx.Param, ...)[2]


def _outputs(config, clip, train=False, key=None):
  return _apply(config, _parts(config)[1:], clip, train, key)[0]


def _assert_close(a, b, rtol=1e-5, atol=1e-5):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
  'geometry',
  [
    # A lone frame; one patch; heads of one feature; a clip longer than wide.
    {'num_frames': 1, 'depth': 1, 'width': 8, 'num_heads': 8},
    {'image_size': 5, 'patch_size': 5, 'num_frames': 7, 'map_layout': 'thw'},
    {'image_size': 12, 'patch_size': 2, 'width': 12, 'num_heads': 3},
    {'mlp_ratio': 0.5, 'map_layout': 'scrambled', 'depth': 3},
    {'space_time': 'joint', 'drop_path': 0.0},
    {'space_time': 'space', 'num_frames': 2},
  ],
  ids=str,
)
def test_any_geometry_gives_outputs_of_its_size(geometry):
  config = _config(**geometry)
  clip = _clips(config, num_clips=3)
  outputs = _outputs(config, clip, train=True)
  t, grid = config.num_frames, config.image_size // config.patch_size
  assert outputs.logits.shape == (3,)
  assert outputs.soft_label_logits.shape == (3, t)
  assert outputs.vulnerability_map.shape == (3, t, grid, grid)
  for output in jax.tree.leaves(outputs):
    assert output.dtype == jnp.float32 and jnp.isfinite(output).all()


@pytest.mark.parametrize('space_time', ['divided', 'joint', 'space'])
def test_attention_in_time_is_what_lets_frames_see_each_other(space_time):
  config = _config(space_time=space_time, depth=1)
  clip = _clips(config)

  @jax.jit
  def patches_of(clip):
    detector = nnx.merge(*_parts(config), copy=True)
    return detector.encode(detector.embed(clip))[0].patches

  moved = patches_of(clip.at[:, 0].add(1.0)) - patches_of(clip)
  seen = jnp.abs(moved).max(axis=(1, 2, 3)) > 1e-4
  assert seen.tolist() == [True] + [space_time != 'space'] * 2


@pytest.mark.parametrize('space_time', ['joint', 'space'])
def test_the_temporal_token_sees_every_frame_without_divided_attention(
  space_time,
):
  config = _config(space_time=space_time)
  clip = _clips(config)
  logits = _outputs(config, clip).logits
  for t in range(config.num_frames):
    moved = _outputs(config, clip.at[:, t].add(1.0)).logits
    assert jnp.all(jnp.abs(moved - logits) > 1e-4)
  soft = _outputs(config, clip).soft_label_logits
  assert jnp.ptp(soft, axis=1).min() > 1e-4  # each frame has a word of its own


def test_a_clip_does_not_depend_on_its_batch_mates():
  clip = _clips(CONFIG, num_clips=3)
  together = _outputs(CONFIG, clip)
  for i in range(3):
    alone = _outputs(CONFIG, clip[i : i + 1])
    _assert_close(jax.tree.map(lambda x, i=i: x[i : i + 1], together), alone)


def test_a_clip_depends_on_the_first_of_its_batch_in_official_semantics():
  config = _config(temporal_token='first_clip')
  clip = _clips(config, num_clips=2)
  changed = clip.at[0].add(1.0)
  assert _outputs(config, clip).logits[1] != _outputs(config, changed).logits[1]
  changed = clip.at[1].add(1.0)
  assert _outputs(config, clip).logits[0] == _outputs(config, changed).logits[0]


def test_more_clips_than_patches_still_have_a_temporal_token():
  config = _config(
    temporal_token='first_clip', image_size=4, patch_size=4, num_frames=2
  )
  assert _outputs(config, _clips(config, num_clips=3)).logits.shape == (3,)


def test_the_map_lies_where_its_patches_are():
  # The map head alone: a token's features reach its own patch at all times.
  head = model.MapHead(CONFIG, rngs=nnx.Rngs(0))
  head.eval()
  patches = jnp.zeros((1, 9, 3, 16))
  lit = patches.at[0, 5].set(1.0)  # row 1, column 2
  change = jnp.abs(head(lit) - head(patches))[0].max(axis=0)
  assert change[1, 2] > 0 and jnp.count_nonzero(change) == 1


@pytest.mark.parametrize('train', [False, True])
def test_jit_equals_eager(train):
  # jax 0.10.2 miscompiles some networks on CPU.
  config = _config(drop_path=0.5, head_dropout=0.5, scan_layers=False)
  clip, key = _clips(config), jax.random.key(1)
  expected = _outputs(config, clip, train, key)
  graphdef, params, stats = _parts(config)
  detector = nnx.merge(graphdef, params, stats, copy=True)
  detector.train() if train else detector.eval()
  outputs = detector(clip, rngs=nnx.Rngs(dropout=key))
  _assert_close(outputs, expected)


def _gradients(config, params, clip, key):
  graphdef, _, stats = _parts(config)

  def loss(params):
    detector = nnx.merge(graphdef, params, stats, copy=True)
    detector.train()
    outputs = detector(clip, rngs=nnx.Rngs(dropout=key))
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(outputs))

  gradients = jax.value_and_grad(loss)
  return jax.jit(gradients, compiler_options=quick_compile.OPTIONS)(params)


def test_scan_and_remat_change_no_number():
  config = _config(drop_path=0.3, head_dropout=0.2, scan_layers=False)
  clip, key = _clips(config), jax.random.key(1)
  _, params, _ = _parts(config)
  expected = _gradients(config, params, clip, key)
  scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected[1]))
  for scan_layers, remat in ((True, 'none'), (True, 'full'), (False, 'dots')):
    other = dataclasses.replace(config, scan_layers=scan_layers, remat=remat)
    loss, gradients = _gradients(other, params, clip, key)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    _assert_close(gradients, expected[1], rtol=0, atol=1e-5 * scale)


def test_bfloat16_computes_near_float32_from_float32_parameters():
  config = _config(dtype='bfloat16')
  _, params, _ = _parts(config)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
  clip = _clips(config)
  outputs = _outputs(config, clip)
  exact = _outputs(CONFIG, clip)
  for ours, theirs in zip(
    jax.tree.leaves(outputs), jax.tree.leaves(exact), strict=True
  ):
    assert ours.dtype == jnp.float32
    assert not jnp.array_equal(ours, theirs)
    error = jnp.abs(ours - theirs).max()
    assert error < 0.05 * jnp.abs(theirs).max()


def test_training_draws_from_the_key_and_evaluation_from_none():
  config = _config(drop_path=0.5, head_dropout=0.5)
  clip = _clips(config)
  one, other = jax.random.key(0), jax.random.key(1)
  first = _outputs(config, clip, True, one)
  _assert_close(_outputs(config, clip, True, one), first, 0, 0)
  for a, b in zip(
    jax.tree.leaves(first),
    jax.tree.leaves(_outputs(config, clip, True, other)),
    strict=True,
  ):
    assert not jnp.array_equal(a, b)
  _assert_close(
    _outputs(config, clip, False, one), _outputs(config, clip), 0, 0
  )


def test_a_view_for_evaluation_equals_eval_mode():
  graphdef, params, stats = _parts(_config(drop_path=0.5, head_dropout=0.5))
  detector = nnx.merge(graphdef, params, stats, copy=True)
  view = nnx.view(detector, deterministic=True, use_running_average=True)
  assert view.deterministic and view.soft_label_head.dropout.deterministic
  assert view.map_head.norm1.use_running_average
  assert not detector.map_head.norm2.use_running_average


FORMS = {
  'lanes': model._attend_in_lanes,
  'sums': model._attend_in_sums,
  'batches': model._attend_in_batches,
  'parts': functools.partial(model._attend_in_parts, over_time=True),
  'frames': functools.partial(model._attend_in_parts, over_time=False),
}


@pytest.mark.parametrize('form', ['lanes', 'sums', 'parts', 'frames'])
@pytest.mark.parametrize('num_frames, num_places', [(3, 7), (20, 14), (130, 3)])
def test_attention_is_the_same_on_every_device(form, num_frames, num_places):
  """The forms of a TPU and of a GPU, and their gradients, run on one device."""
  shape = (3, num_frames, num_places, 2, 24)
  random = np.random.default_rng(0)
  inputs = jnp.asarray(random.normal(size=shape), jnp.float32)

  def over_space(*inputs, num_heads):
    return model._attend_over_space(*inputs, num_heads, 'xla')

  def both(attend):
    outputs, back = jax.vjp(functools.partial(attend, num_heads=3), *inputs)
    return outputs, back(jnp.cos(outputs))

  plain = over_space if form == 'frames' else model._attend_in_batches
  with jax.default_matmul_precision('highest'):
    _assert_close(
      jax.jit(both, static_argnums=0)(FORMS[form]),
      jax.jit(both, static_argnums=0)(plain),
    )


@pytest.mark.parametrize('form', FORMS)
def test_no_form_of_attention_gathers_clips(form):
  mesh = sharding.make_mesh(data=8)
  by_clip = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(None, None, mesh.axis_names)
  )
  tubes = jax.ShapeDtypeStruct((20, 14, 8, 24), jnp.float32, sharding=by_clip)
  attend = functools.partial(FORMS[form], num_heads=3)

  def both(*inputs):
    outputs, back = jax.vjp(attend, *inputs)
    return outputs, back(outputs)

  program = jax.jit(both).lower(tubes, tubes, tubes).compile().as_text()
  assert 'all-' not in program


def test_the_gradient_of_a_bias_is_the_sum_over_its_rows():
  rows = jnp.asarray(np.random.default_rng(0).normal(size=(2, 37, 24)))
  change = jax.vjp(model._add_bias, rows, jnp.zeros((1, 1, 24)))[1](rows)
  _assert_close(change, (rows, rows.sum(axis=(0, 1), keepdims=True)))
  with jax.default_matmul_precision('highest'):
    _assert_close(model._sum_by_product(rows), rows.sum(axis=(0, 1)))


@pytest.mark.parametrize('form', ['sum', 'product'])
def test_the_gradient_of_a_bias_gathers_no_clips(form):
  mesh = sharding.make_mesh(data=8)
  by_clip = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(None, None, mesh.axis_names)
  )
  x = jax.ShapeDtypeStruct((4, 7, 8, 24), jnp.float32, sharding=by_clip)
  bias = jnp.zeros((1, 1, 1, 24))
  totals = {
    'sum': lambda x: jax.vjp(model._add_bias, x, bias)[1](x)[1],
    'product': model._sum_by_product,
  }
  program = jax.jit(totals[form]).lower(x).compile().as_text()
  assert ' all-reduce(' in program
  assert 'all-gather' not in program


@pytest.mark.parametrize('num_tokens', [16, 17])
def test_cudnn_is_asked_for_even_lengths_and_says_the_same(
  num_tokens, monkeypatch
):
  """Its gradient refuses 197 tokens; here XLA stands in for it."""
  library, lengths = jax.nn.dot_product_attention, []

  def cudnn(query, key, value, *, implementation, **named):
    assert implementation == 'cudnn'
    lengths.append(query.shape[1])
    return library(query, key, value, implementation='xla', **named)

  def both(attention):
    config = _config(attention=attention, dtype='bfloat16')
    block = model.SpaceTimeBlock(config, rngs=nnx.Rngs(0))
    shape = (3, num_tokens, 2, config.width)
    frames = jnp.asarray(
      np.random.default_rng(0).normal(size=shape), 'bfloat16'
    )
    graphdef, params = nnx.split(block)

    def change(params, frames):
      block = nnx.merge(graphdef, params)
      return block.over_space(frames, jnp.zeros(()), None)

    outputs, back = jax.vjp(change, params, frames)
    return (
      outputs,
      nnx.to_pure_dict(back(jnp.cos(outputs))[0]),
      back(outputs)[1],
    )

  theirs = both('xla')
  monkeypatch.setattr(jax.nn, 'dot_product_attention', cudnn)
  _assert_close(both('cudnn'), theirs, 0.05, 0.05)
  assert set(lengths) == {num_tokens + num_tokens % 2}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gelu_and_its_slope_are_exact(dtype):
  x = jnp.linspace(-6, 6, 200, dtype=dtype)
  ours, slope = jax.jvp(model._gelu, (x,), (jnp.ones_like(x),))
  exact = jax.nn.gelu(x.astype(jnp.float32), approximate=False)
  exact_slope = jax.vmap(
    jax.grad(functools.partial(jax.nn.gelu, approximate=False))
  )(x.astype(jnp.float32))
  limit = 1e-6 if dtype == 'float32' else 2**-8
  _assert_close((ours, slope), (exact, exact_slope), limit, limit)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_norm_and_its_way_back_are_those_of_a_plain_one(dtype):
  random = np.random.default_rng(0)
  graphdef, _ = nnx.split(model.LayerNorm(12, dtype=dtype, rngs=nnx.Rngs(0)))
  # As far from 0 as outliers of a ViT: 30 of its deviations.
  x = jnp.asarray(random.normal(30.0, 1.0, size=(3, 4, 12)), dtype)
  scale, bias, pull = (
    jnp.asarray(random.normal(size=size), jnp.float32)
    for size in (12, 12, x.shape)
  )

  def ours(x, scale, bias):
    norm = nnx.merge(graphdef, nnx.State({'scale': scale, 'bias': bias}))
    return (norm(x).astype(jnp.float32) * pull).sum()

  def plain(x, scale, bias):
    x = x - x.mean(axis=-1, keepdims=True)
    slope = jax.lax.rsqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    return ((x * slope * scale[None, None] + bias[None, None]) * pull).sum()

  seen = jax.value_and_grad(ours, argnums=(0, 1, 2))(x, scale, bias)
  expected = jax.value_and_grad(plain, argnums=(0, 1, 2))(
    x.astype(jnp.float32), scale, bias
  )
  limit = 2e-5 if dtype == 'float32' else 2**-6
  _assert_close(seen, expected, limit, limit)


def _block(**changes):
  """One block whose temporal projection is only a bias of ones."""
  block = model.SpaceTimeBlock(_config(**changes), rngs=nnx.Rngs(0))
  block.temporal_fc.bias[...] = jnp.ones_like(block.temporal_fc.bias[...])
  return block


def test_dropped_tubes_still_receive_the_bias_of_temporal_fc():
  token = jnp.zeros((2, 16))
  tokens, frame_classes = _block()(
    model.Tokens(token, jnp.zeros((3, 9, 2, 16)), token),
    jnp.array(0.9999999),
    jax.random.key(0),
  )
  assert not tokens.class_token.any()  # no path to it is left
  assert (tokens.patches == 1).all() and (tokens.temporal_token == 1).all()
  assert not frame_classes.any()


def test_drop_path_drops_tubes_and_frames_and_clips():
  x = jnp.ones((40, 50, 3, 4))
  for rows in ((0,), (0, 1), (1, 0), (2, 1)):
    y = model._drop_path(x, jnp.array(0.25), jax.random.key(0), rows)
    # Rows first, then what a row holds.
    y = jnp.moveaxis(y, rows, range(len(rows)))
    flat = y.reshape(np.prod(y.shape[: len(rows)]), -1)
    kept = flat[:, 0] > 0
    np.testing.assert_allclose(
      flat, np.where(kept, 4 / 3, 0)[:, None] + 0 * flat
    )
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.1875 / kept.size)
  assert model._drop_path(x, jnp.array(0.25), None, (0, 1)) is x


def test_drop_path_grows_from_none_in_the_first_block():
  config = _config(depth=1, drop_path=0.9)
  clip = _clips(config)
  trained = _outputs(config, clip, True, jax.random.key(0))
  np.testing.assert_allclose(
    trained.logits, _outputs(config, clip).logits, rtol=1e-5
  )


@pytest.mark.parametrize('groups', [1, 3])
def test_batch_norm_equals_a_numpy_rewrite(groups):
  """Statistics of each part of the batch; running ones of the first (D36)."""
  norm = model.BatchNorm(5, 'float32', groups)
  random = np.random.default_rng(0)
  norm.scale[...] = jnp.asarray(random.normal(size=5), jnp.float32)
  norm.bias[...] = jnp.asarray(random.normal(size=5), jnp.float32)
  running_mean, running_var = np.zeros(5), np.ones(5)
  for count in (1, 2, 3):
    x = random.normal(3.0, 2.0, size=(6, 4, 5))
    y = norm(jnp.asarray(x, jnp.float32))
    expected = []
    for part in np.split(x, groups):
      part = (part - part.mean((0, 1))) / np.sqrt(part.var((0, 1)) + 1e-5)
      expected.append(part * np.asarray(norm.scale) + np.asarray(norm.bias))
    np.testing.assert_allclose(
      y, np.concatenate(expected), rtol=1e-4, atol=1e-5
    )
    first = x[: 6 // groups]
    running_mean = 0.95 * running_mean + 0.05 * first.mean((0, 1))
    running_var = 0.95 * running_var + 0.05 * first.var((0, 1), ddof=1)
    np.testing.assert_allclose(norm.mean, running_mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var, running_var, rtol=1e-5)
    assert norm.count[...] == count
  norm.eval()
  expected = (x - running_mean) / np.sqrt(running_var + 1e-5)
  expected = expected * np.asarray(norm.scale) + np.asarray(norm.bias)
  y = norm(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  assert norm.count[...] == 3


def test_statistics_of_each_device_need_no_talk_between_devices():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec('data'))

  @jax.jit
  def normalise(x):
    norm = model.BatchNorm(5, 'float32', groups=8)
    return norm(x), norm.mean[...]

  x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 7, 5)), jnp.float32)
  program = normalise.lower(jax.device_put(x, split)).compile()
  # Only the running statistics, 5 numbers, go from the first device to all.
  talk = re.findall(r'= f32\[([\d,]*)\]\S* all-[a-z]+\(', program.as_text())
  assert talk and all(np.prod(np.int_(size.split(','))) == 5 for size in talk)
  for ours, theirs in zip(
    program(jax.device_put(x, split)), normalise(x), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_groups_that_do_not_divide_the_batch_are_refused():
  norm = model.BatchNorm(5, 'float32', groups=4)
  with pytest.raises(
    ValueError, match=r'batch_norm_groups is 4, .* the 6 clips'
  ):
    norm(jnp.ones((6, 2, 5)))
  norm.eval()
  norm(jnp.ones((6, 2, 5)))  # running statistics know no groups


def test_eight_devices_share_the_statistics_of_the_whole_batch():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  clip = _clips(CONFIG, num_clips=8)
  sharded = jax.device_put(clip, NamedSharding(mesh, PartitionSpec('data')))
  parts = _parts(CONFIG)[1:]
  everywhere = NamedSharding(mesh, PartitionSpec())
  replicated = jax.device_put(parts, everywhere)
  expected = _apply(CONFIG, parts, clip, True)
  outputs = _apply(CONFIG, replicated, sharded, True)
  _assert_close(outputs, expected)


@pytest.mark.parametrize(
  ('changes', 'total', 'heads'),
  [
    ({}, 123_627_078, (769, 150_724, 2_215_297)),
    (
      {'width': 1024, 'depth': 24, 'num_heads': 16},
      433_517_318,
      (1025, 266_500, 3_936_769),
    ),
    ({'patch_size': 8}, 123_636_294, (769, 150_724, 2_215_297)),
  ],
  ids=['base', 'large', 'base_8px'],
)
def test_sizes_are_the_published_ones(changes, total, heads):
  fields = {**base.get_config().model, **changes}
  config = model.StormerConfig(**fields)
  detector = nnx.eval_shape(lambda: model.Stormer(config, rngs=nnx.Rngs(0)))

  def count(part, kind=nnx.Param):
    state = nnx.state(part, kind)
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state))

  # The original counts the norm that it never uses.
  assert count(detector) + count(detector, model.Carried) == total
  assert count(detector, model.Carried) == 2 * config.width
  found = (detector.class_head, detector.soft_label_head, detector.map_head)
  assert tuple(map(count, found)) == heads


def test_a_fresh_detector_starts_as_the_paper_says():
  config = _config(width=64, num_heads=4, depth=2)
  detector = model.Stormer(config, rngs=nnx.Rngs(0))
  blocks = detector.blocks
  assert not blocks.temporal_fc.kernel[...].any()
  assert not blocks.temporal_fc.bias[...].any()
  assert not detector.time_embed[...].any()
  assert 0 < jnp.abs(detector.temporal_token[...]).max() < 1e-5
  qkv = blocks.temporal_attn.qkv
  for tensor in (qkv.kernel[...], qkv.bias[...]):
    assert 0.11 < jnp.abs(tensor).max() <= 0.125  # 1 / sqrt(64)
  assert not jnp.array_equal(qkv.kernel[0], qkv.kernel[1])
  assert jnp.abs(detector.map_head.conv1.kernel[...]).max() <= 192**-0.5


@pytest.mark.parametrize(
  ('shape', 'words'),
  [
    ((1, 2, 12, 12, 3), 'clip has 2 frames .* model.num_frames is 3'),
    ((1, 3, 12, 16, 3), 'of 12x16 px.* model.image_size is 12'),
  ],
)
def test_a_clip_of_another_shape_is_refused(shape, words):
  graphdef, params, stats = _parts(CONFIG)
  with pytest.raises(ValueError, match=words):
    nnx.merge(graphdef, params, stats)(jnp.zeros(shape))


@pytest.mark.parametrize(
  'changes', [{'drop_path': 0.1}, {'head_dropout': 0.1}], ids=str
)
def test_training_without_random_numbers_is_refused(changes):
  config = _config(**changes)
  detector = model.Stormer(config, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match=r'rngs=nnx\.Rngs'):
    detector(_clips(config))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'temporal_token': 'own'}, "model.temporal_token is 'own'; .*learned"),
    ({'map_layout': 'hwt'}, 'model.map_layout .*scrambled'),
    ({'dtype': 'float16'}, 'model.dtype .*bfloat16'),
    ({'remat': 'some'}, 'model.remat .*dots'),
    ({'attention': 'cudnn'}, 'needs model.dtype=bfloat16'),
    ({'width': 18}, 'model.width is 18; it must be a multiple of'),
    ({'width': 16, 'num_heads': 5}, 'model.width is 16; .* num_heads'),
    ({'image_size': 13}, 'model.image_size is 13; .* patch_size'),
    ({'image_size': 0}, 'model.image_size is 0'),
    ({'depth': 0}, 'model.depth is 0; at least 1'),
    ({'batch_norm_groups': 0}, 'model.batch_norm_groups is 0; at least 1'),
    ({'drop_path': 1.0}, r'model.drop_path is 1.0; in \[0, 1\)'),
  ],
  ids=str,
)
def test_a_wrong_field_is_named(changes, words):
  with pytest.raises(ValueError, match=words):
    _config(**changes)
