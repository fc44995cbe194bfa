"""Stills that hold light instead of codes: Radiance, PFM and OpenEXR, floats of which about 1 is white."""

import struct

import av
import av.error
import numpy as np
from jaxtyping import Float

from gid_jax.files import BytesFile, describe_failure
from gid_jax.media.pixels import Pixels

# How files begin, and FFmpeg's name for what reads the rest.
_READERS = {b"#?RADIANCE": "hdr_pipe", b"#?RGBE": "hdr_pipe", b"PF\n": "pfm_pipe", b"Pf\n": "pfm_pipe",
            b"v/1\x01": "exr_pipe"}  # fmt: skip
_MID_GREY = 0.18  # geometric mean of a scene that is well exposed
_FAR_OFF = 8  # times that: the scale is arbitrary, not an exposure


def find_reader(file: BytesFile) -> str | None:
  """FFmpeg's name for what reads a still of light, by how the file begins; None for any other file."""
  file.seek(0)
  head = file.read(16)
  return next((reader for beginning, reader in _READERS.items() if head.startswith(beginning)), None)


def open_light(file: BytesFile, reader: str, *, max_pixels: float) -> Pixels:
  """Opens a still of light.

  Args:
    file: one for which `find_reader` found a `reader`.
    reader: that.
    max_pixels: more are not decoded.

  Raises:
    ValueError: it is damaged, too large, or holds no colours.
  """
  if reader == "exr_pipe" and not _is_whole_exr(file):
    raise ValueError("it ends early")
  file.seek(0)
  try:
    with av.open(file, "r", format=reader, options={"err_detect": "explode"}) as container:
      stream = container.streams.video[0]
      if stream.width * stream.height > max_pixels:
        raise ValueError(f"{stream.width} x {stream.height} pixels are too many")
      frame = next(container.decode(stream))
  except av.error.FFmpegError as error:
    raise ValueError(describe_failure(error)) from error
  channels = len(frame.format.components)
  if channels == 2:
    raise ValueError("grey with transparency")
  wanted = {1: "grayf32le", 3: "gbrpf32le", 4: "gbrapf32le"}[channels]
  values = (frame if frame.format.name == wanted else frame.reformat(format=wanted)).to_ndarray()
  return light_to_pixels(values if values.ndim == 3 else values[..., None])


def _is_whole_exr(file: BytesFile) -> bool:
  """Whether every block of lines of an OpenEXR is there; FFmpeg leaves what is missing black and says nothing."""
  file.seek(0)
  data = file.read()
  place = 8
  try:
    while data[place]:  # attributes: name, type, length, value
      place = data.index(0, data.index(0, place) + 1) + 1
      place += 4 + struct.unpack_from("<I", data, place)[0]
    place += 1
    first = struct.unpack_from("<Q", data, place)[0]
    offsets = struct.unpack_from(f"<{(first - place) // 8}Q", data, place)  # of the blocks, which follow
    last = max(offsets)
    head = 20 if data[5] & 2 else 8  # of a tile or of lines; its last four bytes are the size of what follows
    return last + head + struct.unpack_from("<i", data, last + head - 4)[0] <= len(data)
  except (IndexError, ValueError, struct.error):
    return False


def light_to_pixels(light: Float[np.ndarray, "h w c"]) -> Pixels:
  """The still of linear sRGB [h w 1|3|4] of any scale, the last of four channels being opacity, multiplied in."""
  light = np.nan_to_num(light.astype(np.float32), nan=0, posinf=1e6, neginf=0)
  alpha = np.clip(light[..., 3:], 0, 1) if light.shape[2] == 4 else None
  light = light[..., :3]
  if alpha is not None:
    light = np.divide(light, alpha, out=np.zeros_like(light), where=alpha > 0)
  light = np.broadcast_to(light, (*light.shape[:2], 3))
  seen = light.max(-1)
  mean = float(np.exp(np.log(seen[seen > 0]).mean())) if (seen > 0).any() else _MID_GREY
  if not 1 / _FAR_OFF < mean / _MID_GREY < _FAR_OFF:
    light = light * np.float32(_MID_GREY / mean)
  cut = lambda begin, end: (light[begin:end], None if alpha is None else alpha[begin:end])
  return Pixels(light.shape[1::-1], 1, None, cut)
