"""Sizes and grids: few of them, so that few programs have to be compiled for photos of many sizes."""

import math

import cv2
import numpy as np
from jaxtyping import Float

# Area of the grid that motion is splatted on, and sides that it is a multiple of: nearly twice as fine, per axis, as
# the volumes that the embedded model draws. A finer one changes nothing that is seen, and costs time.
_MOTION_AREA, _MOTION_MULTIPLE = 144 * 256, 24
# Sides of square videos, for which there is room where any smaller one is rendered.
_ROOMS = (1080, 2160, 3072, 4096)


def working_size(height: int, width: int, *, area: int, multiple: int) -> tuple[int, int]:
  """The working grid (h, w) of a photo: multiples of `multiple`, about `area` pixels, nearest to the photo's aspect.

  Very long photos are squeezed to an aspect of at most 4, since the networks have seen nothing of the kind.
  """
  aspect = min(max(width / height, 0.25), 4.0)
  ideal = math.sqrt(area / aspect)
  rows = range(multiple, int(2 * ideal) + 2 * multiple, multiple)
  columns = range(multiple, int(2 * ideal * aspect) + 2 * multiple, multiple)

  def misfit(size):
    h, w = size
    return abs(math.log(w / h / aspect)) + 0.5 * abs(math.log(h * w / area))

  return min(((h, w) for h in rows for w in columns), key=misfit)


def output_size(height: int, width: int, *, long_side: int | None) -> tuple[int, int]:
  """The video's (h, w): the photo's aspect, at most `long_side` pixels long, never enlarged, even sizes."""
  scale = 1.0 if long_side is None else min(1.0, long_side / max(height, width))
  even = lambda length: max(2, 2 * int(length * scale / 2 + 1e-6))  # the sum forgives rounding
  return even(height), even(width)


def resize_image(image: Float[np.ndarray, "h w 3"], height: int, width: int) -> Float[np.ndarray, "h2 w2 3"]:
  """Resizes an image [h w 3] in [0, 1] to [height width 3] by area (shrinking) or bicubic interpolation (growing)."""
  if image.shape[:2] == (height, width):
    return np.asarray(image, np.float32)
  shrinks = height * width < image.shape[0] * image.shape[1]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
  return np.clip(cv2.resize(np.asarray(image, np.float32), (width, height), interpolation=method), 0, 1)


def motion_size(height: int, width: int) -> tuple[int, int]:
  """The grid (h, w) that motion is splatted on for a video of height x width; of a larger one, the photo shows more."""
  return working_size(height, width, area=_MOTION_AREA, multiple=_MOTION_MULTIPLE)


def count_room(height: int, width: int) -> int:
  """For how many pixels to make room where a video of height x width is rendered: one program suits many sizes."""
  return next((side**2 for side in _ROOMS if side**2 >= height * width), height * width)
