"""Is a prepared data set still what was written?

Enters: the folder that `prepare` wrote to. Leaves: one line for every file or
video that is not as the metadata lists it. Reads every byte: a shard's SHA-256
is compared first, then every video's frames and facts with its entry.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import os

import numpy as np
import rich.console

from data_pipeline import metadata
from data_pipeline import records as records_lib
from data_pipeline import shards as shards_lib


def find_faults(records: records_lib.Records) -> Iterator[str]:
  """Yields one line per shard or video that is not what was written."""
  damaged = set()
  for index, shard in enumerate(records.shards):
    path = records.folder / shard.name
    if not path.is_file():
      fault = 'there is no such file'
    elif (size := path.stat().st_size) != shard.num_bytes:
      fault = f'it has {size} bytes, {shard.num_bytes} were written'
    elif (found := shards_lib.sha256(path)) != shard.sha256:
      fault = f'its SHA-256 is {found}, {shard.sha256} was written'
    else:
      continue
    damaged.add(index)
    yield f'{path}: {fault}'
  for video, listed in enumerate(records.videos):
    try:
      found_info = records.read_record(video).info
    except ValueError as error:
      # Of a shard that is not there once is enough.
      if records.shard_of(video) not in damaged:
        yield str(error)
      continue
    # A record holds its rate in single precision.
    if np.float32(found_info.fps) == np.float32(listed.fps):
      found_info = dataclasses.replace(found_info, fps=listed.fps)
    if found_info != listed:
      yield (
        f'{listed.video_id}: the metadata lists {listed}, the records hold'
        f' {found_info}'
      )


def verify(
  data_root: str | os.PathLike,
  dataset: str,
  rules: Sequence[str],
  console: rich.console.Console,
) -> int:
  """Verifies a data set, every split; prints what is wrong with it.

  Of several rules those are looked at that the data set has.

  Returns:
    0 if all is as it was written, 1 if not.

  Raises:
    ValueError: there is no such data set, with the command that makes it.
  """
  found = 0
  there = [
    rule
    for rule in rules
    if metadata.dataset_dir(data_root, dataset, rule).is_dir()
  ]
  for rule in there or rules:
    for split in metadata.list_splits(data_root, dataset, rule):
      records = records_lib.open_records(data_root, dataset, rule, split)
      faults = 0
      for fault in find_faults(records):
        faults += 1
        console.print(fault, soft_wrap=True, highlight=False, markup=False)
      size = sum(shard.num_bytes for shard in records.shards) / 2**20
      console.print(
        f'{dataset} {rule} {split}: {len(records)} videos,'
        f' {len(records.shards)} files, {size:,.1f} MiB:'
        f' {f"{faults} faults" if faults else "as written"}',
        soft_wrap=True,
        highlight=False,
      )
      found += faults
  return int(found > 0)
