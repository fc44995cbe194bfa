"""Formats of stills by their content: camera raws, which are refused, and those that need a library more."""

import struct
from pathlib import Path

from PIL import TiffImagePlugin

from gid_jax.errors import UserError
from gid_jax.files import BytesFile

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
RAW_BRANDS = (b"crx ",)
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
# How raws begin that are not TIFF files with an ordinary beginning.
_RAW_BEGINNINGS = (
  b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
_RAW_SUFFIXES = {
  ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos",
  ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
_TIFF = (b"II*\0", b"MM\0*")
_BEGINNINGS = (
  (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"), *((head, "TIFF") for head in _TIFF))
# How other files begin that are called photos, in lower case; what they are; what to do.
_OTHERS = (
  (b"%pdf", "a PDF document", "export the page as PNG"),
  (b"%!ps", "a PostScript document", "export it as PNG"),
  (b"\xc5\xd0\xd3\xc6", "a PostScript document", "export it as PNG"),
  (b"gimp xcf", "a GIMP document", "export it as PNG"),
  (b"simple  =", "a FITS file", "export it as PNG or TIFF"),
  (b"\x93numpy", "a NumPy array", "save it as PNG"),
  (b"pk\3\4", "a ZIP archive or an office document", "unpack it"),
  (b"\x1f\x8b", "a gzip archive", "unpack it"),
  (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with: git lfs pull"),
  (b"<!doctype html", "a web page", "download the photo itself"),
  (b"<html", "a web page", "download the photo itself"),
  (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "full of zeros, as broken copies are", "copy it again"),
)
_PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 262, 330, 50706
# Values of the tag: one colour a pixel, as sensors have it, and what a camera made of that.
_SENSOR = (32803, 34892)


def find_raw(path: Path, file: BytesFile) -> str | None:
  """The name of the camera raw format of a file, "NEF" or just "raw", or None where it is none.

  A TIFF file is a raw if it holds a sensor's image, is a DNG, or has the suffix of a raw.
  """
  file.seek(0)
  head = file.read(32)
  suffix = path.suffix.lower()
  name = suffix[1:].upper() if suffix in _RAW_SUFFIXES else "raw"
  if head.startswith(_RAW_BEGINNINGS) or head[8:10] == b"CR" or (head[4:8] == b"ftyp" and head[8:12] in RAW_BRANDS):
    return name
  if head.startswith(_TIFF) and (suffix in _RAW_SUFFIXES or _holds_sensor(file)):
    return name
  return None


def refuse_others(path: Path, file: BytesFile) -> None:
  """Refuses by name what is known and is no photo.

  Raises:
    UserError: it is a document, an archive, a web page or the like.
  """
  file.seek(0)
  head = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
  for beginning, name, remedy in _OTHERS:
    if head[: len(beginning)].lower() == beginning:
      raise UserError(f"{path} is {name}, not a photo; {remedy}")
  if head.startswith(b"<") and b"<svg" in head:
    raise UserError(f"{path} is an SVG drawing, not a photo; export it as PNG")


def name_format(file: BytesFile) -> str | None:
  """The name of a still's format by how the file begins, or None where no such beginning is known."""
  file.seek(0)
  head = file.read(16)
  for beginning, name in (*_BEGINNINGS, *((beginning, "JPEG XL") for beginning in _JXL)):
    if head.startswith(beginning):
      return name
  if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
    return "WebP"
  if head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS + HEIF_BRANDS:
    return "AVIF" if _is_avif(file) else "HEIC"
  return None


def prepare(path: Path, file: BytesFile) -> None:
  """Makes Pillow able to read HEIC and JPEG XL, if the file is one.

  Raises:
    UserError: the library for it is missing.
  """
  name = name_format(file)
  library = {"HEIC": "pillow-heif", "JPEG XL": "pillow-jxl-plugin"}.get(name or "")
  if library is None:
    return
  try:
    if name == "HEIC":
      import pillow_heif

      pillow_heif.register_heif_opener()
    else:
      import pillow_jxl  # noqa: F401 (registers itself)
  except ImportError as error:
    raise UserError(f"{path} is {name}, which {library} reads; install it with: pip install {library}") from error


def read_nclx(file: BytesFile) -> tuple[int, int] | None:
  """Primaries and transfer function of an AVIF file: what its first description of colours says, if in code points."""
  file.seek(0)
  head = file.read(1 << 16)
  place = head.find(b"colr")
  if place < 0 or head[place + 4 : place + 8] != b"nclx" or place + 12 > len(head):
    return None
  primaries, transfer = struct.unpack_from(">HH", head, place + 8)
  return primaries, transfer


def _is_avif(file: BytesFile) -> bool:
  """Whether a HEIF file, by the list behind its first brand, is one of those that Pillow reads by itself."""
  file.seek(0)
  head = file.read(256)
  (length,) = struct.unpack_from(">I", head)
  return any(brand in head[:length] for brand in AVIF_BRANDS)


def _holds_sensor(file: BytesFile) -> bool:
  """Whether an image of a TIFF file is a sensor's, or the file says to be a DNG."""
  try:
    file.seek(0)
    head = file.read(8)
    (offset,) = struct.unpack("<I" if head[:2] == b"II" else ">I", head[4:])
    waiting, seen = [offset], set()
    while waiting and len(seen) < 20:
      offset = waiting.pop()
      if not offset or offset in seen:
        continue
      seen.add(offset)
      file.seek(offset)
      directory = TiffImagePlugin.ImageFileDirectory_v2(head)
      directory.load(file)
      if directory.get(_PHOTOMETRIC) in _SENSOR or _DNG_VERSION in directory:
        return True
      more = directory.get(_SUB_IFDS, ())
      waiting += [more] if isinstance(more, int) else list(more)
      waiting.append(directory.next)
  except Exception:  # a broken directory is Pillow's to refuse
    pass
  return False
