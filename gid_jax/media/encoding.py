"""Encode frames to videos that are complete or absent: H.264, VP9, GIF, animated WebP.

Frames go through one at a time. RGB becomes limited-range BT.709 for the 4:2:0 codecs, BGRA for WebP, and 256
palette colours for GIF.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gid_jax.errors import UserError
from gid_jax.files import PathLike, complete_or_nothing

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".webp")


class _Encoder(NamedTuple):
  container: str
  codec: str
  pixel_format: str
  codec_options: dict[str, str]
  container_options: dict[str, str]


# Quality 80 is visually lossless for these: CRF 18 for H.264, 28 for VP9.
_ENCODERS: dict[str, Callable[[float], _Encoder]] = {
  ".mp4": lambda quality: _Encoder(
    "mp4", "libx264", "yuv420p", {"crf": f"{50 - 0.4 * quality:.1f}"}, {"movflags": "+faststart"}),
  ".webm": lambda quality: _Encoder(
    "webm", "libvpx-vp9", "yuv420p",
    {"crf": f"{60 - 0.4 * quality:.0f}", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}, {}),
  ".gif": lambda quality: _Encoder("gif", "gif", "pal8", {}, {"loop": "0"}),
  ".webp": lambda quality: _Encoder(
    "webp", "libwebp_anim", "bgra", {"quality": f"{quality:.0f}"}, {"loop": "0"}),
}


def encode_frames(
  path: Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], *, fps: float, quality: float
) -> tuple[int, int, int]:
  """Encodes frames [h w 3] uint8 RGB into `path`, whose suffix, one of `VIDEO_SUFFIXES`, chooses the format.

  Args:
    path: the file, written in place (see `gid_jax.media.encoding.write_video` for the safe way).
    frames: frames of one size, consumed one at a time.
    fps: playback rate, frames per second.
    quality: 0 to 100.

  Returns:
    Width and height in pixels and the number of frames written.

  Raises:
    UserError: no frames, or more than 50 per second for GIF.
    ValueError: a frame has the wrong type or not the size of the first.
    av.error.FFmpegError: the file cannot be written.
  """
  encoder = _ENCODERS[path.suffix.lower()](quality)
  if encoder.codec == "gif" and fps > 50:
    raise UserError(f"GIF plays at most 50 frames per second, not {fps:g}; lower the rate or write .mp4")
  iterator = iter(frames)
  first = next(iterator, None)
  if first is None:
    raise UserError("there are no frames to write; a video needs at least 1")
  check_frame(first, shape=first.shape)
  subsampled = encoder.pixel_format == "yuv420p"
  padding = [(0, first.shape[0] % 2), (0, first.shape[1] % 2), (0, 0)] if subsampled else [(0, 0)] * 3
  height, width = (first.shape[axis] + padding[axis][1] for axis in (0, 1))
  rate = Fraction(fps).limit_denominator(1001)
  convert = _palette_converter(first) if encoder.codec == "gif" else _colour_converter(encoder.pixel_format)
  num_frames = 0
  # The prefix keeps FFmpeg from reading a colon in a file name as a protocol.
  target = f"file:{path}"
  with av.open(target, "w", format=encoder.container, container_options=encoder.container_options) as output:
    stream: Any = output.add_stream(encoder.codec, rate=rate, options=encoder.codec_options)
    stream.width, stream.height, stream.pix_fmt = width, height, encoder.pixel_format
    if subsampled:
      context = stream.codec_context
      context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
      context.color_range = 1  # limited
    for array in itertools.chain([first], iterator):
      frame = convert(np.pad(check_frame(array, shape=first.shape), padding, mode="edge"))
      frame.pts, frame.time_base = num_frames, 1 / rate
      output.mux(stream.encode(frame))
      num_frames += 1
    output.mux(stream.encode(None))
  return width, height, num_frames


def check_frame(frame: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a [h w 3] uint8 frame as contiguous memory; ValueError for anything else or another `shape`."""
  if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or frame.shape != shape:
    raise ValueError(f"a frame is {frame.dtype} {frame.shape}; expected uint8 {(*shape[:2], 3)}")
  return np.ascontiguousarray(frame)


