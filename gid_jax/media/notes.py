"""A note inside picture files that FFmpeg writes without one: GIF, animated PNG and animated WebP.

All three end in a way that lets a block be put before the end, so nothing that is there is read or moved.
"""

import struct
import zlib
from pathlib import Path

from PIL import ExifTags, Image

NOTED_SUFFIXES = (".gif", ".apng", ".png", ".webp")
_EXIF_FLAG = 8  # of the VP8X chunk


def add_note(path: Path, text: str) -> None:
  """Adds a text, of at most 255 bytes in ASCII, to a complete file whose suffix is one of `NOTED_SUFFIXES`.

  GIF gets a comment, PNG a text chunk "Comment", WebP the EXIF field ImageDescription.
  """
  data = text.encode("ascii")
  with path.open("r+b") as file:
    if path.suffix.lower() == ".gif":
      file.seek(-1, 2)
      file.write(b"\x21\xfe" + bytes([len(data)]) + data + b"\0;")
    elif path.suffix.lower() == ".webp":
      exif = Image.Exif()
      exif[ExifTags.Base.ImageDescription] = text
      block = exif.tobytes().removeprefix(b"Exif\0\0")
      file.seek(0, 2)
      file.write(b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2))
      size = file.tell()
      file.seek(4)
      file.write(struct.pack("<I", size - 8))
      file.seek(20)
      flags = file.read(1)[0]
      file.seek(20)
      file.write(bytes([flags | _EXIF_FLAG]))
    else:
      file.seek(-12, 2)
      end = file.read()
      chunk = b"tEXtComment\0" + data
      file.seek(-12, 2)
      file.write(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + end)
