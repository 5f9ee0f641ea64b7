"""What a detector's logits mean: probabilities, thresholds, and doubt.

Enter: mean logits and labels of validation videos, never of a test set. Leaves:
a `Calibration` that turns a mean logit into a probability of fake, with
thresholds at stated false-positive rates and the band in which the detector
does not know. Kept in calibration.json of the run, for each set of weights and
each frame rule: frames far apart and frames in a row get different logits.

Platt, Advances in Large Margin Classifiers, 1999 (his targets keep the fit
finite where validation is told apart without error); temperature: Guo et al.,
arXiv 1706.04599.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import os
import pathlib

from jaxtyping import Float, Int
import numpy as np

from stormer_jax.scoring import bootstrap, metrics, plots, score_file

METHODS = ('platt', 'temperature')
FPRS = (0.01, 0.05, 0.1)
# Choice: above the band lies at most one real validation video in twenty, below
# it about one fake in twenty (interpolated): to call a real one fake is the
# worse mistake.
BAND_ERROR = 0.05
_FOLDS = 5
_FILE = 'calibration.json'
_LEAST = 10  # videos of a class; fewer say nothing of a tail


@dataclasses.dataclass(frozen=True)
class Calibration:
  """P(fake) = sigmoid(slope * mean logit + intercept), and what it is good for.

  Attributes:
    method: One of `METHODS`.
    slope: Above 0; 1 / temperature.
    intercept: 0 for a temperature.
    threshold: Probability at which balanced accuracy was highest.
    at_fpr: False-positive rate in % -> the probability that at most so many
      real validation videos reach; None where they are too few to show it.
    uncertain: Band of probabilities in which the answer is 'uncertain'.
    frame_rule: Which frames of a video were scored.
    weights: Hash of the detector's tensors.
    fitted_on: Data set and split.
    num_real: Validation videos.
    num_fake: Likewise.
    ece_before: ECE of the sigmoid of the mean logit.
    ece_after: ECE of videos that a fit on four fifths had not seen.
    brier_before: Brier score, likewise.
    brier_after: Likewise.
  """

  method: str
  slope: float
  intercept: float
  threshold: float
  at_fpr: Mapping[str, float | None]
  uncertain: tuple[float, float]
  frame_rule: str
  weights: str
  fitted_on: str
  num_real: int
  num_fake: int
  ece_before: float
  ece_after: float
  brier_before: float
  brier_after: float

  def probability(
    self, logits: Float[np.ndarray, '*n']
  ) -> Float[np.ndarray, '*n']:
    """Returns the probability of fake of mean logits."""
    return metrics.sigmoid(self.slope * np.asarray(logits) + self.intercept)

  def answer(self, logit: float) -> str:
    """Says 'likely real', 'uncertain' or 'likely fake' of a mean logit."""
    low, high = self.uncertain
    probability = float(self.probability(np.array([logit]))[0])
    if probability < low:
      return 'likely real'
    return 'likely fake' if probability > high else 'uncertain'

  def said(self) -> str:
    """Says in one line where the probabilities come from."""
    low, high = self.uncertain
    return (
      f'calibrated ({self.method}) on {self.num_real} real and {self.num_fake}'
      f' fake videos of {self.fitted_on}, {self.frame_rule} frames; uncertain'
      f' from {low:.3f} to {high:.3f}'
    )


def not_calibrated(frame_rule: str) -> str:
  """What an answer of a detector without a calibration says of its score."""
  return (
    f'not calibrated for {frame_rule} frames: the score orders videos, but is'
    ' no probability, and no threshold was chosen on validation videos'
    ' (--mode=calibrate)'
  )


def fit(
  logits: Float[np.ndarray, 'n'],
  labels: Int[np.ndarray, 'n'],
  method: str = 'platt',
  *,
  smooth: bool = True,
) -> tuple[float, float]:
  """Fits slope and intercept by Newton's method.

  Args:
    logits: Mean logits of validation videos.
    labels: 0 real, 1 fake.
    method: 'platt', or 'temperature' with an intercept of 0.
    smooth: Platt's targets (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and
      0; without, the fit diverges where the classes do not overlap.

  Raises:
    ValueError: If a class is missing, the method is unknown, or the detector
      ranks validation no better than chance.
  """
  if method not in METHODS:
    raise ValueError(f'method is {method!r}; choose one of {METHODS}')
  reason = metrics.undefined('auc', labels, logits)
  if reason:
    raise ValueError(f'nothing to calibrate on: {reason}')
  num_fake = int(labels.sum())
  num_real = len(labels) - num_fake
  high, low = 1.0, 0.0
  if smooth:
    high, low = (num_fake + 1) / (num_fake + 2), 1 / (num_real + 2)
  target = np.where(labels == 1, high, low)
  # Scaled, so that one step size suits logits of any size.
  scale = float(np.abs(logits).max()) or 1.0
  inputs = np.stack([logits / scale, np.ones(len(logits))])
  if method == 'temperature':
    inputs = inputs[:1]
  values = np.zeros(len(inputs))
  for _ in range(200):
    step = _newton_step(values, inputs, target)
    values = values - step
    if np.abs(step).max() < 1e-12 * (1 + np.abs(values).max()):
      break
  slope = float(values[0]) / scale
  if slope <= 0:
    raise ValueError(
      f'the slope would be {slope:.3g}: on these videos a higher logit does not'
      ' mean fake; train longer, or look at the labels'
    )
  return slope, float(values[1]) if method == 'platt' else 0.0


def _newton_step(
  values: np.ndarray, inputs: np.ndarray, target: np.ndarray
) -> np.ndarray:
  """A Newton step of the cross entropy, halved until it descends."""
  logits = values @ inputs
  score = metrics.sigmoid(logits)
  gradient = inputs @ (score - target)
  hessian = (inputs * (score * (1 - score))) @ inputs.T
  # Far out the sigmoid is flat; the ridge is below rounding elsewhere.
  hessian += 1e-12 * np.eye(len(values)) * len(target)
  step = np.linalg.solve(hessian, gradient)
  before = _cross_entropy(logits, target)
  for _ in range(40):
    if _cross_entropy((values - step) @ inputs, target) <= before:
      break
    step = step / 2
  return step


def _cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
  return float(np.sum(np.logaddexp(0, logits) - target * logits))


def calibrate(
  logits: Float[np.ndarray, 'n'],
  labels: Int[np.ndarray, 'n'],
  *,
  method: str,
  clusters: Int[np.ndarray, 'n'],
  frame_rule: str,
  weights: str,
  fitted_on: str,
) -> Calibration:
  """Makes the calibration of one detector for one frame rule.

  Args:
    logits: Mean logits of validation videos.
    labels: 0 real, 1 fake.
    method: As in `fit`.
    clusters: Equal numbers mark videos that stay in one fold.
    frame_rule: As in `Calibration`.
    weights: Likewise.
    fitted_on: Likewise.

  Raises:
    ValueError: As `fit`, or if a class has fewer than ten videos.
  """
  num_fake = int(labels.sum())
  num_real = len(labels) - num_fake
  if min(num_real, num_fake) < _LEAST:
    raise ValueError(
      f'{fitted_on}: {num_real} real and {num_fake} fake validation videos'
      f' with a score; a calibration needs {_LEAST} of each'
    )
  slope, intercept = fit(logits, labels, method)
  before = metrics.sigmoid(logits)
  unseen = _cross_fitted(logits, labels, method, clusters)
  scores = metrics.sigmoid(slope * logits + intercept)
  real, fake = scores[labels == 0], scores[labels == 1]
  ends = (
    float(np.quantile(real, 1 - BAND_ERROR, method='higher')),
    float(np.quantile(fake, BAND_ERROR)),
  )
  return Calibration(
    method=method,
    slope=slope,
    intercept=intercept,
    threshold=best_threshold(labels, scores),
    at_fpr={f'{100 * fpr:g}': threshold_at(real, fpr) for fpr in FPRS},
    uncertain=(min(ends), max(ends)),
    frame_rule=frame_rule,
    weights=weights,
    fitted_on=fitted_on,
    num_real=num_real,
    num_fake=num_fake,
    ece_before=metrics.single('ece', labels, before),
    ece_after=metrics.single('ece', labels, unseen),
    brier_before=metrics.single('brier', labels, before),
    brier_after=metrics.single('brier', labels, unseen),
  )


def best_threshold(
  labels: Int[np.ndarray, 'n'], scores: Float[np.ndarray, 'n']
) -> float:
  """The middle of the gap of scores where balanced accuracy is highest."""
  curve = metrics.curve(labels, scores)
  gain = curve.tpr[0, 1:-1] - curve.fpr[0, 1:-1]
  if not len(gain):
    return float(curve.scores[0])
  best = int(np.argmax(gain))
  return float((curve.scores[best] + curve.scores[best + 1]) / 2)


def threshold_at(
  real_scores: Float[np.ndarray, 'n'], fpr: float
) -> float | None:
  """The lowest threshold that at most a share of the real videos reach.

  None where one video alone is more than that share: nothing below the highest
  score would be shown by them.
  """
  allowed = math.floor(fpr * len(real_scores) + 1e-9)
  if not allowed:
    return None
  falling = np.sort(real_scores)[::-1]
  # The first that is not allowed any more stays below.
  return float(np.nextafter(falling[min(allowed, len(falling) - 1)], 2.0))


def _cross_fitted(
  logits: np.ndarray, labels: np.ndarray, method: str, clusters: np.ndarray
) -> np.ndarray:
  """Probabilities of each fold by a fit on the others."""
  ids = np.unique(clusters)
  order = np.random.default_rng(0).permutation(len(ids))
  fold_of = dict(zip(ids[order].tolist(), np.arange(len(ids)), strict=True))
  fold = np.array([fold_of[c] for c in clusters.tolist()]) % _FOLDS
  result = np.empty(len(logits))
  for i in range(_FOLDS):
    own, others = fold == i, fold != i
    if own.any():
      slope, intercept = fit(logits[others], labels[others], method)
      result[own] = metrics.sigmoid(slope * logits[own] + intercept)
  return result


def calibrate_run(
  workdir: str | os.PathLike[str],
  sources: Sequence[str],
  method: str = 'platt',
) -> list[Calibration]:
  """Calibrates a run on saved scores of validation: `--mode=calibrate`.

  Args:
    workdir: The run; calibration.json and a reliability diagram go there.
    sources: Score files of `evaluate`, as in `score_file.read_all`; those of
      one frame rule are taken together.
    method: As in `fit`.

  Raises:
    ValueError: If scores are not of validation, of several detectors, or too
      few.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(f'{workdir}: no run here')
  by_rule: dict[str, list[score_file.SavedScores]] = {}
  for scores in score_file.read_all(sources):
    protocol = scores.settings.get('protocol', {})
    if not protocol.get('weights') or not any(scores.clip_logits):
      raise ValueError(
        f'{scores.system}: no clip logits with their protocol; calibrate on'
        ' scores.csv of --mode=evaluate, its metrics.json beside it'
      )
    if protocol['split'] != 'val':
      raise ValueError(
        f'{scores.dataset}: calibrate on validation alone (split val), or the'
        ' figures of a test set would be those of what was fitted to it'
      )
    by_rule.setdefault(protocol['frame_rule'], []).append(scores)
  return [
    _calibrate_rule(workdir, rule, parts, method)
    for rule, parts in by_rule.items()
  ]


