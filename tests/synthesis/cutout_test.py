"""Cutout and soft labels against the original's, rule by rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.synthesis import cutout

RINGS = [f'{i:02d}' for i in (*range(15), 17, 18, 19)]


@pytest.fixture(scope='module')
def arrays(golden):
  return np.load(golden / 'targets.npz')


@functools.partial(jax.jit, static_argnames='extra')
def cut(scores, cells, intensity, drawn=True, extra=0.01):
  return cutout.vulnerability_cutout(
    scores, cells, intensity, jnp.asarray(drawn), extra=extra
  )


@pytest.mark.parametrize('case', RINGS)
def test_cells_and_soft_labels_are_the_original_ones(arrays, case):
  prefix = f'mask/{case}/'
  cells = jnp.float32(arrays[prefix + 'target_fake'][..., 0])
  theirs = arrays[prefix + 'masked_matrix_fake'][0]
  deterministic = arrays[prefix + 'deterministic_part_frame0']
  # The extra cells that the original drew get the highest scores.
  random_cells = (theirs == 0) & (deterministic == 0)
  noise = np.random.default_rng(0).random(theirs.shape)
  ours = cut(
    jnp.float32(random_cells + 0.5 * noise),
    cells,
    jnp.float32(arrays[prefix + 'fake_intensity_in'][0]),
    extra=0.1 if case == '18' else 0.01,
  )
  assert bool(ours.applied)
  np.testing.assert_array_equal(ours.kept, theirs)
  np.testing.assert_allclose(
    ours.soft_label,
    arrays[prefix + 'fake_intensity_out_fake(temp_loc_f)'],
    rtol=1e-6,
  )
  patch = 224 // theirs.shape[0]
  for version in ('fake', 'real'):
    frames = jnp.moveaxis(jnp.float32(arrays[prefix + f'in_{version}']), -1, 1)
    blanked = cutout.blank_patches(frames, ours.kept)
    np.testing.assert_array_equal(
      np.moveaxis(np.asarray(blanked), 1, -1), arrays[prefix + f'out_{version}']
    )
  assert blanked.shape[-1] == patch * theirs.shape[0]


@pytest.mark.parametrize('case', ['15', '16'])
def test_what_the_original_rejects_is_left_whole(arrays, case):
  # 15: no boundary at all; 16: no cell below the threshold.
  cells = jnp.float32(arrays[f'mask/{case}/target_fake'][..., 0])
  ours = cut(jnp.zeros(cells.shape[1:]), cells, jnp.float32(0.7))
  assert not bool(ours.applied)
  assert ours.kept.all() and (ours.soft_label == 1).all()


def test_without_a_draw_the_clip_is_whole():
  cells = jnp.float32(np.random.default_rng(0).integers(0, 256, (4, 14, 14)))
  ours = cut(jnp.zeros((14, 14)), cells, jnp.float32(0.7), drawn=False)
  assert ours.kept.all() and (ours.soft_label == 1).all()


@pytest.mark.parametrize('grid', [7, 14, 28])
def test_extra_cells_are_as_many_as_the_rule_says(grid):
  # One cell is vulnerable: max(1, ceil(p N - 1)) more are drawn.
  cells = jnp.zeros((2, grid, grid)).at[:, 0, 0].set(200.0)
  cells = cells.at[:, 0, 1].set(50.0)
  ours = cut(
    jax.random.uniform(jax.random.key(0), (grid, grid)),
    cells,
    jnp.float32(0.5),
  )
  extra = max(1, int(np.ceil(0.01 * grid**2 - 1)))
  assert (ours.kept == 0).sum() == 1 + extra
  # Of cells below the bound of 50 only.
  assert ours.kept[0, 1] == 1


def test_every_candidate_is_drawn_equally_often():
  cells = jnp.zeros((1, 4, 4)).at[0, 0, 0].set(255.0)
  cells = cells.at[0, 0, 1].set(9.0)
  keys = jax.random.split(jax.random.key(1), 14_000)
  scores = jax.vmap(lambda key: jax.random.uniform(key, (4, 4)))(keys)
  kept = jax.vmap(lambda s: cut(s, cells, jnp.float32(0.9)).kept)(scores)
  counts = np.asarray((kept == 0).sum(0)).ravel()
  np.testing.assert_array_equal(counts[:2], [14_000, 0])
  # 14 candidates: chi square with 13 degrees, p = 1e-4 at 41.
  chi_square = np.sum((counts[2:] - 1000) ** 2 / 1000)
  assert chi_square < 41
