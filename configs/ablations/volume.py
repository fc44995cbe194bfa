"""Table 2, "Volume pred.": one 2-D U-Net predicts all bands as 4 K channels (FVD 53.7, full 47.1).

  python -m gid_jax.train --config=configs/ablations/volume.py:ldm:paper --workdir=runs/volume/ldm

Stage: ldm; the auto-encoder, `runs/vae`, and the renderer are the full model's. The U-Net's input and output are the K
latents of all bands side by side, so one example is a whole volume.
"""

from configs import ablations


def get_config(spec: str = "ldm"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("volume", spec, stages=("ldm",), shared=("vae",))
  config.model.volume = True
  config.data.bands_per_example = config.model.get_ref("num_bands")
  return config
