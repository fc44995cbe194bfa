"""Table 2, "K = 8": 8 frequency bands instead of 16 (FVD 52.1 instead of 47.1 in the paper).

  python -m gid_jax.train --config=configs/ablations/bands_8.py:vae:paper --workdir=runs/bands_8/vae

Stages: vae, ldm, ldm_coordinated; the renderer is the full model's. Needs a data set of at least 8 bands.
"""

from configs import ablations


def get_config(spec: str = "ldm_coordinated"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("bands_8", spec, stages=("vae", "ldm", "ldm_coordinated"))
  config.model.num_bands = 8
  return config
