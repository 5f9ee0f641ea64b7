"""Are the frames that we read those that ffmpeg reads? On files of every kind.

  python -m benchmarks.video_files [--keep=FOLDER] [--all]
  python -m benchmarks.video_files --folder=FOLDER_OF_VIDEOS
  python -m benchmarks.video_files --ffmpeg=ffmpeg --ffmpeg=OTHER_PROGRAM

Makes 200 files (containers x codecs x pixel formats x flags) and a damaged copy
of each, or takes those of a folder; decodes each with `data_pipeline` and with
the ffmpeg program; prints a line for each that differs, `--all` for every one,
and a table of what came out. Exit status 1 if something is wrong.

ffmpeg shows frames as we say we do: deinterlaced where flagged, upright, with
square pixels. Of a damaged file the two need not agree on how many frames it
has, but a frame of ours must be one that ffmpeg decoded as well. What decoders
make of damage changes between versions of FFmpeg; with several programs, it has
to be one that any of them decoded (PyPI's imageio-ffmpeg carries a recent one).
Some leave in a damaged picture what lay in memory before: where a program does
not read the same twice (and with two threads), there is no right picture, and
the frame is counted as unsettled.
"""

import argparse
import collections
from collections.abc import Iterator, Sequence
import dataclasses
import json
import multiprocessing
from multiprocessing import connection
import pathlib
import subprocess
import sys
import tempfile
import traceback

import cv2
import numpy as np

from data_pipeline.faces import container, video

SIZE = (176, 144)  # H.263 knows few others
NUM_FRAMES = 24
TIME_LIMIT = 60  # s a file, both decoders
_NEAR = 6  # frames; the two may lose others
MOST_ERROR = 2.0  # mean over the pixels of a frame, levels
MOST_TIME_ERROR = 0.0021  # s; a tick of a container with milliseconds, twice
_SQUARE = "scale=w='max(1,trunc(iw*sar+0.5))':h=ih:flags=bicubic,setsar=1"
_WHOLE = 'bwdif=mode=send_frame:deint=interlaced'
_SUFFIXES = (
  '.mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mpg .vob .flv .wmv .ogv .3gp .mxf '
  '.nut .gif .h264 .ivf .y4m'
).split()


@dataclasses.dataclass(frozen=True)
class Finding:
  """What became of one file."""

  name: str
  state: str  # ok, unreadable, traceback, hang, crash
  verdict: str  # '' if nothing is wrong
  ours: int = 0  # frames
  theirs: int = 0
  time_error: float = 0.0
  error: float = 0.0  # of the worst frame
  unsettled: int = 0  # frames that ffmpeg does not read the same twice
  said: str = ''


def recipes() -> Iterator[tuple[str, list[str]]]:
  """Yields a file name and ffmpeg's arguments for it."""
  yield from _codecs()
  yield from _pixel_formats()
  yield from _flags()


def _codecs() -> Iterator[tuple[str, list[str]]]:
  pairs = {
    'mp4': 'libx264 libx265 mpeg4 libvpx-vp9 libaom-av1 mjpeg',
    'mov': 'libx264 prores_ks mjpeg png qtrle mpeg4 rawvideo',
    'mkv': 'libx264 libx265 ffv1 huffyuv libvpx mpeg2video libtheora utvideo '
    'snow mpeg4 libaom-av1 rawvideo mpeg1video',
    'webm': 'libvpx libvpx-vp9 libaom-av1',
    'avi': 'mpeg4 libx264 mjpeg huffyuv ffv1 cinepak msmpeg4 msmpeg4v2 wmv2 '
    'rawvideo mpeg2video utvideo flv png zlib',
    'ts': 'libx264 libx265 mpeg2video mpeg4',
    'm2ts': 'libx264 mpeg2video',
    'mpg': 'mpeg1video mpeg2video',
    'vob': 'mpeg2video',
    'flv': 'flv libx264',
    'wmv': 'wmv1 wmv2 msmpeg4',
    'ogv': 'libtheora',
    '3gp': 'h263 mpeg4 libx264',
    'nut': 'ffv1 libx264 rawvideo',
    'mxf': 'mpeg2video',
    'gif': 'gif',
    'ivf': 'libvpx libvpx-vp9',
    'h264': 'libx264',
    'y4m': 'wrapped_avframe',
  }
  for suffix, codecs in pairs.items():
    for codec in codecs.split():
      yield f'codec-{codec}.{suffix}', ['-c:v', codec, *_fast(codec)]


