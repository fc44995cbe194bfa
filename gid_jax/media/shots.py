"""From a video file to the few seconds whose motion is measured: constant rate, working size, bounded memory."""

import contextlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import cv2
import numpy as np
from jaxtyping import UInt8

from gid_jax.errors import UserError
from gid_jax.media.clips import resample_clip
from gid_jax.media.decoding import decode_frames, open_to_read, repair_times
from gid_jax.types import Clip

MIN_FRAMES = 15
# Faster cameras than this are not expected, and memory must end somewhere when time stamps stand still.
_MAX_FPS = 240

# How files begin that may hold one picture or many, and those that hold one.
_MAYBE_MOVING = (b"GIF8", b"\x89PNG")
_STILL = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")
_STILL_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"avif")
_VIDEO_SUFFIXES = (
  ".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp")


class Shot(NamedTuple):
  """The seconds of a video that are measured.

  Attributes:
    frames: [t h w 3] uint8 RGB at `fps`.
    fps: frames per second of `frames`.
    source_size: (height, width) of the video, upright.
    source_fps: the video's own median rate.
  """

  frames: UInt8[np.ndarray, "t h w 3"]
  fps: float
  source_size: tuple[int, int]
  source_fps: float


def is_video(path: Path) -> bool:
  """Whether a file is to be treated as a video rather than as a photo.

  The content decides: photos are photos under any name, and an animated image of at least `MIN_FRAMES` frames that
  FFmpeg plays (GIF, PNG) is a video. The suffix decides where the content is unknown.

  Args:
    path: a file.

  Raises:
    UserError: the file cannot be opened, or is empty.
  """
  with open_to_read(path) as file:
    head = file.read(16)
  if head[:4] == b"RIFF":
    return head[8:12] == b"AVI "  # FFmpeg does not play animated WebP.
  if head.startswith(_MAYBE_MOVING):
    return _count_frames(path, limit=MIN_FRAMES) >= MIN_FRAMES
  if head.startswith(_STILL) or (head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS):
    return False
  return head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or path.suffix.lower() in _VIDEO_SUFFIXES


def read_first_frame(path: Path) -> UInt8[np.ndarray, "h w 3"]:
  """The first frame [h w 3] of a video, as large as the video has it.

  Raises:
    UserError: unreadable, or no video.
  """
  with contextlib.closing(decode_frames(path)) as decoded:
    for frame, _ in decoded:
      return frame
  raise UserError(f"{path} holds no frames")


def read_shot(
  path: Path,
  *,
  size: Callable[[int, int], tuple[int, int]],
  start: float = 0.0,
  num_frames: int = 150,
  fps: float = 30.0,
) -> Shot:
  """Reads the first seconds of a video, or some later ones.

  Args:
    path: any video that FFmpeg decodes, however long and large.
    size: the (h, w) wanted for a video of given (h, w).
    start: seconds to skip.
    num_frames: at most so many frames; a shorter video gives all it has.
    fps: their rate.

  Returns:
    The shot; frame i is the one shown nearest to start + i / fps.

  Raises:
    UserError: unreadable, no video, over before `start`, or fewer than `MIN_FRAMES` frames from there.
  """
  source_size = read_first_frame(path).shape[:2]
  height, width = size(*source_size)
  frames: list[np.ndarray] = []
  times: list[float] = []
  origin, elapsed = None, 0.0
  with contextlib.closing(decode_frames(path, short_side=2 * min(height, width))) as decoded:
    for frame, time in decoded:
      if math.isfinite(time):
        origin = time if origin is None else origin
        elapsed = time - origin
      else:
        elapsed += 1 / fps
      if elapsed < start:
        continue
      frames.append(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
      times.append(time)
      if elapsed >= start + num_frames / fps or len(frames) >= _MAX_FPS * num_frames / fps:
        break
  if start and not frames:
    raise UserError(f"--start is {start:g} s, but {path} ends after {elapsed:.1f} s")
  steady = repair_times(np.asarray(times))
  interval = float(np.median(np.diff(steady))) if len(steady) > 1 else 0.0
  if (steady[-1] + interval) * fps < MIN_FRAMES - 0.5:
    rest = f" after --start {start:g}" if start else ""
    needed = f"measuring motion needs {MIN_FRAMES / fps:g} s or more"
    raise UserError(f"{path} lasts {steady[-1] + interval:.2f} s{rest}; {needed}")
  resampled = resample_clip(Clip(np.stack(frames), steady), fps=fps)
  return Shot(resampled.frames[:num_frames], fps, source_size, 1 / interval)


def _count_frames(path: Path, *, limit: int) -> int:
  try:
    with av.open(f"file:{path}") as container:
      return sum(1 for _ in itertools.islice(container.decode(video=0), limit)) if container.streams.video else 0
  except (OSError, av.error.FFmpegError):
    return 0
