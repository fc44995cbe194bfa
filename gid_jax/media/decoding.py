"""Decode videos frame by frame: upright, square pixels, deinterlaced, sRGB, opaque, with true times.

Frames go through one at a time and are made smaller on the way, so memory does not grow with a file's length, and
its resolution costs only what the decoder itself holds.
"""

import bisect
import io
import itertools
import math
import os
import struct
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import av.filter
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from jaxtyping import Float, Int, UInt8

from gid_jax.errors import UserError
from gid_jax.files import PathLike, describe_failure
from gid_jax.media.animations import decode_animation, is_webp
from gid_jax.media.colour import HLG, PQ, cicp_to_colour, show_as_srgb

# Code points of ITU-T H.273.
_UNSPECIFIED_MATRIX, _BT2020_MATRIX, _BT2020_PRIMARIES = 2, 9, 9
# Every decoding thread holds frames of its own: more threads than these would make 4K expensive.
_MAX_THREADS = 4
# A damaged header may ask for any size; 8K has 33 megapixels.
_MAX_PIXELS = 100_000_000
# One stamp of nonsense may lie years after the others; a gap that needs more repeats than this is no video.
_MAX_REPEATS = 100


def open_to_read(path: Path) -> io.BufferedReader:
  """Opens a regular file that holds something; the caller closes it.

  Raises:
    UserError: no such readable file, a folder, a device, or empty.
  """
  try:
    if path.is_dir():
      raise UserError(f"{path} is a folder; give a file")
    if path.exists() and not path.is_file():
      raise UserError(f"{path} is not a regular file")
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it.
  except OSError as error:
    raise UserError(f"cannot read {path}: {describe_failure(error)}") from error
  if os.fstat(file.fileno()).st_size == 0:
    file.close()
    raise UserError(f"{path} is empty (0 bytes)")
  return file


def decode_frames(
  path: PathLike, *, short_side: int | None = None
) -> Generator[tuple[UInt8[np.ndarray, "h w 3"], float], None, None]:
  """Decodes a video frame by frame as it is meant to be seen.

  Rotation and mirroring metadata are applied, pixels become square, interlaced frames are deinterlaced, limited or
  full range YUV becomes full range RGB, HDR (PQ and HLG) is tone-mapped to sRGB, and transparency is shown over white.
  Untagged video of 720 lines or more is taken for BT.709, smaller for BT.601. Every frame has the size of the first.

  Args:
    path: any file that FFmpeg decodes, or an animated WebP.
    short_side: the most pixels the shorter side may have; larger frames are averaged down. None keeps the size.

  Yields:
    A frame [h w 3] uint8 RGB and its time stamp in seconds, NaN where the file has none (see `repair_times`).

  Raises:
    UserError: no such readable file, not a video, or damaged; a damaged file first yields its good frames.
  """
  path = Path(path)
  with open_to_read(path) as file:
    is_animation = is_webp(file.read(12))
  num_frames = 0
  try:
    for frame, time in _decode_webp(path, short_side) if is_animation else _decode_video(path, short_side):
      if frame is None:
        if not num_frames:
          continue  # A recording that begins between two key frames.
        raise UserError(f"{path} is damaged after {num_frames} frames")
      yield frame, time
      num_frames += 1
  except (OSError, ValueError, MemoryError, av.error.FFmpegError) as error:
    where = f" after {num_frames} frames" if num_frames else ""
    problem = f"{path} cannot be decoded{where} ({describe_failure(error)}); it is damaged or not a video"
    raise UserError(problem) from error


def open_video(path: PathLike):
  """Opens a video file, whatever names it bears inside; a context manager.

  Raises:
    OSError, av.error.FFmpegError: it cannot be read.
  """
  # Versions before 19, of Python 3.11, refuse names that are not UTF-8 unless they are told to.
  options: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
  # The prefix keeps FFmpeg from reading a colon in a file name as a protocol.
  return av.open(f"file:{path}", **options)


