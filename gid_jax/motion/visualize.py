"""Motion as colours and slices: what pictures, pages and evaluations of motion are drawn from (figures 2 to 6).

Everything here is NumPy on arrays; nothing draws. Colours of directions run around the wheel of hues clockwise as
seen on the screen, because y points down: right is red, down yellow-green, left cyan, up violet; rest is white.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped

from gid_jax.motion import spectral
from gid_jax.types import SpectralVolume

_UNKNOWN_GREY = 0.5


def flow_to_colors(flow: Float[np.ndarray, "*b 2"], *, max_magnitude: float) -> Float[np.ndarray, "*b 3"]:
  """Shows displacements as colours: the hue is the direction, the saturation the length.

  With a the angle of (dx, dy), turning clockwise on the screen, and s = min(length / max_magnitude, 1), the colour
  is (hue a, saturation s, value 1) of the HSV cone.

  Args:
    flow: [*b 2] displacements (dx, dy) in pixels.
    max_magnitude: length in pixels that gets the full colour, positive; longer ones look the same.

  Returns:
    [*b 3] float32 RGB in [0, 1]: white at rest, grey where the flow is not finite.

  Raises:
    ValueError: `max_magnitude` is not positive.
  """
  if not max_magnitude > 0:
    raise ValueError(f"max_magnitude is {max_magnitude}; it must be positive")
  known = np.isfinite(flow).all(-1, keepdims=True)
  dx, dy = np.moveaxis(np.where(known, flow, 0).astype(np.float32), -1, 0)
  sixth = np.mod(np.arctan2(dy, dx) / (math.pi / 3), 6)[..., None]
  # Distance along the wheel to red, green and blue, which lie a third of a turn apart: full within 1, none beyond 2.
  distance = np.abs(np.mod(sixth - np.array([0, 2, 4], np.float32) + 3, 6) - 3)
  saturation = np.minimum(np.hypot(dx, dy) / max_magnitude, 1)[..., None]
  colors = 1 - saturation * (1 - np.clip(2 - distance, 0, 1))
  return np.where(known, colors, _UNKNOWN_GREY).astype(np.float32)


def draw_flow_wheel(size: int) -> Float[np.ndarray, "n n 4"]:
  """The legend of `flow_to_colors`: a disc whose colour at each place is that of the displacement pointing there.

  Args:
    size: side n in pixels.

  Returns:
    [n n 4] float32 RGBA in [0, 1], transparent outside the disc, its rim at the full colour.
  """
  axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
  places = np.stack(np.meshgrid(axis, axis), -1)
  # One pixel of soft edge.
  opacity = np.clip((1 - np.linalg.norm(places, axis=-1, keepdims=True)) * size / 2 + 0.5, 0, 1)
  return np.concatenate([flow_to_colors(places, max_magnitude=1.0), opacity], -1)


def slice_xt(frames: Shaped[np.ndarray, "t h w *c"], row: int) -> Shaped[np.ndarray, "t w *c"]:
  """Cuts one row out of every frame [t h w *c] and stacks them: x to the right, time downwards, [t w *c].

  Raises:
    IndexError: the frames have no such row.
  """
  if not 0 <= row < frames.shape[1]:
    raise IndexError(f"row {row} of frames that have rows 0 to {frames.shape[1] - 1}")
  return frames[:, row]


def find_liveliest_row(motion: Float[np.ndarray, "t h w 2"]) -> int:
  """The row of a motion texture [t h w 2] whose pixels swing most along x, where an X-t slice shows most."""
  swing = motion[..., 0].std(0).mean(-1)
  width = max(1, len(swing) // 40)
  # A few rows together: one noisy row is not lively.
  smooth = np.convolve(np.pad(swing, width, mode="edge"), np.ones(2 * width + 1), mode="valid")
  return int(smooth.argmax())


def spectrum_to_heatmaps(spectrum: SpectralVolume) -> Float[np.ndarray, "k h w"]:
  """Amplitude in pixels with which each pixel swings in each band (figure 3).

  Args:
    spectrum: coefficients [k h w 4].

  Returns:
    [k h w] float32: for a swing along a line, half its extent; for band 0, the distance of the mean from rest.
  """
  coefficients = np.asarray(spectrum.coefficients, np.float32)
  weights = spectral.bin_weights(len(coefficients), spectrum.num_frames)
  return weights[:, None, None] * np.sqrt((coefficients**2).sum(-1))


def round_up(value: float) -> float:
  """The next larger round number, such as 0.3, 1, 1.5, 20; scales read better in such steps."""
  power = 10.0 ** math.floor(math.log10(value))
  return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))
