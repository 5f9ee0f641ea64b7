"""Made-up weights of EfficientNet-Lite0, whole, under the names of others."""

import numpy as np

# Blocks: kernel, channels in, hidden, out; as their (stage, block) in timm.
_STAGES = (
  (1, 3, 32, 1, 16),
  (2, 3, 16, 6, 24),
  (2, 5, 24, 6, 40),
  (3, 3, 40, 6, 80),
  (3, 5, 80, 6, 112),
  (4, 5, 112, 6, 192),
  (1, 3, 192, 6, 320),
)


def make(names: str = 'package') -> dict[str, np.ndarray]:
  """All tensors but the classifier's, float32 and of plausible size.

  Args:
    names: 'package' for efficientnet-lite-pytorch, 'timm' for
      tf_efficientnet_lite0.
  """
  random = np.random.RandomState(0)  # whose stream is frozen
  timm = names == 'timm'
  tensors: dict[str, np.ndarray] = {}

  def layer(conv, norm, shape):
    deviation = (2 / np.prod(shape[1:])) ** 0.5
    tensors[f'{conv}.weight'] = deviation * random.standard_normal(shape)
    draws = random.uniform(-1, 1, (4, shape[0]))
    tensors[f'{norm}.weight'] = 1 + 0.3 * draws[0]
    tensors[f'{norm}.bias'] = 0.5 + 0.5 * draws[1]
    tensors[f'{norm}.running_mean'] = 0.2 * draws[2]
    tensors[f'{norm}.running_var'] = 1 + 0.5 * draws[3]
    tensors[f'{norm}.num_batches_tracked'] = np.array(0)

  def block(prefix, kernel, channels, hidden, out):
    layers = [
      ((hidden, channels, 1, 1), '_expand_conv', 'conv_pw'),
      ((hidden, 1, kernel, kernel), '_depthwise_conv', 'conv_dw'),
      ((out, hidden, 1, 1), '_project_conv', 'conv_pwl'),
    ]
    if hidden == channels:
      layers = [layers[1], (layers[2][0], '_project_conv', 'conv_pw')]
    for i, (shape, name, timms) in enumerate(layers):
      number = i + 3 - len(layers)
      if timm:
        layer(f'{prefix}.{timms}', f'{prefix}.bn{i + 1}', shape)
      else:
        layer(f'{prefix}.{name}', f'{prefix}._bn{number}', shape)

  first = ('conv_stem', 'bn1') if timm else ('_conv_stem', '_bn0')
  layer(*first, (32, 3, 3, 3))
  number = 0
  for stage, (repeats, kernel, channels, expansion, out) in enumerate(_STAGES):
    for i in range(repeats):
      prefix = f'blocks.{stage}.{i}' if timm else f'_blocks.{number}'
      block(prefix, kernel, channels, channels * expansion, out)
      channels, number = out, number + 1
  last = ('conv_head', 'bn2') if timm else ('_conv_head', '_bn1')
  layer(*last, (1280, 320, 1, 1))
  return {
    name: x.astype(np.int64 if name.endswith('tracked') else np.float32)
    for name, x in tensors.items()
  }
