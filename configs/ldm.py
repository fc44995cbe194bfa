"""Stage 1 of the motion model: single frequency slices (section 4.2).

  python -m gid_jax.train --config=configs/ldm.py:default --workdir=runs/ldm \
    --config.data.directory=data/windows --config.init.swing=runs/swing.safetensors

Needs: windows; at `default` and `large` the swing, what tells from a photo how far each of its places moves, that
`python -m gid_jax.training.swing` fits to the windows; at the other sizes the work folder of a trained `vae`
(`--config.init.vae=runs/vae`). `default` and `large` see photos through EfficientNet-Lite0 and DINOv2's ViT-S/14, which
they take from the embedded weights, or from files of PyTorch's weights,
`--config.init.encoder=EFFICIENTNET.safetensors,DINOV2.safetensors` (nothing before or after the comma for the embedded
ones); `paper` trains a ResNet instead.

`inpainting_512` is for photos of 512x288. It starts from an inpainting latent-diffusion model, such as Stable
Diffusion's, whose safetensors file is named by `--config.init.unet=FILE.safetensors` (`gid_jax.weights.convert` says
what becomes of its nine input channels and of its text); `--config.init.unet=` starts from nothing.
"""

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "ldm",
    size,
    # The paper does not say how long its larger model was fine-tuned.
    num_steps=200_000 if size == "inpainting_512" else common.choose(size, 4_000, 750_000, large=300_000),
    batch_size=common.choose(size, 8, 96, large=64),
    learning_rate=common.choose(size, 4e-4, 5e-5, large=2e-4),
  )
  config.model = common.motion_model(size, coordination="")
  config.schedule = common.schedule(size)
  if size == "default":
    # A schedule that knows the spectrum (`reach`) leaves the network only what differs from it, too faint to learn from
    # nothing in so few steps. Stage 2 starts from this stage and does.
    config.schedule.reach = 0.0
  config.sampling = common.sampling(size)
  config.condition_drop = 0.1
  config.loss = dict(weights=dict(denoising=1.0))
  config.data.bands_per_example = common.choose(size, 2, 1)
  common.link_data(config)
  ours = common.fits_photo(size)
  config.init = dict(
    vae="" if ours else "runs/vae", swing="runs/swing.safetensors" if ours else "", encoder="", unet="", ldm=""
  )
  if size == "inpainting_512":
    config.init.unet = "inpainting.safetensors"
  return config
