"""Eight CPU devices, checked shapes, the tiny configuration and data."""

import functools
import gc
import pathlib
import signal

import jax
from jaxtyping import install_import_hook
import numpy as np
import pytest

from data_pipeline import record_writer

# A job in the background of a shell ignores Ctrl-C, and so would the programs
# that tests start to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Every annotation of ours is checked at every call, in tests alone.
install_import_hook(['data_pipeline', 'stormer_jax'], 'beartype.beartype')

from configs import tiny  # noqa: E402 after the hook
from data_pipeline import records  # noqa: E402 after the hook
from stormer_jax import sharding  # noqa: E402 after the hook


def pytest_collection_finish():
  """Spares the garbage collector what stays: a fifth of the time of a trace."""
  gc.freeze()
  gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Folder of the small arrays that the original code computed."""
  return pathlib.Path(__file__).parent / 'golden'


@pytest.fixture
def tiny_config():
  """A run of seconds, configs/tiny.py."""
  return tiny.get_config()


@pytest.fixture(scope='module')
def quickly(tmp_path_factory):
  """Programs of one device, compiled once, without optimisation."""
  one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
  new = {
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('cache')),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_disable_most_optimizations': True,
  }
  before = {name: jax.config.values[name] for name in new}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, 'make_mesh', one)
    for name, value in new.items():
      jax.config.update(name, value)
    yield
    for name, value in before.items():
      jax.config.update(name, value)


def draw_landmarks(rng: np.random.Generator) -> np.ndarray:
  """81 points of a plausible upright face in a 256 crop, float32 [81, 2]."""

  def arc(centre, radii, start, stop, count):
    angle = np.radians(np.linspace(start, stop, count))
    return centre + np.stack([np.cos(angle), np.sin(angle)], 1) * radii

  mouth = np.array([128, 190])
  points = np.concatenate(
    [
      arc([128, 120], [70, 100], 180, 0, 17),  # jaw, image left to right
      arc([95, 100], [22, 12], 200, 340, 5),  # brows
      arc([161, 100], [22, 12], 200, 340, 5),
      np.stack([np.full(4, 128), np.linspace(105, 145, 4)], 1),  # nose
      arc([128, 148], [14, 6], 180, 0, 5),
      arc([98, 112], [13, 6], 180, 480, 6),  # eyes
      arc([158, 112], [13, 6], 180, 480, 6),
      arc(mouth, [28, 12], 180, 510, 12),
      arc(mouth, [18, 6], 180, 495, 8),
      arc([128, 110], [70, 80], 190, 350, 13),  # forehead
    ]
  )
  points = points + rng.normal(0, 1.0, points.shape) + rng.normal(0, 4.0, 2)
  return points.astype(np.float32)


def make_video(
  name: str, num_frames: int, *, label: int = 0, seed: int = 0
) -> records.VideoRecord:
  """A video of a shaded oval with features, moving a little each frame."""
  rng = np.random.default_rng((seed, *name.encode()))
  skin = rng.uniform(120, 220, 3)
  rows, columns = np.mgrid[:256, :256]
  base_points = draw_landmarks(rng)
  frames, points = [], []
  background = rng.uniform(0, 255, (8, 8, 3)).repeat(32, 0).repeat(32, 1)
  for t in range(num_frames):
    shift = 2 * np.sin(np.array([0.3, 0.2]) * t)
    moved = (base_points + shift).astype(np.float32)
    x, y = moved.mean(axis=0)
    inside = ((columns - x) / 70) ** 2 + ((rows - y) / 95) ** 2 < 1
    shade = 1 - 0.3 * ((columns - x) / 70) ** 2
    frame = np.where(inside[..., None], skin * shade[..., None], background)
    for px, py in moved[27:68].astype(int):
      frame[py - 2 : py + 2, px - 2 : px + 2] *= 0.5
    frame = frame + rng.normal(0, 3, frame.shape)
    frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    points.append(moved)
  return records.VideoRecord(
    video_id=name,
    frames=tuple(records.encode_frame(frame) for frame in frames),
    landmarks=np.stack(points),
    boxes=np.tile(np.float32([64, 32, 192, 224]), (num_frames, 1)),
    frame_indices=np.arange(num_frames, dtype=np.int32),
    times=np.arange(num_frames, dtype=np.float32) / 25,
    fps=25.0,
    label=label,
    dataset='demo',
    identity=name,
    method='swap' if label else '',
    source_path=f'{name}.mp4',
    provenance='{}',
  )


@pytest.fixture(scope='session')
def data_root(tmp_path_factory) -> pathlib.Path:
  """Prepared synthetic data 'demo': train and val, both frame rules."""
  root = tmp_path_factory.mktemp('data')
  train = [make_video(f'train{i}', 11 + 4 * i) for i in range(4)]
  val = [make_video(f'val{i}', 8 + 2 * i) for i in range(3)]
  fakes = [make_video(f'fake{i}', 8, label=1) for i in range(2)]
  record_writer.write_records(
    root, 'demo', 'consecutive', {'train': train, 'val': val}
  )
  record_writer.write_records(
    root, 'demo', 'uniform', {'train': train, 'val': val, 'test': val + fakes}
  )
  return root
