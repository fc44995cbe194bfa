"""Table 2, "Full (K = 16)": nothing changed (FVD 47.1 in the paper).

  python -m gid_jax.train --config=configs/ablations/full.py:vae:paper --workdir=runs/vae

The same as `configs/STAGE.py:SIZE`. Stages: vae, ldm, ldm_coordinated, renderer.
"""

from configs import ablations


def get_config(spec: str = "ldm_coordinated"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  stages = ("vae", "ldm", "ldm_coordinated", "renderer")
  return ablations.make_row("full", spec, stages=stages, shared=stages)
