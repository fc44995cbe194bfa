"""Small still files for tests, written byte by byte so that reading is not tested against what it uses."""

import struct
import zlib

import numpy as np
from PIL import ImageCms


def png_chunk(name, body):
  return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def make_png(pixels, *chunks):
  """A PNG of [h w c] uint8 or uint16 with c from 1 to 4, with (name, body) before its pixels."""
  height, width, channels = pixels.shape
  kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
  rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
  parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def make_tiff(directories, blocks=()):
  """A little-endian TIFF file.

  Args:
    directories: of each, tag -> (type, values). `("at", i)` among the values is where block or directory i begins:
      first the directories count, then the blocks. The first directory is the file's own, others only where a tag
      leads to them.
    blocks: bytes.
  """
  sizes = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
  letters = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}
  lengths = []
  for tags in directories:
    outside = sum(len(values) * sizes[kind] for kind, values in tags.values() if len(values) * sizes[kind] > 4)
    lengths.append(2 + 12 * len(tags) + 4 + outside)
  starts = (8 + np.concatenate([[0], np.cumsum([*lengths, *map(len, blocks)])])).tolist()
  data = b"II*\0" + struct.pack("<I", 8)
  for start, tags in zip(starts, directories, strict=False):
    entries, outside = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
      values = [starts[value[1]] if isinstance(value, tuple) else value for value in values]
      packed = struct.pack(f"<{len(values)}{letters[kind]}", *values)
      place = start + 2 + 12 * len(tags) + 4 + len(outside)
      cell = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", place)
      outside += packed if len(packed) > 4 else b""
      entries += struct.pack("<HHI", tag, kind, len(values)) + cell
    data += struct.pack("<H", len(tags)) + entries + bytes(4) + outside
  return data + b"".join(blocks)


def make_rgb_tiff(pixels, *, profile=None):
  """A TIFF of [h w 3] uint8 or uint16, uncompressed."""
  height, width, _ = pixels.shape
  block = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
  tags = {
    256: (4, [width]), 257: (4, [height]), 258: (3, [8 * pixels.itemsize] * 3), 259: (3, [1]), 262: (3, [2]),
    273: (4, [("at", 1)]), 277: (3, [3]), 278: (4, [height]), 279: (4, [len(block)]),
  }  # fmt: skip
  if profile is not None:
    tags[34675] = (7, list(profile))
  return make_tiff([tags], [block])


SRGB_COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3_COLUMNS = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


def parametric(gamma, *more):
  """A curve of an ICC profile: light = code ** gamma, or with four more numbers sRGB's kind of curve."""
  kind = {0: 0, 4: 3}[len(more)]
  values = [round(value * 65536) for value in (gamma, *more)]
  return struct.pack(f">4sIHH{len(values)}i", b"para", 0, kind, 0, *values)


SRGB_CURVE = parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def make_profile(*, columns=SRGB_COLUMNS, curve=SRGB_CURVE, name="test", grey=False, more=()):
  """An ICC profile of three primaries, XYZ under D50, and one curve; or of the curve alone."""
  text = name.encode("utf-16-be")
  tags = {b"desc": b"mluc" + struct.pack(">3I", 0, 1, 12) + b"enUS" + struct.pack(">2I", len(text), 28) + text}
  xyz = lambda values: b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))
  tags[b"wtpt"] = xyz((0.9642, 1.0, 0.8249))
  if grey:
    tags[b"kTRC"] = curve
  else:
    tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
  tags |= dict(more)
  start, table, body = 132 + 12 * len(tags), b"", b""
  for name, data in tags.items():
    table += struct.pack(">4sII", name, start + len(body), len(data))
    body += data.ljust(-(-len(data) // 4) * 4, b"\0")
  head = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:128])
  head[:4] = struct.pack(">I", start + len(body))
  head[16:20] = b"GRAY" if grey else b"RGB "
  return bytes(head) + struct.pack(">I", len(tags)) + table + body


def encode_srgb(linear):
  return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def decode_srgb(codes):
  return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def srgb_to_hdr(srgb, transfer):
  """Display-referred sRGB [0, 1] as a BT.2100 signal in BT.2020 primaries, white at 203 cd/m2; PQ is 16, HLG 18."""
  # ITU-R BT.2087.
  wide = decode_srgb(srgb) @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T
  if transfer == 16:
    root = (wide * 203 / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)
  scene = wide ** (1 / 1.2) * 0.26496
  return np.where(scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene, 0.3) - 0.28466892)
                  + 0.55991073)