def _pixel_formats() -> Iterator[tuple[str, list[str]]]:
  formats = {
    ('libx264', 'mp4'): 'yuv420p yuvj420p yuv422p yuv444p yuv420p10le '
    'yuv422p10le yuv444p10le gray nv12 nv16',
    ('libx264rgb', 'mkv'): 'rgb24 bgr0',
    ('libx265', 'mp4'): 'yuv420p yuv422p yuv444p yuv420p10le yuv422p12le gbrp '
    'gray gray10le',
    ('libvpx-vp9', 'webm'): 'yuv420p yuv422p yuv440p yuv444p yuva420p gbrp '
    'yuv420p10le',
    ('ffv1', 'mkv'): 'yuv420p yuv410p yuv411p yuva444p gray gray16le gbrp16le '
    'bgr0 bgra yuv444p16le yuv420p9le gray10le',
    ('prores_ks', 'mov'): 'yuv422p10le yuv444p10le yuva444p10le',
    ('mjpeg', 'avi'): 'yuvj420p yuvj422p yuvj444p',
    ('png', 'mov'): 'rgb24 rgba pal8 gray gray16be rgb48be monob ya8',
    ('rawvideo', 'avi'): 'yuyv422 uyvy422 bgr24 rgb555le gray',
    ('huffyuv', 'avi'): 'yuv422p rgb24 bgra',
    ('qtrle', 'mov'): 'rgb24 argb gray rgb555be',
  }
  for (codec, suffix), names in formats.items():
    for name in names.split():
      tail = ['-pix_fmt', name, '-c:v', codec, *_fast(codec)]
      yield f'format-{codec}-{name}.{suffix}', tail


def _flags() -> Iterator[tuple[str, list[str]]]:
  x264 = ['-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-crf', '15']
  flags = {
    'bframes': ['-bf', '3'],
    'opengop': ['-bf', '3', '-x264opts', 'open-gop=1:keyint=8'],
    'intra': ['-g', '1'],
    'slices': ['-slices', '4'],
    'top_first': ['-vf', 'interlace', '-flags', '+ildct+ilme'],
    'bottom_first': ['-vf', 'interlace=scan=bff', '-flags', '+ildct+ilme'],
    'wide_pixels': ['-vf', 'setsar=64/45'],
    'narrow_pixels': ['-vf', 'setsar=9/16'],
    'bt709': ['-colorspace', 'bt709', '-color_primaries', 'bt709'],
    'bt2020': ['-colorspace', 'bt2020nc', '-color_primaries', 'bt2020'],
    'smpte240m': ['-colorspace', 'smpte240m'],
    'full_range': ['-color_range', 'pc'],
    'log': ['-color_trc', 'log100'],
    'varying_rate': ['-vf', "setpts='(N+15*floor(N/9))/25/TB'"],
    'slow': ['-r', '2'],
    'odd_rate': ['-r', '24000/1001'],
    'late': ['-output_ts_offset', '7.5'],
  }
  for suffix in ('mp4', 'mkv', 'ts', 'avi'):
    for name, arguments in flags.items():
      # What the container cannot say, ffmpeg itself does not know again.
      if suffix == 'avi' and name in ('varying_rate', 'late'):
        continue
      timing = ['-fps_mode', 'vfr'] if name == 'varying_rate' else []
      yield f'flag-{name}.{suffix}', [*x264, *arguments, *timing]
  for turn in ('90', '180', '270'):
    for suffix in ('mp4', 'mov'):
      arguments = ['-metadata:s:v', f'rotate={turn}']
      yield f'flag-rotate_{turn}.{suffix}', [*x264, *arguments]
  movflags = {
    'faststart': 'faststart',
    'fragments': 'frag_keyframe+empty_moov',
  }
  for name, value in movflags.items():
    yield f'flag-{name}.mp4', [*x264, '-g', '8', '-movflags', value]
  for codec, suffix in (('mpeg2video', 'mpg'), ('mpeg2video', 'ts')):
    for name in ('top_first', 'wide_pixels', 'bframes'):
      tail = ['-c:v', codec, '-q:v', '3', *flags[name]]
      if name == 'wide_pixels':
        tail += ['-aspect', '16:9']
      yield f'flag-{codec}-{name}.{suffix}', tail


def _fast(codec: str) -> list[str]:
  return {
    'libx264': ['-preset', 'fast', '-crf', '15'],
    'libx265': ['-preset', 'ultrafast', '-x265-params', 'log-level=none'],
    'libaom-av1': ['-cpu-used', '8', '-row-mt', '0'],
    'libvpx-vp9': ['-deadline', 'realtime', '-cpu-used', '8'],
    'libvpx': ['-b:v', '400k', '-auto-alt-ref', '1', '-lag-in-frames', '8'],
    'snow': ['-strict', '-2'],
  }.get(codec, [])


