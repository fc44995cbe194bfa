"""Table 2, "Scale w/ resolution": coefficients divided by the grid's size, not band by band (FVD 62.7, full 47.1).

  python -m gid_jax.train --config=configs/ablations/scale_with_resolution.py:vae:paper \
    --workdir=runs/scale_with_resolution/vae

Stages: vae, ldm, ldm_coordinated; the renderer is the full model's.
"""

from configs import ablations


def get_config(spec: str = "ldm_coordinated"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("scale_with_resolution", spec, stages=("vae", "ldm", "ldm_coordinated"))
  config.model.codec.normalization = "resolution"
  return config
