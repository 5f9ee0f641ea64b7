"""Which videos of a data set are there more than once?

What enters: what `outcome_report` says. What leaves: groups of names, each
with its split. A file that is there twice has the same bytes; the same footage
in another encoding or size looks alike (`fingerprint`), and so may one person
in one place.
"""

import array
from collections.abc import Iterable, Iterator
import hashlib
import re
from typing import NamedTuple

from jaxtyping import Int64
import numpy as np

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


def find(rows: Iterable[prepared_video.Outcome]) -> Duplicates:
  """Finds what is there more than once, in different splits first.

  Args:
    rows: gone through once, and again for the names of what was found. Of
      each 42 bytes are held.
  """
  marks = _Marks(_kept(rows))
  found = marks.of_same_files(), marks.close_pairs()
  wanted = set(np.concatenate([of.ravel() for of in found]).tolist())
  of_number = {
    number: row
    for number, row in enumerate(_kept(rows) if wanted else ())
    if number in wanted
  }
  return Duplicates(
    *(
      sorted(groups, key=is_across, reverse=True)
      for groups in (
        _same_files([of_number[number] for number in found[0].tolist()]),
        _look_alikes(
          (of_number[one], of_number[other]) for one, other in found[1].tolist()
        ),
      )
    )
  )


def _kept(
  rows: Iterable[prepared_video.Outcome],
) -> Iterator[prepared_video.Outcome]:
  return (row for row in rows if row.status == 'kept')


class _Marks:
  """Of every row the numbers by which it is compared with others: 42 bytes."""

  def __init__(self, rows: Iterable[prepared_video.Outcome]):
    kinds: dict[tuple[str, str, bool, bool], int] = {}
    kind_of, files = array.array('H'), array.array('Q')
    digests, looks = array.array('Q'), bytearray()
    for row in rows:
      kind = (row.rule, row.split, row.label == 'real', bool(row.looks))
      kind_of.append(kinds.setdefault(kind, len(kinds)))
      files.append(_number(_file(row)))
      digests.append(_number(row.source_digest) if row.source_digest else 0)
      looks += bytes.fromhex(row.looks) or bytes(24)
    self._kinds = list(kinds)
    self._kind_of = np.frombuffer(kind_of, np.uint16)
    self._files = np.frombuffer(files, np.uint64)
    self._digests = np.frombuffer(digests, np.uint64)
    self._looks = np.frombuffer(looks, np.uint64).reshape(
      -1, fingerprint.NUM_CROPS
    )

  def of_same_files(self) -> Int64[np.ndarray, '_']:
    """Numbers of the rows whose bytes are there under another name too."""
    order = np.lexsort([self._files, self._digests])
    digests, files = self._digests[order], self._files[order]
    change = (digests[1:] == digests[:-1]) & (files[1:] != files[:-1])
    twice = digests[1:][change & (digests[1:] > 0)]
    return np.flatnonzero(np.isin(self._digests, twice))

  def close_pairs(self) -> Int64[np.ndarray, 'p 2']:
    """Pairs of numbers of rows that look alike and are worth to be named."""
    pairs = [np.zeros((0, 2), np.int64)]
    splits = [split for _, split, *_ in self._kinds]
    split_of = np.array([splits.index(split) for split in splits], np.int64)
    is_real = np.array([real for *_, real, _ in self._kinds], bool)
    # In the order in which the rules come.
    for rule in dict.fromkeys(rule for rule, *_ in self._kinds):
      of_rule = [of == rule and seen for of, *_, seen in self._kinds]
      numbers = np.flatnonzero(np.array(of_rule, bool)[self._kind_of])

      def are_wanted(first, second, numbers=numbers):
        one, other = numbers[first], numbers[second]
        digest = self._digests[one]
        kind, other_kind = self._kind_of[one], self._kind_of[other]
        return (
          (self._files[one] != self._files[other])
          & ((digest == 0) | (digest != self._digests[other]))
          & (
            (split_of[kind] != split_of[other_kind])
            | (is_real[kind] & is_real[other_kind])
          )
        )

      places = fingerprint.close_pairs(self._looks[numbers], are_wanted)
      pairs.append(numbers[places])
    return np.concatenate(pairs)


def _number(text: str) -> int:
  """64 bits that two of a million texts hardly share."""
  digest = hashlib.blake2b(text.encode(errors='surrogatepass'), digest_size=8)
  return int.from_bytes(digest.digest(), 'little')


def _same_files(rows: Iterable[prepared_video.Outcome]) -> list[Group]:
  found: dict[str, dict[str, set[str]]] = {}
  for row in rows:
    of_file = found.setdefault(row.source_digest, {})
    of_file.setdefault(_file(row), set()).add(row.split)
  return [
    [(name, ', '.join(sorted(splits))) for name, splits in names.items()]
    for names in found.values()
  ]


def _look_alikes(
  pairs: Iterable[tuple[prepared_video.Outcome, prepared_video.Outcome]],
) -> Iterable[Group]:
  """The pairs, each once, however many rules there are."""
  found: dict[tuple[str, str], Group] = {}
  for one, other in pairs:
    pair = [(row.video_id, row.split) for row in (one, other)]
    found[one.video_id, other.video_id] = pair
  return found.values()


def _file(row: prepared_video.Outcome) -> str:
  return _STRETCH.sub('', row.video_id)