def _colour_converter(pixel_format: str) -> Callable[[np.ndarray], av.VideoFrame]:
  if pixel_format != "yuv420p":
    return lambda array: av.VideoFrame.from_ndarray(array, "rgb24").reformat(format=pixel_format)
  return lambda array: av.VideoFrame.from_ndarray(array, "rgb24").reformat(
    format="yuv420p", dst_colorspace="ITU709", src_color_range="JPEG", dst_color_range="MPEG")


def _palette_converter(first: np.ndarray) -> Callable[[np.ndarray], av.VideoFrame]:
  """Maps frames to the 256 colours of the first one, which all frames of one animated photo share.

  Ordered dithering: unlike error diffusion, its pattern stands still from frame to frame.
  """
  reference = Image.fromarray(first).quantize(256)
  found = np.asarray(reference.getpalette("RGB"), np.uint8).reshape(-1, 3)
  palette = np.full((256, 4), 255, np.uint8)
  palette[:len(found), 1:] = found  # alpha, red, green, blue
  cell = np.array([[0, 2], [3, 1]])
  bayer = np.kron(np.ones((2, 2), int), 4 * cell) + np.kron(cell, np.ones((2, 2), int))
  height, width = first.shape[:2]
  tiled = np.tile(bayer - 8, (height // 4 + 1, width // 4 + 1))[:height, :width, None].astype(np.int16)

  def convert(array: np.ndarray) -> av.VideoFrame:
    dithered = Image.fromarray(np.clip(array + tiled, 0, 255).astype(np.uint8))
    indices = np.asarray(dithered.quantize(palette=reference, dither=Image.Dither.NONE))
    pixels: Any = indices, palette  # PyAV takes a pair, its annotation does not
    return av.VideoFrame.from_ndarray(pixels, "pal8")

  return convert


class WrittenVideo(NamedTuple):
  """What `write_video` has written.

  Attributes:
    path: the file.
    width: pixels, after any padding to an even size.
    height: pixels, likewise.
    num_frames: frames in the file.
    num_bytes: size of the file.
  """

  path: Path
  width: int
  height: int
  num_frames: int
  num_bytes: int


def write_video(
  path: PathLike,
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  fps: float,
  quality: float = 80,
  overwrite: bool = False,
) -> WrittenVideo:
  """Encodes frames one by one as they arrive; memory does not grow with their number.

  The suffix chooses the format: .mp4 (H.264), .webm (VP9), .gif or .webp (animated). MP4 and WebM are 4:2:0
  in limited-range BT.709, tagged so, which is what every browser and phone plays. That needs even sizes: an
  odd size gains one row or column that repeats the edge, because cropping would lose part of the photo.

  Args:
    path: the file to write; its folder must exist.
    frames: frames [h w 3] uint8 RGB of one size; a generator is consumed as it goes.
    fps: playback rate, frames per second; at most 50 for GIF, whose viewers slow down anything faster.
    quality: 0 (smallest) to 100 (best); GIF has no such choice.
    overwrite: replace an existing file.

  Returns:
    The path, size and number of frames that were written.

  Raises:
    UserError: unknown suffix, existing file, unwritable folder, full disk, no frames, or an impossible rate.
    ValueError: a frame has the wrong type or not the size of the first.
  """
  path = Path(path)
  if path.suffix.lower() not in VIDEO_SUFFIXES:
    raise UserError(f"{path}: unknown video format '{path.suffix}'; use one of {', '.join(VIDEO_SUFFIXES)}")
  if not (fps > 0 and math.isfinite(fps)):
    raise UserError(f"fps is {fps}; it must be positive")
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    try:
      width, height, num_frames = encode_frames(temporary, frames, fps=fps, quality=quality)
    except av.error.FFmpegError as error:
      raise OSError(error.errno, error.strerror) from error
    num_bytes = temporary.stat().st_size
  return WrittenVideo(path, width, height, num_frames, num_bytes)
