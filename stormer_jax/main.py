"""One program for a run: train it, evaluate it, report, predict, export, plan.

  python -m stormer_jax.main --mode=train --config=configs/demo.py \
    --data_root=DATA --workdir=RUN [--config.optimizer.peak_lr=1e-4]
  python -m stormer_jax.main --mode=sweep --config=configs/ablations.py \
    --data_root=DATA --workdir=SWEEP [--entry=3] [--list]
  python -m stormer_jax.main --mode=evaluate --workdir=RUN --data_root=DATA \
    [--config.eval.datasets="('celebdf_v2:test',)"]
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
--config.FIELD=VALUE changes it in any mode. train and evaluate run on many
machines by starting the same command on each (docs/launch.md). A mistake of
the user ends in one line on stderr and exit status 2, a run that was asked to
stop and saved itself in status 143.
"""

from collections.abc import Sequence
import contextlib
import glob
import logging as std_logging
import os
import pathlib
import sys

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from data_pipeline import command_line, places, shard_cache
from data_pipeline.faces import backends
from stormer_jax import (
  comparison,
  config_files,
  detector,
  plan,
  ranges,
  sweep,
  train,
)
from stormer_jax.runs import distributed
from stormer_jax.scoring import app as page_server
from stormer_jax.scoring import (
  calibration,
  evaluate,
  export,
  predict,
  study,
  tables,
  video_detector,
)
from stormer_jax.weights import convert

MODES = (
  *('train', 'sweep', 'evaluate', 'calibrate', 'report', 'predict'),
  *('convert', 'export', 'plan', 'app'),
)
_PATHS = (
  *('workdir', 'data_root', 'data_cache', 'video', 'out', 'html', 'mp4'),
  *('source', 'destination'),
)
_EVERYBODY = 1000  # more than are found in any frame
_WITHOUT_DEVICES = ('plan', 'sweep', 'report', 'calibrate')
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
    ' @LIST, a file of such names; the flag may be repeated or left out.',
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
  flags.DEFINE_string(
    'out', None, 'Result file or folder (default: stdout, or WORKDIR/eval).'
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
  flags.DEFINE_string('source', None, 'Weights or run to convert from.')
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
    'Folder of compiled programs, so that a restarted run begins at once.',
  )
  flags.DEFINE_bool('debug', False, 'Show the traceback of an error.')
  mode, workdir = _early_flag(argv, 'mode'), _early_flag(argv, 'workdir')
  if mode in ('evaluate', 'predict', 'app', 'export') and not _early_flag(
    argv, 'config'
  ):
    folder = pathlib.Path(workdir) if workdir else None
    if mode in ('predict', 'app') and folder is None:
      folder = detector.shipped_folder()
    if folder:
      config = detector.load_config(folder)
      evaluate.complete(config)
      config_flags.DEFINE_config_dict('config', config, 'Field of the run.')
  else:
    config_flags.DEFINE_config_file('config', None, 'File in configs/.')


def main(argv: Sequence[str]) -> None:
  """Dispatches to the mode."""
  args, videos = flags.FLAGS, list(argv[1:])
  if videos and args.mode != 'predict':
    raise ValueError(
      f'unexpected argument {videos[0]}; all arguments are --flags'
    )
  if args.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', args.compilation_cache)
  if args.distributed == 'auto' and args.mode in ('train', 'evaluate'):
    with distributed.joined():
      _dispatch(args, videos)
  else:
    _dispatch(args, videos)


def _dispatch(args: flags.FlagValues, videos: list[str]) -> None:
  _require(*_NEEDS[args.mode])
  if args.config is not None:
    ranges.check(args.config)
  _check_out(args.mode, args.out)
  if args.mode not in _WITHOUT_DEVICES:
    _check_devices()
  if args.mode == 'train':
    train.train_and_evaluate(
      args.config,
      pathlib.Path(args.workdir),
      places.path(args.data_root),
      cache=_data_cache(args),
      profile=args.profile,
      wandb_project=args.wandb,
    )
  elif args.mode == 'sweep':
    _sweep(args)
  elif args.mode == 'evaluate':
    evaluate.evaluate(
      args.config, args.workdir, args.data_root, args.out, _data_cache(args)
    )
  elif args.mode == 'calibrate':
    for made in calibration.calibrate_run(
      args.workdir, args.scores, args.calibration
    ):
      print(calibration.text(made))
  elif args.mode == 'report':
    _report(args)
  elif args.mode == 'predict':
    _predict(args, [*(args.video or []), *videos])
  elif args.mode == 'app':
    ready, look = _ready(args)
    page_server.serve(ready, args.host, args.port, look)
  elif args.mode == 'export':
    run = detector.load_detector(
      pathlib.Path(args.workdir), args.config.eval.checkpoint
    )
    print(export.export(run, args.destination, margin=args.config.eval.margin))
  elif args.mode == 'plan':
    # Nothing is computed: as many CPU devices as there will be others.
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', args.devices)
    planned = plan.make_plan(args.config, args.device_kind, args.devices)
    print(plan.text(planned))
  else:
    print(
      convert.convert(
        args.source,
        args.destination,
        args.heads,
        args.config,
        args.weights_key,
        args.half,
      )
    )


