"""The frame-wise ViT is an image ViT, and looks at frames one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_detector import make_detector

from configs import baselines
from data_pipeline import pipeline
from stormer_jax import flops, model, steps
from stormer_jax.weights import image_vit
from tests.weights import image_vit_test as vits


def small_config(**changes):
  config = baselines.get_config('frame_vit')
  config.model.update({**vits.CONFIG, 'num_frames': 3, **changes})
  return config


def test_a_frames_logit_is_that_of_an_image_vits_class_token():
  """Against a ViT in plain NumPy, from a file of weights."""
  made = make_detector(small_config())
  vit = vits.plain_vit()
  params = image_vit.init_backbone_from_vit(made.params, vit)
  rng = np.random.default_rng(0)
  levels = jnp.asarray(rng.integers(0, 256, (2, 3, 3, 32, 32)), jnp.float32)
  said = steps.score_clips(
    made.graphdef, params, made.stats, pipeline.normalize(levels), alone=False
  )
  images = np.moveaxis(np.asarray(levels, np.float64), 2, -1) / 255
  head = params['class_head']
  for clip in range(2):
    for frame in range(3):
      token = vits.reference(vit, images[clip, frame])[0]
      logit = token @ head['kernel'][:, 0] + head['bias'][0]
      np.testing.assert_allclose(
        said['soft_label_logits'][clip, frame], logit, rtol=1e-3, atol=1e-3
      )
  np.testing.assert_allclose(
    said['logits'], said['soft_label_logits'].mean(axis=1), rtol=1e-6
  )


def test_training_drops_paths_and_needs_random_numbers_for_it():
  made = make_detector(small_config(drop_path=0.5))
  detector = steps.merge(made.graphdef, made.params, made.stats)
  detector.train()
  clip = jnp.zeros((1, 3, 32, 32, 3))
  with pytest.raises(ValueError, match='needs random numbers'):
    detector(clip)
  detector.eval()
  assert detector(clip).logits.shape == (1,)


def test_it_has_the_published_number_of_parameters():
  _, init = steps.make_model(baselines.get_config('frame_vit'))
  params, _ = jax.eval_shape(init)
  # ViT-B/16 without a head, and one logit.
  assert steps.count_parameters(params) == 85_798_656 + 769


def test_the_formula_counts_the_published_multiply_adds():
  config = model.StormerConfig(**baselines.get_config('frame_vit').model)
  # Of DeiT-B, the same network: Swin, arXiv 2103.14030, Table 1 (a).
  assert flops.forward_flops(config, 1) / 2e9 == pytest.approx(17.5, rel=0.01)
