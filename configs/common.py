"""What the stages share: model sizes, data and bookkeeping.

The motion model must be the same in `vae`, `ldm` and `ldm_coordinated`, so its sizes stand here once:
- `tiny`: tests; seconds on a CPU.
- `default`: our recipe; an hour on two CPU cores.
- `large`: the same recipe for one GPU and a day: a finer motion grid, a U-Net of twenty times the size.
- `paper`: Li et al. 2024; accelerators.
- `inpainting_512`: the paper's larger model for 512x288, fine-tuned from an inpainting latent-diffusion model.

Every config has `init`: the work folders, or exported weights files, of the stages it builds on; and under its own
name, to start from (fine-tuning), such as `--config.init.renderer=runs/renderer.safetensors`.
"""

import ml_collections

SIZES = ("tiny", "default", "large", "paper", "inpainting_512")
# Photo pixels per pixel of the motion grid; a data set is built for one of them.
MOTION_STRIDES = dict(tiny=2, default=2, large=1, paper=1, inpainting_512=1)
IMAGE_SIZES = dict(tiny=(32, 48), default=(160, 256), large=(160, 256), paper=(160, 256), inpainting_512=(288, 512))


def check_size(size: str) -> str:
  """Returns `size`, or `default` when it is empty; anything unknown is an error."""
  size = size or "default"
  if size not in SIZES:
    raise ValueError(f"unknown size {size!r}; use one of {', '.join(SIZES)}")
  return size


def choose(size: str, default, paper, *, large=None):
  """What fits a size: `tiny` is like `default`, `inpainting_512` like `paper`, `large` like `default` unless given."""
  if size == "large" and large is not None:
    return large
  return paper if size in ("paper", "inpainting_512") else default


def motion_model(size: str, *, coordination: str) -> ml_collections.ConfigDict:
  """Sizes of the motion model: codec, image encoder, U-Net, and the grids that they work on."""
  codec = dict(kind="paper", normalization="frequency", latent_channels=4, num_blocks=1, multipliers=(1, 2, 4))
  codec |= dict(dtype="float32")
  encoder = dict(kind="condition", trunks=())
  unet = dict(kind="unet", coordination=coordination, dtype="float32")
  if size == "tiny":
    codec |= dict(channels=32, groups=4, multipliers=(1, 2))
    encoder |= dict(channels=8, hidden=16)
    unet |= dict(channels=32, multipliers=(1, 2), num_blocks=1, attention_levels=(1,), head_channels=16, groups=8)
  elif fits_photo(size):
    # Plain averages over 4x4 cells lose less than a small auto-encoder, and need no training
    # (docs/experiments/embedded-model.md).
    codec = dict(kind="photo", factor=4)
    # Both say more than either, and of layers of the second these two (docs/experiments/embedded-model.md).
    trunks = ("efficientnet_lite0", "dinov2_vits14")
    encoder |= dict(trunks=trunks, trunk_fields=dict(dinov2_vits14=dict(layers=(9, 12), long_side=252)))
    encoder |= dict(channels=48, hidden=96)
    # Twice as wide, it learns less in so few steps (docs/experiments/embedded-model.md).
    unet |= dict(channels=32, multipliers=(1, 2, 4), num_blocks=1, attention_levels=(1, 2), head_channels=32, groups=16)
    if size == "large":
      encoder |= dict(channels=96, hidden=192)
      unet |= dict(channels=128, num_blocks=2, groups=32, dtype="bfloat16", remat=False)
  else:
    codec |= dict(channels=128, groups=32, num_blocks=2)
    encoder |= dict(channels=16, hidden=128)
    unet |= dict(channels=128, multipliers=(1, 4, 8), num_blocks=2, attention_levels=(1, 2), head_channels=32)
    unet |= dict(groups=32, dtype="bfloat16", remat=False)
  if size == "inpainting_512":
    # Stable Diffusion's auto-encoder, by a factor of 8, and U-Net, whose text becomes a learned constant.
    codec |= dict(multipliers=(1, 2, 4, 4))
    unet |= dict(channels=320, multipliers=(1, 2, 4, 4), attention_levels=(0, 1, 2), remat=True)
    unet |= dict(attention="transformer", num_heads=8, context_tokens=77, context_channels=768)
  return ml_collections.ConfigDict(
    dict(
      image_size=IMAGE_SIZES[size],
      motion_stride=MOTION_STRIDES[size],
      num_bands=16,
      num_frames=150,
      fps=30.0,
      volume=False,
      codec=codec,
      encoder=encoder,
      denoiser=unet,
    )
  )


def fits_photo(size: str) -> bool:
  """Whether a size normalises by what the photo says (`gid_jax.training.swing`): ours do, the paper's, tiny don't."""
  return size in ("default", "large")


