"""What a program compiled for a GPU touches and multiplies, kernel by kernel.

Enters: the text of the optimised program, as `Compiled.as_text()` gives it.
Leaves: its kernels and its collectives, those of a loop as often as the loop
runs. The bytes of a kernel are those of its operands and results, once each;
of an operand that is only sliced, those of the slices; of an array that is
updated in place, those of the update. Multiplications of cuDNN (convolutions,
attention) are not counted, their bytes are.
"""

from collections.abc import Iterator
import dataclasses
import math
import re

_ITEM_BYTES = {
  **{'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2, 'bf16': 2},
  **{'s32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8},
  **{'f8e4m3fn': 1, 'f8e5m2': 1},
}
_COLLECTIVES = {
  *('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all'),
  *('collective-permute', 'collective-broadcast', 'ragged-all-to-all'),
}
# What no kernel runs for.
_FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
  *('after-all', 'partition-id', 'replica-id', 'opt-barrier'),
}
_SLICES = {'dynamic-slice', 'slice', 'gather'}
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$')
_OPERATION = re.compile(
  r'\s+(ROOT )?%?([\w.-]+) = (\([^=]*?\)|\S+) ([a-z][\w-]*)\((.*)$'
)
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.-]+)')


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One kernel of a program.

  Attributes:
    name: As in the program.
    shape: Type of what it writes.
    source: JAX's name of the operation; '' if there is none.
    runs: How often it runs in one call of the program.
    touched: Bytes read and written by one run.
    flops: Of the matrix products of one run.
  """

  name: str
  shape: str
  source: str
  runs: int
  touched: int
  flops: int

  @property
  def kind(self) -> str:
    """Its name without the number."""
    return re.sub(r'(\.\d+|\.clone|\.remat\d*)+$', '', self.name)

  def seconds(self, bandwidth: float, products: float) -> float:
    """The least that its runs take.

    Args:
      bandwidth: Of the memory, bytes/s.
      products: Of matrix products, FLOP/s.
    """
    return self.runs * max(self.touched / bandwidth, self.flops / products)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange between devices.

  Attributes:
    kind: 'all-reduce', 'all-gather', ...
    runs: How often it runs in one call of the program.
    size: Bytes of one device that a run takes or gives, the larger.
  """

  kind: str
  runs: int
  size: int


@dataclasses.dataclass(frozen=True)
class _Operation:
  """A line of a computation; `rest` is what follows the opening bracket."""

  name: str
  shape: str
  opcode: str
  rest: str
  is_root: bool

  @property
  def operands(self) -> list[str]:
    return re.findall(r'%([\w.-]+)', self.rest.split('), ')[0])

  @property
  def called(self) -> str:
    """Name of the computation that it runs; '' if there is none."""
    found = _CALLED.search(self.rest)
    return found[1] if found else ''


_Computation = dict[str, _Operation]  # in the order of the text


def read(text: str) -> tuple[list[Kernel], list[Collective]]:
  """Reads a compiled program.

  Every branch of a conditional counts as taken.

  Raises:
    ValueError: If the text does not say how many trips a loop has, or is not
      that of a program.
  """
  entry, computations = _parse(text)
  kernels: list[Kernel] = []
  collectives: list[Collective] = []
  for computation, operation, runs in _launched(computations, entry, 1):
    opcode = operation.opcode.removesuffix('-done')
    # Of an asynchronous pair, the start has the operands, the end the results.
    start = operation
    if opcode != operation.opcode:
      start = computation[operation.operands[0]]
    reads = [computation[name].shape for name in start.operands]
    if opcode in _COLLECTIVES:
      size = max(num_bytes(operation.shape), sum(map(num_bytes, reads)))
      collectives.append(Collective(opcode, runs, size))
      continue
    source = re.search(r'op_name="([^"]*)"', operation.rest)
    if opcode == 'fusion':
      touched = _fusion_bytes(computations[start.called])
      flops = _product_flops(computations, start.called)
    else:
      results = _without_workspace(operation)
      touched = num_bytes(results) + sum(map(num_bytes, reads))
      flops = _custom_call_flops(operation, reads)
      if opcode == 'dot':
        flops = _dot_flops(operation, computation)
    kernels.append(
      Kernel(
        name=operation.name.replace('-done', ''),
        shape=operation.shape,
        source=source[1] if source else '',
        runs=runs,
        touched=touched,
        flops=flops,
      )
    )
  return kernels, collectives


def num_bytes(shape: str) -> int:
  """Bytes of a type, all parts of a tuple together.

  Raises:
    ValueError: If there is no such type of element.
  """
  total = 0
  for kind, sizes in re.findall(r'\b([a-z]\w*)\[([\d,]*)\]', shape):
    if kind in ('token', 'opaque'):
      continue
    if kind not in _ITEM_BYTES:
      raise ValueError(f'bytes of {kind} are not known, in {shape[:200]}')
    total += _ITEM_BYTES[kind] * math.prod(_integers(sizes))
  return total


