"""Animated WebP, which FFmpeg does not decode."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def is_webp(head: bytes) -> bool:
  """Whether a file that begins with these bytes, 12 or more, is a WebP."""
  return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def count_frames(path: Path) -> int:
  """How many frames a WebP says it has; 0 where it cannot be opened."""
  try:
    with Image.open(path) as image:
      return getattr(image, "n_frames", 1)
  except Exception:  # decoders raise all kinds on broken files
    return 0


def decode_animation(path: Path) -> Iterator[tuple[UInt8[np.ndarray, "h w 4"], float]]:
  """Decodes a WebP frame by frame.

  Args:
    path: the file.

  Yields:
    A frame [h w 4] uint8 RGBA and the second at which it is shown.

  Raises:
    OSError: the file is damaged.
  """
  try:
    with Image.open(path) as image:
      for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        yield np.asarray(image.convert("RGBA")), image.info.get("timestamp", 0) / 1000
  except OSError:
    raise
  except Exception as error:  # decoders raise all kinds on broken files
    raise OSError(str(error)) from error
