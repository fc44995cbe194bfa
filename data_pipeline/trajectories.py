"""From a cut sequence of frames to one training window: the filters, the motion grid, the renderer's pairs (section 6).

The motion itself is measured by `gid_jax.flow.tracking`, which `gid inspect` and `gid animate VIDEO` use as well.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from gid_jax.errors import UserError
from gid_jax.flow.estimators import DEFAULT_FLOW, FlowEstimator
from gid_jax.flow.tracking import mean_magnitude, measure_motion
from gid_jax.motion.spectral import motion_to_spectrum, shrink_vectors
from gid_jax.types import Window

# Each rule of the two published versions: bounds on the mean displacement, pixels of the window's own grid.
FILTER_RULES: Mapping[str, str] = {
  "main": "mean over 8 px (large_motion), or every pixel over 1 px on average (camera)",
  "supplement": "95 % of the pixels over 1 px on average (camera), or mean under 1 px (still)",
}


def filter_window(motion: Float[np.ndarray, "t h w 2"], *, rule: str = "main") -> tuple[bool, str]:
  """Applies one of the two published window filters (section 6 and the supplement).

  Args:
    motion: [t h w 2] pixels of the frames' own grid.
    rule: a key of FILTER_RULES.

  Returns:
    Whether to keep the window, and if not the reason: "large_motion", "camera" or "still" (else "").

  Raises:
    UserError: on an unknown rule.
  """
  if rule not in FILTER_RULES:
    raise UserError(f"Unknown filter rule {rule!r}: choose one of {', '.join(FILTER_RULES)}.")
  per_pixel = mean_magnitude(motion)
  if rule == "main":
    if per_pixel.mean() > 8:
      return False, "large_motion"
    if per_pixel.min() > 1:
      return False, "camera"
  else:
    if (per_pixel > 1).mean() >= 0.95:
      return False, "camera"
    if per_pixel.mean() < 1:
      return False, "still"
  return True, ""


def sequence_to_window(
  frames: UInt8[np.ndarray, "t h w 3"],
  *,
  num_bands: int = 16,
  num_pairs: int = 6,
  motion_stride: int = 2,
  scene: str,
  source: str,
  rng: np.random.Generator,
  rule: str = "main",
  estimator: FlowEstimator = DEFAULT_FLOW,
) -> tuple[Window | None, dict[str, str]]:
  """Turns the frames of one window into a training sample, or says why not.

  The spectrum is cleaned of the camera's shift. The pairs keep it, because a pair must explain its two frames.

  Args:
    frames: [t h w 3] uint8 RGB, h and w multiples of `motion_stride`.
    num_bands: bands kept in the spectrum.
    num_pairs: number of later frames kept for the renderer.
    motion_stride: pixels of the frames from one point of the spectrum's grid to the next.
    scene: name of the scene, for the split.
    source: "real" or "loop".
    rng: draws which frames become pairs.
    rule: the filter rule that decides.
    estimator: of the optical flow.

  Returns:
    The window, or None when `rule` rejects it, and every rule's verdict: its reason, "" where it keeps the window.
  """
  motion, _, shift = measure_motion(frames, estimator=estimator)
  verdicts = {name: filter_window(motion, rule=name)[1] for name in FILTER_RULES}
  if verdicts[rule]:
    return None, verdicts
  pairs = np.sort(rng.choice(np.arange(1, len(frames)), num_pairs, replace=False))
  volume = motion_to_spectrum(motion, num_bands=num_bands)
  spectrum = shrink_vectors(np.asarray(volume.coefficients), stride=motion_stride)
  window = Window(
    image=frames[0],
    spectrum=spectrum.astype(np.float16),
    frames=frames[pairs],
    flows=(motion[pairs] + shift[pairs, None, None]).astype(np.float16),
    depth=mean_magnitude(motion).astype(np.float16),
    scene=scene,
    source=source,
  )
  return window, verdicts
