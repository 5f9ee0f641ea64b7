"""A call that is measured starts with the programs that its row names."""

import sys

import pytest

from benchmarks import answers


def test_a_failed_call_ends_with_its_status_and_keeps_programs_apart(
  tmp_path, monkeypatch
):
  program = tmp_path / 'python'
  program.write_text(
    '#!/bin/sh\n'
    '[ -z "$JAX_COMPILATION_CACHE_DIR" ] || exit 9\n'
    f'[ "$XDG_CACHE_HOME" = {tmp_path}/cache ] || exit 8\n'
    'exit 3\n'
  )
  program.chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(program))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/elsewhere')
  with pytest.raises(SystemExit, match=r'predict ended with 3$'):
    answers._ask(tmp_path / 'a.mp4', tmp_path)
