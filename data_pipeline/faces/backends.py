"""What finds faces, by name: what a command line says -> a face backend.

  embedded       CenterFace and the face mesh, which come with the package
  dlib           CenterFace; landmarks by dlib with the user's predictor
  scrfd          boxes by the user's SCRFD; landmarks by the face mesh
  retinaface     boxes by the user's RetinaFace; landmarks by the face mesh
  scrfd+dlib     both, their files in this order
  retinaface+dlib    likewise: what the released code's preprocessing does

A model's file is the user's, and is never downloaded. The name of an open
backend holds the first digits of its files' SHA-256, so that records say what
made them and a run finds its own again.
"""

from collections.abc import Sequence
import dataclasses
import functools
import os

from data_pipeline.faces import backend as backend_lib
from data_pipeline.faces import dlib_points, embedded, retinaface, scrfd

NAMES = (
  *('embedded', 'dlib', 'scrfd', 'retinaface'),
  *('scrfd+dlib', 'retinaface+dlib'),
)
# The parts of a name that need a file, and what kind of file that is.
_FILES = {
  'dlib': 'a shape predictor of dlib, .dat',
  'scrfd': 'an SCRFD with five points, .onnx',
  'retinaface': 'a RetinaFace, .onnx',
}


@dataclasses.dataclass(frozen=True)
class Choice:
  """A backend as the user names it.

  Attributes:
    name: one of `NAMES`.
    files: of its models, one for each part of the name that needs one.

  Raises:
    ValueError: no such name, another number of files, or a file that cannot
      be read.
  """

  name: str = 'embedded'
  files: tuple[str, ...] = ()

  def __post_init__(self):
    if self.name not in NAMES:
      raise ValueError(
        f'--backend is {self.name!r}; it is one of {", ".join(NAMES)}'
      )
    needed = [part for part in self.name.split('+') if part in _FILES]
    if len(self.files) != len(needed):
      wanted = ' and '.join(
        f'--face_model=FILE, {_FILES[part]}' for part in needed
      )
      raise ValueError(
        f'--backend={self.name} takes {wanted or "no --face_model"}; '
        f'{len(self.files)} given'
      )
    for file in self.files:
      backend_lib.file_digest(file)

  @property
  def full_name(self) -> str:
    """The name of the open backend, without opening it."""
    parts = dict(zip(self.name.split('+'), self.files, strict=False))
    digests = {
      part: f'{part}-{backend_lib.file_digest(file)}'
      for part, file in parts.items()
    }
    boxes = [name for part, name in digests.items() if part != 'dlib']
    points = digests.get('dlib', embedded.FaceMesh.name)
    return f'{boxes[0] if boxes else embedded.CenterFace.name}+{points}'


@functools.cache
def open_backend(choice: Choice) -> backend_lib.FaceBackend:
  """Opens a backend, one of each kind per process.

  Raises:
    ValueError: a package that it needs is not installed, or a file is not of
      its kind.
  """
  parts = dict(zip(choice.name.split('+'), choice.files, strict=False))
  if not parts:
    return embedded.EmbeddedBackend()
  boxes: backend_lib.BoxFinder = embedded.CenterFace()
  points: backend_lib.PointFinder = embedded.FaceMesh()
  if 'scrfd' in parts:
    boxes = scrfd.Scrfd(parts['scrfd'])
  if 'retinaface' in parts:
    boxes = retinaface.RetinaFace(parts['retinaface'])
  if 'dlib' in parts:
    points = dlib_points.DlibPoints(parts['dlib'])
  return backend_lib.JoinedBackend(boxes, points)


def choose_again(
  full_name: str, files: Sequence[str | os.PathLike] = (), name: str = ''
) -> Choice:
  """The choice that leads to a backend once more, as of records or a run.

  Args:
    full_name: of that backend; '' where nobody knows it.
    files: of its models, in any order.
    name: one of `NAMES`; '' leaves it to `full_name`.

  Raises:
    ValueError: a file is missing, is another one, or `name` is another backend.
  """
  paths = tuple(map(str, files))
  if not full_name:
    return Choice(name or 'embedded', paths)
  parts = [part.partition('-')[0] for part in full_name.split('+')]
  own = '+'.join(part for part in parts if part in _FILES) or 'embedded'
  own_parts = {embedded.CenterFace.name, embedded.FaceMesh.name, *_FILES}
  if own not in NAMES or not own_parts.issuperset(parts):
    raise ValueError(
      f'the faces were found by {full_name}, which this version does not know'
    )
  if name and name != own:
    raise ValueError(
      f'--backend={name}: the faces were found by {own} ({full_name}), and '
      'another backend would cut them out otherwise; leave the flag out'
    )
  by_digest = {backend_lib.file_digest(path): path for path in paths}
  needed = [part.partition('-') for part in full_name.split('+') if '-' in part]
  for part, _, digest in needed:
    if digest not in by_digest:
      given = ', '.join(f'{p} is {d}' for d, p in by_digest.items())
      raise ValueError(
        f'the faces were found by {own}; give the same file, {_FILES[part]} '
        f'whose SHA-256 begins with {digest}, as --face_model='
        + (f'FILE ({given})' if given else 'FILE')
      )
  if len(paths) != len(needed):
    raise ValueError(
      f'--face_model is given {len(paths)} times; {own} takes {len(needed)}'
    )
  return Choice(own, tuple(by_digest[digest] for _, _, digest in needed))
