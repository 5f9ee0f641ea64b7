"""Command: is a copy of a published data set whole and in order?

  python -m data_pipeline.check --source celebdf_v2 --root FOLDER [--deep]

Counts what is there against what is expected, per split and method, and names
what is missing, extra or empty. With --deep it opens every video as well, and
compares frame rates, sizes and lengths of real videos with those of fakes: a
detector can learn such a difference instead of forgery; and it reads from the
videos how they were compressed, which folders may say wrongly. Ends with 0
where the set is complete, 1 where it is not, 2 where the call is wrong.
"""

import argparse
import collections
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import sys

import numpy as np
import rich.console
import rich.markup
import rich.progress
import rich.table

from data_pipeline import command_line
from data_pipeline.faces import encoder_note, footage
from data_pipeline.sources import catalogue, file_names, published
from data_pipeline.sources import source as source_lib
from data_pipeline.sources import tree as tree_lib

_SHOWN = 10  # names a line of the terminal holds; --json has all
# A property that ranks real against fake better than this gives them away.
_GIVE_AWAY = 0.75
_FEWEST = 10  # videos of a class that are compared
# Bits a pixel by rate factor: the sizes of FaceForensics++ as remembered, not
# looked up (500, 10 and 2 GB), over 5,000 videos of 510 frames of 0.8 Mpx.
_BITS = {0: 2.0, 23: 0.04, 40: 0.008}


@dataclasses.dataclass(frozen=True)
class Count:
  """One line of the table.

  Attributes:
    split: 'train', 'val', 'test'; '' for all together.
    method: '' for real videos, '*' for all fakes.
    expected: videos, by the publication or the set's own list.
    found: of them, on disk and not empty.
  """

  split: str
  method: str
  expected: int
  found: int


