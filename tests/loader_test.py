"""What the benchmark of the loader says of memory."""

import numpy as np

from benchmarks import loader


def windows(count: int, slope: float) -> list[loader.Window]:
  return [
    loader.Window(
      batches=500 * i,
      clips=500,
      wall=1.0,
      cpu=1.0,
      read=1,
      resident=280 + slope * i / 2,
    )
    for i in np.arange(1, count + 1).tolist()
  ]


def test_memory_that_grows_is_said_per_thousand_batches():
  said = loader.describe_memory(windows(20, 1.5))
  assert 'grows by +1.50 MiB per 1,000 batches' in said


def test_of_few_batches_no_slope_is_said():
  for count in (1, 4):
    said = loader.describe_memory(windows(count, 1.5))
    assert 'too few' in said and 'nan' not in said