def make_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Makes the intact files; says which ffmpeg could not make."""
  made = []
  width, height = SIZE
  source = f'testsrc2=size={width}x{height}:rate=25,trim=end_frame={NUM_FRAMES}'
  for name, arguments in recipes():
    path = folder / name
    command = ['ffmpeg', '-v', 'error', '-y', '-nostdin', '-f', 'lavfi']
    command += ['-i', source, *arguments, '-threads', '1', str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not path.exists() or not path.stat().st_size:
      print(f'not made: {name}: {done.stderr.strip().splitlines()[-1:]}')
      path.unlink(missing_ok=True)
    else:
      made.append(path)
  return made


def damage(path: pathlib.Path, seed: int) -> pathlib.Path:
  """Writes a copy with a few bits flipped, headers included."""
  rng = np.random.default_rng(seed)
  raw = bytearray(path.read_bytes())
  for place in rng.integers(0, len(raw), 1 + min(len(raw) // 2000, 40)):
    raw[place] ^= 1 << int(rng.integers(8))
  copy = path.with_name(f'flipped-{path.name}')
  copy.write_bytes(raw)
  return copy


def check(path: pathlib.Path, programs: Sequence[str]) -> Finding:
  """Decodes a file in both ways and compares; an intact one with the first."""
  damaged = path.name.startswith('flipped-')
  try:
    stream = video.probe(path)
    decoding = video.decode_frames(path, range(10**6))
    frames = list(decoding)
  except (ValueError, FileNotFoundError) as error:
    return Finding(path.name, 'unreadable', '', said=str(error))
  notes = (*stream.notes, *decoding.notes)
  if not frames:
    reason = next(iter(decoding.missing.values()), ' '.join(decoding.errors))
    return Finding(path.name, 'unreadable', '', said=reason)
  # Not always: a filter that looks ahead loses a frame where the size changes.
  filters = f'{_WHOLE},{_SQUARE}' if 'interlaced' in str(notes) else _SQUARE
  shape = frames[0].image.shape
  references = list(_ffmpeg_frames(programs[0], path, filters, shape))
  guessed, stored = _ffmpeg_times(path)
  toned = any('tone-mapped' in note for note in notes)
  finding = Finding(
    path.name,
    'ok',
    '',
    ours=len(frames),
    theirs=len(references),
    said='; '.join(notes),
  )
  if damaged:
    return _check_damaged(finding, frames, references, path, filters, programs)
  wrong = []
  if len(frames) != len(references):
    wrong.append('count')
  pairs = list(zip(frames, references, strict=False))
  errors = [_difference(frame.image, image) for frame, image in pairs]
  ours = np.array([frame.time for frame in frames])
  # Where stored times go back, ffmpeg guesses; the stored ones are ours.
  late = min(_time_error(ours, guessed), _time_error(ours, stored))
  worst = max(errors, default=0.0)
  if worst > MOST_ERROR and not toned:
    wrong.append('pixels')
  if late > MOST_TIME_ERROR:
    wrong.append('times')
  return dataclasses.replace(
    finding, verdict=' '.join(wrong), time_error=late, error=worst
  )


def _check_damaged(
  finding, frames, references, path, filters, programs
) -> Finding:
  """Every frame of ours must be one of ffmpeg's, near its place."""
  shape = frames[0].image.shape
  readings = [
    [
      list(_ffmpeg_frames(program, path, filters, shape, threads))
      for threads in (1, 1, 2)
    ]
    for program in programs
  ]
  known = [references, *(images for again in readings for images in again)]
  worst, unknown, unsettled = 0.0, 0, 0
  for position, frame in enumerate(frames):
    near = [
      _difference(frame.image, image)
      for images in known
      for image in images[max(position - _NEAR, 0) : position + _NEAR + 1]
    ]
    error = min(near, default=np.inf)
    if error > MOST_ERROR and any(
      not _same_picture(again, position) for again in readings
    ):
      unsettled += 1
      continue
    unknown += error > MOST_ERROR
    worst = max(worst, error)
  verdict = f'{unknown} frames unlike' if unknown else ''
  if unsettled:
    settled = f'{unsettled} frames that ffmpeg reads otherwise each time'
    finding = dataclasses.replace(finding, said=f'{finding.said}; {settled}')
  return dataclasses.replace(
    finding, verdict=verdict, error=worst, unsettled=unsettled
  )


def _same_picture(readings: list[list[np.ndarray]], position: int) -> bool:
  """Whether readings of one program agree on the picture at a place."""
  first, *others = [images[position : position + 1] for images in readings]
  return all(np.array_equal(first, other) for other in others)


def _difference(image: np.ndarray, other: np.ndarray) -> float:
  height, width = other.shape[:2]
  if image.shape != other.shape:  # what ffmpeg does where the size changes
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
  return float(np.abs(image.astype(int) - other).mean())


