"""Which videos of a data set are there more than once?

What enters: what `outcome_report` says. What leaves: groups of names, each
with its split. A file that is there twice has the same bytes; the same footage
in another encoding or size looks alike (`fingerprint`), and so may one person
in one place.
"""

from collections.abc import Iterable, Sequence
import re
from typing import NamedTuple

from data_pipeline import fingerprint, prepared_video

_STRETCH = re.compile(r'#\d+-\d*$')

# Name and split of each of a few videos.
Group = list[tuple[str, str]]


class Duplicates(NamedTuple):
  """What is there more than once.

  Attributes:
    same_files: files of the same bytes. Stretches of one file are not meant.
    look_alikes: pairs of other videos whose faces look alike: two real ones,
      or any two in different splits. Within a split the fakes made from one
      film look alike, and like that, by nature.
  """

  same_files: list[Group]
  look_alikes: list[Group]

  def warnings(self) -> list[str]:
    """A sentence on each kind that lies on two sides of a split."""
    return [
      f'{what} in more than one split, so that figures on the later one are'
      f' too good: {count}'
      for what, groups in (
        ('files that are there more than once,', self.same_files),
        ('pairs of videos that look alike,', self.look_alikes),
      )
      if (count := sum(is_across(group) for group in groups))
    ]


def is_across(group: Group) -> bool:
  """Whether a group lies in more than one split."""
  return len({split for _, splits in group for split in splits.split(', ')}) > 1


def find(rows: Sequence[prepared_video.Outcome]) -> Duplicates:
  """Finds what is there more than once, in different splits first."""
  kept = [row for row in rows if row.status == 'kept']
  return Duplicates(
    sorted(_same_files(kept), key=is_across, reverse=True),
    sorted(_look_alikes(kept), key=is_across, reverse=True),
  )


def _same_files(kept: Sequence[prepared_video.Outcome]) -> list[Group]:
  known = [row for row in kept if row.source_digest]
  first: dict[str, str] = {}
  twice = set()
  for row in known:
    name = _file(row)
    if first.setdefault(row.source_digest, name) != name:
      twice.add(row.source_digest)
  found: dict[str, dict[str, set[str]]] = {}
  for row in known:
    if row.source_digest in twice:
      of_file = found.setdefault(row.source_digest, {})
      of_file.setdefault(_file(row), set()).add(row.split)
  return [
    [(name, ', '.join(sorted(splits))) for name, splits in names.items()]
    for names in found.values()
  ]


def _look_alikes(kept: Sequence[prepared_video.Outcome]) -> Iterable[Group]:
  found: dict[tuple[str, str], Group] = {}
  for rule in {row.rule: None for row in kept}:
    known = [row for row in kept if row.rule == rule and row.looks]
    for places in fingerprint.close_pairs([row.looks for row in known]):
      one, other = (known[place] for place in places)
      if _file(one) == _file(other) or (
        one.source_digest and one.source_digest == other.source_digest
      ):
        continue
      if one.split != other.split or one.label == other.label == 'real':
        pair = [(row.video_id, row.split) for row in (one, other)]
        found[one.video_id, other.video_id] = pair
  return found.values()


def _file(row: prepared_video.Outcome) -> str:
  return _STRETCH.sub('', row.video_id)
