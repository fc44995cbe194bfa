"""ICC profiles that are numbers: three curves and a matrix, one curve of grey, or code points of ITU-T H.273."""

import contextlib
import struct

import numpy as np

from gid_jax.media.colour import NUM_CODES, SRGB_TO_XYZ, Colour, cicp_to_colour, make_colour

# How many numbers each kind of a parametric curve has.
_NUM_PARAMETERS = (1, 3, 4, 5, 7)


def read_profile(profile: bytes, *, grey: bool) -> Colour | None:
  """Reads what an ICC profile says of a picture.

  Args:
    profile: the bytes.
    grey: whether the picture is, to which a profile of grey or of RGB may belong.

  Returns:
    The colour, or None where it is sRGB.

  Raises:
    ValueError: the profile has tables for whole colours, is of another colour model, or is broken.
  """
  try:
    tags = _read_tags(profile)
    if b"cicp" in tags:
      with contextlib.suppress(ValueError):
        primaries, transfer = tags[b"cicp"][8:10]
        return cicp_to_colour(primaries, transfer)
    space, connection = profile[16:20], profile[20:24]
    if connection != b"XYZ " or {b"A2B0", b"A2B1", b"A2B2"} & tags.keys():
      raise ValueError("no matrix")
    if space == b"GRAY" and grey:
      return make_colour(np.repeat(_read_curve(tags[b"kTRC"])[:, None], 3, 1), SRGB_TO_XYZ)
    if space != b"RGB ":
      raise ValueError("another colour model")
    light = np.stack([_read_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")], -1)
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    return make_colour(light, np.array(columns, np.float64).T / 65536)
  except (KeyError, IndexError, struct.error) as error:
    raise ValueError("broken") from error


def _read_tags(profile: bytes) -> dict[bytes, bytes]:
  (number,) = struct.unpack_from(">I", profile, 128)
  tags = {}
  for index in range(min(number, 200)):
    name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
    tags[name] = profile[offset : offset + size]
  return tags


def _read_curve(tag: bytes) -> np.ndarray:
  """Light of 65536 codes, of a sampled or parametric curve."""
  codes = np.linspace(0, 1, NUM_CODES)
  if tag[:4] == b"curv":
    (number,) = struct.unpack_from(">I", tag, 8)
    if number == 0:
      return codes
    if number == 1:
      return codes ** (struct.unpack_from(">H", tag, 12)[0] / 256)
    table = np.frombuffer(tag, ">u2", count=number, offset=12) / 65535
    return np.interp(codes, np.linspace(0, 1, number), table)
  if tag[:4] != b"para":
    raise ValueError("another curve")
  (kind,) = struct.unpack_from(">H", tag, 8)
  values = [value / 65536 for value in struct.unpack_from(f">{_NUM_PARAMETERS[kind]}i", tag, 12)]
  if values[0] <= 0 or (kind and values[1] == 0):
    raise ValueError("no curve")
  gamma, a, b, c, d, e, f = {
    0: lambda g: (g, 1, 0, 0, 0, 0, 0),
    1: lambda g, a, b: (g, a, b, 0, -b / a, 0, 0),
    2: lambda g, a, b, c: (g, a, b, 0, -b / a, c, c),
    3: lambda g, a, b, c, d: (g, a, b, c, d, 0, 0),
    4: lambda g, a, b, c, d, e, f: (g, a, b, c, d, e, f),
  }[kind](*values)
  return np.clip(np.where(codes >= d, np.maximum(a * codes + b, 0) ** gamma + e, c * codes + f), 0, 1)
