"""The three-task loss (paper section 3.4, METHOD 7).

Enters: the detector's outputs and a batch's labels and targets. Leaves: the
weighted sum and its terms, float32 scalars, means over all clips.
"""

from collections.abc import Mapping

from jaxtyping import Array, Float
import optax

from stormer_jax import model

TERMS = ('classification', 'spatial', 'temporal', 'total')


def classification_loss(
  logits: Float[Array, ' b'], label: Float[Array, ' b'], temperature: float
) -> Float[Array, '']:
  """Cross-entropy of softened logits with labels, 0 real and 1 fake."""
  return optax.sigmoid_binary_cross_entropy(logits / temperature, label).mean()


def spatial_loss(
  vulnerability_map: Float[Array, 'b t gh gw'],
  target: Float[Array, 'b t gh gw'],
  kept: Float[Array, 'b t gh gw'],
) -> Float[Array, '']:
  """Half the squared error over all cells; those cut out count as zero."""
  error = kept * (vulnerability_map - target)
  return 0.5 * (error**2).mean()


def temporal_loss(
  soft_label_logits: Float[Array, 'b t'], soft_label: Float[Array, 'b t']
) -> Float[Array, '']:
  """Cross-entropy of each frame's logit with its soft label in [0, 1]."""
  return optax.sigmoid_binary_cross_entropy(
    soft_label_logits, soft_label
  ).mean()


def three_task_loss(
  outputs: model.Outputs,
  batch: Mapping[str, Array],
  *,
  classification_weight: float,
  spatial_weight: float,
  temporal_weight: float,
  temperature: float,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Sums the weighted losses of the three heads.

  Args:
    outputs: Of the detector.
    batch: With label [b], vulnerability_map and kept [b t gh gw], soft_label
      [b t]; other entries are not read.
    classification_weight: Weight of the clips' labels.
    spatial_weight: Weight of the vulnerability map.
    temporal_weight: Weight of the soft labels.
    temperature: Divides the classification logits.

  Returns:
    total: The sum.
    terms: The summands by name, weights included, and `total` (see `TERMS`).
  """
  terms = {
    'classification': classification_weight
    * classification_loss(outputs.logits, batch['label'], temperature),
    'spatial': spatial_weight
    * spatial_loss(
      outputs.vulnerability_map, batch['vulnerability_map'], batch['kept']
    ),
    'temporal': temporal_weight
    * temporal_loss(outputs.soft_label_logits, batch['soft_label']),
  }
  total = terms['classification'] + terms['spatial'] + terms['temporal']
  return total, {**terms, 'total': total}
