"""Read photos.

Everything inside the library is display-referred sRGB: photos are float32 [h w 3] in [0, 1], video frames
uint8 [h w 3]. Colour profiles and camera orientation end here.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from gid_jax.errors import UserError
from gid_jax.files import PathLike
from gid_jax.media.decoding import open_to_read

MIN_SIDE = 16
MAX_MEGAPIXELS = 100
_MAX_METADATA = 2**28  # bytes of text and profiles in a PNG
# EXIF orientation to what brings the picture upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def read_image(path: PathLike) -> Float[np.ndarray, "h w 3"]:
  """Reads a photo as it is meant to be seen: upright, sRGB, opaque.

  The EXIF orientation is applied and an embedded colour profile is converted to sRGB; whatever else stands beside the
  pixels, and is broken, is passed over. Transparency is shown over white, as viewers do by default. Grey, palette, CMYK
  and 16-bit images are accepted, as is the first frame of an animation.

  Args:
    path: any file that Pillow decodes.

  Returns:
    [h w 3] float32 RGB in [0, 1].

  Raises:
    UserError: no such readable file, not an image, damaged, under 16 pixels on a side or over 100 megapixels.
  """
  path = Path(path)
  with open_to_read(path) as file, _lenient_pillow():
    try:
      image = Image.open(file)
    except Image.DecompressionBombError:
      raise _too_large(path, "") from None
    except Exception as error:  # decoders raise all kinds on broken files
      file.seek(0)
      raise UserError(f"{path} is not an image{_describe_unknown_image(file.read(16))}") from error
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
      raise _too_large(path, f" ({width} x {height})")
    if min(width, height) < MIN_SIDE:
      raise UserError(f"{path} is {width} x {height} pixels; a photo needs at least {MIN_SIDE} x {MIN_SIDE}")
    try:
      image.load()
      return _image_to_srgb(_turn_upright(image))
    except Exception as error:
      raise UserError(f"{path} is truncated or damaged ({error}); save or download it again") from error


@contextlib.contextmanager
def _lenient_pillow() -> Iterator[None]:
  """Pillow without warnings and with room for what others write beside the pixels."""
  limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
  PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MAX_METADATA
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of broken EXIF; and of size, for which `read_image` has a limit of its own
      yield
  finally:
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _turn_upright(image: Image.Image) -> Image.Image:
  """Applies the EXIF orientation. Only this tag is read: any other may be wrong without harm."""
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:
    return image
  method = _TURNS.get(orientation) if isinstance(orientation, int) else None
  return image if method is None else image.transpose(method)


def _too_large(path: Path, size: str) -> UserError:
  limit = f"{MAX_MEGAPIXELS} megapixels"
  return UserError(f"{path} holds more than {limit}{size}; resize it below 10,000 x 10,000 pixels")


def _describe_unknown_image(head: bytes) -> str:
  if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
    return " format that can be read here (HEIC); save it as JPEG"
  return " in a format that can be read here; use JPEG, PNG or WebP"


def _image_to_srgb(image: Image.Image) -> np.ndarray:
  if image.mode.startswith("I;16"):
    return _grey_to_rgb(np.asarray(image, np.float32) / 65535)
  if image.mode in ("I", "F"):
    values = np.asarray(image, np.float32)
    # Older Pillow opens 16-bit PNG as 32-bit integers; floating point images hold [0, 1].
    scale = 1 if image.mode == "F" else 65535 if values.max() <= 65535 else 2**31 - 1
    return _grey_to_rgb(values / scale)
  alpha = None
  if image.has_transparency_data:
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"), np.float32)[..., None] / 255
  profile = image.info.get("icc_profile")
  if image.mode not in ("L", "RGB", "CMYK"):
    image = image.convert("RGB")
  rgb = np.asarray(_apply_profile(image, profile) if profile else image.convert("RGB"), np.float32) / 255
  return rgb if alpha is None else rgb * alpha + (1 - alpha)


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
  return np.repeat(np.clip(np.nan_to_num(grey), 0, 1)[..., None], 3, axis=-1).astype(np.float32)


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in ImageCms.getProfileDescription(source).lower():
      return image.convert("RGB")
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
  except (ImageCms.PyCMSError, OSError, ValueError):
    # A profile that is broken or belongs to another colour model: show the image without it, as viewers do.
    return image.convert("RGB")
  return converted or image.convert("RGB")
