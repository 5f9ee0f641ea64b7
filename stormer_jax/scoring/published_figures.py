"""The paper's own figures, to stand beside ours.

Enter: the name of a data set and what the run was trained on. Leaves: the AUC
that FakeSTormer's authors published (METHOD section 12), with the 95 % interval
that the size of the test set alone gives it, and the margin they crop with.
"""

from collections.abc import Mapping
import dataclasses
import math

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True)
class Published:
  """A published AUC; `low` and `high` are nan where no size is known."""

  title: str
  trained_on: str  # compression of FaceForensics++
  auc: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class _TestSet:
  title: str
  auc: Mapping[str, float]  # by compression of the training videos
  num_real: int  # of its test list; 0 where nobody says
  num_fake: int


_TEST_SETS = {
  'cdf2': _TestSet('CDF2', {'c23': 0.924, 'c0': 0.965}, 178, 340),
  'dfw': _TestSet('DFW', {'c23': 0.742, 'c0': 0.763}, 396, 410),
  'dfd': _TestSet('DFD', {'c23': 0.985, 'c0': 0.989}, 363, 3068),
  'dfdc': _TestSet('DFDC', {'c23': 0.746, 'c0': 0.776}, 2500, 2500),
  'dfdcp': _TestSet('DFDCP', {'c23': 0.900, 'c0': 0.941}, 276, 501),
  'diffswap': _TestSet('DiffSwap', {'c23': 0.969, 'c0': 0.977}, 0, 0),
}
_ALIASES = {
  'celebdf_v2': 'cdf2',
  'celeb_df_v2': 'cdf2',
  'celebdf': 'cdf2',
  'cdfv2': 'cdf2',
  'wilddeepfake': 'dfw',
  'dfdc_preview': 'dfdcp',
}


def find(dataset: str, trained_on: str) -> Published | None:
  """Returns the paper's figure for a data set; None where it has none.

  Args:
    dataset: NAME, NAME:SPLIT or NAME-KIND; the test split alone is meant.
    trained_on: Name of the training data; 'c0' in it means uncompressed,
      anything else is compared with the paper's c23.
  """
  name, _, split = dataset.lower().partition(':')
  name = _ALIASES.get(name, name)
  if split not in ('', 'test') or name not in _TEST_SETS:
    return None
  test_set = _TEST_SETS[name]
  compression = 'c0' if trained_on.lower().endswith('c0') else 'c23'
  auc = test_set.auc[compression]
  half = math.nan
  if test_set.num_real:
    half = _Z * standard_error(auc, test_set.num_real, test_set.num_fake)
  return Published(
    title=test_set.title,
    trained_on=compression,
    auc=auc,
    low=auc - half,
    high=min(1.0, auc + half),
  )


def margin(dataset: str, margins: Mapping[str, int], default: int) -> int:
  """Returns the margin of a data set, known by any of its names."""
  name = dataset.lower().split(':')[0].split('-')[0]
  name = _ALIASES.get(name, name)
  own = {_ALIASES.get(key, key): value for key, value in margins.items()}
  return own.get(name, default)


def standard_error(auc: float, num_real: int, num_fake: int) -> float:
  """The standard error of an AUC of which only the numbers are known.

  Hanley and McNeil, Radiology 143, 1982.
  """
  q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
  variance = auc * (1 - auc)
  variance += (num_fake - 1) * (q1 - auc**2) + (num_real - 1) * (q2 - auc**2)
  return math.sqrt(variance / (num_real * num_fake))
