"""One program for a run: train it, evaluate it, report, predict, export, plan.

  python -m stormer_jax.main --mode=train --config=configs/demo.py \
    --data_root=DATA --workdir=RUN [--config.optimizer.peak_lr=1e-4]
  python -m stormer_jax.main --mode=sweep --config=configs/ablations.py \
    --data_root=DATA --workdir=SWEEP [--entry=3] [--list]
  python -m stormer_jax.main --mode=evaluate --workdir=RUN --data_root=DATA \
    [--config.eval.datasets="('celebdf_v2:test',)"] [--corrupt=all]
  python -m stormer_jax.main --mode=calibrate --workdir=RUN --scores=FILE
  python -m stormer_jax.main --mode=report --scores=A=FILE,B=FILE --out=FOLDER
  python -m stormer_jax.main --mode=predict [--workdir=RUN] --video=FILE
  python -m stormer_jax.main --mode=app [--workdir=RUN] [--port=8787]
  python -m stormer_jax.main --mode=report --runs='SWEEP/*' [--out=FOLDER]
  python -m stormer_jax.main --mode=convert --source=A --destination=B
  python -m stormer_jax.main --mode=export --workdir=RUN --destination=FOLDER
  python -m stormer_jax.main --mode=plan --config=configs/ffpp_c23.py \
    --device_kind='TPU v5e' --devices=8

evaluate and predict take the configuration that the run was trained with;
--config.FIELD=VALUE changes it in any mode, of a trained model dtype, attention
and scan_layers alone. train and evaluate run on many machines by starting the
same command on each (docs/launch.md). A mistake of the user ends in one line
on stderr and exit status 2, a run that was asked to stop and saved itself in
status 143.
"""

from collections.abc import Sequence
import contextlib
import logging as std_logging
import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from data_pipeline import command_line, places
from data_pipeline.faces import backends
from stormer_jax import config_files, ranges
from stormer_jax.scoring import calibration, study, tables

MODES = (
  *('train', 'sweep', 'evaluate', 'calibrate', 'report', 'predict'),
  *('convert', 'export', 'plan', 'app'),
)
_PATHS = (
  *('workdir', 'data_root', 'data_cache', 'video', 'out', 'html', 'mp4'),
  *('source', 'destination'),
)
_NEEDS = {
  'train': ('config', 'workdir', 'data_root'),
  'sweep': ('config',),  # and more, unless it only lists
  'evaluate': ('workdir', 'data_root'),
  'calibrate': ('workdir', 'scores'),
  'predict': (),  # a video, as a flag or plainly
  'app': (),
  'convert': ('source', 'destination'),
  'export': ('workdir', 'destination'),
  'plan': ('config',),
  'report': (),
}


