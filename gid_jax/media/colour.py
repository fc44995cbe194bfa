"""What the numbers of a picture mean, and what an sRGB display shows of them: transfer functions, primaries, HDR.

Code points are those of ITU-T H.273, which PNG, AVIF, HEIC, ICC profiles and videos share.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

PQ, HLG = 16, 18
# (x, y) of red, green, blue and white.
_D65 = (0.3127, 0.3290)
_BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
_PRIMARIES = {
  1: _BT709,
  4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
  5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
  6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
  7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
  9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
  11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)),
  12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
}
# Transfer functions that displays treat as sRGB's.
_LIKE_SRGB = {1, 6, 13, 14, 15}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
NUM_CODES = 1 << 16
_CODES = np.linspace(0, 1, NUM_CODES)
# D50, the white of ICC profiles, and Bradford's cone responses.
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Colour(NamedTuple):
  """From a picture's codes to light.

  Attributes:
    light: [65536 3] light of every code of each channel, 1 being white; above 1 only where `hdr`.
    matrix: [3 3] from this light to linear sRGB.
    hdr: whether light above white is rolled off, not cut off.
  """

  light: Float[np.ndarray, "n 3"]
  matrix: Float[np.ndarray, "3 3"]
  hdr: bool


def make_colour(
  light: Float[np.ndarray, "n 3"], to_xyz: Float[np.ndarray, "3 3"], *, hdr: bool = False
) -> Colour | None:
  """A `Colour` of channels whose light is [65536 3] and whose primaries are the columns of `to_xyz` [3 3], white D50.

  Returns:
    The colour, or None where it is sRGB within half a grey level.
  """
  matrix = np.linalg.inv(SRGB_TO_XYZ) @ to_xyz
  is_srgb = np.abs(_encode(np.clip(light, 0, 1)) - _CODES[:, None]).max() < 0.5 / 255
  if is_srgb and np.abs(matrix - np.eye(3)).max() < 0.004 and not hdr:
    return None
  return Colour(light.astype(np.float32), matrix.astype(np.float32), hdr)


def gamma_to_colour(gamma: float, primaries: Sequence[tuple[float, float]] | None) -> Colour | None:
  """The colour of light = code ** `gamma` and of primaries (red, green, blue, white); None where it is sRGB.

  A gamma of 2.2, within 5 %, is what programs write that mean sRGB.

  Raises:
    ValueError: no colours have such primaries.
  """
  light = _decode_srgb(_CODES) if abs(gamma / 2.2 - 1) < 0.05 else _CODES**gamma
  return make_colour(np.repeat(light[:, None], 3, 1), primaries_to_xyz(primaries or _BT709))


@functools.lru_cache(maxsize=4)
def cicp_to_colour(primaries: int, transfer: int) -> Colour | None:
  """The colour of two code points; None where it is sRGB.

  Raises:
    ValueError: they are not known here, or say that they say nothing.
  """
  light = _decode_transfer(transfer)
  if light is None or primaries not in _PRIMARIES:
    raise ValueError("unknown code points")
  return make_colour(
    np.repeat(light[:, None], 3, 1), primaries_to_xyz(_PRIMARIES[primaries]), hdr=transfer in (PQ, HLG))


def primaries_to_xyz(primaries: Sequence[tuple[float, float]]) -> Float[np.ndarray, "3 3"]:
  """From linear red, green and blue to XYZ under D50 [3 3], for the (x, y) of red, green, blue and white.

  Raises:
    ValueError: no colours have such primaries.
  """
  xy = np.array(primaries, np.float64)
  if not (np.isfinite(xy).all() and (xy[:, 1] > 0).all()):
    raise ValueError("primaries without luminance")
  xyz = np.stack([xy[:, 0], xy[:, 1], 1 - xy.sum(1)]) / xy[:, 1]
  if abs(np.linalg.det(xyz[:, :3])) < 1e-6:
    raise ValueError("primaries on one line")
  colours = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
  adapted = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ xyz[:, 3]))
  return np.linalg.inv(_BRADFORD) @ adapted @ _BRADFORD @ colours


SRGB_TO_XYZ = primaries_to_xyz(_BT709)


def show_as_srgb(
  codes: UInt[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"], colour: Colour | None
) -> Float[np.ndarray, "h w 3"]:
  """What an sRGB display shows of codes of 8 or 16 bits, or of light.

  Colours outside sRGB are cut off. Of HDR, graphics white (203 cd/m2) is shown at 92 %, and brighter light is rolled
  off towards 1.

  Args:
    codes: [h w 3] uint8 or uint16; or float32, which is HDR light in sRGB's primaries, 1 being graphics white.
    colour: what they mean; None for sRGB.

  Returns:
    [h w 3] float32 sRGB in [0, 1].
  """
  if codes.dtype.kind == "f":
    return _encode(np.clip(_roll_off(np.maximum(codes, 0)), 0, 1))
  largest = np.iinfo(codes.dtype).max
  if colour is None:
    return codes.astype(np.float32) / largest
  light = colour.light[:: (NUM_CODES - 1) // largest]
  linear = np.stack([light[:, channel][codes[..., channel]] for channel in range(3)], -1) @ colour.matrix.T
  return _encode(np.clip(_roll_off(linear) if colour.hdr else linear, 0, 1))


def _roll_off(linear: np.ndarray) -> np.ndarray:
  return np.where(linear < 0.5, linear, 1 - 0.5 * np.exp(1 - 2 * np.maximum(linear, 0.5)))


def _decode_transfer(transfer: int) -> np.ndarray | None:
  """Light of every code; of HDR in units of graphics white."""
  if transfer in _LIKE_SRGB:
    return _decode_srgb(_CODES)
  if transfer in _GAMMAS:
    return _CODES ** _GAMMAS[transfer]
  if transfer == PQ:
    root = _CODES ** (1 / 78.84375)
    return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125) * 10000 / 203
  if transfer == HLG:
    scene = np.where(_CODES <= 0.5, _CODES**2 / 3, (np.exp((_CODES - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    # The luminance-dependent display gamma of 1.2, taken per channel; 75 % signal is graphics white.
    return (scene / 0.26496256) ** 1.2
  return None


def _decode_srgb(codes: np.ndarray) -> np.ndarray:
  return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def _encode(linear: np.ndarray) -> np.ndarray:
  return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