def _integers(text: str) -> list[int]:
  return [int(number) for number in re.findall(r'\d+', text)]


def _sizes(shape: str) -> list[int]:
  """Of the first array of a type."""
  found = re.search(r'\[([\d,]*)\]', shape)
  return _integers(found[1]) if found else []


def _parse(text: str) -> tuple[str, dict[str, _Computation]]:
  """Name of the entry, and all computations."""
  computations: dict[str, _Computation] = {}
  entry = ''
  computation: _Computation = {}
  # Long tuples are numbered by comments.
  for line in re.sub(r'/\*.*?\*/', '', text).splitlines():
    if head := _COMPUTATION.match(line):
      computation = computations[head[2]] = {}
      entry = head[2] if head[1] else entry
    elif found := _OPERATION.match(line):
      root, name, shape, opcode, rest = found.groups()
      computation[name] = _Operation(name, shape, opcode, rest, bool(root))
  if not entry:
    raise ValueError('the text is not that of a compiled program: no ENTRY')
  return entry, computations


def _launched(
  computations: dict[str, _Computation], name: str, runs: int
) -> Iterator[tuple[_Computation, _Operation, int]]:
  """What runs as a kernel or a collective, where, and how often."""
  computation = computations[name]
  for operation in computation.values():
    opcode, rest = operation.opcode, operation.rest
    if opcode == 'while':
      trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', rest)
      body = re.search(r'body=%?([\w.-]+)', rest)
      if trips is None or body is None:
        raise ValueError(f'a loop of unknown length: {operation.name}')
      yield from _launched(computations, body[1], runs * int(trips[1]))
    elif opcode in ('call', 'async-start'):
      yield from _launched(computations, operation.called, runs)
    elif opcode == 'conditional':
      branches = re.findall(
        r'(?:true_computation|false_computation)=%?([\w.-]+)', rest
      )
      if several := re.search(r'branch_computations=\{([^}]*)\}', rest):
        branches += re.findall(r'[\w.-]+', several[1])
      for branch in branches:
        yield from _launched(computations, branch, runs)
    elif opcode not in _FREE and not re.search(
      r'-start$|^async-(done|update)$', opcode
    ):
      yield computation, operation, runs


def _fusion_bytes(body: _Computation) -> int:
  """Bytes that a fusion reads of its operands, and writes."""
  users: dict[str, list[_Operation]] = {name: [] for name in body}
  for operation in body.values():
    for name in operation.operands:
      if name in users:
        users[name].append(operation)

  def read_bytes(name: str) -> int:
    whole, total = num_bytes(body[name].shape), 0
    for user in users[name]:
      first = user.operands[0] == name
      if user.opcode == 'bitcast':
        total += read_bytes(user.name)
      elif user.opcode in _SLICES and first:
        total += num_bytes(user.shape)
      elif user.opcode != 'dynamic-update-slice' or not first:
        return whole
    return min(whole, total)

  def written_bytes(name: str) -> int:
    operation = body[name]
    if operation.opcode == 'tuple':
      return sum(map(written_bytes, operation.operands))
    if operation.opcode == 'bitcast':
      return written_bytes(operation.operands[0])
    if operation.opcode == 'dynamic-update-slice':
      return num_bytes(body[operation.operands[1]].shape)
    return num_bytes(operation.shape)

  reads = [x.name for x in body.values() if x.opcode == 'parameter']
  root = next(x.name for x in body.values() if x.is_root)
  return sum(map(read_bytes, reads)) + written_bytes(root)


def _product_flops(computations: dict[str, _Computation], name: str) -> int:
  """Of the matrix products of a fusion."""
  total = 0
  for operation in computations[name].values():
    if operation.opcode == 'dot':
      total += _dot_flops(operation, computations[name])
    elif operation.opcode in ('fusion', 'call'):
      total += _product_flops(computations, operation.called)
  return total


def _dot_flops(operation: _Operation, computation: _Computation) -> int:
  contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', operation.rest)
  left = computation[operation.operands[0]].shape
  return _flops(operation.shape, left, contracted)


def _custom_call_flops(operation: _Operation, reads: list[str]) -> int:
  """Of a product by cuBLAS, else 0."""
  target = re.search(r'custom_call_target="([^"]+)"', operation.rest)
  if target is None or not re.search('gemm|matmul', target[1]):
    return 0
  contracted = re.search(
    r'"lhs_contracting_dimensions":\[([^\]]*)\]', operation.rest
  )
  return _flops(operation.shape, reads[0], contracted)


def _flops(result: str, left: str, contracted: re.Match | None) -> int:
  axes = _integers(contracted[1]) if contracted else []
  sizes = _sizes(left)
  return 2 * math.prod(_sizes(result)) * math.prod(sizes[i] for i in axes)


def _without_workspace(operation: _Operation) -> str:
  """Type of the results, less the scratch memory that libraries ask for."""
  if operation.opcode != 'custom-call':
    return operation.shape
  return re.sub(r', [su]8\[\d+\](\{0\})?\)$', ')', operation.shape)
