"""What the modes of `main` do that compute or read runs, and so need JAX.

Enter: the flags of `main`, looked over there. Leave: what each mode writes and
prints. Apart from `main`, which without it starts in a fraction of the time:
`--mode=report --scores` and mistakes in flags need no JAX.
"""

from collections.abc import Callable, Sequence
import functools
import glob
import os
import pathlib

from absl import flags
import jax
from ml_collections import config_dict, config_flags

from data_pipeline import corruptions, places, shard_cache
from data_pipeline.engines import engine as engine_lib
from stormer_jax import (
  comparison,
  detector,
  plan,
  program_cache,
  sweep,
  train,
)
from stormer_jax.runs import distributed
from stormer_jax.scoring import app as page_server
from stormer_jax.scoring import (
  calibration,
  evaluate,
  export,
  jobs,
  predict,
  video_detector,
)
from stormer_jax.weights import convert, ensemble

_EVERYBODY = 1000  # more than are found in any frame
_WITHOUT_DEVICES = ('plan', 'sweep', 'report', 'calibrate')


def config_of_run(mode: str, workdir: str) -> config_dict.ConfigDict | None:
  """The configuration that a mode takes where no file is named.

  Args:
    mode: One of those that read a run.
    workdir: Its folder; '': the detector that is shipped, where one is asked.
  """
  folder = pathlib.Path(workdir) if workdir else None
  if mode in ('predict', 'app') and folder is None:
    folder = detector.shipped_folder()
  return evaluate.complete(detector.load_config(folder)) if folder else None


def carry_out(args: flags.FlagValues, videos: Sequence[str]) -> None:
  """Does what a mode does.

  Args:
    args: Flags of `main`, which has looked them over.
    videos: What was named on the command line without a flag.
  """
  program_cache.choose(args.compilation_cache, args.mode)
  if args.distributed == 'auto' and args.mode in ('train', 'evaluate'):
    with distributed.joined():
      _dispatch(args, videos)
  else:
    _dispatch(args, videos)


def _dispatch(args: flags.FlagValues, videos: Sequence[str]) -> None:
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
      args.config,
      args.workdir,
      args.data_root,
      args.out,
      _data_cache(args),
      corruptions.select(args.corrupt),
    )
  elif args.mode == 'calibrate':
    for made in calibration.calibrate_run(
      args.workdir, args.scores, args.calibration
    ):
      print(calibration.text(made))
  elif args.mode == 'report':
    out = pathlib.Path(args.out) if args.out else None
    print(comparison.report(args.runs, args.base, out))
  elif args.mode == 'predict':
    _predict(args, [*(args.video or []), *videos])
  elif args.mode == 'app':
    limits = jobs.Limits(
      most_bytes=args.most_mib * 2**20,
      most_seconds=args.most_seconds,
      most_waiting=args.most_waiting,
      keep_seconds=60 * args.keep_minutes,
    )
    ready, look = _ready(args)
    page_server.serve(ready, args.host, args.port, look, limits)
  elif args.mode == 'export':
    print(_export(args))
  elif args.mode == 'plan':
    # Nothing is computed: as many CPU devices as there will be others.
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', args.devices)
    planned = plan.make_plan(args.config, args.device_kind, args.devices)
    print(plan.text(planned))
  elif ',' in args.source and not pathlib.Path(args.source).exists():
    if args.heads or args.weights_key:
      raise ValueError('--heads and --weights_key are of one file, not of runs')
    print(ensemble.join(args.source.split(','), args.destination))
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


def _export(args: flags.FlagValues) -> pathlib.Path:
  folder = pathlib.Path(args.workdir)
  run = detector.load_detector(folder, args.config.eval.checkpoint, args.config)
  card, known = folder / 'card.md', ''
  if card.is_file():
    known = card.read_text(encoding='utf-8')
    trained = detector.load_config(folder).model.dtype
    if trained != run.config.model.dtype:
      known = (
        f'What follows was measured in {trained}; this function computes in'
        f' {run.config.model.dtype}.\n\n{known}'
      )
  return export.export(
    run, args.destination, margin=args.config.eval.margin, known=known
  )


def _predict(args: flags.FlagValues, videos: list[str]) -> None:
  if not videos:
    raise ValueError('--mode=predict needs a video: --video=FILE')
  # Before a detector is loaded: an engine may not be installed.
  engine = engine_lib.make(
    args.engine,
    1,
    args.beam_pipeline_options,
    pathlib.Path(args.out or '.').parent,
  )
  ready, look = _ready(args)
  outputs = predict.Outputs(args.out, args.html, args.mp4)
  elsewhere = (
    predict.Elsewhere(engine, _loader(args)) if args.engine == 'beam' else None
  )
  failures = predict.predict(ready, videos, outputs, look, elsewhere)
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
  return _loader(args)(), look


def _loader(
  args: flags.FlagValues,
) -> Callable[[], video_detector.Detector]:
  """Loads the detector, here or in another process."""
  return functools.partial(
    video_detector.Detector.load,
    args.workdir,
    options=evaluate.EvalConfig(**args.config.eval),
    config=args.config,
    backend=args.backend,
    face_models=args.face_model or [],
  )


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


def _sweep(args: flags.FlagValues) -> None:
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
