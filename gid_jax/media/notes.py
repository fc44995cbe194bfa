"""A note inside picture files that FFmpeg writes without one: GIF, animated PNG and animated WebP."""

import struct
import zlib
from pathlib import Path

from PIL import ExifTags, Image

NOTED_SUFFIXES = (".gif", ".apng", ".png", ".webp")
_EXIF_FLAG = 8  # of the VP8X chunk
_PNG_HEADER = 33  # bytes


def add_note(path: Path, text: str) -> None:
  """Adds a text, of at most 255 bytes in ASCII, to a complete file whose suffix is one of `NOTED_SUFFIXES`.

  GIF gets a comment, PNG a text chunk "Comment", WebP the EXIF field ImageDescription.
  """
  add = {".gif": _add_to_gif, ".webp": _add_to_webp}.get(path.suffix.lower(), _add_to_png)
  path.write_bytes(add(path.read_bytes(), text.encode("ascii")))


def _add_to_gif(data: bytes, text: bytes) -> bytes:
  # Before the first picture, where readers look: behind the header and the palette that is for all of them.
  place = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
  return data[:place] + b"\x21\xfe" + bytes([len(text)]) + text + b"\0" + data[place:]


def _add_to_png(data: bytes, text: bytes) -> bytes:
  chunk = b"tEXtComment\0" + text
  chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
  return data[:_PNG_HEADER] + chunk + data[_PNG_HEADER:]


def _add_to_webp(data: bytes, text: bytes) -> bytes:
  if data[12:16] != b"VP8X":  # A single picture, as frames that are all alike become, has no room for a note.
    return data
  exif = Image.Exif()
  exif[ExifTags.Base.ImageDescription] = text.decode()
  block = exif.tobytes().removeprefix(b"Exif\0\0")
  data += b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
  return data[:4] + struct.pack("<I", len(data) - 8) + data[8:20] + bytes([data[20] | _EXIF_FLAG]) + data[21:]
