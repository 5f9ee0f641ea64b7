"""Measures what is to be known of a GPU, in one command of eight minutes.

  python -m benchmarks.gpu_report --out=REPORT [--wheels=DIR] [--cache=DIR]
  python -m benchmarks.gpu_report --out=REPORT --parts sam_cudnn_none whole
  python -m benchmarks.gpu_report --out=REPORT --small    # tries it on a CPU

For a machine that is lent for minutes and has no network: JAX, flax, optax,
orbax and OpenCV are there, what else is needed is installed from --wheels
(benchmarks/gpu_wheels.py fills it) into a folder that is removed at the end.
Every part (benchmarks/gpu_parts.py) is a process with a time limit of its own:
one that fails, lacks a package or is stopped costs the others nothing. They run
one after the other, what matters most first: XLA times kernels on the card
while it compiles, and programs that are compiled at once spoil each other's
times. Prints each figure as it comes; leaves report.json and report.md in
--out, rewritten after each part. Several short loans of a machine can be spent
on --parts of their own; with a --cache that is carried from one to the next,
what was compiled is not compiled again. Nothing but the standard library is
imported here.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from benchmarks import gpu_parts

_ROOT = pathlib.Path(__file__).parent.parent
REPORT_SECONDS = 480.0
# Half the compiler's time: what a try on a CPU measures is worth nothing.
_QUICK = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the report.

  Attributes:
    name: As --parts takes it.
    title: What it measures.
    command: Name and options, as benchmarks/gpu_parts.py takes them.
    limit: Seconds that it may take.
    of_fastest: Whether it takes the form of the fastest step before it.
    timed: Whether times are what it measures. Else kernels are not timed
      against each other while they are compiled, unless --autotune says so.
  """

  name: str
  title: str
  command: tuple[str, ...]
  limit: float
  of_fastest: bool = False
  timed: bool = True


def _step(attention: str, remat: str, *, scan: bool = False) -> Part:
  how = (
    f'--attention={attention}',
    f'--remat={remat}',
    f'--scan_layers={scan}',
  )
  return Part(
    f'sam_{attention}_{remat}' + '_scan' * scan,
    f'ViT-B SAM step, attention {attention}, remat {remat}, blocks '
    + ('in a loop' if scan else 'one by one'),
    ('sam_step', *how),
    200,
  )


_MACHINE = Part('machine', 'Versions, card, driver', ('machine',), 60)
# What matters most comes first and gets what it needs, as far as there is time:
# on an H200 the blending took 57 s to compile, and the step more than 43 s. At
# one batch size; `growth` doubles it with what is left.
PARTS = (
  _step('cudnn', 'none'),
  Part('whole', 'Blending, step, both; scoring', ('whole',), 200, True),
  Part('profile', 'Kernels of the step', ('profile',), 90, True),
  Part('growth', 'The step, its batch doubled', ('growth',), 300, True),
  Part('agreement', 'Agreement with the CPU', ('agreement',), 200, timed=False),
  Part(
    'resume', 'A training, killed and resumed', ('resume',), 120, timed=False
  ),
  _step('cudnn', 'none', scan=True),
  _step('xla', 'none'),
  _step('cudnn', 'dots'),
  Part('blending', 'Blending alone', ('blending',), 100),
)


@dataclasses.dataclass
class Outcome:
  """What became of a part.

  Attributes:
    title: Of the part.
    state: 'done', 'stopped at its limit', 'missing package', 'failed' or 'no
      time left'.
    seconds: That it took.
    rows: Figures, one dictionary each; also of a part that did not end well.
    error: Last line of its error output, or ''.
  """

  title: str
  state: str
  seconds: float
  rows: list[dict[str, Any]]
  error: str = ''


def main() -> int:
  """Runs all parts; returns 1 if one of them was not done."""
  arguments = _parse()
  end = time.monotonic() + arguments.seconds
  arguments.out.mkdir(parents=True, exist_ok=True)
  outcomes: list[Outcome] = []
  with tempfile.TemporaryDirectory(prefix='gpu_report_') as folder:
    environment = _environment(arguments, pathlib.Path(folder))
    if arguments.wheels:
      environment['PYTHONPATH'] = os.pathsep.join(
        [
          str(_install(arguments.wheels, pathlib.Path(folder) / 'packages')),
          *filter(None, [os.environ.get('PYTHONPATH')]),
        ]
      )
    for part in (_MACHINE, *arguments.parts):
      left = end - time.monotonic()
      limit = min(part.limit * arguments.patience, left)
      print(f'\n## {part.title} (at most {max(limit, 0):.0f} s)', flush=True)
      if limit < 5:
        outcome = Outcome(part.title, 'no time left', 0, [])
      else:
        command = [*part.command, f'--folder={folder}']
        command += ['--small'] if arguments.small else []
        if part.of_fastest:
          command += fastest(outcomes, arguments)
        elif part.command[0] == 'sam_step':
          command += [f'--pairs={arguments.pairs}']
        if part.command[0] == 'growth':
          command += [f'--seconds={limit:.0f}']
        flags = environment['XLA_FLAGS']
        if not part.timed and arguments.autotune is None:
          flags += ' --xla_gpu_autotune_level=0'
        outcome = run_part(command, limit, environment | {'XLA_FLAGS': flags})
        outcome.title = part.title
      print(f'{outcome.state}, {outcome.seconds:.0f} s. {outcome.error}')
      outcomes.append(outcome)
      _write(arguments, outcomes)
      if part is _MACHINE and not arguments.small:
        found = {row['what']: row['value'] for row in outcome.rows}
        if found.get('platform') == 'cpu':
          print('error: no accelerator here; --small tries it on a CPU')
          return 2
  print(f'\n{arguments.out / "report.md"} and report.json are written')
  return int(any(outcome.state != 'done' for outcome in outcomes))


