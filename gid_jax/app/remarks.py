"""What will not look well, said before it is rendered: hardly anything moves, the picture tears, or is very long."""

import math

import numpy as np

from gid_jax.motion.measures import rms_swing
from gid_jax.sizes import output_size
from gid_jax.types import SpectralVolume

# The liveliest fiftieth swings by less than this part of the long side: 0.4 px of 256.
_STILL, _LIVELY = 0.0015, 0.98
# Neighbours that move apart by so much of their distance show a tear; so many of all may without its being seen.
_TORN, _FEW = 1.5, 0.02
_NUM_TIMES = 15
_LONGEST = 4  # times as long as wide; longer photos are squeezed for the networks


def find_remarks(
  spectrum: SpectralVolume, *, factor: float, option: str, magnify: float = 1.0, is_windy: bool = False
) -> list[str]:
  """Sentences about a motion that is scaled by `factor`, which `option` has set; none where all is well.

  Args:
    spectrum: the motion.
    factor: what scales it, the wind's and `magnify` together.
    option: what to name as the cause where the picture tears.
    magnify: what the user gave, more than which is suggested.
    is_windy: whether more wind cannot be suggested.
  """
  if factor == 0:
    return []
  height, width = spectrum.coefficients.shape[-3:-1]
  swing = abs(factor) * float(np.quantile(rms_swing(spectrum, stride=1.0), _LIVELY)) / max(height, width)
  if swing < _STILL:
    more = ("" if is_windy else "--wind windy, ") + _suggest(swing, magnify)
    return [
      f"almost nothing will move: even the liveliest places swing by only {100 * swing:.2g} % of the picture's length; "
      f"try {more}another --seed, or a photo with leaves, flowers or grass"]
  steepest = abs(factor) * find_strain(spectrum)
  torn = float((steepest > _TORN).mean())
  if torn > _FEW:
    held = _TORN / float(np.quantile(steepest, 1 - _FEW))
    return [f"{option} will tear {100 * torn:.0f} % of the picture, where neighbouring points move apart; "
            f"about {held:.2g} times as much motion holds"]  # fmt: skip
  return []


def find_shape_remarks(height: int, width: int, *, size: int) -> list[str]:
  """Sentences about the shape of a photo whose video will be `size` pixels long; none where all is well."""
  if max(height, width) <= _LONGEST * min(height, width):
    return []
  rows, columns = output_size(height, width, long_side=size)
  return [
    f"the photo is {width} x {height}, over {_LONGEST} times as long as wide: the video will be {columns} x {rows}, "
    "and its motion is predicted from a squeezed picture; crop it for a better one"]


def find_strain(spectrum: SpectralVolume) -> np.ndarray:
  """By how much of their distance neighbours move apart, the most over a period and both axes [h-1 w-1]."""
  coefficients = np.asarray(spectrum.coefficients, np.float32)
  complex_series = coefficients[..., :2] + 1j * coefficients[..., 2:]
  period = spectrum.num_frames
  weights = np.where(2 * np.arange(len(coefficients)) % period == 0, 1.0, 2.0) / period
  turns = np.outer(np.linspace(0, 1, _NUM_TIMES, endpoint=False), np.arange(len(coefficients)))
  table = (weights * np.exp(2j * math.pi * turns)).astype(np.complex64)
  motion = np.tensordot(table, complex_series, 1).real
  motion -= motion[:1]
  down, right = (np.linalg.norm(np.diff(motion, axis=axis), axis=-1).max(0) for axis in (1, 2))
  return np.maximum(down[:, :-1], right[:-1])


def _suggest(swing: float, magnify: float) -> str:
  wanted = min(math.ceil(2 * _STILL / swing * abs(magnify)), 8) if swing > _STILL / 4 else 8
  return f"--magnify {wanted}, " if wanted > abs(magnify) else ""
