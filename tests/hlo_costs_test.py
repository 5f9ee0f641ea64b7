"""Reading what a program compiled for a GPU touches and multiplies."""

import pytest

from benchmarks import hlo_costs

# One layer of twelve is read and another written in each trip of the loop.
PROGRAM = """\
HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused_multiply (p0: f32[12,64,32], p1: s32[], p2: f32[64,32]) -> f32[64,32] {
  %p0 = f32[12,64,32]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %turned = f32[12,2048]{1,0} bitcast(%p0)
  %layer = f32[1,2048]{1,0} dynamic-slice(%turned, %p1, %zero), \
dynamic_slice_sizes={1,2048}
  %flat = f32[64,32]{1,0} bitcast(%layer)
  %p2 = f32[64,32]{1,0} parameter(2)
  ROOT %product = f32[64,32]{1,0} multiply(%flat, %p2)
}

%fused_update (q0: f32[12,64,32], q1: f32[64,32], q2: s32[]) -> f32[12,64,32] {
  %q0 = f32[12,64,32]{2,1,0} parameter(0)
  %q1 = f32[64,32]{1,0} parameter(1)
  %one = f32[1,64,32]{2,1,0} bitcast(%q1)
  %q2 = s32[] parameter(2)
  %nil = s32[] constant(0)
  ROOT %into = f32[12,64,32]{2,1,0} dynamic-update-slice(%q0, %one, %q2, \
/*index=3*/%nil, %nil)
}

%gemm_computation (l: bf16[2,16,64], r: bf16[2,64,8]) -> bf16[2,16,8] {
  %l = bf16[2,16,64]{2,1,0} parameter(0)
  %r = bf16[2,64,8]{2,1,0} parameter(1)
  ROOT %dot.5 = bf16[2,16,8]{2,1,0} dot(%l, %r), lhs_batch_dims={0}, \
lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
}

%body (carry: (s32[], f32[12,64,32], f32[64,32])) -> (s32[], f32[12,64,32], \
f32[64,32]) {
  %carry = (s32[], f32[12,64,32]{2,1,0}, f32[64,32]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %all = f32[12,64,32]{2,1,0} get-tuple-element(%carry), index=1
  %x = f32[64,32]{1,0} get-tuple-element(%carry), index=2
  %loop_multiply_fusion.7 = f32[64,32]{1,0} fusion(%all, %i, %x), kind=kLoop, \
calls=%fused_multiply, metadata={op_name="jit(step)/jvp()/mul"}
  %fusion-start.2 = ((f32[12,64,32]{2,1,0}, f32[64,32]{1,0}, s32[]), \
f32[12,64,32]{2,1,0}, u32[]) fusion-start(%all, %x, %i), kind=kLoop, \
calls=%fused_update
  %fusion-done.2 = f32[12,64,32]{2,1,0} fusion-done(%fusion-start.2)
  ROOT %next = (s32[], f32[12,64,32]{2,1,0}, f32[64,32]{1,0}) tuple(%i, \
%fusion-done.2, %loop_multiply_fusion.7)
}

%ends (carry.1: (s32[], f32[12,64,32], f32[64,32])) -> pred[] {
  %carry.1 = (s32[], f32[12,64,32]{2,1,0}, f32[64,32]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%carry.1), index=0
  %twelve = s32[] constant(12)
  ROOT %less = pred[] compare(%j, %twelve), direction=LT
}

%async_copy (m: f32[64,32]) -> f32[64,32] {
  %m = f32[64,32]{1,0} parameter(0)
  ROOT %copy.3 = f32[64,32]{1,0} copy(%m)
}

ENTRY %main (s: f32[12,64,32], x.1: f32[64,32], l.1: bf16[2,16,64], r.1: \
bf16[2,64,8]) -> f32[64,32] {
  %s = f32[12,64,32]{2,1,0} parameter(0)
  %x.1 = f32[64,32]{1,0} parameter(1)
  %l.1 = bf16[2,16,64]{2,1,0} parameter(2)
  %r.1 = bf16[2,64,8]{2,1,0} parameter(3)
  %start = s32[] constant(0)
  %init = (s32[], f32[12,64,32]{2,1,0}, f32[64,32]{1,0}) tuple(%start, %s, %x.1)
  %while.1 = (s32[], f32[12,64,32]{2,1,0}, /*index=2*/f32[64,32]{1,0}) \
while(%init), condition=%ends, body=%body, \
backend_config={"known_trip_count":{"n":"12"},"known_init_step":{"init":"0"}}
  %y = f32[64,32]{1,0} get-tuple-element(%while.1), index=2
  %gemm_fusion_dot.1 = bf16[2,16,8]{2,1,0} fusion(%l.1, %r.1), kind=kCustom, \
calls=%gemm_computation, metadata={op_name="jit(step)/dot_general"}
  %cublas-gemm.4 = (f32[64,64]{1,0}, s8[33554432]{0}) custom-call(%y, %y), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{\
"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":[]}}}
  %all-gather-start.1 = ((f32[64,32]{1,0}, f32[8]{0}), (f32[256,32]{1,0}, \
f32[32]{0})) all-gather-start(%y, %y), dimensions={0}
  %all-gather-done.1 = (f32[256,32]{1,0}, f32[32]{0}) \
all-gather-done(%all-gather-start.1)
  %reduce-scatter.1 = f32[16,32]{1,0} reduce-scatter(%y), dimensions={0}, \
to_apply=%add
  %async-start.1 = ((f32[64,32]{1,0}), f32[64,32]{1,0}, u32[]) \
async-start(%y), calls=%async_copy
  ROOT %async-done.1 = f32[64,32]{1,0} async-done(%async-start.1)
}
"""


