"""Table 2, "Baseline splat": softmax splatting of features of one scale, by learned weights (FVD 49.5, full 47.1).

  python -m gid_jax.train --config=configs/ablations/baseline_splat.py:renderer:paper \
    --workdir=runs/baseline_splat/renderer

Stage: renderer; the motion model is the full one. The weights are read off the photo's features, as in Holynski et al.
2021, instead of the motion. Features of one scale, full resolution, are those of residual blocks.
"""

from configs import ablations


def get_config(spec: str = "renderer"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("baseline_splat", spec, stages=("renderer",))
  config.model.renderer.splat = "learned"
  config.model.renderer.pyramid = "residual"
  config.model.renderer.channels = (64,) if config.size == "paper" else config.model.renderer.channels[:1]
  return config
