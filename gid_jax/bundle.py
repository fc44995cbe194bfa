"""A photo and its sampled motion in one file, `.gid`, to render again without sampling.

The file is safetensors: arrays and text, nothing that runs. The photo is a PNG, the spectral volume is float16 with a
factor for every band, and a checksum covers everything.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import UInt8
from PIL import Image

from gid_jax import __version__
from gid_jax.errors import UserError
from gid_jax.files import PathLike, complete_or_nothing, first_line
from gid_jax.media.decoding import open_to_read
from gid_jax.parsing import parse, to_plain
from gid_jax.types import SpectralVolume
from gid_jax.weights.pretrained import checksum

MAX_SIDE = 4096  # of the photo; no video is larger
_MIN_SIDE = 2
_MAX_FRAMES = 100_000  # of a period
_FORMAT = "gid-jax bundle"
_VERSION = 1
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Bundle(NamedTuple):
  """A photo with its motion, and where that came from.

  Attributes:
    photo: [h w 3] uint8 sRGB.
    spectrum: the spectral volume [k h2 w2 4] as it was sampled, pixels of its own grid.
    seed: that it was sampled with.
    settings: of the sampling, such as {"steps": 50, "loop": False}; whatever JSON holds.
    gid_version: of the gid-jax that sampled; `save_bundle` puts the running one in place of "".
    weights_label: version of the weights, free text.
  """

  photo: UInt8[np.ndarray, "h w 3"]
  spectrum: SpectralVolume
  seed: int = 0
  settings: Mapping[str, Any] = _NOTHING
  gid_version: str = ""
  weights_label: str = ""


@dataclass(frozen=True)
class _Facts:
  """What the file says in text: the fields of `SpectralVolume` and `Bundle` that are no arrays."""

  num_frames: int
  fps: float
  seed: int
  settings: Mapping[str, Any]
  gid_version: str
  weights_label: str


def save_bundle(path: PathLike, bundle: Bundle, *, overwrite: bool = False) -> None:
  """Writes a bundle as one `.gid` file, complete or not at all.

  Coefficients keep 11 binary digits. A photo of more than 4096 pixels on its long side is shrunk to that.

  Args:
    path: the file.
    bundle: what to write.
    overwrite: replace an existing file.

  Raises:
    UserError: the file exists, cannot be written, or the bundle's arrays have wrong shapes or values.
  """
  path = Path(path)
  spectrum = bundle.spectrum
  coefficients = np.asarray(spectrum.coefficients, np.float32)
  facts = _Facts(
    spectrum.num_frames, float(spectrum.fps), bundle.seed, bundle.settings, bundle.gid_version or __version__,
    bundle.weights_label)
  _check_photo(path, bundle.photo)
  _check_volume(path, coefficients, facts)
  # Powers of two lose nothing, and the largest value of every band ends between 2^14 and 2^15.
  largest = np.abs(coefficients).max((1, 2, 3))
  scale = np.ldexp(np.float32(1), np.frexp(largest)[1] - 15).astype(np.float32)
  scale = np.where(scale > 0, scale, np.float32(1))
  tensors = {
    "photo": np.frombuffer(_photo_to_png(bundle.photo), np.uint8),
    "spectrum": (coefficients / scale[:, None, None, None]).astype(np.float16),
    "scale": scale,
  }
  text = json.dumps(to_plain(facts), sort_keys=True)
  metadata = {"format": _FORMAT, "version": str(_VERSION), "facts": text, "sha256": checksum(tensors, text)}
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    temporary.write_bytes(safetensors.numpy.save(tensors, metadata))


def load_bundle(path: PathLike) -> Bundle:
  """Reads a file of `save_bundle` and verifies all of it; nothing in it is executed.

  Args:
    path: the file.

  Returns:
    The bundle; its coefficients are float32.

  Raises:
    UserError: the file is missing, damaged, of another kind or of a newer version.
  """
  path = Path(path)
  open_to_read(path).close()  # which says in plain words what is wrong with a file that cannot be read
  try:
    with safetensors.safe_open(str(path), framework="numpy") as file:
      metadata = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
  except (OSError, safetensors.SafetensorError, AttributeError, TypeError, ValueError) as error:
    raise UserError(f"{path}: damaged, or not a .gid file ({first_line(error)}); make it again") from error
  if metadata.get("format") != _FORMAT:
    raise UserError(f"{path}: not a .gid file; make one with `gid animate PHOTO --save PATH`")
  version = metadata.get("version", "")
  if version.isascii() and version.isdecimal() and int(version[:9]) > _VERSION:
    raise UserError(f"{path}: of format {version[:9]}, this gid-jax reads {_VERSION}; upgrade gid-jax")
  text = metadata.get("facts", "")
  if version != str(_VERSION) or metadata.get("sha256") != checksum(tensors, text):
    raise UserError(f"{path}: damaged, its checksum does not match; make it again")
  try:
    values = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: its facts are not JSON ({first_line(error)}); make it again") from error
  facts = parse(_Facts, values, where=f"{path}: facts")
  kinds = {name: (value.dtype.name, value.ndim) for name, value in tensors.items()}
  if kinds != {"photo": ("uint8", 1), "spectrum": ("float16", 4), "scale": ("float32", 1)}:
    raise UserError(f"{path}: holds other arrays than a .gid file; make it again")
  if len(tensors["scale"]) != len(tensors["spectrum"]):
    raise UserError(f"{path}: {len(tensors['scale'])} factors for {len(tensors['spectrum'])} bands; make it again")
  with np.errstate(over="ignore", invalid="ignore"):
    coefficients = tensors["spectrum"].astype(np.float32) * tensors["scale"][:, None, None, None]
  _check_volume(path, coefficients, facts)
  photo = _png_to_photo(path, tensors["photo"].tobytes())
  spectrum = SpectralVolume(coefficients, num_frames=facts.num_frames, fps=float(facts.fps))
  return Bundle(photo, spectrum, facts.seed, to_plain(facts.settings), facts.gid_version, facts.weights_label)


def _check_photo(path: Path, photo: np.ndarray) -> None:
  if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or min(photo.shape[:2]) < _MIN_SIDE:
    raise UserError(f"{path}: a photo is [h w 3] uint8 of {_MIN_SIDE} or more pixels a side, not "
                    f"{list(photo.shape)} {photo.dtype}")  # fmt: skip


def _check_volume(path: Path, coefficients: np.ndarray, facts: _Facts) -> None:
  shape = coefficients.shape
  if len(shape) != 4 or shape[-1] != 4 or 0 in shape:
    raise UserError(f"{path}: a spectral volume is [k h w 4], not {list(shape)}")
  if not 1 <= facts.num_frames <= _MAX_FRAMES or not 1e-3 <= facts.fps <= 1e4:
    raise UserError(f"{path}: a period of {facts.num_frames} frames at {facts.fps:g} fps; "
                    f"1 to {_MAX_FRAMES} at 0.001 to 10000 are possible")  # fmt: skip
  if shape[0] > facts.num_frames // 2 + 1:
    raise UserError(f"{path}: {shape[0]} bands cannot come from {facts.num_frames} frames")
  if not np.isfinite(coefficients).all():
    raise UserError(f"{path}: its spectral volume has values that are not finite")


def _photo_to_png(photo: np.ndarray) -> bytes:
  height, width = photo.shape[:2]
  ratio = MAX_SIDE / max(height, width)
  if ratio < 1:
    size = max(_MIN_SIDE, round(width * ratio)), max(_MIN_SIDE, round(height * ratio))
    photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(photo)).save(buffer, "PNG")
  return buffer.getvalue()


def _png_to_photo(path: Path, png: bytes) -> np.ndarray:
  try:
    image = Image.open(io.BytesIO(png), formats=("PNG",))
    if image.mode != "RGB" or not _MIN_SIDE <= min(image.size) <= max(image.size) <= MAX_SIDE:
      raise UserError(f"{path}: its photo is {image.width} x {image.height} {image.mode}; make it again")
    return np.array(image)
  except UserError:
    raise
  except Exception as error:  # decoders raise all kinds on broken files
    raise UserError(f"{path}: its photo is damaged ({first_line(error)}); make it again") from error
