"""Which job an environment shows, and two real processes that join one."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from stormer_jax.runs import distributed

ROOT = pathlib.Path(__file__).parents[2]

HAND = {
  'JAX_COORDINATOR_ADDRESS': '10.0.0.1:1234',
  'JAX_NUM_PROCESSES': '4',
  'JAX_PROCESS_ID': '3',
}
SLURM = {
  'SLURM_JOB_ID': '4242',
  'SLURM_STEP_ID': '0',
  'SLURM_STEP_NODELIST': 'node[003-004]',
  'SLURM_STEP_NUM_TASKS': '8',
  'SLURM_STEP_TASKS_PER_NODE': '4(x2)',
  'SLURM_NTASKS': '8',
  'SLURM_NODEID': '1',
  'SLURM_PROCID': '6',
  'SLURM_LOCALID': '2',
}
OPEN_MPI = {
  'OMPI_COMM_WORLD_SIZE': '2',
  'OMPI_COMM_WORLD_RANK': '1',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
  'OMPI_COMM_WORLD_LOCAL_RANK': '1',
}
TPU = {
  'TPU_ML_PLATFORM': 'JAX',
  'TPU_WORKER_HOSTNAMES': 'worker-0,worker-1',
  'TPU_WORKER_ID': '1',
}
XPK_GPU = {
  'JAX_COORDINATOR_ADDRESS': 'run-slice-job-0-0.run',
  'JAX_COORDINATOR_PORT': '6002',
  'NNODES': '2',
  'NODE_RANK': '1',
  'KUBERNETES_SERVICE_HOST': '10.8.0.1',
  'JOB_COMPLETION_INDEX': '1',
}
INDEXED = {'KUBERNETES_SERVICE_HOST': '10.8.0.1', 'JOB_COMPLETION_INDEX': '0'}


@pytest.mark.parametrize(
  'environ',
  [
    {},
    {'HOME': '/root', 'KUBERNETES_SERVICE_HOST': '10.8.0.1'},
    HAND | {'JAX_NUM_PROCESSES': '1', 'JAX_PROCESS_ID': '0'},
    {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '1'},
    {'SLURM_JOB_ID': '1'},
    # One task by srun inside an allocation of many.
    {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '8', 'SLURM_STEP_NUM_TASKS': '1'},
    OPEN_MPI
    | {
      'OMPI_COMM_WORLD_SIZE': '1',
      'OMPI_COMM_WORLD_RANK': '0',
      'OMPI_COMM_WORLD_LOCAL_SIZE': '1',
    },
    TPU | {'TPU_WORKER_HOSTNAMES': 'localhost'},
    TPU | {'TPU_WORKER_HOSTNAMES': 'localhost'} | INDEXED,
    {'TPU_ML_PLATFORM': 'JAX', 'TPU_SKIP_MDS_QUERY': '1'},
    TPU | {'JAX_PLATFORMS': 'cpu'},
  ],
  ids=repr,
)
def test_a_process_that_is_alone_joins_nothing(environ):
  assert distributed.find_job(environ) is None


def test_a_job_set_by_hand():
  job = distributed.find_job(HAND)
  assert (job.coordinator, job.num_processes, job.process_id) == (
    '10.0.0.1:1234',
    4,
    3,
  )
  assert job.local_devices is None


def test_a_gpu_job_of_xpk():
  job = distributed.find_job(XPK_GPU)
  assert (job.coordinator, job.num_processes, job.process_id) == (
    'run-slice-job-0-0.run:6002',
    2,
    1,
  )


@pytest.mark.parametrize(
  'nodes, first',
  [
    ('node001', 'node001'),
    ('node001,other', 'node001'),
    ('node[003-004]', 'node003'),
    ('node[007,009-012],other', 'node007'),
    ('rack-1-[5-6]-ib', 'rack-1-5-ib'),
  ],
)
def test_the_coordinator_of_a_slurm_job_is_its_first_machine(nodes, first):
  job = distributed.find_job(SLURM | {'SLURM_STEP_NODELIST': nodes})
  assert job.coordinator.rpartition(':')[0] == first
  assert (job.num_processes, job.process_id) == (8, 6)


def test_all_tasks_of_a_slurm_job_agree_on_the_port_and_jobs_differ():
  def port(**changes):
    job = distributed.find_job(SLURM | changes)
    return int(job.coordinator.rpartition(':')[2])

  assert port() == port(SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NODEID='0')
  assert len({port(SLURM_JOB_ID=str(4242 + i)) for i in range(20)}) > 15
  assert port(JAX_COORDINATOR_PORT='1234') == 1234


@pytest.mark.parametrize(
  'changes, devices',
  [
    # One task has the machine: all its GPUs.
    ({'SLURM_STEP_TASKS_PER_NODE': '1(x8)'}, None),
    ({'SLURM_STEP_TASKS_PER_NODE': '4(x1),1(x4)'}, None),
    # All four tasks see the same GPUs: task 2 takes its share.
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, (2,)),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7'}, (4, 5)),
    ({}, (2,)),
    # SLURM has shared them out.
    ({'CUDA_VISIBLE_DEVICES': '2'}, None),
    (
      {
        'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7',
        'SLURM_GPUS_PER_TASK': '8',
      },
      None,
    ),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'JAX_LOCAL_DEVICE_IDS': '0'}, None),
  ],
)
def test_the_tasks_of_a_machine_share_its_gpus(changes, devices):
  assert distributed.find_job(SLURM | changes).local_devices == devices


def test_an_address_by_hand_goes_before_that_of_the_launcher():
  address = {'JAX_COORDINATOR_ADDRESS': '10.0.0.9:99'}
  for launched, count, index in ((SLURM, 8, 6), (OPEN_MPI, 2, 1)):
    job = distributed.find_job(launched | address)
    assert job.coordinator == '10.0.0.9:99'
    assert (job.num_processes, job.process_id) == (count, index)


def test_open_mpi_on_one_machine_needs_no_address():
  job = distributed.find_job(OPEN_MPI)
  assert job.coordinator.startswith('localhost:')
  assert (job.num_processes, job.process_id) == (2, 1)


@pytest.mark.parametrize(
  'environ',
  [
    TPU,
    TPU
    | {'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_NUM_SLICES': '2'}
    | {'MEGASCALE_SLICE_ID': '0'},
    {'TPU_ML_PLATFORM': 'JAX'},  # a TPU VM, whose metadata JAX asks
    {'TPU_ML_PLATFORM': 'JAX', 'TPU_SKIP_MDS_QUERY': 'true'}
    | {'TPU_PROCESS_ADDRESSES_PATH': '/etc/workers'},
    TPU | {'JAX_PLATFORMS': 'tpu,cpu'},
    TPU | INDEXED,
  ],
)
def test_tpu_workers_are_left_to_jax(environ):
  job = distributed.find_job(environ)
  assert (job.coordinator, job.num_processes, job.process_id) == (None,) * 3


@pytest.mark.parametrize(
  'environ, message',
  [
    (
      {'JAX_COORDINATOR_ADDRESS': 'a:1'},
      'JAX_NUM_PROCESSES is not set',
    ),
    (
      {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '2'},
      'JAX_PROCESS_ID is not set',
    ),
    (
      {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_PROCESS_ID': '0'},
      'JAX_NUM_PROCESSES is not set',
    ),
    ({'JAX_PROCESS_ID': '1'}, 'JAX_COORDINATOR_ADDRESS is not set'),
    ({'JAX_NUM_PROCESSES': '2'}, "JAX_NUM_PROCESSES is '2' and"),
    (HAND | {'JAX_PROCESS_ID': '4'}, 'JAX_PROCESS_ID is 4 and .* 0 to 3'),
    (HAND | {'JAX_PROCESS_ID': 'two'}, "JAX_PROCESS_ID is 'two'"),
    (HAND | {'JAX_PROCESS_ID': '-1'}, "JAX_PROCESS_ID is '-1'"),
    (HAND | {'JAX_PROCESS_ID': ''}, "JAX_PROCESS_ID is ''"),
    (HAND | {'JAX_NUM_PROCESSES': '0'}, 'JAX_NUM_PROCESSES is 0'),
    (
      HAND | {'JAX_COORDINATOR_ADDRESS': '10.0.0.1'},
      "JAX_COORDINATOR_ADDRESS is '10.0.0.1'; it is HOST:PORT",
    ),
    (HAND | {'JAX_COORDINATOR_ADDRESS': 'a:port'}, "is 'a:port'; it is HOST"),
    (
      {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'},
      'SLURM_NTASKS is 4 and SLURM_STEP_NODELIST is not set.*write srun',
    ),
    (SLURM | {'SLURM_PROCID': 'x'}, "SLURM_PROCID is 'x'"),
    (
      SLURM | {'CUDA_VISIBLE_DEVICES': '0,1,2,3,4'},
      'CUDA_VISIBLE_DEVICES is 0,1,2,3,4: 5 GPUs for the 4 processes',
    ),
    (
      OPEN_MPI | {'OMPI_COMM_WORLD_LOCAL_SIZE': '1'},
      'OMPI_COMM_WORLD_SIZE is 2, 1 of them .*-x JAX_COORDINATOR_ADDRESS',
    ),
    (
      {k: v for k, v in TPU.items() if k != 'TPU_WORKER_ID'},
      'TPU_WORKER_ID is not set and there are 2 TPU workers',
    ),
    (
      TPU | {'MEGASCALE_NUM_SLICES': '2'},
      'MEGASCALE_SLICE_ID is not set and there are 2 slices',
    ),
    (INDEXED, "JOB_COMPLETION_INDEX is '0'.*--distributed=off"),
  ],
)
def test_half_a_job_names_the_variable_and_the_fix(environ, message):
  with pytest.raises(ValueError, match=message):
    distributed.find_job(environ)


def test_jax_still_notes_a_tpu_in_the_environment():
  # What find_job goes by; JAX_FORCE_TPU_INIT stands in for the chips.
  out = subprocess.run(
    [
      sys.executable,
      '-c',
      'import jax, os; print(os.environ.get("TPU_ML_PLATFORM"))',
    ],
    env=os.environ | {'JAX_FORCE_TPU_INIT': '1'},
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert out.strip() == 'JAX'


JOIN = """
import sys
import jax
jax.config.update('jax_num_cpu_devices', 2)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
from stormer_jax.runs import distributed

with distributed.joined(seconds=30):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  ours = np.arange(2) + 2 * jax.process_index()
  numbers = jax.make_array_from_process_local_data(
    NamedSharding(mesh, P('data')), ours
  )
  total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, P()))
  numbers = jax.process_count(), jax.device_count(), int(total(numbers))
  print('all:', *numbers, file=sys.stderr)
"""


def test_two_processes_join_and_add_up_their_numbers_past_a_dead_proxy():
  with socket.create_server(('localhost', 0)) as server:
    port = server.getsockname()[1]
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', JOIN],
      cwd=ROOT,
      env=os.environ
      | {
        'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(index),
        'JAX_PLATFORMS': 'cpu',
        'http_proxy': 'http://localhost:9',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  outcomes = [process.communicate(timeout=120) for process in processes]
  for process, (out, err) in zip(processes, outcomes, strict=True):
    assert process.returncode == 0, err
    assert 'all: 2 4 6' in err.splitlines(), out  # Gloo speaks on stdout
