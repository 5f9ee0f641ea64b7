"""Self-blended pairs of the demo's people on disk, for two programs to read.

Enter: the folder of packages that carry the demo's videos (docs/demo_data.md)
and a run's configuration. Leave: records, and arrays in .npz files that any
program can read: the pairs of a run in the order of its training stream, and
pairs of a person who is not in training, each clip blended several times. Clips
are float16, rounded once and so the same for everybody who reads them.
"""

from collections.abc import Callable, Iterator, Mapping
import csv
import pathlib
import subprocess
import sys

import jax
from jaxtyping import Int
from ml_collections import config_dict
import numpy as np

from benchmarks import machine
from data_pipeline import clips, demo_videos, pipeline
from data_pipeline import records as records_lib
from data_pipeline.synthesis import blending

# Frames of a video that validation takes at most (METHOD 1.1).
_VAL_FRAMES = 32


def prepare(packages: pathlib.Path, folder: pathlib.Path, unseen: str) -> None:
  """Makes records of the demo's people; one of them is kept from training.

  Nothing is done where they are there already.

  Args:
    packages: Folder that `pip install --target` was given.
    folder: To fill with videos/ and records/.
    unseen: Identity of `demo_videos.DEMO_VIDEOS` whose videos are the split
      'val'. Where it is one of the people that the demo trains on, the one
      that the demo validates on is left out.

  Raises:
    ValueError: No such person, or a package is missing.
    subprocess.CalledProcessError: The records could not be made.
  """
  known = {video.identity: video.split for video in demo_videos.DEMO_VIDEOS}
  if unseen not in known:
    raise ValueError(f'nobody is called {unseen!r}; there are {sorted(known)}')
  listed = demo_videos.lay_out(packages, folder / 'videos')
  if known[unseen] == 'train':
    listed = _list_again(listed, unseen)
  subprocess.run(
    [
      *(sys.executable, '-m', 'data_pipeline.prepare'),
      *('--root', folder / 'videos', '--csv', listed),
      *('--out', folder / 'records', '--dataset', unseen),
    ],
    cwd=pathlib.Path(__file__).parent.parent,
    check=True,
  )


def _list_again(listed: pathlib.Path, unseen: str) -> pathlib.Path:
  """Writes a list where the person is held out, and who was so is missing."""
  with listed.open(newline='', encoding='utf-8') as file:
    rows = [row for row in csv.DictReader(file) if row['split'] == 'train']
  path = listed.with_name(f'{unseen}.csv')
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
      if row['identity'] != unseen:
        writer.writerow(row)
        continue
      first, last = int(row['start']), int(row['end'])
      for start in range(first, last - _VAL_FRAMES + 1, _VAL_FRAMES):
        end = start + _VAL_FRAMES
        writer.writerow(row | {'split': 'val', 'start': start, 'end': end})
  return path


def dump_training(
  config: config_dict.ConfigDict,
  records: records_lib.Records,
  num_pairs: int,
  path: pathlib.Path,
) -> None:
  """Writes the first pairs of a run's stream: the fields of `pipeline.Batch`.

  Args:
    config: The whole configuration; `config.seed` chooses clips and blends.
    records: Of real videos.
    num_pairs: At least; a multiple of the batch size is written.
    path: The .npz file; a pair fills rows 2i and 2i + 1 of every array.
  """
  stream = clips.train_dataset(
    records,
    num_frames=config.model.num_frames,
    batch_size=config.data.batch_size,
    max_offset=config.data.max_offset,
    seed=config.seed,
    num_threads=1,
    prefetch=1,
  )
  make = _pair_maker(config, config.synthesis.flip_prob)
  num_batches = -(-num_pairs // config.data.batch_size)
  _write(path, (make(next(stream)) for _ in range(num_batches)))


def dump_unseen(
  config: config_dict.ConfigDict,
  records: records_lib.Records,
  num_draws: int,
  path: pathlib.Path,
) -> None:
  """Writes pairs of all clips of the held-out person.

  Args:
    config: The whole configuration; no seed of it matters.
    records: Of real videos.
    num_draws: Blends of each clip.
    path: The .npz file: clip, label, and `window`, which counts the clips that
      the rows were made of; and `commit`, of the code that blended them.
  """
  make = _pair_maker(config, 0.0)

  def batches() -> Iterator[dict[str, np.ndarray]]:
    size, place = config.data.batch_size, 0
    for batch in clips.eval_dataset(
      records,
      num_frames=config.model.num_frames,
      batch_size=size,
      num_threads=1,
      prefetch=1,
      real_only=True,
    ):
      windows = np.repeat(np.arange(place, place + size), 2)
      place += size
      valid = np.repeat(batch['valid'], 2)
      for draw in range(num_draws):
        seeds = [
          np.random.SeedSequence((int(seed), draw)).generate_state(1)[0]
          for seed in batch['seed']
        ]
        pairs = make({**batch, 'seed': np.array(seeds, np.uint32)})
        rows = {'clip': pairs['clip'], 'label': pairs['label']}
        yield {
          name: x[valid] for name, x in (rows | {'window': windows}).items()
        }

  _write(path, batches(), commit=np.array(machine.commit()))


# One program for both dumps: the flip alone differs.
_make_pairs = jax.jit(
  pipeline.make_pairs, static_argnames=('synthesis', 'image_size', 'patch_size')
)


def _pair_maker(
  config: config_dict.ConfigDict, flip_prob: float
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
  """Returns (host batch) -> batch of pairs on the host, clips float16."""
  flips = np.full(config.data.batch_size, flip_prob, np.float32)

  def make(batch):
    pairs = jax.device_get(
      _make_pairs(
        batch['frames'],
        batch['landmarks'],
        batch['seed'],
        synthesis=blending.SynthesisConfig(**config.synthesis),
        image_size=config.model.image_size,
        patch_size=config.model.patch_size,
        flip_probs=flips,
      )
    )
    return pairs | {'clip': pairs['clip'].astype(np.float16)}

  return make


def _write(
  path: pathlib.Path,
  batches: Iterator[dict[str, np.ndarray]],
  **others: np.ndarray,
) -> None:
  rows = list(batches)
  joined = {
    name: np.concatenate([row[name] for row in rows]) for name in rows[0]
  }
  write(path, joined | others)


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays to an .npz file, whole or not at all."""
  temporary = path.with_suffix('.tmp.npz')
  np.savez(temporary, **arrays)
  temporary.rename(path)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of a file."""
  with np.load(path) as arrays:
    return {name: arrays[name] for name in arrays.files}


def batch_order(
  num_pairs: int, num_steps: int, batch_size: int, seed: int
) -> Int[np.ndarray, 'steps b']:
  """Says which pairs each step sees: all of them, shuffled, again and again."""
  rng = np.random.default_rng(seed)
  epochs = -(-num_steps * batch_size // num_pairs)
  order = np.concatenate([rng.permutation(num_pairs) for _ in range(epochs)])
  return order[: num_steps * batch_size].reshape(num_steps, batch_size)


def take(
  pairs: dict[str, np.ndarray], chosen: Int[np.ndarray, ' b']
) -> dict[str, np.ndarray]:
  """Returns the rows of the chosen pairs, float32."""
  rows = (2 * chosen[:, None] + np.arange(2)).reshape(-1)
  return {name: x[rows].astype(np.float32) for name, x in pairs.items()}