def define_flags(argv: Sequence[str]) -> None:
  """Defines the flags; the configuration comes from a file or from a run."""
  _refuse_addresses(argv)
  flags.DEFINE_enum('mode', None, MODES, 'What to do.', required=True)
  flags.DEFINE_string('workdir', None, 'Folder of the run.')
  flags.DEFINE_string(
    'data_root', None, 'Folder that prepare wrote, or a bucket: gs://...'
  )
  flags.DEFINE_string(
    'data_cache',
    None,
    'Folder on a disk of this machine that records are copied to when they are'
    ' first read, for a --data_root that lies far away.',
  )
  flags.DEFINE_float(
    'data_cache_gib', 100.0, 'What --data_cache holds at most.', lower_bound=0
  )
  flags.DEFINE_multi_string(
    'video',
    None,
    "What to answer for: a file, a folder, a pattern as 'clips/*.mp4', or"
    ' @LIST, a file of such names; the flag itself may be left out.',
  )
  flags.DEFINE_string(
    'html', None, 'Page of the answer; a folder of pages for many videos.'
  )
  flags.DEFINE_string(
    'mp4', None, 'Annotated film; a folder of films for many videos.'
  )
  flags.DEFINE_string(
    'host', '127.0.0.1', 'Address to serve the page at; 0.0.0.0 for everybody.'
  )
  flags.DEFINE_integer('port', 8787, 'Port to serve the page at.')
  flags.DEFINE_integer(
    'most_mib', 1024, 'Size of a file that the page takes.', lower_bound=1
  )
  flags.DEFINE_float(
    'most_seconds', 1800.0, 'Of answering for one video of the page.'
  )
  flags.DEFINE_integer('most_waiting', 16, 'Videos of the page at once.')
  flags.DEFINE_float(
    'keep_minutes', 60.0, 'That the page keeps an answer when it is there.'
  )
  flags.DEFINE_float(
    'every', 0.5, 'Seconds from clip to clip where frames are dense.'
  )
  flags.DEFINE_integer(
    'max_frames', 2400, 'Frames of a video that are looked at, at most.'
  )
  flags.DEFINE_string(
    'faces',
    '4',
    'How many people of a frame are looked at, the main ones; or all.',
  )
  flags.DEFINE_enum(
    'backend',
    None,
    backends.NAMES,
    'What finds faces. A run knows what found its own, and takes no other.',
  )
  flags.DEFINE_multi_string(
    'face_model',
    None,
    'File of --backend, where that needs one of yours (prepare --face_model).',
  )
  flags.DEFINE_enum(
    'engine',
    'in_process',
    ('in_process', 'beam'),
    'Who answers for many videos: this process, or a pipeline of Apache Beam'
    ' (docs/prepare_at_scale.md), whose rows go to --out.',
  )
  flags.DEFINE_list(
    'beam_pipeline_options',
    [],
    'Of --engine=beam, as runner=FlinkRunner,flink_master=HOST:8081.',
  )
  flags.DEFINE_string(
    'out', None, 'Result file or folder (default: stdout, or WORKDIR/eval).'
  )
  flags.DEFINE_list(
    'corrupt',
    [],
    'Damage to the crops that evaluate scores each data set under as well:'
    ' KIND:LEVEL, KIND or all, separated by commas (docs/evaluation.md).',
  )
  flags.DEFINE_list(
    'scores',
    None,
    'Saved scores to report on: FILE, NAME=FILE or the folder of a run, more'
    ' than one separated by commas (docs/evaluation.md).',
  )
  flags.DEFINE_list(
    'groups',
    [],
    'Groups of videos to report on; each is measured against its own reals, and'
    ' their mean is given. Of none named, all.',
  )
  flags.DEFINE_enum(
    'calibration', 'platt', calibration.METHODS, 'What --mode=calibrate fits.'
  )
  flags.DEFINE_list(
    'columns',
    [],
    'Names of columns of --scores that are not ours, as video=id,score=prob_*.',
  )
  flags.DEFINE_string(
    'source',
    None,
    'Weights or run to convert from; several runs of frame-wise CNNs, then of'
    ' linear probes, with commas, become one detector of their mean logit.',
  )
  flags.DEFINE_string('destination', None, 'File or folder to convert to.')
  flags.DEFINE_integer('heads', None, 'Attention heads of converted weights.')
  flags.DEFINE_string(
    'weights_key',
    '',
    'Which weights to convert of a file that holds several, as "ema".',
  )
  flags.DEFINE_bool(
    'half',
    False,
    'Convert a run to float16 weights in one file, beside its config.json: a'
    ' small folder that everything reads like a run.',
  )
  flags.DEFINE_string(
    'device_kind', 'cpu', 'Device to plan for, as jax names it.'
  )
  flags.DEFINE_integer('devices', 1, 'Devices to plan for.', lower_bound=1)
  flags.DEFINE_list('runs', None, 'Folders of runs to compare, as RUNS/*.')
  flags.DEFINE_string('base', None, 'Entry that the others are compared with.')
  flags.DEFINE_integer('entry', None, 'The one entry of a sweep to run.')
  flags.DEFINE_bool('list', False, 'Say what a sweep consists of, run nothing.')
  flags.DEFINE_enum(
    'distributed',
    'auto',
    ('auto', 'off'),
    'auto: train and evaluate together with the other processes of this job'
    ' (TPU pod, GKE, SLURM, Open MPI, JAX_COORDINATOR_ADDRESS), if it has any.'
    ' off: alone, as one run of many that a launcher started at once.',
  )
  flags.DEFINE_bool(
    'profile',
    False,
    'Trace a few training steps to WORKDIR/profile, for xprof or TensorBoard.',
  )
  flags.DEFINE_string(
    'wandb',
    '',
    'Weights & Biases project that gets the figures of a training too; with'
    ' WANDB_MODE=offline they stay in WORKDIR/wandb.',
  )
  flags.DEFINE_string(
    'compilation_cache',
    None,
    'Folder of compiled programs, so that a restarted run begins at once; empty'
    ' for none. predict and app keep theirs in ~/.cache/stormer-jax.',
  )
  flags.DEFINE_bool('debug', False, 'Show the traceback of an error.')
  mode, workdir = _early_flag(argv, 'mode'), _early_flag(argv, 'workdir')
  if mode in ('evaluate', 'predict', 'app', 'export') and not _early_flag(
    argv, 'config'
  ):
    config = _modes().config_of_run(mode, workdir or '')
    if config:
      config_flags.DEFINE_config_dict('config', config, 'Field of the run.')
  else:
    config_flags.DEFINE_config_file('config', None, 'File in configs/.')


