"""Editing a spectral volume: which frequencies, where, and which way a photo moves.

All three are linear in the coefficients, so they commute with each other and with `gid_jax.motion.spectral.magnify`.
Slow motion needs no editing: the series is exact at any time, see `gid_jax.motion.spectral.evaluate_motion`.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.types import SpectralVolume


def choose_bands(volume: SpectralVolume, bands: Sequence[int]) -> SpectralVolume:
  """Keeps some frequency bands of a volume [*b k h w 4] and stills the others.

  Args:
    volume: of any motion.
    bands: numbers of the bands to keep, 0 ... k - 1; band i swings i times a period, and 0 is the mean position.

  Raises:
    UserError: the volume has no such band.
  """
  num_bands = volume.coefficients.shape[-4]
  check_bands(bands, num_bands)
  kept = np.isin(np.arange(num_bands), bands).astype(np.float32)
  return volume.replace(coefficients=volume.coefficients * kept[:, None, None, None])


def check_bands(bands: Sequence[int], num_bands: int) -> None:
  """Refuses numbers of bands that a volume of `num_bands` bands does not have.

  Raises:
    UserError: naming the first of them.
  """
  wrong = [band for band in bands if not 0 <= band < num_bands]
  if wrong:
    raise UserError(f"there is no band {wrong[0]}; this motion has the bands 0 to {num_bands - 1}")


def mask_motion(volume: SpectralVolume, mask: Float[np.ndarray, "h w"], *, feather: int = 1) -> SpectralVolume:
  """Scales the motion place by place: what may move, and how much of it.

  Args:
    volume: [*b k h2 w2 4].
    mask: [h w] in [0, 1] over the same photo, of any size; 0 rests and 1 moves.
    feather: pixels of the volume's grid over which the motion fades in, from the edges of 0 inwards, so that what rests
      is not pulled along.
  """
  weights = _resize_mask(np.asarray(mask, np.float32), *volume.coefficients.shape[-3:-1])
  if feather:
    # What shrinks by as much as it is blurred stays 0 where it was 0, and every constant as it was.
    side = 2 * feather + 1
    weights = cv2.erode(weights, np.ones((side, side), np.uint8), borderType=cv2.BORDER_REPLICATE)
    slope = feather + 1 - np.abs(np.arange(-feather, feather + 1, dtype=np.float32))
    slope /= slope.sum()
    weights = cv2.sepFilter2D(weights, -1, slope, slope, borderType=cv2.BORDER_REPLICATE)
  return volume.replace(coefficients=volume.coefficients * weights[..., None])


def turn_motion(volume: SpectralVolume, degrees: float, *, pixel_aspect: float = 1.0) -> SpectralVolume:
  """Turns every displacement of a volume [*b k h w 4], and with them the mean axis of the motion.

  Args:
    volume: of any motion.
    degrees: counter-clockwise as one sees it; 90 makes up of right.
    pixel_aspect: width over height of the grid's pixels, measured in the photo.
  """
  angle = np.deg2rad(degrees)
  cos, sin = np.cos(angle), np.sin(angle)
  # Rows are the old axes and columns the new ones; y points down.
  turn = np.array([[cos, -sin * pixel_aspect], [sin / pixel_aspect, cos]], np.float32)
  parts = volume.coefficients.reshape(*volume.coefficients.shape[:-1], 2, 2)
  # A sum by hand: a product of matrices would be rounded to bfloat16 on a TPU.
  turned = parts[..., :1] * turn[0] + parts[..., 1:] * turn[1]
  return volume.replace(coefficients=turned.reshape(volume.coefficients.shape))


def _resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
  """Brings a mask to another grid, in two steps as OpenCV averages over areas only where nothing grows."""
  rows, columns = min(height, mask.shape[0]), min(width, mask.shape[1])
  smaller = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)
  return cv2.resize(smaller, (width, height), interpolation=cv2.INTER_LINEAR)