@dataclasses.dataclass(frozen=True)
class Findings:
  """What a check found; all names are relative to the root.

  Attributes:
    counts: the table.
    missing: listed, not on disk.
    empty: files of no bytes.
    extra: videos on disk that do not belong to the set.
    unreadable: with the reason; filled by a deep check.
    warnings: what makes a figure on this set doubtful, each a sentence.
    other_compression: videos that were compressed in another way than the set
      is, with what they say; filled by a deep check.
  """

  counts: tuple[Count, ...]
  missing: tuple[str, ...]
  empty: tuple[str, ...]
  extra: tuple[str, ...]
  unreadable: Mapping[str, str]
  warnings: tuple[str, ...]
  other_compression: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def complete(self) -> bool:
    """Whether all that is expected is there, can be read and is the set's."""
    short = any(count.found < count.expected for count in self.counts)
    return not (
      short
      or self.missing
      or self.empty
      or self.unreadable
      or self.other_compression
    )


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a deep check reads of a video.

  Attributes:
    fps: frames a second.
    width: px.
    height: px.
    num_frames: in it.
    error: why it cannot be read, or ''.
    crf: rate factor by the note of its encoder; None without one.
    bits: of the file, per pixel of a frame.
  """

  fps: float = 0.0
  width: int = 0
  height: int = 0
  num_frames: int = 0
  error: str = ''
  crf: float | None = None
  bits: float = 0.0


def check(
  name: str,
  root: str | os.PathLike,
  facts: Mapping[str, Facts] | None = None,
) -> Findings:
  """Compares a folder with what a published data set holds.

  Args:
    name: a key of `published.SOURCES`.
    root: the folder.
    facts: of the videos on disk by their paths, from a deep look.

  Raises:
    ValueError: no such source, or the folder is not that data set at all.
  """
  source = published.source(name)
  tree = tree_lib.read_tree(root)
  videos = source.list_videos(tree)
  there, empty = _on_disk(tree, videos)
  unreadable = {
    path: fact.error for path, fact in (facts or {}).items() if fact.error
  }
  usable = there - set(empty) - set(unreadable)
  return Findings(
    counts=_counts(source, videos, usable),
    missing=tuple(sorted({v.path for v in videos} - there)),
    empty=tuple(empty),
    extra=tuple(_extra(tree, videos)),
    unreadable=unreadable,
    warnings=(
      *(f'{folder}: cannot be opened' for folder in tree.unreadable),
      *_people_in_two_splits(videos),
      *_same_names(videos),
      *_give_aways(videos, facts or {}),
      *_odd_sizes(source.crf, facts or {}),
    ),
    other_compression=_other_compression(source.crf, facts or {}),
  )


def _on_disk(
  tree: tree_lib.Tree, videos: Sequence[catalogue.Video]
) -> tuple[set[str], list[str]]:
  """Paths of the videos that are there, and those of them that are empty."""
  there, empty = set(), []
  for path in dict.fromkeys(video.path for video in videos):
    archive = _archive(path)
    if path in tree.sizes or archive in tree.sizes:
      there.add(path)
      if not tree.sizes[path if path in tree.sizes else archive]:
        empty.append(path)
    elif tree.has(path):
      there.add(path)
      if not any(map(tree.sizes.get, tree.below(path, ('',)))):
        empty.append(path)
  return there, empty


def _archive(path: str) -> str:
  """The .tar or .tar.gz that a path goes through, or ''."""
  for ending in ('.tar.gz', '.tar'):
    head, found, rest = path.partition(f'{ending}/')
    if found and rest:
      return head + ending
  return ''


def _counts(
  source: source_lib.Source,
  videos: Sequence[catalogue.Video],
  usable: set[str],
) -> tuple[Count, ...]:
  listed: collections.Counter = collections.Counter()
  found: collections.Counter = collections.Counter()
  for video in videos:
    method = video.method or ('fake' if video.label else '')
    keys = {(video.split, method), ('', method)}
    if video.label:
      keys |= {(video.split, '*'), ('', '*')}
    listed.update(keys)
    if video.path in usable:
      found.update(keys)
  rows = {
    key: number
    for key, number in listed.items()
    if key[0] and key[1] != '*' and key not in source.expected
  }
  rows.update(source.expected)
  order = {split: place for place, split in enumerate(catalogue.SPLITS)}
  return tuple(
    Count(split, method, number, found[split, method])
    for (split, method), number in sorted(
      rows.items(), key=lambda row: (order.get(row[0][0], 9), row[0])
    )
  )


def _extra(tree: tree_lib.Tree, videos: Sequence[catalogue.Video]) -> list[str]:
  """Videos that lie in the folders of the set and are not listed."""
  listed = {video.path for video in videos}
  folders = {path.rpartition('/')[0] for path in listed}
  return [
    path
    for path in tree.videos('')
    if path not in listed and path.rpartition('/')[0] in folders
  ]


def _people_in_two_splits(videos: Iterable[catalogue.Video]) -> list[str]:
  splits: dict[str, set[str]] = {}
  for video in videos:
    if video.identity and video.split:
      splits.setdefault(video.identity, set()).add(video.split)
  shared = sorted(person for person, of in splits.items() if len(of) > 1)
  if not shared:
    return []
  return [
    f'{len(shared)} of {len(splits)} people are in more than one split, as '
    f'{", ".join(shared[:3])}: figures on the later split are too good for a '
    'detector trained on the earlier one'
  ]


def _same_names(videos: Iterable[catalogue.Video]) -> list[str]:
  """A path that is listed as real and as fake."""
  labels: dict[tuple[str, int, int | None], set[int]] = {}
  for video in videos:
    place = (video.path, video.start, video.end)
    labels.setdefault(place, set()).add(video.label)
  both = sorted(place[0] for place, of in labels.items() if len(of) > 1)
  return [f'listed as real and as fake: {", ".join(both[:3])}'] if both else []


def _give_aways(
  videos: Iterable[catalogue.Video], facts: Mapping[str, Facts]
) -> list[str]:
  """Properties of the files that tell real from fake by themselves."""
  values: dict[str, tuple[list[float], list[float]]] = {
    'frame rate': ([], []),
    'picture size': ([], []),
    'length': ([], []),
  }
  for video in {video.path: video for video in videos}.values():
    fact = facts.get(video.path)
    if fact is None or fact.error:
      continue
    values['frame rate'][video.label].append(fact.fps)
    values['picture size'][video.label].append(float(fact.width * fact.height))
    values['length'][video.label].append(float(fact.num_frames))
  sentences = []
  for name, (real, fake) in values.items():
    if min(len(real), len(fake)) < _FEWEST:
      continue
    auc = _rank_auc(real, fake)
    if max(auc, 1 - auc) > _GIVE_AWAY:
      sentences.append(
        f'{name} alone tells real from fake (AUC {max(auc, 1 - auc):.2f}; '
        f'median {np.median(real):g} against {np.median(fake):g}): a detector '
        'may learn that instead'
      )
  return sentences


def _other_compression(
  crf: int | None, facts: Mapping[str, Facts]
) -> dict[str, str]:
  """Videos whose encoder noted another compression than that of the set."""
  if crf is None:
    return {}
  return {
    path: f'x264 noted a rate factor of {fact.crf:g}, that of the set is {crf}'
    for path, fact in facts.items()
    if fact.crf is not None and _nearest(fact.crf) != crf
  }


def _nearest(crf: float) -> int:
  """The compression in use that a rate factor belongs to."""
  return min(_BITS, key=lambda known: abs(known - crf))


def _odd_sizes(crf: int | None, facts: Mapping[str, Facts]) -> list[str]:
  """Files without a note that are too large or small for a compression."""
  bits = [
    fact.bits for fact in facts.values() if fact.bits and fact.crf is None
  ]
  if crf is None or len(bits) < _FEWEST:
    return []
  median = float(np.median(bits))
  likely = min(_BITS, key=lambda known: abs(np.log(_BITS[known] / median)))
  if likely == crf:
    return []
  return [
    f'{len(bits)} videos have {median:.2g} bits a pixel, as if compressed with '
    f'a rate factor of {likely}; that of the set is {crf} (about '
    f'{_BITS[crf]:g}): is it another compression?'
  ]


def _rank_auc(real: Sequence[float], fake: Sequence[float]) -> float:
  """Probability that a fake's value is above a real one's, ties half."""
  ordered = np.sort(real)
  below = np.searchsorted(ordered, fake, 'left')
  up_to = np.searchsorted(ordered, fake, 'right')
  return float(np.mean((below + up_to) / 2) / len(ordered))


def look_into(
  root: pathlib.Path,
  paths: Sequence[str],
  num_workers: int,
  console: rich.console.Console,
) -> dict[str, Facts]:
  """Opens videos in worker processes; a bad one is a `Facts`, no error."""
  executor = futures.ProcessPoolExecutor(
    num_workers, mp_context=multiprocessing.get_context('spawn')
  )
  columns = (
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
  )
  facts = {}
  with executor, rich.progress.Progress(*columns, console=console) as progress:
    bar = progress.add_task('videos', total=len(paths))
    full = [root / path for path in paths]
    for path, fact in zip(
      paths, executor.map(read_facts, full, chunksize=8), strict=True
    ):
      facts[path] = fact
      progress.advance(bar)
  return facts


def read_facts(path: pathlib.Path) -> Facts:
  """Reads what a video says of itself."""
  try:
    stream = footage.probe(path)
    crf, bits = None, 0.0
    if path.is_file():  # and no folder of images
      crf = encoder_note.read_crf(path)
      pixels = stream.num_frames * stream.width * stream.height
      bits = 8 * path.stat().st_size / max(pixels, 1)
  except (ValueError, OSError) as error:
    return Facts(error=str(error))
  return Facts(
    stream.fps,
    stream.width,
    stream.height,
    stream.num_frames,
    crf=crf,
    bits=bits,
  )


def _show(findings: Findings, console: rich.console.Console) -> None:
  table = rich.table.Table('split', 'videos', 'expected', 'found')
  for count in findings.counts:
    what = {'': 'real', '*': 'fake, all'}.get(
      count.method, f'fake, {count.method}'
    )
    short = count.found < count.expected
    table.add_row(
      count.split or 'all',
      rich.markup.escape(what),
      str(count.expected),
      f'[bold red]{count.found}[/]' if short else str(count.found),
    )
  console.print(table)
  total, found = _totals(findings.counts)
  console.print(f'{total} expected, {found} found')
  for word, names in (
    ('missing', findings.missing),
    ('empty', findings.empty),
    ('extra', findings.extra),
    ('unreadable', [f'{p} ({w})' for p, w in findings.unreadable.items()]),
    (
      'other compression',
      [f'{p} ({w})' for p, w in findings.other_compression.items()],
    ),
    ('warning', findings.warnings),
  ):
    for line in names[:_SHOWN]:
      console.print(f'{word}: {file_names.printable(line)}', markup=False)
    if len(names) > _SHOWN:
      console.print(f'{word}: and {len(names) - _SHOWN} more (--json has all)')


def _totals(counts: Sequence[Count]) -> tuple[int, int]:
  """Videos expected and found in all; fakes counted once."""
  by_split = [count for count in counts if count.split] or counts
  summed = {count.split for count in by_split if count.method == '*'}
  once = [
    count
    for count in by_split
    if count.method in ('', '*') or count.split not in summed
  ]
  return sum(c.expected for c in once), sum(c.found for c in once)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.Parser(
    prog='python -m data_pipeline.check',
    description='Says whether a copy of a published data set is whole.',
  )
  parser.add_argument(
    '--source',
    required=True,
    metavar='NAME',
    help=f'one of {", ".join(published.SOURCES)}',
  )
  parser.add_argument('--root', required=True, help='folder of the data set')
  parser.add_argument('--json', default='', help='file for all findings')
  parser.add_argument(
    '--deep', action='store_true', help='open every video as well'
  )
  parser.add_argument(
    '--workers', type=int, default=len(os.sched_getaffinity(0))
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  command_line.open_streams()
  args = _parse(argv)
  console = rich.console.Console(stderr=True)
  root = pathlib.Path(args.root)
  try:
    if args.workers < 1:
      raise ValueError(f'--workers is {args.workers}; at least 1')
    facts = None
    if args.deep:
      tree = tree_lib.read_tree(root)
      listed = published.source(args.source).list_videos(tree)
      there, empty = _on_disk(tree, listed)
      paths = sorted(there - set(empty))
      facts = look_into(root, paths, args.workers, console)
    findings = check(args.source, root, facts)
    if args.json:
      pathlib.Path(args.json).write_text(
        json.dumps(dataclasses.asdict(findings), indent=1) + '\n'
      )
  except (ValueError, OSError) as error:
    return command_line.fail(error)
  except KeyboardInterrupt:
    print('stopped', file=sys.stderr)
    return 130
  _show(findings, console)
  if findings.complete:
    console.print('complete')
  return 0 if findings.complete else 1


if __name__ == '__main__':
  sys.exit(main())
