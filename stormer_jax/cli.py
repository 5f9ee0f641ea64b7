"""The console command: `stormer-jax COMMAND ...`.

Enters: a command and its flags. Leaves: what `python -m stormer_jax.main
--mode=COMMAND` or `python -m data_pipeline.COMMAND` does with the same flags;
it hands over to them and adds help that a person can read.
"""

import dataclasses
import importlib
import re
import sys
import textwrap

from data_pipeline import command_line
from stormer_jax import config_files


@dataclasses.dataclass(frozen=True)
class Command:
  """What `stormer-jax COMMAND` does.

  Attributes:
    summary: One line.
    usage: An example of its flags.
    flags: Names of flags of stormer_jax.main that it reads; empty: the command
      is a module of data_pipeline with a help of its own.
  """

  summary: str
  usage: str
  flags: tuple[str, ...] = ()


# In the order of a newcomer's way.
COMMANDS = {
  'predict': Command(
    'Is the face in this video forged, when, and how sure?',
    'FILE... [--html=PAGE] [--out=FILE]',
    (
      *('video', 'workdir', 'out', 'html', 'mp4', 'every', 'max_frames'),
      *('faces', 'backend', 'face_model', 'config', 'compilation_cache'),
      *('engine', 'beam_pipeline_options'),
    ),
  ),
  'app': Command(
    'Serve a page that answers for videos dropped on it.',
    '[--port=8787]',
    (
      *('workdir', 'host', 'port', 'most_mib', 'most_seconds', 'most_waiting'),
      *('keep_minutes', 'every', 'max_frames', 'faces', 'backend'),
      *('face_model', 'config', 'compilation_cache'),
    ),
  ),
  'check': Command(
    'Is a copy of a published data set whole?', '--source NAME --root FOLDER'
  ),
  'prepare': Command(
    'Turn videos into face records for training and scoring.',
    '--root VIDEOS --out DATA --dataset NAME',
  ),
  'contact_sheet': Command(
    'Draw the pairs that training will see.', '--config=ffpp_c23 ...'
  ),
  'train': Command(
    'Train a detector; the same command goes on after a stop.',
    '--config=ffpp_c23 --data_root=DATA --workdir=RUN',
    (
      *('config', 'data_root', 'workdir', 'distributed', 'profile'),
      *('wandb', 'compilation_cache', 'data_cache', 'data_cache_gib'),
    ),
  ),
  'sweep': Command(
    'Train the entries of a list of experiments.',
    '--config=ablations --data_root=DATA --workdir=SWEEP',
    (
      *('config', 'data_root', 'workdir', 'entry', 'list'),
      *('compilation_cache', 'data_cache', 'data_cache_gib'),
    ),
  ),
  'evaluate': Command(
    'Score data sets: AUC and others, with intervals.',
    '--workdir=RUN --data_root=DATA --config.eval.datasets="(\'NAME:test\',)"',
    (
      *('workdir', 'data_root', 'out', 'config', 'corrupt', 'distributed'),
      *('compilation_cache', 'data_cache', 'data_cache_gib'),
    ),
  ),
  'calibrate': Command(
    'Learn from validation scores what the logits mean.',
    '--workdir=RUN --scores=RUN/eval/NAME-val/scores.csv',
    ('workdir', 'scores', 'calibration'),
  ),
  'report': Command(
    'Make tables of saved scores, or compare runs.',
    "--scores=A=FILE,B=FILE --out=FOLDER   or   --runs='SWEEP/*'",
    ('scores', 'columns', 'groups', 'runs', 'base', 'out', 'config'),
  ),
  'convert': Command(
    'Turn weights of PyTorch into a run, and back.',
    '--source=FILE --destination=RUN --config=base:official',
    ('source', 'destination', 'config', 'heads', 'weights_key', 'half'),
  ),
  'export': Command(
    'Write a detector that scores with jax and numpy alone.',
    '--workdir=RUN --destination=FOLDER',
    ('workdir', 'destination', 'config'),
  ),
  'plan': Command(
    'Say what a run takes on a device, without the device.',
    "--config=ffpp_c23 --device_kind='NVIDIA H100 80GB HBM3' --devices=8",
    ('config', 'device_kind', 'devices'),
  ),
}
_HELP = ('-h', '--help', '-help', 'help')


def main() -> int:
  """Hands over to a command; returns its exit status."""
  command_line.open_streams()
  arguments = sys.argv[1:]
  if not arguments or arguments[0] in _HELP:
    print(overview())
    return 0
  name, *arguments = arguments
  command = COMMANDS.get(name)
  if command is None:
    print(
      f'error: no command {name!r}; there are {", ".join(COMMANDS)}',
      file=sys.stderr,
    )
    return 2
  if not command.flags:
    sys.argv = [f'stormer-jax {name}', *config_files.with_paths(arguments)]
    return importlib.import_module(f'data_pipeline.{name}').main(sys.argv[1:])
  if any(argument in _HELP for argument in arguments):
    print(describe(name))
    return 0
  program = importlib.import_module('stormer_jax.main')
  sys.argv = ['stormer-jax', f'--mode={name}', *arguments]
  program.run()
  return 0


def overview() -> str:
  """The help of all commands."""
  lines = [
    'Deepfake-video detection, learned from real videos.',
    '',
    'usage: stormer-jax COMMAND [--flag=value ...]',
    '',
    *(f'  {name:14} {x.summary}' for name, x in COMMANDS.items()),
    '',
    '`stormer-jax COMMAND --help` says more of one.',
    f'--config takes a file, or one of {", ".join(config_files.names())}.',
  ]
  return '\n'.join(lines)


def describe(name: str) -> str:
  """The help of one command of stormer_jax.main."""
  from absl import flags

  program = importlib.import_module('stormer_jax.main')
  if 'mode' not in flags.FLAGS:
    program.define_flags(['stormer-jax', '--mode=train'])
  command = COMMANDS[name]
  lines = [
    command.summary,
    '',
    f'usage: stormer-jax {name} {command.usage}',
    '',
  ]
  for flag in (*command.flags, 'debug'):
    said = (flags.FLAGS[flag].help or '').replace('|', ' | ')  # may be broken
    # What absl adds to a flag that may be given often.
    said = re.sub(r';\s*repeat this option to.*', ' May be repeated.', said)
    if flag == 'config':
      said = (
        'A configuration by name or file; without it, where there is a run,'
        ' its own. --config.section.field=value changes a field.'
      )
    elif flags.FLAGS[flag].default:  # not None, False or nothing
      said = f'{said.rstrip(".")}; {flags.FLAGS[flag].default} if not said.'
    wrapped = textwrap.wrap(said, 56)
    if len(flag) < 19:
      wrapped[0] = f'--{flag:19}{wrapped[0]}'
    else:
      wrapped.insert(0, f'--{flag}')
    lines += [
      f'  {text}' if text.startswith('--') else ' ' * 23 + text
      for text in wrapped
    ]
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