def main(argv: Sequence[str]) -> None:
  """Looks the flags over and dispatches to the mode."""
  args, videos = flags.FLAGS, list(argv[1:])
  if videos and args.mode != 'predict':
    raise ValueError(
      f'unexpected argument {videos[0]}; all arguments are --flags'
    )
  _require(*_NEEDS[args.mode])
  if args.mode == 'sweep' and not args.list:
    _require('workdir', 'data_root')
  if args.config is not None:
    ranges.check(args.config)
  _check_out(args.mode, args.out)
  if args.mode == 'report' and not args.runs:
    _report(args)
  else:
    _modes().carry_out(args, videos)


def _modes():
  """What needs JAX, whose import takes seconds."""
  from stormer_jax import modes

  return modes


def _report(args: flags.FlagValues) -> None:
  if not args.scores:
    raise ValueError(
      '--mode=report needs --scores (saved scores) or --runs (folders of runs)'
    )
  _require('out')
  columns = [entry.partition('=') for entry in args.columns]
  made = study.report(
    args.scores,
    args.out,
    columns={name.strip(): column for name, _, column in columns},
    measuring=args.config.eval.to_dict() if args.config else None,
    groups=args.groups,
  )
  print(tables.text(study.make_tables(made)[0]))
  print(f'written to {args.out}/report.html, report.md and figures.csv')


def _require(*names: str) -> None:
  missing = [name for name in names if getattr(flags.FLAGS, name) is None]
  if missing:
    raise ValueError(
      f'--mode={flags.FLAGS.mode} needs '
      + ' and '.join(f'--{name}' for name in missing)
    )


def _check_out(mode: str, place: str | None) -> None:
  """Raises ValueError for a place of results that cannot be one."""
  if place is None:
    return
  out = pathlib.Path(place)
  if mode == 'predict' and out.is_dir():
    raise ValueError(f'--out={out}: a folder; name the file of the answer')
  if mode == 'evaluate' and out.exists() and not out.is_dir():
    raise ValueError(f'--out={out}: a file; name the folder of the reports')
  above = next(folder for folder in out.absolute().parents if folder.exists())
  if not above.is_dir():
    raise ValueError(f'--out={out}: {above} is a file, not a folder')