def _decode_video(path: Path, short_side: int | None) -> Iterator[tuple[np.ndarray | None, float]]:
  """Frames and time stamps; None for a frame that is damaged."""
  with open_video(path) as container:
    stream = container.streams.best("video")
    # The cover of an album is a video stream to FFmpeg.
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
      raise UserError(f"{path} has no video stream")
    if stream.codec_context is None:
      raise UserError(f"{path} has video of a codec that FFmpeg does not decode; it is damaged or no video")
    conversion = None
    for frame in _deinterlace(_decode_stream(container, stream)):
      if frame.is_corrupt:
        yield None, math.nan
        continue
      if frame.width * frame.height > _MAX_PIXELS:
        raise UserError(f"{path} has frames of {frame.width} x {frame.height}; over 100 megapixels are not read")
      conversion = conversion or _plan_conversion(frame, stream, short_side)
      yield _frame_to_rgb(frame, conversion), math.nan if frame.time is None else frame.time


def _decode_stream(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
  num_threads = min(os.cpu_count() or 1, _MAX_THREADS)
  # FFmpeg's own decoders leave out the transparency that stands beside the picture.
  with_alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
  if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = num_threads
    yield from container.decode(stream)
    return
  decoder = av.CodecContext.create(with_alpha, "r")
  assert isinstance(decoder, av.VideoCodecContext)
  decoder.thread_count = num_threads
  for packet in container.demux(stream):
    yield from decoder.decode(packet)


def _decode_webp(path: Path, short_side: int | None) -> Iterator[tuple[np.ndarray, float]]:
  for frame, time in decode_animation(path):
    scale = min(1.0, short_side / min(frame.shape[:2])) if short_side else 1.0
    if scale < 1:
      height, width = (max(1, round(length * scale)) for length in frame.shape[:2])
      frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    yield _show_over_white(frame), time


def describe_truncation(path: PathLike, *, num_frames: int, seconds: float) -> str | None:
  """Says that a video holds less than its header promises, or None when over nine tenths are there.

  FFmpeg takes the end of a file that was cut off for the end of the video. Many headers promise nothing.

  Args:
    path: a video that was decoded to its end.
    num_frames: number of frames that came out.
    seconds: time stamp of the last one, from the first.
  """
  with open(path, "rb") as file:
    if is_webp(file.read(12)):
      return None
  with open_video(path) as container:
    stream = container.streams.best("video")
    num_promised = stream.frames if stream is not None else 0
    # Sound may last longer than the picture.
    promised = container.duration / av.time_base if container.duration and len(container.streams) == 1 else 0.0
  if num_promised:
    return f"{path} is cut off after {num_frames} of {num_promised} frames" if num_frames < 0.9 * num_promised else None
  return f"{path} is cut off after {seconds:.1f} of {promised:.1f} s" if seconds < 0.9 * promised - 0.2 else None


def repair_times(times: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
  """Makes time stamps strictly increasing, changing as few as possible.

  The longest strictly increasing run of stamps (not necessarily adjacent) is trusted. Stamps between two
  trusted ones are placed evenly between them; stamps beyond either end continue at the median interval per
  frame. With fewer than two good stamps the frames are taken to be 1/30 s apart.

  Args:
    times: [t] seconds; NaN where the file has no stamp.

  Returns:
    [t] float64 seconds, strictly increasing, starting at 0.
  """
  kept = _longest_increasing(times)
  index = np.arange(len(times), dtype=np.float64)
  if len(kept) < 2:
    return index / 30.0
  trusted = np.asarray(times, np.float64)[kept]
  interval = float(np.median(np.diff(trusted) / np.diff(kept)))
  repaired = np.interp(index, kept, trusted)
  before, after = index < kept[0], index > kept[-1]
  repaired[before] = trusted[0] - (kept[0] - index[before]) * interval
  repaired[after] = trusted[-1] + (index[after] - kept[-1]) * interval
  return repaired - repaired[0]


def find_nearest_frames(times: Float[np.ndarray, "t"], *, fps: float) -> Int[np.ndarray, "n"]:
  """Finds the frame shown nearest to each i / fps, up to the last stamp rounded to the nearest 1 / fps.

  Args:
    times: [t] seconds, strictly increasing, starting at 0.
    fps: frames per second of the result, positive.

  Returns:
    [n] indices of frames; an exact tie takes the earlier.

  Raises:
    UserError: fps is not positive, or the stamps have a gap no video has.
  """
  if not (fps > 0 and math.isfinite(fps)):
    raise UserError(f"fps is {fps}; it must be positive")
  num_frames = math.floor(times[-1] * fps + 0.5) + 1
  if num_frames > _MAX_REPEATS * len(times):
    raise UserError(f"the time stamps spread {len(times)} frames over {times[-1]:.0f} s; they are damaged")
  midpoints = (times[1:] + times[:-1]) / 2
  return np.searchsorted(midpoints, np.arange(num_frames) / fps, side="left")


class _Conversion(NamedTuple):
  """From a decoded frame to RGB.

  Attributes:
    width, height: before anything is turned.
    transposed, flips_rows, flips_columns: what then turns it upright, in this order.
    matrix: of YUV, if assumed.
    transfer: code point of the transfer function.
  """

  width: int
  height: int
  transposed: bool
  flips_rows: bool
  flips_columns: bool
  matrix: str | int | None
  transfer: int


def _plan_conversion(frame: av.VideoFrame, stream: av.VideoStream, short_side: int | None) -> _Conversion:
  aspect = float(stream.sample_aspect_ratio or 1)
  width = frame.width * (aspect if 0.25 <= aspect <= 4 else 1)
  scale = min(1.0, short_side / min(width, frame.height)) if short_side else 1.0
  transfer = int(stream.codec_context.color_trc)
  matrix = None
  if frame.colorspace == _UNSPECIFIED_MATRIX:
    assumed = "ITU709" if min(frame.width, frame.height) >= 720 else "ITU601"
    matrix = _BT2020_MATRIX if transfer in (PQ, HLG) else assumed
  size = max(1, round(width * scale)), max(1, round(frame.height * scale))
  return _Conversion(*size, *_read_turn(frame), matrix, transfer)


def _read_turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
  """Whether a frame is to be transposed, and then its rows and columns flipped, by the nearest such display matrix."""
  side_data: Any = frame.side_data  # annotated as something else
  data = side_data.get(SideDataType.DISPLAYMATRIX)
  if data is None:
    return False, False, False
  # A pixel (x, y) is shown at (a x + c y, b x + d y).
  a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
  if abs(a) + abs(d) >= abs(b) + abs(c):
    return False, d < 0, a < 0
  return True, b < 0, c < 0


def _frame_to_rgb(frame: av.VideoFrame, conversion: _Conversion) -> np.ndarray:
  width, height, transposed, flips_rows, flips_columns, matrix, transfer = conversion
  options = {"width": width, "height": height, "src_colorspace": matrix}
  if (width, height) != (frame.width, frame.height):
    options["interpolation"] = "AREA" if width <= frame.width and height <= frame.height else "BICUBIC"
  if transfer in (PQ, HLG):
    codes = frame.reformat(format="rgb48le", **options).to_ndarray()
    rgb = np.rint(255 * show_as_srgb(codes, cicp_to_colour(_BT2020_PRIMARIES, transfer))).astype(np.uint8)
  elif any(component.is_alpha for component in frame.format.components):
    rgb = _show_over_white(frame.reformat(format="rgba", **options).to_ndarray())
  else:
    rgb = frame.reformat(format="rgb24", **options).to_ndarray()
  rgb = rgb.swapaxes(0, 1) if transposed else rgb
  return np.ascontiguousarray(rgb[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1])


def _show_over_white(rgba: np.ndarray) -> np.ndarray:
  rgba = rgba.astype(np.uint16)
  alpha = rgba[..., 3:]
  return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _deinterlace(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
  """Sends everything from the first interlaced frame on through yadif, which leaves progressive frames alone."""
  graph = None
  for frame in itertools.chain(frames, [None]):
    if graph is None and frame is not None:
      if not frame.interlaced_frame:
        yield frame
        continue
      graph = av.filter.Graph()
      source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
      graph.link_nodes(source, graph.add("yadif", "deint=interlaced"), graph.add("buffersink")).configure()
    if graph is not None:
      graph.vpush(frame)
      while True:
        try:
          yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
          break


def _longest_increasing(times: np.ndarray) -> np.ndarray:
  """Indices of a longest strictly increasing subsequence of the finite entries (patience sorting)."""
  tails: list[float] = []
  tail_indices: list[int] = []
  previous: dict[int, int | None] = {}
  for index, time in enumerate(times):
    if not math.isfinite(time):
      continue
    place = bisect.bisect_left(tails, time)
    tails[place:place + 1] = [time]
    tail_indices[place:place + 1] = [index]
    previous[index] = tail_indices[place - 1] if place else None
  chain: list[int] = []
  index = tail_indices[-1] if tail_indices else None
  while index is not None:
    chain.append(index)
    index = previous[index]
  return np.asarray(chain[::-1], dtype=np.int64)
