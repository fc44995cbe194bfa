"""From the options of `gid animate` to an edited motion: bands, masks and direction."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from gid_jax.app.checks import parse_bands
from gid_jax.app.console import print_warning
from gid_jax.app.options import MotionRequest
from gid_jax.errors import UserError
from gid_jax.media.photos import read_image
from gid_jax.motion.editing import choose_bands, mask_motion, turn_motion
from gid_jax.types import SpectralVolume

_MAX_STRETCH = 1.05  # of a mask's aspect, so that a mask of another photo is noticed


class Edits(NamedTuple):
  """What a motion goes through before it is rendered.

  Attributes:
    bands: to keep; all when None.
    mask: [h w] in [0, 1], 1 moves; None lets everything move.
    degrees: by which the motion is turned, counter-clockwise.
    photo_size: (h, w) of the photo.
  """

  bands: tuple[int, ...] | None
  mask: np.ndarray | None
  degrees: float
  photo_size: tuple[int, int]

  def apply(self, spectrum: SpectralVolume) -> SpectralVolume:
    """The edited volume; the same object where nothing is asked.

    Raises:
      UserError: the volume has no such band.
    """
    if self.bands is not None:
      spectrum = choose_bands(spectrum, self.bands)
    if self.mask is not None:
      spectrum = mask_motion(spectrum, self.mask)
    if self.degrees:
      (height, width), (rows, columns) = self.photo_size, spectrum.coefficients.shape[-3:-1]
      spectrum = turn_motion(spectrum, self.degrees, pixel_aspect=(width / columns) / (height / rows))
    return spectrum


def read_edits(request: MotionRequest, image: Float[np.ndarray, "h w 3"]) -> Edits:
  """Reads the pictures that the options name, for a photo [h w 3].

  Raises:
    UserError: a picture cannot be read, or is of another shape than the photo.
  """
  size = image.shape[:2]
  moving = [] if request.mask is None else [_read_mask(request.mask, size)]
  moving += [] if request.still is None else [1 - _read_mask(request.still, size)]
  bands = None if request.bands is None else parse_bands(request.bands)
  mask = np.minimum.reduce(moving) if moving else None
  return Edits(bands, mask, request.direction, size)


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
  """The brightness of a picture at the size of the photo."""
  picture = read_image(path, warn=print_warning).mean(axis=-1)
  (height, width), (rows, columns) = size, picture.shape
  stretch = (width / height) / (columns / rows)
  if not 1 / _MAX_STRETCH <= stretch <= _MAX_STRETCH:
    raise UserError(f"{path} is {columns} x {rows} and the photo {width} x {height} pixels; give one of its shape")
  shrinks = rows * columns > height * width
  return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