def run_part(
  command: list[str], limit: float, environment: dict[str, str]
) -> Outcome:
  """Runs a part in a process group of its own, for `limit` seconds.

  Args:
    command: Arguments of benchmarks/gpu_parts.py.
    limit: Seconds after which it and what it started are killed.
    environment: Of the process.

  Returns:
    The figures that it printed, also if it was killed. `title` is empty.
  """
  begun = time.monotonic()
  outcome = Outcome('', 'done', 0, [])
  with tempfile.TemporaryFile('w+') as errors:
    process = subprocess.Popen(
      [sys.executable, '-m', 'benchmarks.gpu_parts', *command],
      cwd=_ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
      start_new_session=True,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process, outcome.rows))
    reader.start()
    try:
      process.wait(limit)
    except subprocess.TimeoutExpired:
      outcome.state = 'stopped at its limit'
    finally:  # also when this process is interrupted
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      reader.join()
      process.stdout.close()
    outcome.seconds = time.monotonic() - begun
    if outcome.state == 'done' and process.returncode:
      errors.seek(0)
      lines = [line.strip() for line in errors if line.strip()]
      # XLA's own lines come after what it raised.
      named = [x for x in lines if re.match(r'[\w.]*(Error|Exception)\b', x)]
      outcome.error = (named or lines or ['no word'])[-1][:400]
      outcome.state = (
        'missing package'
        if process.returncode == gpu_parts.MISSING
        else 'failed'
      )
  return outcome


def _read(process, rows):
  for line in process.stdout:
    print(line.removeprefix('ROW '), end='', flush=True)
    if line.startswith('ROW '):
      rows.append(json.loads(line.removeprefix('ROW ')))


def _environment(arguments, folder):
  """All memory of the card, and programs compiled once for all parts."""
  cache = arguments.cache or folder / 'programs'
  flags = [os.environ.get('XLA_FLAGS', '')]
  if arguments.small:
    flags.append(_QUICK)
  if arguments.autotune is not None:
    flags.append(f'--xla_gpu_autotune_level={arguments.autotune}')
  return os.environ | {
    'PYTHONUNBUFFERED': '1',
    'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92',
    'XLA_FLAGS': ' '.join(filter(None, flags)),
    # JAX keeps XLA's choices of kernels there too, one file a kernel.
    'JAX_COMPILATION_CACHE_DIR': str(cache.resolve()),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1',
  }


def _install(wheels, target):
  """Installs what is missing or too old; returns the folder it is in."""
  wanted = wanted_wheels(wheels)
  print(f'installing {len(wanted)}:', *(path.name for path in wanted))
  if wanted:
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index']
    command += ['--no-deps', '--no-compile', f'--target={target}']
    subprocess.run([*command, *map(str, wanted)], check=False, timeout=60)
  return target


def wanted_wheels(folder: pathlib.Path) -> list[pathlib.Path]:
  """The wheels of packages that are missing here, or out of our bounds."""
  bounds = dict(
    re.match(r'([\w-]+)(.*)', line).groups()
    for line in (_ROOT / 'requirements.txt').read_text().splitlines()
    if line and not line.startswith('#')
  )
  result = []
  for path in sorted(folder.glob('*.whl')):
    name = path.name.split('-')[0].replace('_', '-').lower()
    try:
      found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      result.append(path)
      continue
    if not _within(found, bounds.get(name, '')):
      result.append(path)
  return result


def _within(version, bounds):
  """Whether a version lies within '>=A,<B'; numbers alone are compared."""

  def numbers(text):
    return [int(x) for x in re.match(r'[\d.]*\d', text)[0].split('.')]

  for bound in filter(None, bounds.split(',')):
    if bound.startswith('>=') and numbers(version) < numbers(bound[2:]):
      return False
    if bound.startswith('<') and numbers(version) >= numbers(bound[1:]):
      return False
  return True


def fastest(
  outcomes: list[Outcome], arguments: argparse.Namespace
) -> list[str]:
  """Options of the step with most clips a second; the given ones if none."""
  rows = [r for o in outcomes for r in o.rows if r['what'] == 'train step']
  best = max(
    rows, key=lambda row: row['clips_per_second'], default=vars(arguments)
  )
  names = ('attention', 'remat', 'pairs', 'scan_layers')
  return [f'--{name}={best[name]}' for name in names]


