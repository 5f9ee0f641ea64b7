"""What the command for a GPU that is not there says of a program."""

import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import gpu_compile, hlo_costs

ROOT = pathlib.Path(__file__).parent.parent


def test_without_the_plugin_one_line_says_what_to_install(tmp_path):
  # A plugin that may be installed here is not found.
  (tmp_path / 'jax_plugins').mkdir()
  (tmp_path / 'jax_plugins' / '__init__.py').write_text('')
  (tmp_path / 'sitecustomize.py').write_text(
    'import importlib.metadata as metadata\n'
    'everything = metadata.entry_points\n'
    'metadata.entry_points = lambda **named: (\n'
    "  () if named.get('group') == 'jax_plugins' else everything(**named)\n"
    ')\n'
  )
  ran = subprocess.run(
    [sys.executable, '-m', 'benchmarks.gpu_compile', '--devices=1'],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ran.returncode == 2, ran.stderr
  assert ran.stdout == ''
  assert ran.stderr.startswith('error: no compiler for NVIDIA GPUs')
  assert "pip install 'jax[cuda13]==" in ran.stderr
  assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize('option', ['--devices', '--pairs', '--depth'])
def test_there_is_at_least_one_of_everything(option, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['gpu_compile', f'{option}=0'])
  with pytest.raises(SystemExit) as stopped:
    gpu_compile.main()
  assert stopped.value.code == 2
  assert f'argument {option}: 0; at least 1' in capsys.readouterr().err


def test_kernels_alike_are_one_row_the_dearest_first():
  def kernel(name, runs, touched, flops=0, source='jit(step)/jvp()/dot'):
    shape = 'bf16[8,4]{1,0}'
    return hlo_costs.Kernel(name, shape, source, runs, touched, flops)

  card = gpu_compile.Card('a card', 1, 2e12, 1e12, 100e12)
  lines = gpu_compile.report(
    [
      kernel('copy.1', 1, 1_000_000_000),
      kernel('gemm.1', 3, 1_000_000, 2_000_000_000_000),
      kernel('gemm.2.clone', 1, 1_000_000, 2_000_000_000_000),
      kernel('little', 1, 8),
    ],
    [
      hlo_costs.Collective('all-reduce', 2, 2**20),
      hlo_costs.Collective('all-gather', 1, 2**24),
      hlo_costs.Collective('all-reduce', 1, 2**20),
    ],
    card,
    rows=2,
  )
  assert [' '.join(line.split()) for line in lines] == [
    'collectives 1 all-gather (16.0 MiB), 3 all-reduce (3.0 MiB)',
    'kernels 6',
    'matrix products 8.0 TFLOP, 80.0 ms',
    'bytes 1.0 GB, 1.0 ms',
    'floor 81.0 ms',
    '80.00 ms 4 x 1.0 MB 2000.0 GFLOP gemm bf16[8,4] jvp()/dot',
    '1.00 ms 1 x 1000.0 MB 0.0 GFLOP copy bf16[8,4] jvp()/dot',
  ]