def _ffmpeg_frames(
  program: str,
  path: pathlib.Path,
  filters: str,
  shape: tuple[int, ...],
  threads: int = 1,
) -> Iterator[np.ndarray]:
  """Yields ffmpeg's pictures, all in the size of the first."""
  command = [program, '-v', 'fatal', '-nostdin', '-threads', str(threads)]
  command += ['-i', f'file:{path}', '-an', '-sn', '-dn', '-vf', filters]
  command += ['-fps_mode', 'passthrough', '-pix_fmt', 'rgb24']
  command += ['-f', 'rawvideo', '-']
  done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT)
  size = int(np.prod(shape))
  for start in range(0, len(done.stdout) - size + 1, size):
    yield np.frombuffer(done.stdout, np.uint8, size, start).reshape(shape)


def _ffmpeg_times(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns ffprobe's best effort and the stored times, from the first on."""
  with container.open_track(path) as (_, track):
    index = track.index
  names = ('best_effort_timestamp_time', 'pts_time')
  command = ['ffprobe', '-v', 'fatal', '-select_streams', str(index)]
  command += ['-show_entries', f'frame={",".join(names)}']
  command += ['-of', 'json', f'file:{path}']
  done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT)
  frames = json.loads(done.stdout)['frames']
  best, stored = (
    np.array([float(frame.get(name, 'nan')) for frame in frames])
    for name in names
  )
  return best - best[:1], stored - stored[:1]


def _time_error(ours: np.ndarray, theirs: np.ndarray) -> float:
  """The largest, where both have a time; 0 where they never do."""
  count = min(len(ours), len(theirs))
  errors = np.abs(ours[:count] - theirs[:count])
  return float(np.max(errors[np.isfinite(errors)], initial=0))


def _work(pipe: connection.Connection, programs: Sequence[str]) -> None:
  """Checks the files that come in, until None does."""
  while path := pipe.recv():
    try:
      finding = check(path, programs)
    except BaseException:  # a traceback is what this program looks for
      last = traceback.format_exc().strip().splitlines()
      finding = Finding(path.name, 'traceback', 'traceback', said=last[-1])
    pipe.send(finding)


def check_all(
  paths: list[pathlib.Path], programs: Sequence[str]
) -> Iterator[Finding]:
  """Checks files in a process of their own, which may hang or crash."""
  context = multiprocessing.get_context('spawn')
  worker = pipe = None
  for path in paths:
    if worker is None or not worker.is_alive():
      pipe, end = context.Pipe()
      worker = context.Process(target=_work, args=(end, programs), daemon=True)
      worker.start()
      end.close()
    assert pipe is not None
    pipe.send(path)
    try:
      if pipe.poll(2 * TIME_LIMIT):
        yield pipe.recv()
        continue
      yield Finding(path.name, 'hang', 'hang')
    except EOFError:
      yield Finding(path.name, 'crash', 'crash')
    worker.kill()
    worker.join()
    worker = None
  if worker:
    pipe.send(None)
    worker.join()


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', type=pathlib.Path, help='videos to check')
  parser.add_argument('--keep', type=pathlib.Path, help='where to make files')
  parser.add_argument(
    '--ffmpeg', action='append', help='programs to compare with; ffmpeg'
  )
  parser.add_argument('--all', action='store_true', help='show every line')
  parser.add_argument('--only', default='', help='names that hold this')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    if args.folder:
      found = sorted(args.folder.rglob('*'))
      paths = [p for p in found if p.suffix.lower() in _SUFFIXES]
    else:
      folder = args.keep or pathlib.Path(scratch)
      folder.mkdir(parents=True, exist_ok=True)
      made = make_files(folder)
      paths = made + [damage(path, seed) for seed, path in enumerate(made)]
    paths = [path for path in paths if args.only in path.name]
    print(f'{len(paths)} files')
    print(
      f'{"file":<44} {"state":<10} frames ffmpeg  time err  pixel err  verdict'
    )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    worst = 0.0
    for f in check_all(paths, args.ffmpeg or ['ffmpeg']):
      kind = 'flipped' if f.name.startswith('flipped-') else 'intact'
      counts[kind, f.state] += 1
      counts[kind, 'wrong'] += bool(f.verdict)
      counts[kind, 'unsettled'] += bool(f.unsettled)
      if kind == 'intact' and np.isfinite(f.error):
        worst = max(worst, f.error)
      if args.all or f.verdict or (kind == 'intact' and f.state != 'ok'):
        print(
          f'{f.name[-44:]:<44} {f.state:<10} {f.ours:6} {f.theirs:6}'
          f'  {f.time_error:8.4f}  {f.error:9.3f}  {f.verdict or "-"}'
          f'  {f.said}',
          flush=True,
        )
  for (kind, state), count in sorted(counts.items()):
    print(f'{kind:<8} {state:<10} {count}')
  print(f'largest mean error of an intact frame: {worst:.2f} levels')
  return int(any(n for (_, s), n in counts.items() if s == 'wrong'))


if __name__ == '__main__':
  sys.exit(main())
