"""Counting the work of a compiled program whose loops lie in loops."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks import tpu
from configs import ffpp_c23
from stormer_jax import flops, model

PROGRAM = """\
HloModule step

%f (q: f32[8]) -> f32[8] {
  ROOT %exp = f32[8]{0} exponential(%q)
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8]{0} fusion(%p), kind=kLoop, calls=%f, metadata={op_name="inner"}, \
backend_config={"estimated_cycles":"7"}
}

%inner_ends (p: (s32[], f32[8])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%i, %five), direction=LT
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = f32[8]{0} add(%p, %p), metadata={op_name="outer"}, \
backend_config={"estimated_cycles":"100"}
  %loop = (s32[], f32[8]) while(%t), condition=%inner_ends, body=%inner
}

%outer_ends (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %c = f32[8]{0} negate(%p), metadata={op_name="once"}, \
backend_config={"estimated_cycles":"1000"}
  %loop.1 = (s32[], f32[8]) while(%t), condition=%outer_ends, body=%outer, \
backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_what_stands_in_a_loop_counts_once_a_trip_and_nested_ones_multiply():
  total, dearest = tpu.estimated_cycles(PROGRAM)
  assert total == 1000 + 3 * 100 + 3 * 5 * 7
  assert [(cycles, name) for cycles, _, name in dearest] == [
    (1000, 'once'),
    (300, 'outer'),
    (105, 'inner'),
  ]


def test_a_loop_of_unknown_length_is_refused():
  text = PROGRAM.replace('{"n":"3"}', '{}')
  with pytest.raises(ValueError, match='unknown length'):
    tpu.estimated_cycles(text)


def test_the_trips_of_a_compiled_program_are_those_of_its_source():
  def step(x, _):
    return jnp.sin(x @ x), None

  def nest(x, _):
    return jax.lax.scan(step, x, length=5)[0], x.sum()

  def program(x):
    x = jax.lax.scan(nest, x, length=3)[0]
    return jax.lax.scan(step, x, length=7)[0]

  compiled = jax.jit(program).lower(jnp.ones((32, 32))).compile()
  counts = tpu.run_counts(compiled.as_text())
  assert {3, 7, 15} <= set(counts.values()) <= {1, 3, 7, 15}


@pytest.mark.parametrize('num_frames', [4, 16])
def test_the_products_of_the_floor_are_nearly_all_arithmetic_of_a_step(
  num_frames,
):
  config = ffpp_c23.get_config()
  config.model.num_frames = num_frames
  config = model.StormerConfig(**config.model)
  total = 0
  for (how, *shapes), count in tpu.block_products(config, clips=6).items():
    letters = how.partition('->')[0].replace(',', '')
    sizes = dict(zip(letters, itertools.chain(*shapes), strict=True))
    total += 2 * count * math.prod(sizes.values())
  step = flops.train_step_flops(config, 6, rho=0.05)
  assert 0.97 * step < 2 * config.depth * total < step