@pytest.fixture(scope='module')
def kernels():
  return {kernel.kind: kernel for kernel in hlo_costs.read(PROGRAM)[0]}


def test_every_kernel_is_found_once_and_runs_as_often_as_its_loop(kernels):
  assert {kind: kernel.runs for kind, kernel in kernels.items()} == {
    'loop_multiply_fusion': 12,
    'fusion': 12,
    'gemm_fusion_dot': 1,
    'cublas-gemm': 1,
    'copy': 1,
  }


def test_of_an_operand_that_is_only_sliced_the_slice_is_read(kernels):
  layer = 4 * 64 * 32
  # The layer and the other operand, the index, the result.
  assert kernels['loop_multiply_fusion'].touched == 3 * layer + 4


def test_an_update_in_place_touches_the_update_alone(kernels):
  layer = 4 * 64 * 32
  assert kernels['fusion'].touched == 2 * layer + 4
  assert kernels['fusion'].flops == 0


def test_what_is_sliced_and_also_read_whole_is_read_whole():
  text = PROGRAM.replace(
    'ROOT %product = f32[64,32]{1,0} multiply(%flat, %p2)',
    'ROOT %product = f32[64,32]{1,0} custom(%flat, %p2, %p0)',
  )
  kernel, *_ = hlo_costs.read(text)[0]
  assert kernel.touched == (12 + 2) * 4 * 64 * 32 + 4


def test_a_gather_reads_what_it_takes_and_all_its_indices():
  text = """\
%fused_gather (p0: f32[100,4], p1: s32[8,2]) -> f32[8] {
  %p0 = f32[100,4]{1,0} parameter(0)
  %p1 = s32[8,2]{1,0} parameter(1)
  ROOT %taken = f32[8]{0} gather(%p0, %p1), slice_sizes={1,1}
}

ENTRY %main (a: f32[100,4], i: s32[8,2]) -> f32[8] {
  %a = f32[100,4]{1,0} parameter(0)
  %i = s32[8,2]{1,0} parameter(1)
  ROOT %fusion = f32[8]{0} fusion(%a, %i), kind=kLoop, calls=%fused_gather
}
"""
  kernels, _ = hlo_costs.read(text)
  assert [kernel.touched for kernel in kernels] == [4 * (8 + 16 + 8)]


def test_a_product_in_a_fusion_and_one_by_cublas_count_two_a_multiply(kernels):
  assert kernels['gemm_fusion_dot'].flops == 2 * 2 * 16 * 64 * 8
  assert kernels['gemm_fusion_dot'].source == 'jit(step)/dot_general'
  assert kernels['cublas-gemm'].flops == 2 * 64 * 64 * 32


def test_the_workspace_of_a_library_is_not_touched(kernels):
  assert kernels['cublas-gemm'].touched == 4 * (64 * 64 + 2 * 64 * 32)


def test_collectives_are_no_kernels_and_count_the_larger_side():
  assert hlo_costs.read(PROGRAM)[1] == [
    hlo_costs.Collective('all-gather', 1, 4 * (256 * 32 + 32)),
    hlo_costs.Collective('reduce-scatter', 1, 4 * 64 * 32),
  ]


def test_the_floor_of_a_kernel_is_what_binds_it(kernels):
  gemm = kernels['gemm_fusion_dot']
  assert gemm.seconds(1e30, 1e9) == pytest.approx(gemm.flops / 1e9)
  assert gemm.seconds(1e9, 1e30) == pytest.approx(gemm.touched / 1e9)
  looped = kernels['fusion']
  assert looped.seconds(1e9, 1e9) == pytest.approx(12 * looped.touched / 1e9)


@pytest.mark.parametrize(
  'choice',
  [
    'branch_computations={%twice, %square}',
    'true_computation=%twice, false_computation=%square',
  ],
)
def test_what_is_called_counts_and_every_branch_as_taken(choice):
  text = f"""\
%twice (p: f32[8]) -> f32[8] {{
  %p = f32[8]{{0}} parameter(0)
  ROOT %copy.1 = f32[8]{{0}} copy(%p)
}}

%square (q: f32[8]) -> f32[8] {{
  %q = f32[8]{{0}} parameter(0)
  ROOT %called = f32[8]{{0}} call(%q), to_apply=%twice
}}

ENTRY %main (i: s32[], x: f32[8]) -> f32[8] {{
  %i = s32[] parameter(0)
  %x = f32[8]{{0}} parameter(1)
  ROOT %chosen = f32[8]{{0}} conditional(%i, %x, %x), {choice}
}}
"""
  kernels, _ = hlo_costs.read(text)
  assert [kernel.touched for kernel in kernels] == [64, 64]


def test_a_loop_of_unknown_length_is_refused():
  text = PROGRAM.replace('{"n":"12"}', '{}')
  with pytest.raises(ValueError, match=r'unknown length: while\.1'):
    hlo_costs.read(text)


def test_what_is_no_program_and_what_has_no_known_size_are_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo_costs.read('HloModule step\n')
  with pytest.raises(ValueError, match='bytes of f3'):
    hlo_costs.num_bytes('(f32[2], f3[4])')