def _predict(args: flags.FlagValues, videos: list[str]) -> None:
  if not videos:
    raise ValueError('--mode=predict needs a video: --video=FILE')
  ready, look = _ready(args)
  outputs = predict.Outputs(args.out, args.html, args.mp4)
  failures = predict.predict(ready, videos, outputs, look)
  if len(failures) == 1:
    raise ValueError(failures[0])
  if failures:
    raise ValueError(
      f'{len(failures)} videos without a score; the first: {failures[0]}'
    )


def _ready(
  args: flags.FlagValues,
) -> tuple[video_detector.Detector, video_detector.Look]:
  look = video_detector.Look(
    every=args.every,
    max_frames=args.max_frames,
    max_people=_max_people(args.faces),
  )
  options = evaluate.EvalConfig(**args.config.eval)
  ready = video_detector.Detector.load(
    args.workdir,
    options=options,
    backend=args.backend,
    face_models=args.face_model or [],
  )
  return ready, look


def _max_people(faces: str) -> int:
  """How many faces of a frame are looked at.

  Raises:
    ValueError: neither a number from 1 on nor 'all'.
  """
  if faces == 'all':
    return _EVERYBODY
  if not faces.isdecimal() or int(faces) < 1:
    raise ValueError(f'--faces={faces}: a number from 1 on, or all')
  return int(faces)


def _report(args: flags.FlagValues) -> None:
  if args.runs:
    out = pathlib.Path(args.out) if args.out else None
    print(comparison.report(args.runs, args.base, out))
    return
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


def _sweep(args: flags.FlagValues) -> None:
  _require('config', *([] if args.list else ['workdir', 'data_root']))
  file = config_flags.get_config_filename(args['config'])
  if args.list:
    print(sweep.listing(args.config, file, pathlib.Path(args.workdir or '.')))
    return
  passed_on = ('compilation_cache', 'data_cache', 'data_cache_gib')
  sweep.sweep(
    args.config,
    file,
    pathlib.Path(args.workdir),
    places.path(args.data_root),
    entry=args.entry,
    extra_flags=[
      f'--{name}={args[name].value}' for name in passed_on if args[name].present
    ],
  )
  if args.entry is None:
    runs = f'{glob.escape(args.workdir)}/*'
    out = pathlib.Path(args.workdir) / 'comparison'
    print(comparison.report([runs], args.base, out))


def _data_cache(args: flags.FlagValues) -> shard_cache.ShardCache | None:
  if args.data_cache is None:
    return None
  folder = pathlib.Path(args.data_cache)
  return shard_cache.ShardCache(folder, int(args.data_cache_gib * 2**30))


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


def _check_devices() -> None:
  """Raises ValueError where JAX finds none of the platform that is asked for.

  Else the first array that is made says so, with a traceback.
  """
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX asserts that it has one
    said = f' ({error})' if str(error) else ''
    raise ValueError(
      f'no device to compute on{said}; JAX_PLATFORMS is'
      f' {os.environ.get("JAX_PLATFORMS", "")!r}: unset it to take what there'
      ' is, or install what drives the device (stormer-jax[cuda] or [tpu])'
    ) from error


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
  command_line.tolerate_encoding()
  _log_ours()
  sys.argv[1:] = config_files.with_paths(sys.argv[1:])
  debug = '--debug' in sys.argv
  try:
    with _one_line_for_flags():
      define_flags(sys.argv)
    app.run(main, flags_parser=_parse)
  except KeyboardInterrupt:
    print('interrupted; the same command continues', file=sys.stderr)
    distributed.stop(130)
  except SystemExit as request:
    if not isinstance(request.code, str):
      raise
    # As if SIGTERM had ended us: what XPK, SLURM scripts and supervisors take
    # for a reason to start the command again.
    print(request.code, file=sys.stderr)
    sys.exit(143)
  except (
    *(ValueError, OSError, FloatingPointError),
    train.PeerLostError,
  ) as error:
    if debug:
      raise
    command_line.fail(error)
    # A lost peer is no mistake of the command: it is to be started again.
    distributed.stop(143 if isinstance(error, train.PeerLostError) else 2)


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
  with _one_line_for_flags():
    # Read before anything is looked up in it: what is wrong with the file
    # itself would be said in terms of the field.
    name = _early_flag(argv, 'config')
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
