"""What each choice of the method is worth: the headline run, one change each.

  python -m stormer_jax.main --mode=sweep --config=configs/ablations.py \
    --data_root=DATA --workdir=RUNS --config.pretrained_vit=mae_vit_base.pth
  python -m stormer_jax.main --mode=report --runs='RUNS/*'

`--list` numbers the entries, `--entry=3` runs one of them. Every entry is
scored on the held-out real videos beside the pseudo-fakes of the base, so that
nothing is chosen on a test set; name a test set in --config.eval.datasets, with
--config.eval.pseudo_fakes=False, when the choice is made. An entry that needs
more memory than the base has it from --config.train.accumulate.
"""

from typing import Any

from ml_collections import config_dict

from configs import ffpp_c23

SEEDS = (0, 1, 2)  # Choice: the fewest that show a spread


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the headline run, scored on its validation videos."""
  config = ffpp_c23.get_config(semantics)
  config.pretrained_vit = 'mae_vit_base.pth'
  config.eval.datasets = ('ffpp_c23:val',)
  config.eval.pseudo_fakes = True
  return config


def get_sweep() -> list[tuple[str, dict[str, Any], tuple[int, ...]]]:
  """Returns (name, what differs from `get_config`, seeds) of every run."""
  entries: dict[str, dict[str, Any]] = {
    'base': {},
    # The heads, by the weight of their term (paper, Table 5).
    'no_map_head': {'loss.spatial_weight': 0.0},
    'no_soft_label_head': {'loss.temporal_weight': 0.0},
    'classification_alone': {
      'loss.spatial_weight': 0.0,
      'loss.temporal_weight': 0.0,
    },
    # Targets.
    'boundary_wrapped': {'synthesis.boundary_change': 'uint8_wrap'},  # D1
    'target_max_normalized': {'synthesis.target_kind': 'max_normalized'},
    'target_gaussian': {'synthesis.target_kind': 'gaussian'},
    'target_by_area': {'synthesis.target_grid': 'area'},  # D14
    'target_scaled_by_ratio': {'synthesis.scale_target_by_ratio': True},  # D11
    'soft_label_constant': {'synthesis.soft_label': 'constant'},
    # Cutout; 0.5 in the base.
    'cutout_off': {'synthesis.cutout_prob': 0.0},
    'cutout_0.25': {'synthesis.cutout_prob': 0.25},
    'cutout_0.75': {'synthesis.cutout_prob': 0.75},
    'cutout_always': {'synthesis.cutout_prob': 1.0},
    # Tokens. The last is the released code's three silent defects together.
    'token_of_first_clip': {'model.temporal_token': 'first_clip'},  # D4
    'map_scrambled': {'model.map_layout': 'scrambled'},  # D2
    'defects_of_released_code': {
      'synthesis.boundary_change': 'uint8_wrap',
      'model.temporal_token': 'first_clip',
      'model.map_layout': 'scrambled',
    },
    # Attention of a block; divided in the base.
    'attention_joint': {'model.space_time': 'joint'},
    'attention_in_space': {'model.space_time': 'space'},
    # Frames of a clip; 4 in the base. One frame does not change, so its map is
    # flat; plain SBI (Shiohara and Yamasaki 2022) has neither map, soft labels
    # nor cutout, and scales nothing in time.
    'frames_1': {'model.num_frames': 1},
    'frames_1_plain_sbi': {
      'model.num_frames': 1,
      'loss.spatial_weight': 0.0,
      'loss.temporal_weight': 0.0,
      'synthesis.cutout_prob': 0.0,
    },
    'frames_2': {'model.num_frames': 2},
    'frames_8': {'model.num_frames': 8},
    'frames_16': {'model.num_frames': 16},
    # Self-blended videos.
    'parameters_per_frame': {'synthesis.temporal_jitter': 1.0},
    'both_blurred': {'synthesis.post_blur_prob': 0.5},  # not in the paper
    'landmarks_not_smoothed': {'synthesis.smooth_landmarks': False},
    'margin_none': {'synthesis.margin': (0, 0)},
    'margin_15': {'synthesis.margin': (15, 15)},  # that of most test sets
    # Optimisation. Without SAM a step is half the work. 0.05 is the decay that
    # MAE fine-tunes with (He et al. 2022, Table 9).
    'adam': {'optimizer.rho': 0.0},
    'adamw': {
      'optimizer.rho': 0.0,
      'optimizer.decoupled_weight_decay': True,
      'optimizer.weight_decay': 0.05,
    },
    'batch_stats_of_both_passes': {'optimizer.batch_stats': 'both_passes'},
    'ema_0.999': {'optimizer.ema_decay': 0.999},
    'from_scratch': {'pretrained_vit': ''},
    'nothing_frozen': {'optimizer.freeze_epochs': 0},
    'drop_path_0': {'model.drop_path': 0.0},
    'drop_path_0.1': {'model.drop_path': 0.1},
    'temperature_1': {'loss.temperature': 1.0},
    'temperature_4': {'loss.temperature': 4.0},
  }
  return [(name, fields, SEEDS) for name, fields in entries.items()]
