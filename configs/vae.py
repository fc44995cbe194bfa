"""Auto-encoder of frequency slices (section 4.1).

  python -m gid_jax.train --config=configs/vae.py:default --workdir=runs/vae \
    --config.data.directory=data/windows

Needs: windows from `data_pipeline.builder`, or none with `--config.data.directory= --config.data.sources.live=1` (and
0 for the other sources of `default`). Sizes: `tiny`, `default` (two CPU cores, well under an hour), `paper`.
"""

from configs import common


def get_config(size: str = "default"):
  """The configuration of one size."""
  size = common.check_size(size)
  config = common.training(
    "vae",
    size,
    num_steps={"paper": 200_000}.get(size, 1_500),
    batch_size={"paper": 96}.get(size, 16),
    learning_rate={"paper": 1e-4}.get(size, 1e-3),
  )
  config.model = common.motion_model(size, frequency_attention=False)
  config.init = dict(vae="")
  config.loss = dict(gradient=0.2, kl=1e-6, gradient_scales=2 if size == "tiny" else 3)
  if size == "default":
    config.data.crop = (80, 128)
  return config