def _refuse_addresses(argv: Sequence[str]) -> None:
  """Raises for gs:// and its like, of which pathlib would make a folder.

  But for data, which are only read.
  """
  for name in _PATHS:
    value = _early_flag(argv, name)
    if value and places.is_address(value):
      if name == 'data_root':
        places.path(value)
        continue
      raise ValueError(
        f'--{name}={value}: not a path. What is written needs a file system: a'
        ' checkpoint becomes valid by one rename, figures are appended. So'
        ' mount the bucket on every machine of the job (gcsfuse for gs://) and'
        ' give the folder: docs/launch.md, "Data and workdir in a bucket"'
      )


def _early_flag(argv: Sequence[str], name: str) -> str | None:
  """Value of a flag before flags are parsed, for what defines other flags."""
  found = None  # the last one counts, as it does for absl
  for i, argument in enumerate(argv):
    flag, _, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and flag == name:
      found = value or (argv[i + 1] if i + 1 < len(argv) else None)
  return found


def run() -> None:
  """Entry point: no traceback for a mistake of the user."""
  command_line.open_streams()
  _log_ours()
  sys.argv[1:] = config_files.with_paths(sys.argv[1:])
  debug = '--debug' in sys.argv
  try:
    with _one_line_for_flags():
      define_flags(sys.argv)
    app.run(main, flags_parser=_parse)
  except KeyboardInterrupt:
    print('interrupted; the same command continues', file=sys.stderr)
    _stop(130)
  except SystemExit as request:
    if not isinstance(request.code, str):
      raise
    # As if SIGTERM had ended us: what XPK, SLURM scripts and supervisors take
    # for a reason to start the command again.
    print(request.code, file=sys.stderr)
    sys.exit(143)
  except (ValueError, OSError, FloatingPointError) as error:
    if debug:
      raise
    command_line.fail(error)
    _stop(2)
  except RuntimeError as error:
    from stormer_jax import train

    if debug or not isinstance(error, train.PeerLostError):
      raise
    command_line.fail(error)
    # A lost peer is no mistake of the command: it is to be started again.
    _stop(143)


def _stop(status: int) -> NoReturn:
  """Ends this process; as one of a job must, if it may be one."""
  if 'jax' in sys.modules:
    from stormer_jax.runs import distributed

    distributed.stop(status)
  sys.exit(status)


def _log_ours() -> None:
  """Shows what this project says, and of its libraries what is an error.

  Orbax warns of what we ask for, as that a folder is opened for reading, and
  logs with its traceback what it then raises and we say in one sentence.
  """
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  root = pathlib.Path(__file__).parent.parent
  ours = tuple(str(root / name) for name in ('data_pipeline', 'stormer_jax'))
  handler.addFilter(
    lambda record: (
      (record.levelno >= std_logging.ERROR and not record.exc_info)
      or record.pathname.startswith(ours)
    )
  )
  handler.setFormatter(
    std_logging.Formatter('%(asctime)s %(message)s', datefmt='%H:%M:%S')
  )


def _parse(argv: Sequence[str]) -> list[str]:
  name = _early_flag(argv, 'config')
  with _one_line_for_flags(), config_files.naming(name or ''):
    # Read before anything is looked up in it: what is wrong with the file
    # itself would be said in terms of the field.
    if name and not pathlib.Path(name.split(':')[0]).is_file():
      raise ValueError(
        f'--config={name}: no such file, and no name of'
        f' {", ".join(config_files.names())}'
      )
    return flags.FLAGS(argv)


@contextlib.contextmanager
def _one_line_for_flags():
  """Turns what the flag libraries raise into one readable ValueError."""
  try:
    yield
  except (AttributeError, KeyError, TypeError) as error:
    text = str(error.args[0]).replace('\\n', ' ').replace("\\'", '')
    raise ValueError(
      f'no such field: {text.strip(chr(39))}; see configs/base.py for all'
    ) from error
  except flags.Error as error:
    # An error inside a configuration file comes with its whole traceback.
    flag, *lines = str(error).strip().splitlines()
    raise ValueError(f'{flag} {lines[-1]}' if lines else flag) from error


if __name__ == '__main__':
  run()
