"""PNG files beyond what Pillow tells: colour by numbers, and files that end too early."""

import contextlib
import struct
import zlib
from collections.abc import Iterator

from gid_jax.files import BytesFile
from gid_jax.media.colour import Colour, cicp_to_colour, gamma_to_colour, primaries_to_xyz

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# (first column, first row, step to the right, step down) of each pass of an interlaced file.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def read_depth(file: BytesFile) -> int:
  """Bits of a channel."""
  file.seek(24)
  return file.read(1)[0]


def read_colour(file: BytesFile) -> tuple[Colour | None, bool]:
  """Reads what cICP, or else gAMA and cHRM say; a profile (iCCP) and sRGB stand between the two.

  Returns:
    The colour, None where it is sRGB or not said; and whether it goes before a profile.
  """
  chunks = {}
  file.seek(8)
  while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
    (length,) = struct.unpack(">I", head[:4])
    if head[4:] in (b"cICP", b"gAMA", b"cHRM", b"sRGB") and length <= 32:
      chunks[head[4:]] = file.read(length)
      length = 0
    file.seek(length + 4, 1)
  try:
    if b"cICP" in chunks:
      primaries, transfer = chunks[b"cICP"][:2]
      return cicp_to_colour(primaries, transfer), True
    if b"gAMA" in chunks and b"sRGB" not in chunks:
      (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
      return gamma_to_colour(100_000 / gamma, _read_primaries(chunks.get(b"cHRM"))), False
  except (struct.error, ValueError, ArithmeticError):
    pass
  return None, False


def _read_primaries(body: bytes | None) -> list[tuple[float, float]] | None:
  """(x, y) of red, green, blue and white; None where no colours have such, or nothing is said."""
  if body is None or len(body) != 32:
    return None
  white, *colours = [(x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", body)]
  try:
    primaries_to_xyz([*colours, white])
  except ValueError:
    return None
  return [*colours, white]


def drop_metadata(data: bytes) -> Iterator[bytes]:
  """The same picture with ever less beside its pixels, and without what is damaged there.

  Yields:
    The file with profile and orientation alone, and then without these.
  """
  for kept in ((b"tRNS", b"iCCP", b"eXIf"), (b"tRNS",)):
    chunks = [_chunk(name, body) for name, body in _read_chunks(data) if name in kept or not _is_ancillary(name)]
    yield SIGNATURE + b"".join(chunks)


def complete(data: bytes) -> tuple[bytes, float]:
  """Makes a whole file of one whose end is missing; the last row that is there takes the place of those that are not.

  Returns:
    The file, and the share of its pixels' bytes that were missing.

  Raises:
    ValueError: not even the beginning is there.
  """
  header, kept, packed = b"", [], []
  for name, body in _read_chunks(data):
    if name == b"IHDR":
      header = body
    if name == b"IDAT":
      packed.append(body)
    elif name != b"IEND" and not packed:
      kept.append(_chunk(name, body))
  if len(header) != 13 or not packed:
    raise ValueError("no picture")
  needed, row = _count_bytes(header)
  pixels = _inflate(b"".join(packed))[:needed]
  missing = 1 - len(pixels) / needed
  pixels += bytes((needed - len(pixels)) % row)
  pixels += (b"\2" + bytes(row - 1)) * ((needed - len(pixels)) // row)  # filter 2: the row above
  end = _chunk(b"IDAT", zlib.compress(pixels, 1)) + _chunk(b"IEND", b"")
  return SIGNATURE + b"".join(kept) + end, missing


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Name and body of each chunk but of damaged ones beside the pixels; the last may be cut off."""
  place = 8
  while place + 8 <= len(data):
    length, name = struct.unpack_from(">I4s", data, place)
    end = place + 8 + length
    if not _is_ancillary(name) or data[end : end + 4] == struct.pack(">I", zlib.crc32(data[place + 4 : end])):
      yield name, data[place + 8 : end]
    place = end + 4


def _is_ancillary(name: bytes) -> bool:
  return bool(name[0] & 32)


def _chunk(name: bytes, body: bytes) -> bytes:
  return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _count_bytes(header: bytes) -> tuple[int, int]:
  """How many bytes all rows have, and how many one of them, with the byte of its filter; of the last pass."""
  width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
  bits = depth * _CHANNELS.get(kind, 0)
  if not width * height * bits:
    raise ValueError("no picture")
  total = row = 0
  for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
    columns, rows = -(-(width - left) // right), -(-(height - top) // down)
    if columns > 0 and rows > 0:
      row = 1 + (columns * bits + 7) // 8
      total += rows * row
  return total, row


def _inflate(packed: bytes) -> bytes:
  """All that can be unpacked."""
  inflator, parts = zlib.decompressobj(), []
  for place in range(0, len(packed), 1024):
    piece, before = packed[place : place + 1024], inflator.copy()
    try:
      parts.append(inflator.decompress(piece))
    except zlib.error:  # which keeps what came before the fault
      with contextlib.suppress(zlib.error):
        for byte in piece:
          parts.append(before.decompress(bytes([byte])))
      break
  return b"".join(parts)
