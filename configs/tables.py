"""Test sets of a table of the field, for a detector that is trained already.

  python -m stormer_jax.main --mode=evaluate --config=configs/tables.py:TABLE \
    --workdir=RUN --data_root=DATA [--config.eval.frame_rule=dense]

TABLE is

- `leave_one_method_out`: each method of FaceForensics++ by itself, at all three
  compressions. A detector that is trained on self-blended videos has seen none
  of them, so that every row is of a method that was left out.
- `df40`: each method of DF40 by itself (Yan et al., NeurIPS 2024), its fakes of
  FaceForensics++ and Celeb-DF against the real videos of those, which DF40 does
  not hold itself.

The rows are those of the report's tables by method; its first line of figures
names the worst. Only `eval` is read of these configurations.
"""

from ml_collections import config_dict

from configs import base

TABLES = ('leave_one_method_out', 'df40')


def get_config(table: str = 'df40') -> config_dict.ConfigDict:
  """Returns the base run with the test sets of a table."""
  if table not in TABLES:
    raise ValueError(f'configs/tables.py:{table}: it is one of {TABLES}')
  config = base.get_config()
  if table == 'leave_one_method_out':
    config.eval.datasets = ('ffpp_c0:test', 'ffpp_c23:test', 'ffpp_c40:test')
  else:
    config.eval.datasets = (
      'ffpp_c23:test',
      'celebdf_v2:test',
      'df40_ff:test',
      'df40_cdf:test',
    )
    config.eval.reals = ('df40_ff:ffpp_c23', 'df40_cdf:celebdf_v2')
  return config
