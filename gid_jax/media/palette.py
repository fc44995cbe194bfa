"""GIF: frames in 256 colours chosen for the photo that they all show."""

from collections.abc import Callable
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Grey levels of the dithering, about the distance of the palette's colours: no steps in skies, and little noise.
_DITHER = 8


def make_palette_converter(first: UInt8[np.ndarray, "h w 3"]) -> Callable[[np.ndarray], av.VideoFrame]:
  """Maps frames to the 256 colours of the first one [h w 3], which all frames of one animated photo share.

  Ordered dithering: unlike error diffusion, its pattern stands still from frame to frame, and what rests costs nothing.
  """
  reference = Image.fromarray(first).quantize(256)
  found = np.asarray(reference.getpalette("RGB"), np.uint8).reshape(-1, 3)
  palette = np.full((256, 4), 255, np.uint8)
  palette[:len(found), 1:] = found  # alpha, red, green, blue
  cell = np.array([[0, 2], [3, 1]])
  bayer = np.kron(np.ones((2, 2), int), 4 * cell) + np.kron(cell, np.ones((2, 2), int))
  height, width = first.shape[:2]
  tiled = np.tile(bayer, (height // 4 + 1, width // 4 + 1))[:height, :width, None]
  offsets = np.rint((tiled - bayer.mean()) * (_DITHER / bayer.size)).astype(np.int16)

  def convert(array: np.ndarray) -> av.VideoFrame:
    dithered = Image.fromarray(np.clip(array + offsets, 0, 255).astype(np.uint8))
    indices = np.asarray(dithered.quantize(palette=reference, dither=Image.Dither.NONE))
    pixels: Any = indices, palette  # PyAV takes a pair, its annotation does not
    return av.VideoFrame.from_ndarray(pixels, "pal8")

  return convert
