"""The pixels of an opened still, strip by strip, and what their numbers mean."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from cv2.utils import logging
from PIL import Image, ImageCms

from gid_jax.files import BytesFile
from gid_jax.media import png
from gid_jax.media.colour import Colour, cicp_to_colour
from gid_jax.media.formats import read_nclx
from gid_jax.media.icc import read_profile

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _RGB, _SIGNED = 0, 2, 2
# Floats that are codes have one of these as white, unless they end elsewhere.
_WHITES = (1.0, 255.0, 65535.0)
_GREY = ("1", "L", "LA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class Pixels(NamedTuple):
  """A still.

  Attributes:
    size: (width, height) as stored.
    orientation: of EXIF, 1 to 8.
    colour: what the codes mean; None for sRGB.
    read_rows: (begin, end) -> codes [n w 3] uint8 or uint16, or light float32, and opacity [n w 1] in [0, 1], None
      where all is opaque.
  """

  size: tuple[int, int]
  orientation: int
  colour: Colour | None
  read_rows: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]


def open_pixels(image: Image.Image, file: BytesFile, *, orientation: int) -> Pixels:
  """Opens what Pillow has loaded, with all 16 bits where it holds only 8.

  Args:
    image: a loaded picture.
    file: from which it comes.
    orientation: of EXIF.
  """
  colour, transform = _find_colour(image, file)
  deep = _decode_deep(image, file)
  if deep is not None:
    return Pixels(image.size, orientation, colour, lambda begin, end: _split_deep(deep[begin:end]))
  if image.mode in ("I", "F") or image.mode.startswith("I;16"):
    grey = _read_grey(image)
    return Pixels(image.size, orientation, colour, lambda begin, end: (np.repeat(grey[begin:end, :, None], 3, 2), None))
  width = image.size[0]

  def read_rows(begin: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
    strip, alpha = image.crop((0, begin, width, end)), None
    if image.has_transparency_data:
      strip = strip.convert("RGBA")
      alpha = np.asarray(strip.getchannel("A"), np.float32)[..., None] / 255
    if transform is not None:
      mode = _transform_mode(image)
      converted = ImageCms.applyTransform(strip if strip.mode == mode else strip.convert(mode), transform)
      assert converted is not None  # only in place it gives nothing
      strip = converted
    return np.asarray(strip.convert("RGB")), alpha

  return Pixels(image.size, orientation, colour, read_rows)


def _find_colour(
  image: Image.Image, file: BytesFile
) -> tuple[Colour | None, ImageCms.ImageCmsTransform | None]:
  """What a picture's codes mean: in numbers, or as a transform to sRGB of 8 bits."""
  said: Colour | None = None
  if image.format == "PNG":
    said, first = png.read_colour(file)
    if first:
      return said, None
  profile = image.info.get("icc_profile")
  if profile:
    try:
      if image.mode not in ("CMYK", "LAB"):
        return read_profile(profile, grey=image.mode in _GREY), None
    except ValueError:
      pass
    return None, _make_transform(image, profile)
  points = read_nclx(file) if image.format == "AVIF" else None
  heif = image.info.get("nclx_profile")
  if heif:
    points = heif["color_primaries"], heif["transfer_characteristics"]
  if points is not None:
    with contextlib.suppress(ValueError):
      return cicp_to_colour(*points), None
  return said, None


def _make_transform(image: Image.Image, profile: bytes) -> ImageCms.ImageCmsTransform | None:
  """LittleCMS's way to sRGB; None for a profile that is broken or of another colour model, as viewers do."""
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), _transform_mode(image), "RGB")
  except (ImageCms.PyCMSError, OSError, ValueError):
    return None


def _transform_mode(image: Image.Image) -> str:
  return image.mode if image.mode in ("L", "CMYK", "LAB") else "RGB"


def _decode_deep(image: Image.Image, file: BytesFile) -> np.ndarray | None:
  """All bits [h w c] uint16, BGR or BGRA, of PNG and TIFF of 16 bits a colour and of HEIC of more than 8."""
  if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
    return _decode_heif(image, file)
  tags = getattr(image, "tag_v2", {})
  is_deep = image.format == "PNG" and image.mode != "P" and png.read_depth(file) == 16
  is_deep |= 16 in tags.get(_BITS_PER_SAMPLE, ()) and tags.get(_PHOTOMETRIC) == _RGB
  if not is_deep or image.mode not in ("RGB", "RGBA", "LA") or "transparency" in image.info:
    return None
  file.seek(0)
  with quiet_opencv():
    found = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
  same = found is not None and found.dtype == np.uint16 and found.ndim == 3 and found.shape[1::-1] == image.size
  return found if same else None


def _decode_heif(image: Image.Image, file: BytesFile) -> np.ndarray | None:
  import pillow_heif

  file.seek(0)
  found = np.asarray(pillow_heif.open_heif(file, convert_hdr_to_8bit=False))
  if found.dtype != np.uint16 or found.ndim != 3 or found.shape[1::-1] != image.size:
    return None
  return found[..., [2, 1, 0, 3][: found.shape[2]]]


def _split_deep(strip: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
  codes = np.ascontiguousarray(strip[..., 2::-1])
  return codes, strip[..., 3:].astype(np.float32) / 65535 if strip.shape[2] == 4 else None


def _read_grey(image: Image.Image) -> np.ndarray:
  """[h w] uint16 of a grey picture of more than 8 bits."""
  values = np.asarray(image)
  tags = getattr(image, "tag_v2", {})
  if image.mode == "F":
    codes = scale_floats(values)
  else:
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    largest = 2**bits - 1
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
      largest >>= 1
    elif image.mode == "I" and bits == 32:
      values = values.view(np.uint32)  # Pillow holds them as signed ones
    elif image.mode == "I" and values.max() > largest:
      largest = 2**31 - 1
    codes = np.clip(values, 0, largest).astype(np.uint64) * 65535 // largest
  if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
    codes = 65535 - codes
  return codes.astype(np.uint16)


def scale_floats(values: np.ndarray) -> np.ndarray:
  """Codes [h w] uint16 of grey floats [h w], whose white is 1, 255, 65535 or the largest.

  A little above 1 is still 1.
  """
  values = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
  peak = values.max()
  white = 1.0 if peak <= 2 else next((white for white in _WHITES if peak <= white), peak)
  return np.rint(np.clip(values / white, 0, 1) * 65535).astype(np.uint16)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
  """OpenCV without lines of its own on standard error."""
  level = logging.getLogLevel()
  logging.setLogLevel(logging.LOG_LEVEL_SILENT)
  try:
    yield
  finally:
    logging.setLogLevel(level)
