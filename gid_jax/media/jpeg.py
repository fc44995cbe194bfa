"""JPEG files that end too early."""

import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageChops

_END = b"\xff\xd9"
# Second bytes of markers: start of scan, restart interval, progressive frame.
_SOS, _DRI, _SOF2 = 0xDA, 0xDD, 0xC2
# And of what applications write, the fourteenth of which, by Adobe, says what the colours are, and of comments.
_APP0, _COM, _ADOBE_LENGTH = 0xE0, 0xFE, 12


def complete(data: bytes, decode: Callable[[bytes], Image.Image]) -> tuple[bytes, float]:
  """Makes a whole file of one whose end is missing.

  libjpeg fills what is missing without saying how much that is. So the picture is decoded twice, once with noise in
  the place of what is missing: where the two differ, nothing was there. Of a progressive file all scans must have
  begun.

  Args:
    data: the file.
    decode: decodes one.

  Returns:
    The file with its end marker, and the share of its pixels that were missing.
  """
  data = data.rstrip(b"\xff")
  whole = data + _END
  picture = decode(whole)
  if not _has_all_scans(data):
    return whole, 1.0
  other = decode(data + _make_noise(data, picture.size[0] * picture.size[1]) + _END)
  differences = np.asarray(ImageChops.difference(picture, other))
  return whole, float((differences.reshape(*differences.shape[:2], -1) > 0).any(-1).mean())


def drop_metadata(data: bytes) -> Iterator[bytes]:
  """The same picture with ever less beside its pixels.

  Yields:
    The file with its orientation, its profile and what its colours are, and then with the last of these alone.
  """
  parts = list(_segments(data))
  if not parts or parts[-1][0] != _SOS:
    return
  colours = lambda marker, body: marker == _APP0 + 14 and len(body) >= _ADOBE_LENGTH
  beside = lambda marker, body: (
    (marker == _APP0 + 1 and body.startswith(b"Exif\0")) or (marker == _APP0 + 2 and body.startswith(b"ICC_PROFILE\0")))
  for keeps in (lambda *part: colours(*part) or beside(*part), colours):
    kept = [
      struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
      for marker, body, _ in parts[:-1]
      if not (_APP0 <= marker < _APP0 + 16 or marker == _COM) or keeps(marker, body)
    ]
    yield data[:2] + b"".join(kept) + data[parts[-1][2] :]


def _make_noise(data: bytes, num_pixels: int) -> bytes:
  """Entropy-coded data of chance for a whole picture, with the restart markers that are due."""
  interval = next((struct.unpack_from(">H", body)[0] for marker, body, _ in _segments(data) if marker == _DRI), 0)
  block = np.random.default_rng(0).integers(1, 255, 1 << 16, np.uint8).tobytes()
  # A byte a pixel is more than chance needs; an MCU has at most 256 of them.
  make = lambda length: (block * (length // len(block) + 1))[:length]
  if not interval:
    return make(num_pixels)
  last = max(data.rfind(bytes((0xFF, 0xD0 + i))) for i in range(8))
  following = data[last + 1] - 0xD0 + 1 if last >= 0 else 0
  number = num_pixels // (64 * interval) + 1
  return b"".join(make(256 * interval) + bytes((0xFF, 0xD0 + (following + i) % 8)) for i in range(number))


def _has_all_scans(data: bytes) -> bool:
  """Whether the last scan of every component has begun: the one that brings its highest coefficients' last bit."""
  missing: set[int] = set()
  place = -1
  for marker, body, begin in _segments(data):
    if marker == _SOF2:
      missing = {body[6 + 3 * i] for i in range(body[5])}
    if marker == _SOS:
      place = begin
  while missing and place >= 0:
    number = data[place + 4]
    components, (_, end, bits) = data[place + 5 : place + 5 + 2 * number : 2], data[place + 5 + 2 * number :][:3]
    if end == 63 and bits & 15 == 0:
      missing -= {*components}
    place = data.find(bytes((0xFF, _SOS)), place + 2)
  return not missing


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
  """Marker, body and place of each segment up to the first scan's."""
  place = 2
  while place + 4 <= len(data) and data[place] == 0xFF:
    (length,) = struct.unpack_from(">H", data, place + 2)
    yield data[place + 1], data[place + 4 : place + 2 + length], place
    if data[place + 1] == _SOS:
      return
    place += 2 + length
