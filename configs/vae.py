"""Auto-encoder of frequency slices (section 4.1).

  python -m gid_jax.train --config=configs/vae.py:paper --workdir=runs/vae \
    --config.data.directory=data/windows

Needs: windows from `data_pipeline.builder`, or none with `--config.data.directory= --config.data.sources.live=1`.
Sizes: `tiny`, `paper`, and `inpainting_512`, which shrinks by 8 instead of 4; `default` and `large` average instead and
have nothing to train here. `--config.init.photo_vae=FILE.safetensors` starts from an auto-encoder of photos (diffusers
or CompVis), of the same sizes but for the channels of a slice.
"""

from configs import common


def get_config(size: str = "paper"):
  """The configuration of one size."""
  size = common.check_size(size or "paper")
  if common.fits_photo(size):
    raise ValueError(f"size {size!r} has no auto-encoder to train, it averages; begin with configs/ldm.py:{size}")
  config = common.training(
    "vae",
    size,
    num_steps=200_000,
    batch_size=96,
    learning_rate=common.choose(size, 1e-3, 1e-4),
  )
  config.model = common.motion_model(size, coordination="")
  common.link_data(config)
  config.init = dict(vae="", photo_vae="")
  config.loss = dict(weights=dict(l1=1.0, gradient=0.2, kl=1e-6), gradient_scales=2 if size == "tiny" else 3)
  return config
