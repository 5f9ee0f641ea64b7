"""Joins the processes of one job, where the environment shows a job.

Enter: environment variables, as the launcher of the job sets them. Leave: JAX
with the devices of all processes, or JAX as it was on a single machine. To be
called before anything that touches a device.

What counts as a job, first match wins: JAX_COORDINATOR_ADDRESS with a count
and an index (JAX_NUM_PROCESSES and JAX_PROCESS_ID, set by hand or by Kubeflow;
NNODES and NODE_RANK, set by XPK on GPUs), Open MPI, SLURM, TPU workers. An
environment that says half of it is a ValueError: going on alone would train
one model per process in the same folder.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
import re
import sys
import time
from typing import NoReturn
import zlib

from absl import logging
import jax
from jax.experimental import multihost_utils

from stormer_jax.runs import peers, roll_call

# Peers may still be pulling their container image when the first one is here.
_MEETING_SECONDS = 300.0
# A process that was killed is noticed after this. JAX's own 100 s is long for
# a machine room that charges by the second, and a busy process does not miss
# its heartbeat: a thread of its own sends it.
_HEARTBEAT_SECONDS = 30
# A process that ends by an exception waits so long at exit for the others.
_SHUTDOWN_SECONDS = 30
# Process 0 holds the service without which the others are ended in the middle
# of what they have to say.
_LAST_WORDS_SECONDS = 2.0
_OFF = (
  'set --distributed=off if this process is a run of its own, with its own'
  ' --workdir'
)


@dataclasses.dataclass(frozen=True)
class Job:
  """Several processes that train one model.

  Attributes:
    source: What told us, for messages.
    coordinator: 'host:port' of process 0, or None: JAX asks the TPU.
    num_processes: Of the job, or None.
    process_id: Of this process, or None.
    local_devices: GPUs for this process among those it sees; None is all.
  """

  source: str
  coordinator: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  local_devices: tuple[int, ...] | None = None


@contextlib.contextmanager
def joined(*, seconds: float = _MEETING_SECONDS) -> Iterator[None]:
  """Inside, this process is one of the job that the environment shows.

  Does nothing if there is none. At the end of a good run, or of one that was
  asked to stop (SystemExit), it waits for the others; a failure ends without
  a farewell, and the others with it.

  Args:
    seconds: How long to wait for the other processes.

  Raises:
    ValueError: If the environment shows half a job, or not all processes came;
      names the variable, what it holds, and what to do.
  """
  others = _initialize(seconds)
  try:
    yield
  except SystemExit:
    _leave(others)
    raise
  _leave(others)


def _initialize(seconds: float) -> peers.Peers:
  job = find_job(os.environ)
  if job is None:
    return peers.Peers([])
  connections: list[roll_call.Connection] = []
  if job.coordinator is not None:
    assert job.process_id is not None and job.num_processes is not None
    connections = roll_call.wait_for_all(
      job.coordinator,
      job.process_id,
      job.num_processes,
      seconds=seconds,
      source=job.source,
    )
    _reach_without_proxy(job.coordinator)
  try:
    jax.distributed.initialize(
      job.coordinator,
      job.num_processes,
      job.process_id,
      local_device_ids=job.local_devices,
      # We have detected: left alone, JAX gives a task one GPU even where it
      # has the whole node.
      cluster_detection_method='deactivate' if job.coordinator else None,
      initialization_timeout=int(seconds),
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
  except (OSError, RuntimeError, ValueError) as error:
    raise ValueError(
      f'{job.source}: the processes of this job could not be joined ({error});'
      f' check that all of them run, or {_OFF}'
    ) from error
  logging.info(
    'process %d of %d, by %s',
    jax.process_index(),
    jax.process_count(),
    job.source,
  )
  return peers.Peers(connections)


def _leave(others: peers.Peers) -> None:
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    multihost_utils.sync_global_devices('leave')
  others.leave()


def stop(status: int) -> NoReturn:
  """Ends this process at once, after it has said why.

  A process of a job must not end by `sys.exit` when something is wrong: JAX
  would wait there for the others, who wait for it, and then end it with a
  stack trace and a status of its own, which a launcher takes for a crash that
  is worth another try.
  """
  if not jax.distributed.is_initialized():
    sys.exit(status)
  sys.stdout.flush()
  sys.stderr.flush()
  if jax.process_index() == 0:
    time.sleep(_LAST_WORDS_SECONDS)
  os._exit(status)


def _reach_without_proxy(coordinator: str) -> None:
  """Keeps gRPC, which JAX connects by, from asking a proxy for our own host."""
  known = os.environ.get('no_grpc_proxy', os.environ.get('no_proxy', ''))
  host = coordinator.rpartition(':')[0]
  os.environ['no_grpc_proxy'] = ','.join(filter(None, (known, host)))


def find_job(environ: Mapping[str, str]) -> Job | None:
  """Reads the job of this process off its environment.

  Args:
    environ: As `os.environ`, after JAX was imported (JAX notes a TPU there).

  Returns:
    The job, or None where this process is all there is.

  Raises:
    ValueError: If variables are missing or contradict one another.
  """
  for find in (_by_address, _by_open_mpi, _by_slurm, _by_tpu, _by_kubernetes):
    job = find(environ)
    if job is not None:
      return None if job.num_processes == 1 else job
  return None


def _by_address(environ: Mapping[str, str]) -> Job | None:
  address = environ.get('JAX_COORDINATOR_ADDRESS')
  by_hand = [n for n in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID') if n in environ]
  if address is None:
    if by_hand:
      raise ValueError(
        f'{by_hand[0]} is {environ[by_hand[0]]!r} and JAX_COORDINATOR_ADDRESS'
        ' is not set; set it to HOST:PORT of process 0 in every process, or'
        f' unset {by_hand[0]}'
      )
    return None
  port = environ.get('JAX_COORDINATOR_PORT')
  if ':' not in address and port is not None:
    address = f'{address}:{port}'
  if not re.fullmatch(r'\S+:\d{1,5}', address):
    raise ValueError(
      f'JAX_COORDINATOR_ADDRESS is {address!r}; it is HOST:PORT of process 0,'
      ' with a port that is free there, the same in every process'
    )
  if not by_hand:
    launched = _by_open_mpi(environ) or _by_slurm(environ)
    if launched:
      return dataclasses.replace(launched, coordinator=address)
  count = _first(environ, 'JAX_NUM_PROCESSES', 'NNODES')
  index = _first(environ, 'JAX_PROCESS_ID', 'NODE_RANK')
  return _checked(
    environ,
    Job(f'JAX_COORDINATOR_ADDRESS={address}', address),
    count,
    index,
    because='JAX_COORDINATOR_ADDRESS is set',
  )


def _by_open_mpi(environ: Mapping[str, str]) -> Job | None:
  if 'OMPI_COMM_WORLD_SIZE' not in environ:
    return None
  job = _checked(
    environ,
    Job('Open MPI'),
    'OMPI_COMM_WORLD_SIZE',
    'OMPI_COMM_WORLD_RANK',
    because='Open MPI started this process',
  )
  here = _integer(environ, 'OMPI_COMM_WORLD_LOCAL_SIZE')
  coordinator = f'localhost:{_port(environ, environ.get("PMIX_NAMESPACE", ""))}'
  if here != job.num_processes and 'JAX_COORDINATOR_ADDRESS' not in environ:
    raise ValueError(
      f'OMPI_COMM_WORLD_SIZE is {job.num_processes}, {here} of them on this'
      ' machine, and Open MPI does not say where process 0 runs; add'
      ' -x JAX_COORDINATOR_ADDRESS=HOST:PORT to mpirun'
    )
  local = _integer(environ, 'OMPI_COMM_WORLD_LOCAL_RANK')
  return dataclasses.replace(
    job,
    coordinator=coordinator,
    local_devices=_local_devices(environ, here, local),
  )


def _by_slurm(environ: Mapping[str, str]) -> Job | None:
  if 'SLURM_JOB_ID' not in environ:
    return None
  count = _first(environ, 'SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS')
  if count not in environ or _integer(environ, count) == 1:
    return None
  missing = [
    name
    for name in ('SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_LOCALID')
    if name not in environ
  ]
  if missing:
    raise ValueError(
      f'{count} is {environ[count]} and {missing[0]} is not set: this process'
      ' is inside a SLURM job but was not started by srun; write srun before'
      f' the command, or {_OFF}'
    )
  step = f'{environ["SLURM_JOB_ID"]}.{environ.get("SLURM_STEP_ID", "")}'
  first = re.match(
    r'([^,\[]+)(?:\[(\w+)[^\]]*\])?([^,\[]*)', environ['SLURM_STEP_NODELIST']
  )
  if first is None:
    raise ValueError(
      f'SLURM_STEP_NODELIST is {environ["SLURM_STEP_NODELIST"]!r}, no list of'
      ' machines; set JAX_COORDINATOR_ADDRESS to HOST:PORT of process 0'
    )
  host = ''.join(part or '' for part in first.groups())
  job = _checked(
    environ,
    Job(f'SLURM job {step}', f'{host}:{_port(environ, step)}'),
    count,
    'SLURM_PROCID',
    because='srun started this process',
  )
  return dataclasses.replace(
    job,
    local_devices=_local_devices(
      environ, _slurm_tasks_here(environ), _integer(environ, 'SLURM_LOCALID')
    ),
  )


def _by_tpu(environ: Mapping[str, str]) -> Job | None:
  if environ.get('TPU_ML_PLATFORM') != 'JAX' or 'tpu' not in environ.get(
    'JAX_PLATFORMS', 'tpu'
  ):
    return None
  # Kubernetes says it in variables, a TPU VM in the metadata that JAX asks.
  workers = environ.get('TPU_PROCESS_ADDRESSES') or environ.get(
    'TPU_WORKER_HOSTNAMES'
  )
  alone = Job('TPU', num_processes=1)
  if workers is None and 'TPU_PROCESS_ADDRESSES_PATH' in environ:
    return Job(f'TPU workers of {environ["TPU_PROCESS_ADDRESSES_PATH"]}')
  if workers is None:
    return alone if 'TPU_SKIP_MDS_QUERY' in environ else Job('TPU VM metadata')
  slices = environ.get('MEGASCALE_NUM_SLICES') or '1'
  num_workers = len(workers.split(','))
  if num_workers == 1 and slices == '1':
    return alone
  for name, given in (
    ('TPU_WORKER_ID', f'there are {num_workers} TPU workers'),
    *([('MEGASCALE_SLICE_ID', f'there are {slices} slices')] * (slices != '1')),
  ):
    if name not in environ:
      raise ValueError(
        f'{name} is not set and {given}; GKE sets it where the job asks for'
        f' the whole slice; else {_OFF}'
      )
    _integer(environ, name)
  return Job(f'TPU workers {workers}')


def _by_kubernetes(environ: Mapping[str, str]) -> Job | None:
  index = environ.get('JOB_COMPLETION_INDEX')
  if index is not None and 'KUBERNETES_SERVICE_HOST' in environ:
    raise ValueError(
      f'JOB_COMPLETION_INDEX is {index!r}: a Kubernetes job of several pods,'
      ' and JAX_COORDINATOR_ADDRESS is not set; set it to HOST:PORT of pod 0,'
      ' JAX_NUM_PROCESSES to the number of pods and JAX_PROCESS_ID to'
      f' $JOB_COMPLETION_INDEX (docs/launch.md), or {_OFF}'
    )
  return None


def _checked(
  environ: Mapping[str, str], job: Job, count: str, index: str, *, because: str
) -> Job:
  """The job with its count and index, which agree."""
  for name in (count, index):
    if name not in environ:
      raise ValueError(
        f'{because} and {name} is not set; set {count} to the number of'
        f' processes and {index} to 0, 1, ... in each'
      )
  num_processes, process_id = (_integer(environ, n) for n in (count, index))
  if num_processes < 1:
    raise ValueError(f'{count} is {num_processes}; it counts processes, from 1')
  if process_id >= num_processes:
    raise ValueError(
      f'{index} is {process_id} and {count} is {num_processes}; the processes'
      f' are numbered 0 to {num_processes - 1}'
    )
  return dataclasses.replace(
    job, num_processes=num_processes, process_id=process_id
  )


def _first(environ: Mapping[str, str], *names: str) -> str:
  """The first of the names that is set, else the first."""
  return next((name for name in names if name in environ), names[0])


def _integer(environ: Mapping[str, str], name: str) -> int:
  text = environ.get(name, '')
  if not re.fullmatch(r'\d+', text):
    raise ValueError(f'{name} is {text!r}; it is a whole number from 0')
  return int(text)


def _port(environ: Mapping[str, str], job: str) -> int:
  """The same for all processes of a job, another for most other jobs."""
  if 'JAX_COORDINATOR_PORT' in environ:
    return _integer(environ, 'JAX_COORDINATOR_PORT')
  # Below the ports that Linux hands out to outgoing connections.
  return 20000 + zlib.crc32(job.encode()) % 10000


def _slurm_tasks_here(environ: Mapping[str, str]) -> int:
  """Tasks of this step on this machine, from a list such as '4(x2),3'."""
  text = environ.get('SLURM_STEP_TASKS_PER_NODE', '1')
  counts: list[int] = []
  for count, repeat in re.findall(r'(\d+)(?:\(x(\d+)\))?', text):
    counts += [int(count)] * int(repeat or 1)
  node = int(environ.get('SLURM_NODEID', '0'))
  return counts[node] if node < len(counts) else 1


def _local_devices(
  environ: Mapping[str, str], tasks: int, local_id: int
) -> tuple[int, ...] | None:
  """Shares the GPUs that all processes of this machine see.

  Args:
    environ: CUDA_VISIBLE_DEVICES as the launcher left it.
    tasks: Processes of the job on this machine.
    local_id: Which of them this one is.

  Returns:
    Indices among the visible GPUs; None is all: JAX_LOCAL_DEVICE_IDS rules,
    or the process is alone here, or the launcher has shared them out.
  """
  visible = environ.get('CUDA_VISIBLE_DEVICES')
  if (
    tasks == 1
    or 'JAX_LOCAL_DEVICE_IDS' in environ
    or 'SLURM_GPUS_PER_TASK' in environ
  ):
    return None
  if visible is None:
    return (local_id,)
  count = len(visible.split(',')) if visible else 0
  if count < tasks:
    return None
  if count % tasks:
    raise ValueError(
      f'CUDA_VISIBLE_DEVICES is {visible}: {count} GPUs for the {tasks}'
      ' processes of this machine; start as many processes as GPUs, or one'
    )
  share = count // tasks
  return tuple(range(local_id * share, (local_id + 1) * share))