def _calibrate_rule(
  workdir: pathlib.Path,
  frame_rule: str,
  parts: list[score_file.SavedScores],
  method: str,
) -> Calibration:
  weights = {scores.settings['protocol']['weights'] for scores in parts}
  if len(weights) > 1:
    raise ValueError(
      f'scores of several detectors (weights {", ".join(sorted(weights))});'
      ' a calibration is of one'
    )
  samples = []
  for scores in parts:
    kept = scores.select(scores.scored)
    logits = np.array([np.mean(np.sort(c)) for c in kept.clip_logits], float)
    samples.append(bootstrap.Sample(kept.labels, logits, kept.clusters()))
  pool, _ = bootstrap.pooled(samples)
  assert pool.clusters is not None
  made = calibrate(
    pool.scores,
    pool.labels,
    method=method,
    clusters=pool.clusters,
    frame_rule=frame_rule,
    weights=weights.pop(),
    fitted_on=', '.join(scores.dataset for scores in parts),
  )
  save(workdir, made)
  diagram = plots.reliability(
    {
      'before': metrics.reliability(pool.labels, metrics.sigmoid(pool.scores)),
      'after': metrics.reliability(pool.labels, made.probability(pool.scores)),
    }
  )
  (workdir / f'calibration-{frame_rule}.svg').write_text(diagram + '\n')
  return made


