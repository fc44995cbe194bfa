"""How frames are compressed, by the ending of a file's name.

RGB becomes YUV of limited range, by BT.709 for videos and by BT.601 with sRGB's curve for AVIF, as its decoders expect,
BGRA for WebP, and 256 palette colours for GIF. Chromium 156 takes AVIF of full range that moves for limited.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from gid_jax.errors import UserError
from gid_jax.media.notes import NOTED_SUFFIXES, add_note
from gid_jax.media.palette import make_palette_converter

# The codecs of each ending, the default first; those without a choice have none.
VIDEO_CODECS: dict[str, tuple[str, ...]] = {
  ".mp4": ("h264", "av1"),
  ".webm": ("vp9", "av1"),
  ".mov": ("h264",),
  ".gif": (),
  ".webp": (),
  ".avif": ("av1",),
  ".apng": (),
  ".png": (),
}
VIDEO_SUFFIXES = tuple(VIDEO_CODECS)

# Quality 80 is visually lossless for these: CRF 18.5 for H.264, 28 for VP9, 24 for AV1. In H.264 every frame stays as
# sharp as it was (variance of the Laplacian: 0.99 to 1.02 of it on four photos), the last one too, after which a loop
# begins again: no bidirectional frames, which are softer than those between them (0.87 against 1.03), and no fewer bits
# for what fewer frames refer to. Motion is searched for less than by default, which halves the time and changes neither
# size nor sharpness.
_ENCODERS: dict[str, tuple[tuple[str, ...], str, Callable[[float], dict[str, str]]]] = {
  "h264": (
    ("libx264",), "yuv420p",
    lambda quality: {
      "crf": f"{50.5 - 0.4 * quality:.1f}", "preset": "fast", "tune": "film", "psy-rd": "1.5,0.5", "bf": "0",
      "x264-params": "ref=1:rc-lookahead=0:mbtree=0:qcomp=1:me=dia:partitions=p8x8,i8x8"}),
  "vp9": (
    ("libvpx-vp9",), "yuv420p",
    lambda quality: {
      "crf": f"{60 - 0.4 * quality:.0f}", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}),
  "av1": (
    ("libsvtav1", "libaom-av1"), "yuv420p",
    lambda quality: {"crf": f"{60 - 0.45 * quality:.0f}", "preset": "8", "cpu-used": "6", "row-mt": "1"}),
  ".gif": (("gif",), "pal8", lambda quality: {}),
  ".webp": (("libwebp_anim",), "bgra", lambda quality: {"quality": f"{quality:.0f}"}),
  ".apng": (("apng",), "rgb24", lambda quality: {}),
}  # fmt: skip
# Without random identifiers, so that the same frames give the same bytes.
_CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
  ".mp4": ("mp4", {"movflags": "+faststart"}),
  ".mov": ("mov", {"movflags": "+faststart"}),
  ".webm": ("webm", {"fflags": "+bitexact"}),
  ".gif": ("gif", {"loop": "0"}),
  ".webp": ("webp", {"loop": "0"}),
  ".avif": ("avif", {"loop": "0"}),
  ".apng": ("apng", {"plays": "0"}),
}


class _Encoder(NamedTuple):
  container: str
  codec: str
  pixel_format: str
  codec_options: dict[str, str]
  container_options: dict[str, str]


class _Colours(NamedTuple):
  """How RGB becomes YUV, in the numbers of ITU-T H.273; BT.709 by default."""

  curve: int = 1
  matrix: int = 1

  @classmethod
  def of_pictures(cls) -> "_Colours":
    return cls(curve=13, matrix=6)


def find_encoder(suffix: str, codec: str | None) -> str | None:
  """The name of FFmpeg's encoder for an ending, and a codec where there is a choice; None where it is not installed."""
  names = _ENCODERS[_find_key(suffix, codec)][0]
  return next((name for name in names if _has_encoder(name)), None)


def _find_key(suffix: str, codec: str | None) -> str:
  if codec is None:
    codec = next(iter(VIDEO_CODECS[suffix]), ".apng" if suffix == ".png" else suffix)
  return codec


def _has_encoder(name: str) -> bool:
  try:
    av.Codec(name, "w")
  except ValueError:
    return False
  return True


def _choose_encoder(suffix: str, codec: str | None, quality: float) -> _Encoder:
  if codec is not None and codec not in VIDEO_CODECS[suffix]:
    raise UserError(f"{suffix} files hold no {codec}; use {' or '.join(VIDEO_CODECS[suffix]) or 'no codec'}")
  name = find_encoder(suffix, codec)
  if name is None:
    choice = "write .mp4 or .webp" if suffix == ".avif" else "leave out the codec" if codec else "write another format"
    raise UserError(f"the installed PyAV cannot encode {codec or suffix}; {choice}, or: pip install --upgrade av")
  _, pixel_format, make_options = _ENCODERS[_find_key(suffix, codec)]
  container, options = _CONTAINERS[".apng" if suffix == ".png" else suffix]
  return _Encoder(container, name, pixel_format, _keep_known(name, make_options(quality)), dict(options))