def schedule(size: str) -> ml_collections.ConfigDict:
  """The noise schedule: latent diffusion's square-linear betas; the paper predicts the noise, smaller models v."""
  # The pre-trained inpainting model knows these noise levels.
  beta_start, beta_end = (0.00085, 0.012) if size == "inpainting_512" else (0.0015, 0.0195)
  prediction = choose(size, "v", "epsilon")
  # Ours know the spectrum of measured latents over a photo (`reach` and `slope` of gid_jax/diffusion/schedule.py, from
  # docs/experiments/embedded-model.md); `reach` counts latent pixels, which a finer grid has more of.
  reach, slope = (80.0 / MOTION_STRIDES[size], 1.2) if fits_photo(size) else (0.0, 0.0)
  return ml_collections.ConfigDict(
    dict(
      num_steps=1000,
      beta_start=beta_start,
      beta_end=beta_end,
      prediction=prediction,
      reach=reach,
      slope=slope,
    )
  )


def sampling(size: str) -> ml_collections.ConfigDict:
  """How to sample a trained model by default; travels with the exported weights."""
  if choose(size, False, True):
    steps = dict(steps=250, guidance=1.75, spacing="leading", last=0.0, eta=0.0, order=1)
    loop = dict(steps=500, weight=200.0, recurrences=2)
  else:
    # Guidance would make motion stronger than it was in training, and cost as much again. What noise still hides at the
    # last step is how neighbouring places differ; its mean keeps stems straight (docs/experiments/embedded-model.md).
    steps = dict(steps=6, guidance=0.0, spacing="logsnr", last=0.15 if fits_photo(size) else 0.02, eta=0.0, order=2)
    loop = dict(steps=12, weight=2.0, recurrences=1)
  # Ours halve what chance adds to how far places swing; how far they should, the photo says
  # (docs/experiments/embedded-model.md).
  return ml_collections.ConfigDict(steps | dict(loop=loop, evenness=0.5 if fits_photo(size) else 0.0))


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
      # Microbatches that a batch is worked on in, one after the other, where memory is short.
      accumulation_steps=1,
      ema_decay=choose(size, 0.999, 0.9999, large=0.9999),
      data=dict(
        directory="data/windows",
        num_bands=16,
        motion_stride=MOTION_STRIDES[size],
        # The strength of every window, which codecs of kind "photo" want.
        strength=fits_photo(size) and stage != "renderer",
        # Shares of real clips, published loops and simulated scenes; none takes all windows alike. Live scenes are
        # simulated while training; with nothing else, `directory=""` needs no data on disk. Ours leave simulated scenes
        # out, whose backgrounds are the photos that a fitted swing takes for something at rest.
        sources=dict(real=0.6, loop=0.4, synthetic=0.0, live=0.0) if fits_photo(size) else dict(live=0.0),
        # Folders of photos and cut-outs to make live scenes of; "" for painted ones.
        live=dict(
          height=IMAGE_SIZES[size][0],
          width=IMAGE_SIZES[size][1],
          num_frames=150,
          fps=30.0,
          backgrounds="",
          sprites="",
        ),
        # Flip probability, largest rotation, enlargement, change of colours; in ours also the moment that a window
        # starts at and whether it runs backwards. What is left out is not done.
        augmentation=dict(flip=0.5, max_degrees=5.0, zoom=(1.0, 1.5), jitter=0.2)
        | (dict(shift=1.0, reverse=0.5) if fits_photo(size) else {}),
        bands_per_example=1,
        # (h, w) to cut out of every window; nothing for whole windows.
        crop=ml_collections.config_dict.placeholder(tuple),
        # Of stages ldm and ldm_coordinated: encode so many augmented draws of every window beforehand and train on
        # them; 0 encodes new ones at every step.
        latent_draws=0,
        num_threads=2,
        # Processes that make examples, where threads are not enough for the devices; 0 for threads alone.
        num_workers=0,
      ),
      optimizer=dict(
        num_steps=4 if tiny else num_steps,
        learning_rate=learning_rate,
        warmup_steps=1 if tiny else min(1000, num_steps // 20),
        clip_norm=1.0,
        adam_b2=0.99,
        weight_decay=choose(size, 0.01, 0.0),
      ),
      mesh=dict(data=-1, fsdp=1),
      log_every=1 if tiny else 20,
      eval_every=2 if tiny else 500,
      num_eval_batches=1 if tiny else 8,
      # Whether evaluations also draw some of what the model predicts; see `gid_jax.training.validation`.
      eval_pictures=True,
      num_init_batches=1 if tiny else 16,
      save_every=2 if tiny else 250,
      # Checkpoints kept: the newest, and beside them those with the lowest validation loss.
      keep_checkpoints=3,
      keep_best=1,
      tensorboard=False,
      # Steps to record for a profiler, after the first two; 0 for none.
      profile_steps=0,
    )
  )


def link_data(config: ml_collections.ConfigDict) -> None:
  """Makes the data follow the motion model: its bands, grid, frames and rate; one override changes both."""
  for name in ("num_bands", "motion_stride"):
    config.data[name] = config.model.get_ref(name)
  for name in ("num_frames", "fps"):
    config.data.live[name] = config.model.get_ref(name)
