"""Folders of images and packed ones, read as a video is."""

import io
import math
import pathlib
import tarfile

import cv2
import numpy as np
import pytest

from data_pipeline.faces import image_sequence


def coloured(value: int) -> np.ndarray:
  """An RGB image that carries its number in red."""
  image = np.zeros((32, 48, 3), np.uint8)
  image[..., 0] = value
  return image


def write(path: pathlib.Path, image: np.ndarray) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  codes = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
  code = codes[image.ndim if image.ndim == 2 else image.shape[2]]
  cv2.imwrite(str(path), image if code is None else cv2.cvtColor(image, code))
  return path


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """Twelve images, named so that sorting by letters turns them round."""
  for number in range(12):
    write(tmp_path / f'a/{number}.png', coloured(10 * number))
  (tmp_path / 'a/notes.txt').write_text('no image')
  return tmp_path / 'a'


def numbers(reading) -> list[tuple[int, int]]:
  return [(f.index, int(f.image[0, 0, 0]) // 10) for f in reading]


def test_images_come_in_the_order_of_their_numbers(folder):
  reading = image_sequence.Reading(folder, range(12))
  assert numbers(reading) == [(i, i) for i in range(12)]
  assert reading.num_frames == 12 and not reading.notes


def test_only_the_asked_images_are_read(folder):
  assert numbers(image_sequence.Reading(folder, [2, 10])) == [(2, 2), (10, 10)]
  assert numbers(image_sequence.Reading(folder, [11, 12, 13])) == [(11, 11)]


def test_a_sequence_has_a_size_and_no_time(folder):
  stream = image_sequence.probe(folder)
  assert (stream.width, stream.height, stream.num_frames) == (48, 32, 12)
  assert stream.fps == 0
  (frame,) = image_sequence.Reading(folder, [0])
  assert math.isnan(frame.time)


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
def test_an_archive_is_read_as_the_folder_in_it(folder, tmp_path, mode):
  archive = tmp_path / ('b.tar.gz' if mode == 'w:gz' else 'b.tar')
  with tarfile.open(archive, mode) as file:
    file.add(folder, '7/real/1')
    other = tarfile.TarInfo('7/real/2/0.png')
    file.addfile(other, io.BytesIO())
  inside = archive / '7/real/1'
  assert image_sequence.is_sequence(inside)
  assert image_sequence.probe(inside).num_frames == 12
  assert numbers(image_sequence.Reading(inside, range(12))) == [
    (i, i) for i in range(12)
  ]


def test_a_damaged_image_is_missing_by_number_and_name(folder):
  (folder / '3.png').write_bytes(b'')
  (folder / '4.png').write_text('no image')
  reading = image_sequence.Reading(folder, range(6))
  assert [index for index, _ in numbers(reading)] == [0, 1, 2, 5]
  assert sorted(reading.missing) == [3, 4]
  assert '3.png' in reading.missing[3]
  assert reading.notes == ('2 of 6 images damaged',)


def test_transparency_grey_and_sixteen_bits_become_rgb(tmp_path):
  seen = np.zeros((8, 8, 4), np.uint8)
  seen[..., :3] = 200
  seen[:4, :, 3] = 255
  write(tmp_path / 'a/0.png', seen)
  write(tmp_path / 'a/1.png', np.full((8, 8), 77, np.uint8))
  write(tmp_path / 'a/2.png', np.full((8, 8, 3), 257 * 99, np.uint16))
  clear, grey, deep = (
    frame.image for frame in image_sequence.Reading(tmp_path / 'a', range(3))
  )
  assert (clear[:4] == 200).all() and (clear[4:] == 0).all()
  assert (grey == 77).all() and grey.shape == (8, 8, 3)
  assert (deep == 99).all() and deep.dtype == np.uint8


def test_what_is_no_sequence_is_said(tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='holds no image'):
    image_sequence.probe(tmp_path / 'empty')
  with pytest.raises(FileNotFoundError, match='no folder'):
    image_sequence.probe(tmp_path / 'nowhere')
  (tmp_path / 'a.tar.gz').write_bytes(b'no archive')
  with pytest.raises(ValueError, match='damaged'):
    image_sequence.probe(tmp_path / 'a.tar.gz/b')
  assert not image_sequence.is_sequence(tmp_path / 'a.tar.gz')
