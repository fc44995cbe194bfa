"""The supplement's equation 11: features splatted with weights W instead of exp(W); no row of Table 2.

  python -m gid_jax.train --config=configs/ablations/linear_splat.py:renderer:paper \
    --workdir=runs/linear_splat/renderer

Stage: renderer; the motion model is the full one. Where W is 0 nothing lands, and the network fills it.
"""

from configs import ablations


def get_config(spec: str = "renderer"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("linear_splat", spec, stages=("renderer",))
  config.model.renderer.splat = "linear"
  return config
