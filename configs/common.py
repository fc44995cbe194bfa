"""What the stages share: model sizes, data and bookkeeping.

The motion model must be the same in `vae`, `ldm` and `ldm_coordinated`, so its sizes stand here once:
- `tiny`: tests; seconds on a CPU.
- `default`: the embedded weights; hours on two CPU cores.
- `paper`: Li et al. 2024; accelerators.

Every config has `init`: the work folders, or exported weights files, of the stages it builds on; and under its own
name, to start from (fine-tuning), such as `--config.init.renderer=gid_jax/pretrained/renderer.safetensors`.
"""

import ml_collections

SIZES = ("tiny", "default", "paper")
# Photo pixels per pixel of the motion grid; a data set is built for one of them.
MOTION_STRIDES = dict(tiny=2, default=2, paper=1)


def check_size(size: str) -> str:
  """Returns `size`, or `default` when it is empty; anything unknown is an error."""
  size = size or "default"
  if size not in SIZES:
    raise ValueError(f"unknown size {size!r}; use one of {', '.join(SIZES)}")
  return size


def motion_model(size: str, *, frequency_attention: bool) -> ml_collections.ConfigDict:
  """Sizes of the motion model: auto-encoder, image encoder, U-Net, and the grids that they work on."""
  vae = dict(latent_channels=4, slice_channels=4, num_blocks=1, multipliers=(1, 2, 4))
  unet = dict(out_channels=4, frequency_attention=frequency_attention, dtype="float32")
  if size == "tiny":
    image_size = (32, 48)
    vae |= dict(channels=8, groups=4)
    encoder = dict(kind="resnet", channels=4, hidden=8)
    unet |= dict(channels=8, multipliers=(1, 2), num_blocks=1, attention_levels=(1,), head_channels=8, groups=4)
  elif size == "default":
    image_size = (160, 256)
    vae |= dict(channels=24, groups=8)
    encoder = dict(kind="efficientnet_lite0", channels=48, hidden=96)
    unet |= dict(channels=64, multipliers=(1, 2, 4), num_blocks=1, attention_levels=(1, 2), head_channels=32, groups=16)
  else:
    image_size = (160, 256)
    vae |= dict(channels=128, groups=32, num_blocks=2)
    encoder = dict(kind="resnet", channels=16, hidden=128)
    unet |= dict(channels=128, multipliers=(1, 4, 8), num_blocks=2, attention_levels=(1, 2), head_channels=32)
    unet |= dict(groups=32, dtype="bfloat16")
  return ml_collections.ConfigDict(
    dict(
      image_size=image_size,
      motion_stride=MOTION_STRIDES[size],
      num_bands=16,
      num_frames=150,
      fps=30.0,
      vae=vae,
      encoder=encoder,
      unet=unet,
    )
  )


def schedule(size: str) -> ml_collections.ConfigDict:
  """The noise schedule: the paper's square-linear betas; the paper predicts the noise, the smaller models v."""
  return ml_collections.ConfigDict(
    dict(num_steps=1000, beta_start=0.0015, beta_end=0.0195, prediction="epsilon" if size == "paper" else "v")
  )


def sampling(size: str) -> ml_collections.ConfigDict:
  """How to sample a trained model by default; travels with the exported weights."""
  if size == "paper":
    return ml_collections.ConfigDict(dict(steps=250, guidance=1.75, spacing="leading"))
  return ml_collections.ConfigDict(dict(steps=12, guidance=1.0, spacing="trailing"))


def training(
  stage: str, size: str, *, num_steps: int, batch_size: int, learning_rate: float
) -> ml_collections.ConfigDict:
  """Data, optimiser and bookkeeping of a stage; `tiny` is cut down to a few steps."""
  tiny = size == "tiny"
  return ml_collections.ConfigDict(
    dict(
      stage=stage,
      size=size,
      seed=0,
      batch_size=2 if tiny else batch_size,
      ema_decay=0.9999 if size == "paper" else 0.999,
      data=dict(
        directory="data/windows",
        num_bands=16,
        motion_stride=MOTION_STRIDES[size],
        # Shares of real clips, published loops and simulated scenes; none takes all windows alike. Live scenes are
        # simulated while training; with nothing else, `directory=""` needs no data on disk.
        sources=dict(real=0.4, loop=0.3, synthetic=0.3, live=0.0) if size == "default" else dict(live=0.0),
        # Folders of photos and cut-outs to make live scenes of; "" for painted ones.
        live=dict(
          height=32 if tiny else 160, width=48 if tiny else 256, num_frames=150, fps=30.0, backgrounds="", sprites=""
        ),
        # Flip probability, largest rotation, enlargement, and change of colours; what is left out is not done.
        augmentation=dict(flip=0.5, max_degrees=5.0, zoom=(1.0, 1.5), jitter=0.2),
        bands_per_example=1,
        crop=None,
        num_threads=2,
      ),
      optimizer=dict(
        num_steps=4 if tiny else num_steps,
        learning_rate=learning_rate,
        warmup_steps=1 if tiny else min(1000, num_steps // 20),
        clip_norm=1.0,
        adam_b2=0.99,
        weight_decay=0.0 if size == "paper" else 0.01,
      ),
      mesh=dict(data=-1, fsdp=1),
      log_every=1 if tiny else 20,
      eval_every=2 if tiny else 500,
      num_eval_batches=1 if tiny else 8,
      num_init_batches=1 if tiny else 16,
      save_every=2 if tiny else 250,
      keep_checkpoints=3,
      tensorboard=False,
    )
  )
