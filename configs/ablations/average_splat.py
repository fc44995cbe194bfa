"""Table 2, "Average splat": pixels that collide are averaged, none is in front (FVD 51.4, full 47.1).

  python -m gid_jax.train --config=configs/ablations/average_splat.py:renderer:paper \
    --workdir=runs/average_splat/renderer

Stage: renderer; the motion model is the full one. What figure 5 shows, colours averaged without a network, needs no
training: `gid_jax.evaluation.rendering.predict_by_average`.
"""

from configs import ablations


def get_config(spec: str = "renderer"):
  """The configuration of "STAGE" or "STAGE:SIZE"."""
  config = ablations.make_row("average_splat", spec, stages=("renderer",))
  config.model.renderer.splat = "average"
  return config