def text(made: Calibration) -> str:
  """Says what a calibration found, for a terminal."""
  lines = [
    made.said(),
    f'  P(fake) = sigmoid({made.slope:.4g} * mean logit {made.intercept:+.4g})',
    f'  ECE {made.ece_before:.4f} before, {made.ece_after:.4f} after; Brier'
    f' {made.brier_before:.4f} before, {made.brier_after:.4f} after (five'
    ' folds, each scored by a fit on the others)',
    f'  threshold {made.threshold:.4f}: best balanced accuracy',
  ]
  lines += [
    f'  threshold {at:.4f}: at most {fpr} % of the real videos called fake'
    if at is not None
    else f'  no threshold for {fpr} % of the real videos: {made.num_real} are'
    ' too few to show it'
    for fpr, at in made.at_fpr.items()
  ]
  return '\n'.join(lines)


def save(workdir: pathlib.Path, made: Calibration) -> None:
  """Adds a calibration to those of the run, in place of an older one."""
  path = workdir / _FILE
  kept = [
    c
    for c in _read(path)
    if (c.weights, c.frame_rule) != (made.weights, made.frame_rule)
  ]
  text = json.dumps(
    [dataclasses.asdict(c) for c in [*kept, made]], indent=2, allow_nan=False
  )
  partial = path.with_name(f'{_FILE}.partial')
  partial.write_text(text + '\n')
  partial.replace(path)


def load(
  workdir: str | os.PathLike[str], weights: str, frame_rule: str
) -> Calibration | None:
  """Reads the calibration of a run's weights for a frame rule, if it has one.

  Raises:
    ValueError: If the file is damaged.
  """
  for made in _read(pathlib.Path(workdir) / _FILE):
    if (made.weights, made.frame_rule) == (weights, frame_rule):
      return made
  return None


def _read(path: pathlib.Path) -> list[Calibration]:
  if not path.exists():
    return []
  try:
    return [
      Calibration(**entry | {'uncertain': tuple(entry['uncertain'])})
      for entry in json.loads(path.read_text())
    ]
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'{path}: damaged ({error}); remove it and calibrate again'
    ) from error
