"""Copies of a film have nearly one fingerprint, others another."""

import cv2
import numpy as np

from data_pipeline import fingerprint, records
from tests import conftest


def look(name: str, change=lambda crop: crop, shift=0, seed=0) -> np.ndarray:
  """The bits of a made-up face whose crop is changed, and shifted, in px."""
  video = conftest.make_video(name, 3, seed=seed)
  crops = [
    np.roll(change(records.decode_frame(frame)), shift, 1)
    for frame in video.frames
  ]
  moved = video.landmarks + np.float32([shift, 0])
  text = fingerprint.of_crops(crops, list(moved))
  assert len(text) == 48
  return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))


def small(crop):
  return cv2.resize(cv2.resize(crop, (64, 64)), (256, 256))


def coarse(crop):
  encoded = cv2.imencode('.jpg', crop, (cv2.IMWRITE_JPEG_QUALITY, 10))[1]
  return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def dark(crop):
  return (crop * 0.8).astype(np.uint8)


def test_encoding_size_brightness_and_place_change_little():
  before = look('a')
  for change, shift in ((small, 0), (coarse, 0), (dark, 0), (dark, 3)):
    assert np.sum(before != look('a', change, shift)) <= 12


def test_another_face_has_another():
  faces = [look(name) for name in 'abcdef']
  apart = [np.sum(a != b) for a in faces for b in faces if a is not b]
  assert min(apart) > 40


def spoilt(bits: np.ndarray, count: int, rng) -> np.ndarray:
  changed = bits.copy()
  changed[rng.permutation(192)[:count]] ^= True
  return changed


def test_close_pairs_are_found_among_many_and_no_others():
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 2, (3000, 192)).astype(bool)
  for number, count in enumerate([0, 3, 6, 9, 12, 60, 80]):
    bits[2000 + number] = spoilt(bits[number], count, rng)
  texts = [np.packbits(row).tobytes().hex() for row in bits]
  expected = [[number, 2000 + number] for number in range(5)]
  assert close_pairs(texts) == expected
  assert close_pairs(texts[:1]) == []
  assert close_pairs([]) == []
  odd = fingerprint.close_pairs(
    fingerprint.parse(texts), lambda first, second: second % 2 == 1
  )
  assert odd.tolist() == expected[1::2]


def close_pairs(texts):
  return fingerprint.close_pairs(fingerprint.parse(texts)).tolist()


def test_a_thousand_of_one_look_are_not_each_compared_with_all():
  texts = ['0f' * 24] * 1000
  assert len(close_pairs(texts)) <= 32 * 1000
