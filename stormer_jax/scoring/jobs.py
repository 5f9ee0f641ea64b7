"""Uploaded videos that wait for an answer, are answered for, and go.

Enter: files and a `Detector`. Leave: states and answers. One video is answered
for at a time, in the order in which they came. A file is removed with its
answer, when it is cancelled, and by a second process when this one dies, in
whatever way. An answer is forgotten after a while.
"""

import dataclasses
import pathlib
import queue
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Literal

from stormer_jax.scoring import answer, answer_page, video_detector

State = Literal['uploading', 'queued', 'running', 'done', 'failed', 'cancelled']
_KEPT = 64  # answers, the oldest go first
_MOST_OF_NAME = 100  # bytes
_LOOK_SECONDS = 10.0  # from look to look for answers that are too old
# Reads until the pipe ends, which it does when its writer is gone.
_JANITOR = (
  'import shutil, sys; sys.stdin.read();'
  ' shutil.rmtree(sys.argv[1], ignore_errors=True)'
)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is taken.

  Attributes:
    most_bytes: Of a file.
    most_seconds: Of answering for one video.
    most_waiting: Videos at once.
    keep_seconds: That an answer is kept after it is there.

  Raises:
    ValueError: One is not above 0.
  """

  most_bytes: int = 2**30
  most_seconds: float = 1800.0
  most_waiting: int = 16
  keep_seconds: float = 3600.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if not getattr(self, field.name) > 0:
        raise ValueError(
          f'limit {field.name} is {getattr(self, field.name)}; above 0'
        )


@dataclasses.dataclass
class Job:
  """One video. Read and changed under the lock of its `Jobs`."""

  number: str  # not to be guessed
  name: str
  folder: pathlib.Path
  state: State = 'uploading'
  share: float = 0.0
  error: str = ''
  said: answer.Answer | None = None
  page: str = ''
  ended: float | None = None  # s, by time.monotonic

  @property
  def file(self) -> pathlib.Path:
    """Where the upload lies."""
    return self.folder / self.name


class _StoppedError(Exception):
  """Answering was cancelled, or took too long."""


class Jobs:
  """All videos of one server."""

  def __init__(
    self,
    detector: video_detector.Detector,
    limits: Limits | None = None,
    look: video_detector.Look | None = None,
  ):
    """Begins to answer."""
    self.limits = limits or Limits()
    self._detector = detector
    self._look = look
    self._jobs: dict[str, Job] = {}
    self._lock = threading.Lock()
    self._waiting: queue.Queue[Job | None] = queue.Queue()
    self._folder = pathlib.Path(tempfile.mkdtemp(prefix='stormer-uploads-'))
    self._janitor = subprocess.Popen(
      [sys.executable, '-c', _JANITOR, str(self._folder)],
      stdin=subprocess.PIPE,
      start_new_session=True,  # a Ctrl-C is not for it
    )
    self._worker = self._start()

  def begin(self, name: str) -> Job:
    """Makes a place for an upload.

    Raises:
      ValueError: Too many are waiting.
    """
    self._forget_old()
    with self._lock:
      waiting = [job for job in self._jobs.values() if job.ended is None]
      if len(waiting) >= self.limits.most_waiting:
        raise ValueError(
          f'{len(waiting)} videos are waiting already; try again later'
        )
      over = [j for j in self._jobs.values() if j not in waiting][:-_KEPT]
      for old in over:
        del self._jobs[old.number]
      number = secrets.token_urlsafe(16)
      job = Job(number, safe_name(name), self._folder / number)
      job.folder.mkdir()
      self._jobs[number] = job
      return job

  def submit(self, job: Job) -> None:
    """Puts a whole upload into the queue."""
    with self._lock:
      if job.state == 'uploading':
        job.state = 'queued'
        self._waiting.put(job)
      if not self._worker.is_alive():  # a fault of ours ended it
        self._worker = self._start()

  def find(self, number: str) -> Job | None:
    """The job of a number, if there is one."""
    self._forget_old()
    with self._lock:
      return self._jobs.get(number)

  def cancel(self, job: Job) -> None:
    """Stops a job, and takes its file and answer away."""
    with self._lock:
      job.state, job.ended = 'cancelled', time.monotonic()
      job.said, job.page = None, ''
    shutil.rmtree(job.folder, ignore_errors=True)

  def status(self, job: Job) -> dict[str, str | float | int]:
    """What a browser is told of a job."""
    with self._lock:
      waiting = [j for j in self._jobs.values() if j.state == 'queued']
      return {
        'id': job.number,
        'name': job.name,
        'state': job.state,
        'share': round(job.share, 3),
        'ahead': waiting.index(job) if job in waiting else 0,
        'error': job.error,
      }

  def close(self) -> None:
    """Stops answering and removes all files."""
    with self._lock:
      for job in self._jobs.values():
        if job.ended is None:
          job.state = 'cancelled'
    self._waiting.put(None)
    self._worker.join()
    assert self._janitor.stdin is not None
    self._janitor.stdin.close()
    self._janitor.wait()

  def _start(self) -> threading.Thread:
    worker = threading.Thread(target=self._work, daemon=True)
    worker.start()
    return worker

  def _forget_old(self) -> None:
    with self._lock:
      oldest = time.monotonic() - self.limits.keep_seconds
      for job in list(self._jobs.values()):
        if job.ended is not None and job.ended < oldest:
          del self._jobs[job.number]

  def _next(self) -> Job | None:
    """Waits for a job; None: there will be none."""
    while True:
      try:
        return self._waiting.get(timeout=_LOOK_SECONDS)
      except queue.Empty:
        self._forget_old()

  def _work(self) -> None:
    while (job := self._next()) is not None:
      with self._lock:
        if job.state != 'queued':
          continue
        job.state = 'running'
      try:
        self._answer(job)
      except _StoppedError as stopped:
        self._fail(job, str(stopped))
      except (ValueError, OSError) as error:
        self._fail(job, str(error).replace(f'{job.folder}/', ''))
      finally:
        shutil.rmtree(job.folder, ignore_errors=True)
        if job.state == 'running':  # the traceback is on standard error
          self._fail(job, 'a fault of this program; its terminal says more')

  def _fail(self, job: Job, why: str) -> None:
    with self._lock:
      if job.state != 'cancelled':
        job.state, job.error = 'failed', why
        job.ended = time.monotonic()

  def _answer(self, job: Job) -> None:
    end = time.monotonic() + self.limits.most_seconds

    def watch(share: float) -> None:
      if job.state == 'cancelled':
        raise _StoppedError('cancelled')
      if time.monotonic() > end:
        raise _StoppedError(
          f'not done after {self.limits.most_seconds:.0f} s; cut the video'
        )
      job.share = share

    said = self._detector.predict(job.file, self._look, watch)
    # The folder is ours; the file's name is what its owner knows.
    said = dataclasses.replace(said, video=job.name)
    page = answer_page.make(said, self._detector.card)
    with self._lock:
      if job.state != 'cancelled':
        job.said, job.page, job.state, job.share = said, page, 'done', 1.0
        job.ended = time.monotonic()


def safe_name(name: str) -> str:
  """A name of a file as the last part of a path, and nothing else."""
  last = re.split(r'[/\\]', name)[-1]
  kept = re.sub(r'[^\w .()\[\]-]', '_', last).strip(' .')
  # In bytes, which file systems count: 255 at most.
  kept = kept.encode()[-_MOST_OF_NAME:].decode(errors='ignore')
  return kept.lstrip('.') or 'video'
