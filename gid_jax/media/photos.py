"""Read photos.

Everything inside the library is display-referred sRGB: photos are float32 [h w 3] in [0, 1], video frames
uint8 [h w 3]. Colour profiles and camera orientation end here.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image, PngImagePlugin

from gid_jax.errors import UserError
from gid_jax.files import BytesFile, PathLike, first_line
from gid_jax.media import formats, jpeg, png
from gid_jax.media.colour import show_as_srgb
from gid_jax.media.decoding import open_to_read
from gid_jax.media.light import find_reader, open_light
from gid_jax.media.pixels import Pixels, open_pixels
from gid_jax.media.tiff import open_tiff

# Pillow logs what it raises, too, and Python prints what nobody handles.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MIN_SIDE = 16
# Of what is returned, and of what is decoded whole on the way; JPEG alone is decoded smaller.
MAX_MEGAPIXELS, MAX_DECODED_MEGAPIXELS = 100, 250
# The largest share of a picture's pixels that may be missing at its end.
_MAX_MISSING = 0.005
_MAX_METADATA = 2**28  # bytes of text and profiles in a PNG
_STRIP = 1 << 20  # pixels at a time
# EXIF orientation to the stored picture [h w 3], as a view of the upright one.
_STORED = {
  2: lambda upright: upright[:, ::-1],
  3: lambda upright: upright[::-1, ::-1],
  4: lambda upright: upright[::-1],
  5: lambda upright: upright.swapaxes(0, 1),
  6: lambda upright: np.rot90(upright, 1),
  7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
  8: lambda upright: np.rot90(upright, -1),
}


def read_image(path: PathLike, *, warn: Callable[[str], None] = warnings.warn) -> Float[np.ndarray, "h w 3"]:
  """Reads a photo as it is meant to be seen: upright, sRGB, opaque.

  The EXIF orientation is applied. Colours that are described by numbers (an ICC profile, cICP, gAMA and cHRM of PNG,
  the code points of AVIF and HEIC) become sRGB, and HDR (PQ, HLG and the light of Radiance, PFM, OpenEXR and TIFF of
  floats) is tone-mapped; whatever else stands beside the pixels, and is broken, is passed over. Transparency is shown
  over white, as viewers do by default. Grey, palette, CMYK and 16-bit images are accepted, as is the first frame of an
  animation.

  A photo of more than 100 megapixels is averaged down by 2, 3, ... until it has no more; a JPEG is decoded smaller.
  A JPEG or PNG that ends early is shown if less than a two-hundredth of its pixels is missing.

  Args:
    path: any file that Pillow decodes, and .hdr, .pfm and .exr; HEIC and JPEG XL need the extra `photos`.
    warn: is told in one line what is not as it should be with a photo that is read nevertheless.

  Returns:
    [h w 3] float32 RGB in [0, 1].

  Raises:
    UserError: no such readable file, not an image, a camera raw, damaged, under 16 pixels on a side, or over 250
      megapixels (JPEG: 6400).
  """
  path = Path(path)
  with open_to_read(path) as file, _lenient_pillow():
    raw = formats.find_raw(path, file)
    if raw is not None:
      raise UserError(f"{path} is a camera raw ({raw}), which needs developing; export it as JPEG or TIFF")
    formats.refuse_others(path, file)
    formats.prepare(path, file)
    try:
      reader = find_reader(file)
      limit = MAX_MEGAPIXELS * 1e6
      pixels = _read_codes(path, file, warn) if reader is None else open_light(file, reader, max_pixels=limit)
      _check_size(path, *pixels.size)
      return _show(pixels)
    except UserError:
      raise
    except Exception as error:  # decoders raise all kinds on broken files
      raise UserError(f"{path} is damaged ({first_line(error)}); save or download it again") from error


def find_size(path: PathLike) -> tuple[int, int] | None:
  """Height and width that a photo is likely to be shown at, of its header alone; None where Pillow reads none."""
  with contextlib.suppress(Exception), open_to_read(Path(path)) as file, _lenient_pillow(), Image.open(file) as image:
    width, height = image.size
    return (width, height) if _read_orientation(image) >= 5 else (height, width)
  return None


@contextlib.contextmanager
def _lenient_pillow() -> Iterator[None]:
  """Pillow without warnings and with room for large pictures and for what others write beside the pixels."""
  limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
  PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MAX_METADATA
  Image.MAX_IMAGE_PIXELS = None  # `_open` has limits of its own
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of broken EXIF
      yield
  finally:
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS = limits


def _read_codes(path: Path, file: BytesFile, warn: Callable[[str], None]) -> Pixels:
  name = formats.name_format(file)
  try:
    image, file = _open(path, file, name)
    try:
      return _load(image, file)
    except Exception as error:
      completed = _complete(path, file, image, warn)
      if completed is None:
        raise UserError(f"{path} is truncated or damaged ({first_line(error)}); save or download it again") from error
      return completed
  except UserError:
    pixels = open_tiff(file, max_pixels=MAX_MEGAPIXELS * 1e6) if name == "TIFF" else None
    if pixels is None:
      raise
    return pixels


def _open(path: Path, file: BytesFile, name: str | None) -> tuple[Image.Image, BytesFile]:
  """The picture, and the file that it is in: another one where something beside the pixels had to go."""
  file.seek(0)
  try:
    image = Image.open(file)
  except Exception as error:
    found = _open_without_metadata(file, name)
    if found is None and name == "TIFF":
      raise UserError(f"{path} is damaged or a kind of TIFF that cannot be read here; save it as PNG") from error
    if found is None and name is not None:
      raise UserError(f"{path} is a damaged {name} file; save or download it again") from error
    if found is None:
      raise UserError(f"{path} is not an image in a format that can be read here; use JPEG, PNG or WebP") from error
    image, file = found
  width, height = image.size
  _check_size(path, width, height)
  _draft(image)
  size = image.size[0] * image.size[1]
  limit = MAX_MEGAPIXELS if _is_jpeg(image) else MAX_DECODED_MEGAPIXELS
  if size > limit * 1e6:
    raise UserError(f"{path} holds more than {limit} megapixels ({width} x {height}); resize it")
  return image, file


def _check_size(path: Path, width: int, height: int) -> None:
  if min(width, height) < MIN_SIDE:
    raise UserError(f"{path} is {width} x {height} pixels; a photo needs at least {MIN_SIDE} x {MIN_SIDE}")


def _open_without_metadata(file: BytesFile, name: str | None) -> tuple[Image.Image, BytesFile] | None:
  drop = {"JPEG": jpeg.drop_metadata, "PNG": png.drop_metadata}.get(name or "")
  if drop is None:
    return None
  file.seek(0)
  for data in drop(file.read()):
    with contextlib.suppress(Exception):
      fresh = io.BytesIO(data)
      return Image.open(fresh), fresh
  return None


def _is_jpeg(image: Image.Image) -> bool:
  return image.format in ("JPEG", "MPO")


def _draft(image: Image.Image) -> None:
  """Makes a large JPEG come out at a half, a quarter or an eighth of its size."""
  width, height = image.size
  factor = 1
  while width * height > MAX_MEGAPIXELS * 1e6 * factor**2 and factor < 8:
    factor *= 2
  if factor > 1 and _is_jpeg(image):
    image.draft(None, (width // factor, height // factor))


def _load(image: Image.Image, file: BytesFile) -> Pixels:
  image.load()
  orientation = _read_orientation(image)  # afterwards, as TIFF is turned on the way
  return open_pixels(image, file, orientation=orientation)


def _complete(path: Path, file: BytesFile, image: Image.Image, warn: Callable[[str], None]) -> Pixels | None:
  """The pixels of a JPEG or PNG file that ends early, or None where that is not all that is wrong."""
  file.seek(0)
  data = file.read()
  try:
    if _is_jpeg(image):
      data, missing = jpeg.complete(data, _decode)
    elif image.format == "PNG":
      data, missing = png.complete(data)
    else:
      return None
    if missing > _MAX_MISSING:
      return None
    pixels = _load(_decode(data), io.BytesIO(data))
  except Exception:
    return None
  lacking = f"{100 * missing:.2g} % of its pixels are missing" if missing else "all its pixels are there"
  warn(f"{path} is cut off at its end; {lacking}")
  return pixels


def _decode(data: bytes) -> Image.Image:
  image = Image.open(io.BytesIO(data))
  _draft(image)
  image.load()
  return image


def _read_orientation(image: Image.Image) -> int:
  """The EXIF orientation. Only this tag is read: any other may be wrong without harm."""
  if image.format == "JXL" and not getattr(image, "jpeg", False):
    return 1  # The decoder has turned it; only what was a JPEG comes as it was stored.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:
    return 1
  return orientation if isinstance(orientation, int) and orientation in _STORED else 1


def _show(pixels: Pixels) -> np.ndarray:
  """Brings pixels to sRGB over white, strip by strip, so that little more than the result is held."""
  width, height = pixels.size
  factor = 1
  while width * height > MAX_MEGAPIXELS * 1e6 * factor**2:
    factor += 1
  rows, columns = height // factor, width // factor
  turned = pixels.orientation >= 5
  upright = np.empty((columns, rows, 3) if turned else (rows, columns, 3), np.float32)
  stored = _STORED[pixels.orientation](upright) if pixels.orientation in _STORED else upright
  step = max(1, _STRIP // width // factor)
  for begin in range(0, rows, step):
    end = min(begin + step, rows)
    codes, alpha = pixels.read_rows(begin * factor, end * factor)
    strip = show_as_srgb(codes, pixels.colour)
    if alpha is not None:
      strip = strip * alpha + (1 - alpha)
    if factor > 1:
      strip = cv2.resize(strip[:, : columns * factor], (columns, end - begin), interpolation=cv2.INTER_AREA)
    stored[begin:end] = strip
  return upright
