"""The finished videos of a `prepare` that is still going on.

Each lies in a file of its own until all are done, so that killing the command
loses only the videos being worked on.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any
import uuid

import numpy as np

from data_pipeline import metadata, prepared_video, records
from data_pipeline.faces import footage
from data_pipeline.sources import catalogue


@dataclasses.dataclass(frozen=True)
class Staging:
  """The finished videos of a command that is still going on.

  Each leaves a small outcome file, which stays, and (if kept) its record,
  which goes once the dataset is written.
  """

  folder: pathlib.Path
  root: pathlib.Path
  settings: prepared_video.Settings

  def outcome(
    self, video: catalogue.Video, rule: str, is_current: bool = False
  ) -> prepared_video.Outcome | None:
    """The outcome of an earlier run, if nothing has changed since.

    Args:
      video: whose.
      rule: under which.
      is_current: it was compared already, and what changes under way is for
        the next command.
    """
    try:
      stored = json.loads(self._outcome_path(video, rule).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
      return None
    if not is_current and stored['made_from'] != self._made_from(video, rule):
      return None
    fields: dict[str, Any] = stored['outcome']
    fields['video_id'] = video.video_id
    fields['notes'] = tuple(fields.get('notes', ()))
    return prepared_video.Outcome(**fields)

  def other_root(self, video: catalogue.Video, rule: str) -> str:
    """The root of an earlier run's video of this name, if another file."""
    try:
      stored = json.loads(self._outcome_path(video, rule).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
      return ''
    same_file = stored['made_from']['file'] == self._file(video)
    root = stored.get('root', '')
    return '' if same_file or root == str(self.root.resolve()) else root

  def finish(
    self,
    video: catalogue.Video,
    kept: Sequence[records.VideoRecord],
    outcomes: Sequence[prepared_video.Outcome],
  ) -> None:
    """Stores what became of a video: records first, then outcomes."""
    by_rule = iter(kept)
    for outcome in outcomes:
      if outcome.status == 'kept':
        save_record(self.record_path(video, outcome.rule), next(by_rule))
      write_whole(
        self._outcome_path(video, outcome.rule),
        json.dumps(
          {
            'made_from': self._made_from(video, outcome.rule),
            'outcome': dataclasses.asdict(outcome),
            'root': str(self.root.resolve()),
          }
        ),
      )

  def clear_partial(self) -> None:
    """Removes what killed processes left half-written."""
    with os.scandir(self.folder) as entries:  # glob would list them all first
      for entry in entries:
        if entry.name.endswith('.partial'):
          pathlib.Path(entry.path).unlink(missing_ok=True)

  def record_path(self, video: catalogue.Video, rule: str) -> pathlib.Path:
    """Where the record of a kept video lies until the dataset is written."""
    return self.folder / f'{self._key(video, rule)}.npz'

  def _outcome_path(self, video: catalogue.Video, rule: str) -> pathlib.Path:
    return self.folder / f'{self._key(video, rule)}.json'

  def _key(self, video: catalogue.Video, rule: str) -> str:
    name = hashlib.sha256(os.fsencode(video.video_id)).hexdigest()[:24]
    return f'{name}-{rule}'

  def _made_from(self, video: catalogue.Video, rule: str) -> dict:
    """What a stored outcome must agree with to be taken over."""
    return {
      'file': self._file(video),
      'video': dataclasses.asdict(video),
      'rule': rule,
      'settings': self.settings.described(),
      'version': metadata.VERSION,
    }

  def _file(self, video: catalogue.Video) -> list[int]:
    """Size and time of a video's file; [] where there is none."""
    try:
      status = footage.on_disk(self.root / video.path).stat()
    except OSError:
      return []
    return [status.st_size, status.st_mtime_ns]


def write_whole(path: pathlib.Path, text: str) -> None:
  """Writes a text file, whole or not at all, also where others do the same."""
  partial = _partial(path)
  try:
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def _partial(path: pathlib.Path) -> pathlib.Path:
  """A name that no other process of any machine has."""
  return path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')


def save_record(path: pathlib.Path, record: records.VideoRecord) -> None:
  """Writes one finished video to a file of its own, whole or not at all."""
  arrays = ('landmarks', 'boxes', 'frame_indices', 'times')
  texts = {
    field.name: getattr(record, field.name)
    for field in dataclasses.fields(record)
    if field.name not in (*arrays, 'frames')
  }
  partial = _partial(path)
  try:
    with partial.open('wb') as file:
      np.savez(
        file,
        frames=np.frombuffer(b''.join(record.frames), np.uint8),
        lengths=np.array([len(frame) for frame in record.frames]),
        texts=np.array(json.dumps(texts)),
        **{name: getattr(record, name) for name in arrays},
      )
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def load_record(path: pathlib.Path) -> records.VideoRecord:
  """Reads what `save_record` wrote."""
  with np.load(path) as stored:
    joined = stored['frames'].tobytes()
    ends = itertools.accumulate(stored['lengths'].tolist(), initial=0)
    return records.VideoRecord(
      frames=tuple(joined[a:b] for a, b in itertools.pairwise(ends)),
      landmarks=stored['landmarks'],
      boxes=stored['boxes'],
      frame_indices=stored['frame_indices'],
      times=stored['times'],
      **json.loads(str(stored['texts'])),
    )