def _keep_known(name: str, options: Mapping[str, str]) -> dict[str, str]:
  other = {"libsvtav1": ("cpu-used", "row-mt"), "libaom-av1": ("preset",)}.get(name, ())
  return {option: value for option, value in options.items() if option not in other}


def encode_frames(
  path: Path,
  frames: Iterable[UInt8[np.ndarray, "h w 3"]],
  *,
  fps: float,
  quality: float,
  codec: str | None = None,
  comment: str | None = None,
) -> tuple[int, int, int]:
  """Encodes frames [h w 3] uint8 RGB into `path`, whose suffix, one of `VIDEO_SUFFIXES`, chooses the format.

  Args:
    path: the file, written in place (see `gid_jax.media.encoding.write_video` for the safe way).
    frames: frames of one size, consumed one at a time.
    fps: playback rate, frames per second.
    quality: 0 to 100.
    codec: one of `VIDEO_CODECS[suffix]`, the first by default.
    comment: a text for the file's metadata, ASCII; AVIF has no place for it.

  Returns:
    Width and height in pixels and the number of frames written.

  Raises:
    UserError: no frames, more than 50 per second for GIF, or no such encoder.
    ValueError: a frame has the wrong type or not the size of the first.
    av.error.FFmpegError: the file cannot be written.
  """
  suffix = path.suffix.lower()
  encoder = _choose_encoder(suffix, codec, quality)
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
  colours = _Colours.of_pictures() if suffix == ".avif" else _Colours()
  convert = _make_converter(first, encoder.pixel_format, colours)
  num_frames = 0
  os.environ.setdefault("SVT_LOG", "1")  # errors only
  # The prefix keeps FFmpeg from reading a colon in a file name as a protocol.
  target = f"file:{path}"
  with av.open(target, "w", format=encoder.container, container_options=encoder.container_options) as output:
    if comment is not None:
      output.metadata["comment"] = comment
    stream: Any = output.add_stream(encoder.codec, rate=rate, options=encoder.codec_options)
    stream.width, stream.height, stream.pix_fmt = width, height, encoder.pixel_format
    if subsampled:
      context = stream.codec_context
      context.color_primaries, context.color_trc = 1, colours.curve
      context.colorspace, context.color_range = colours.matrix, 1  # limited
    with _own_priority():
      output.start_encoding()
    for array in itertools.chain([first], iterator):
      frame = convert(np.pad(check_frame(array, shape=first.shape), padding, mode="edge"))
      frame.pts, frame.time_base = num_frames, 1 / rate
      output.mux(stream.encode(frame))
      num_frames += 1
    output.mux(stream.encode(None))
  if comment is not None and suffix in NOTED_SUFFIXES:
    add_note(path, comment)
  return width, height, num_frames


@contextlib.contextmanager
def _own_priority() -> Iterator[None]:
  """Gives this thread, and those that begin meanwhile, the scheduling that this one had.

  Where root runs it, SVT-AV1 makes its own threads and the one that opens it real-time: nothing else of the machine
  comes before them, and processes that are started later inherit that.
  """
  threads = Path("/proc/self/task")
  if not hasattr(os, "sched_setscheduler") or not threads.is_dir():  # not Linux
    yield
    return
  before, policy, parameters = set(os.listdir(threads)), os.sched_getscheduler(0), os.sched_getparam(0)
  try:
    yield
  finally:
    if os.sched_getscheduler(0) != policy:
      for thread in {*os.listdir(threads)} - before | {str(threading.get_native_id())}:
        with contextlib.suppress(ProcessLookupError):  # it has ended
          os.sched_setscheduler(int(thread), policy, parameters)


def check_frame(frame: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a [h w 3] uint8 frame as contiguous memory; ValueError for anything else or another `shape`."""
  if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or frame.shape != shape:
    raise ValueError(f"a frame is {frame.dtype} {frame.shape}; expected uint8 {(*shape[:2], 3)}")
  return np.ascontiguousarray(frame)


def _make_converter(first: np.ndarray, pixel_format: str, colours: _Colours) -> Callable[[np.ndarray], av.VideoFrame]:
  if pixel_format == "pal8":
    return make_palette_converter(first)
  if pixel_format != "yuv420p":
    return lambda array: av.VideoFrame.from_ndarray(array, "rgb24").reformat(format=pixel_format)
  options: dict[str, Any] = {"dst_colorspace": "ITU709" if colours.matrix == 1 else "ITU601"}
  options |= {"src_color_range": "JPEG", "dst_color_range": "MPEG"}
  return lambda array: av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p", **options)
