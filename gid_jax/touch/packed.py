"""A photo and its modes as the page of the paper's authors reads them, https://generative-dynamics.github.io.

Its viewer takes a folder of two files and, by the folder's name, numbers from three tables in the page:

  image.png      512 x 288 pixels
  flow_xy_data   [288 512 16] little-endian uint32: of each of 16 bands the bytes Re x, Re y, Im x, Im y, lowest first;
                 a byte b stands for b / 128 - 1 times the band's scale, in pixels of 512 x 288, y upwards
  all_scales        the scale of each band
  all_omega_scales  band f swings with 30 / 76 f times this, radians a second
  all_force_scales  how willingly it follows a pull, across and down
"""

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image

from gid_jax.errors import UserError
from gid_jax.files import PathLike, complete_or_nothing, describe_failure
from gid_jax.motion import spectral
from gid_jax.types import SpectralVolume

_WIDTH, _HEIGHT, _NUM_BANDS = 512, 288, 16
_FORCES = (1.0, 1.0)


def export_packed(
  image: Float[np.ndarray, "h w 3"], spectrum: SpectralVolume, folder: PathLike, *, overwrite: bool = False
) -> None:
  """Writes image.png, flow_xy_data and tables.json, which has the numbers for the three tables, into a folder.

  Photos that are not 16:9 are stretched to it, their motion too. Of more than 16 bands the first 16 are kept.

  Args:
    image: [h w 3] float32 RGB in [0, 1], any size.
    spectrum: of this photo, unbatched [k h w 4] on any grid.
    folder: to write into; it is made where it is missing.
    overwrite: replace existing files.

  Raises:
    UserError: a batch of volumes, existing files or an unwritable folder.
  """
  folder = Path(folder)
  if spectrum.coefficients.ndim != 4:
    raise UserError(f"{folder}: a spectral volume is [k h w 4], not {list(spectrum.coefficients.shape)}")
  data, scales = _pack(spectrum)
  pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
  photo = Image.fromarray(cv2.resize(pixels, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA))
  tables = {
    "all_scales": [float(scale) for scale in scales],
    "all_omega_scales": 2 * math.pi * spectrum.fps / spectrum.num_frames * 76 / 30,
    "all_force_scales": list(_FORCES),
  }
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"cannot write {folder}: {describe_failure(error)}") from error
  names = ("flow_xy_data", "image.png", "tables.json")
  if taken := [name for name in names if os.path.lexists(folder / name) and not overwrite]:
    raise UserError(f"{folder / taken[0]} already exists; choose another folder")
  for name, write in (
    ("flow_xy_data", lambda path: path.write_bytes(data)),
    ("image.png", lambda path: photo.save(path, "PNG")),
    ("tables.json", lambda path: path.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")),
  ):
    with complete_or_nothing(folder / name, overwrite=overwrite) as temporary:
      write(temporary)


def _pack(spectrum: SpectralVolume) -> tuple[bytes, np.ndarray]:
  """The bytes of flow_xy_data, and the scale of each of the 16 bands; the first is the mean and stays at rest."""
  resized = spectral.resize_spectrum(spectrum, _HEIGHT, _WIDTH)
  kept = np.asarray(resized.coefficients, np.float32)[1:_NUM_BANDS] * np.array([1, -1, 1, -1], np.float32)
  values = np.zeros((_NUM_BANDS, _HEIGHT, _WIDTH, 4), np.float32)
  values[1 : 1 + len(kept)] = kept
  scales = np.abs(values).max((1, 2, 3)) * np.float32(128 / 127)
  scales = np.where(scales > 0, scales, np.float32(1))
  codes = np.clip(np.round((values / scales[:, None, None, None] + 1) * 128), 0, 255).astype(np.uint8)
  return np.ascontiguousarray(codes.transpose(1, 2, 0, 3)).tobytes(), scales
