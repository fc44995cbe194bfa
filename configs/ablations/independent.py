"""Table 2, "Independent pred.": every band by itself, without frequency attention (FVD 52.5, full 47.1).

  gid export --motion runs/ldm --renderer runs/renderer --output independent

Nothing to train: it is stage 1 of the full model, sampled at all bands. Stage: ldm, the same as `configs/ldm.py`.
"""

from configs import ablations


def get_config(spec: str = "ldm"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  return ablations.make_row("independent", spec, stages=("ldm",), shared=("vae",))
