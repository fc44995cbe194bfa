"""The rows of the paper's Table 2, and the supplement's weights: one file a row, its stages and sizes after colons.

  python -m gid_jax.train --config=configs/ablations/bands_4.py:ldm:paper --workdir=runs/bands_4/ldm

Everything but the change that names the row is as in `configs/{vae,ldm,ldm_coordinated,renderer}.py`. Work folders lie
in one folder a row; `init` names them. A row asks only for the stages that it changes, and names the others' folders.
"""

import ml_collections

from configs import common, ldm, ldm_coordinated, renderer, vae

_STAGES = dict(vae=vae, ldm=ldm, ldm_coordinated=ldm_coordinated, renderer=renderer)


def make_row(
  row: str, spec: str, *, stages: tuple[str, ...], shared: tuple[str, ...] = ()
) -> ml_collections.ConfigDict:
  """The unchanged configuration of one stage of a row.

  Args:
    row: the row's name and folder.
    spec: "STAGE" or "STAGE:SIZE", what stands after the colon on the command line.
    stages: those that the row trains itself.
    shared: earlier stages that it takes from the full model, `runs/STAGE`.

  Raises:
    ValueError: `spec` names no stage of this row.
  """
  stage, _, size = spec.partition(":")
  if stage not in stages:
    raise ValueError(f"{row} has no stage {stage!r}; use one of {', '.join(stages)}, with :tiny or :paper")
  size = size or "paper"
  if common.fits_photo(size):
    raise ValueError(f"{row} changes the paper's model, which size {size!r} is not; use :tiny or :paper")
  config = _STAGES[stage].get_config(size)
  for name in config.init:
    if name != stage and config.init[name] and name in (*stages, *shared):
      config.init[name] = f"runs/{name}" if name in shared else f"runs/{row}/{name}"
  return config
