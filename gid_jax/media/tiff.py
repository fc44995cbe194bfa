"""TIFF beyond what Pillow decodes: floats, 32 bits, and colours as luma and chroma without compression."""

import contextlib

import cv2
import numpy as np
from PIL import TiffImagePlugin

from gid_jax.files import BytesFile
from gid_jax.media.light import light_to_pixels
from gid_jax.media.pixels import Pixels, quiet_opencv, scale_floats

_WIDTH, _HEIGHT, _PHOTOMETRIC, _WHITE_IS_ZERO = 256, 257, 262, 0
_LAB = (8, 9, 10)  # which OpenCV takes for light of another white


def open_tiff(file: BytesFile, *, max_pixels: float) -> Pixels | None:
  """Opens a TIFF file that Pillow does not; None where OpenCV does not either, or would get it wrong.

  Three channels of floats are light, as programs write that work with floats; one channel of floats is codes.

  Args:
    file: one that begins like a TIFF file.
    max_pixels: more are not decoded.
  """
  with contextlib.suppress(Exception), quiet_opencv():  # decoders raise all kinds on broken files
    file.seek(0)
    head = file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(directory.next)
    directory.load(file)
    if directory.get(_PHOTOMETRIC) in _LAB or directory[_WIDTH] * directory[_HEIGHT] > max_pixels:
      return None
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
      return None
    values = values[..., None] if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]
    if values.dtype.kind == "f" and values.shape[2] > 1:
      return light_to_pixels(values)
    codes = _to_codes(values)
    if directory.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and values.shape[2] == 1 and values.itemsize > 1:
      codes = ~codes  # which OpenCV does for 8 bits alone
    alpha = codes[..., 3:].astype(np.float32) / np.iinfo(codes.dtype).max if codes.shape[2] == 4 else None
    codes = np.broadcast_to(codes[..., :3], (*codes.shape[:2], 3))
    cut = lambda begin, end: (codes[begin:end], None if alpha is None else alpha[begin:end])
    return Pixels(codes.shape[1::-1], 1, None, cut)
  return None


def _to_codes(values: np.ndarray) -> np.ndarray:
  if values.dtype.kind == "f":
    return scale_floats(values)
  if values.dtype.kind == "i":
    values = np.maximum(values, 0).astype(values.dtype.str.replace("i", "u")) * 2
  return (values >> 16).astype(np.uint16) if values.itemsize == 4 else values
