"""Checks an installed wheel: run by `make test-wheel`, outside the repository.

  VENV/bin/python tests/wheel_check.py REPOSITORY

The package must come from the environment that runs this, hold every file that
the repository tracks in it (face models and weights too), and answer.
"""

import pathlib
import subprocess
import sys
import tempfile

PACKAGES = ('configs', 'data_pipeline', 'stormer_jax')
# Command, what its output must contain, exit status (absl's help ends in 1).
COMMANDS = (
  (('stormer-jax', '--help'), 'usage: stormer-jax COMMAND', 0),
  (('stormer-jax', 'prepare', '--help'), 'usage:', 0),
  (('python', '-m', 'stormer_jax.main', '--help'), '--mode', 1),
  (('stormer-jax', 'plan', '--config=tiny', '--devices=2'), 'parameters', 0),
  (('stormer-jax', 'train', '--config=none', '--workdir=W'), 'ffpp_c23', 2),
)


def main() -> None:
  """Raises AssertionError with what is wrong."""
  repository = pathlib.Path(sys.argv[1])
  binaries = pathlib.Path(sys.executable).parent
  with tempfile.TemporaryDirectory() as folder:

    def run(*command):
      return subprocess.run(
        [binaries / command[0], *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
      )

    where = 'import stormer_jax; print(stormer_jax.__file__)'
    said = run('python', '-c', where).stdout.strip()
    site = pathlib.Path(said).parent.parent
    assert site.is_relative_to(sys.prefix), f'{said} is not the wheel'
    git = ['git', '-C', str(repository), 'ls-files', '-z', *PACKAGES]
    listed = subprocess.run(git, capture_output=True, check=True, text=True)
    names = [name for name in listed.stdout.split('\0') if name]
    missing = [name for name in names if not (site / name).is_file()]
    assert names and not missing, f'not in the wheel: {missing}'
    for command, expected, status in COMMANDS:
      done = run(*command)
      output = done.stdout + done.stderr
      assert done.returncode == status, f'{command}: {output}'
      assert expected in output, f'{command}: {output}'
      print('ok:', *command, flush=True)
  print(f'ok: {len(names)} files in the wheel')


if __name__ == '__main__':
  main()