def _write(arguments, outcomes):
  """Writes both files, each as a whole or not at all."""
  git = ['git', '-C', str(_ROOT), 'describe', '--always', '--dirty']
  try:
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
  except FileNotFoundError:
    commit = ''
  report = {
    'command': 'python -m benchmarks.gpu_report ' + ' '.join(sys.argv[1:]),
    'commit': commit or 'unknown',
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'small': arguments.small,
    'bars': bars(outcomes),
    'parts': [dataclasses.asdict(outcome) for outcome in outcomes],
  }
  texts = {
    'report.json': json.dumps(report, indent=1),
    'report.md': _text(report),
  }
  for name, text in texts.items():
    partial = arguments.out / f'{name}.partial'
    partial.write_text(text)
    partial.replace(arguments.out / name)


def bars(outcomes: list[Outcome]) -> list[str]:
  """What the figures say of the bars of docs/scaling.md."""
  rows = [row for outcome in outcomes for row in outcome.rows]
  said = []
  pairs = [r['pairs_per_second'] for r in rows if 'pairs_per_second' in r]
  if pairs:
    said.append(f'blending: {max(pairs):,.0f} pairs/s; the bar is 1,000')
  mfu = [row['mfu'] for row in rows if row.get('mfu')]
  if mfu:
    said.append(
      f'MFU of the SAM step: {max(mfu):.1%}; 20 % is level with the public'
      ' best of ViT-B in JAX on an H100, 45 % is the aim'
    )
  step = None
  for row in rows:
    if row['what'] == 'train step':
      step = row
    elif row['what'] == 'blending, train step':
      more = row['ms'] / step['ms'] - 1
      said.append(f'blending adds {more:.1%} to the step; the bar is 5 %')
    elif 'bit_equal' in row:
      said.append(
        'killed and resumed: '
        + ('bit-equal' if row['bit_equal'] else 'not bit-equal')
        + f', largest relative difference {row["relative_error"]:.1e}'
      )
  return said


def _text(report):
  """The report as Markdown."""
  lines = ['# GPU report', '']
  lines += [
    f'`{report["command"]}`, commit {report["commit"]}, {report["time"]}'
  ]
  if report['small']:
    lines += ['', 'A try in small: no figure here says anything of a device.']
  lines += ['', *(f'- {bar}' for bar in report['bars'])]
  for part in report['parts']:
    lines += ['', f'## {part["title"]}', '']
    lines += [f'{part["state"]}, {part["seconds"]:.0f} s. {part["error"]}', '']
    names = list(dict.fromkeys(name for row in part['rows'] for name in row))
    if names:
      lines += [f'| {" | ".join(names)} |', f'|{" --- |" * len(names)}']
    for row in part['rows']:
      cells = [_cell(name, row.get(name)) for name in names]
      lines += [f'| {" | ".join(cells)} |']
  return '\n'.join(lines) + '\n'


def _cell(name, value):
  if value is None:
    return '-'
  if name.endswith('_bytes'):
    return f'{value / 2**30:.2f} GiB'
  if name == 'mfu':
    return f'{value:.1%}'
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _parse():
  names = {part.name: part for part in PARTS}
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument('--out', type=pathlib.Path, default='gpu_report')
  parser.add_argument(
    '--wheels', type=pathlib.Path, help='install what is missing from here'
  )
  parser.add_argument(
    '--seconds', type=float, default=REPORT_SECONDS, help='of all parts'
  )
  parser.add_argument(
    '--patience', type=float, default=1.0, help="times each part's own limit"
  )
  parser.add_argument(
    '--parts',
    nargs='+',
    choices=names,
    metavar='NAME',
    help=f'these alone, in this order, of: {", ".join(names)}',
  )
  parser.add_argument(
    '--cache', type=pathlib.Path, help='keep what is compiled here'
  )
  parser.add_argument(
    '--autotune',
    type=int,
    choices=range(5),
    help='how much XLA times kernels while it compiles: 0 (not at all) is a'
    " quick first figure, 4 is XLA's own default",
  )
  parser.add_argument(
    '--pairs', type=int, help='of the steps; 32, or 2 with --small'
  )
  parser.add_argument(
    '--attention', default='xla', help='where no step was measured before'
  )
  parser.add_argument(
    '--remat', default='none', help='where no step was measured before'
  )
  parser.add_argument(
    '--scan_layers',
    choices=('True', 'False'),
    default='False',
    help='where no step was measured before',
  )
  parser.add_argument(
    '--small', action='store_true', help='small sizes, to try it on a CPU'
  )
  arguments = parser.parse_args()
  arguments.pairs = arguments.pairs or (2 if arguments.small else 32)
  # No CPU has cuDNN.
  every = [n for n in names if not (arguments.small and 'cudnn' in n)]
  arguments.parts = [names[name] for name in arguments.parts or every]
  if arguments.wheels and not arguments.wheels.is_dir():
    parser.error(f'--wheels={arguments.wheels}: no such folder')
  return arguments


if __name__ == '__main__':
  sys.exit(main())
