"""From a video file to the few seconds whose motion is measured: constant rate, working size, bounded memory."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import av.error
import cv2
import numpy as np
from jaxtyping import UInt8

from gid_jax.errors import UserError
from gid_jax.media import animations
from gid_jax.media.clip_folder import VIDEO_SUFFIXES
from gid_jax.media.clips import MIN_FPS, resample_clip
from gid_jax.media.cuts import MAX_GAP, find_shots, make_overview, measure_repeats
from gid_jax.media.decoding import decode_frames, open_to_read, open_video, repair_times
from gid_jax.media.formats import AVIF_BRANDS, HEIF_BRANDS, RAW_BRANDS
from gid_jax.types import Clip

MIN_FRAMES = 15
# Where a stretch is looked for, and how many frames are held meanwhile: memory must end somewhere when stamps stand
# still.
_LOOK_SECONDS, _MAX_FRAMES = 30.0, 2000
# What is looked at beyond a stretch that may be good, to see the fade or the dissolve that it ends in.
_MARGIN_SECONDS = 1.0
# Grey levels of change from frame to frame: less is a still picture, and compression alone does not give more.
_STILL_CHANGE, _LIVELY_CHANGE = 0.01, 0.1

# How files begin that may hold one picture or many, and those that hold one.
_MAYBE_MOVING = (b"GIF8", b"\x89PNG")
_STILL = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")
_STILL_BRANDS = (*HEIF_BRANDS, *RAW_BRANDS, AVIF_BRANDS[0])


class Shot(NamedTuple):
  """The seconds of a video that are measured.

  Attributes:
    frames: [t h w 3] uint8 RGB at `fps`.
    fps: frames per second of `frames`.
    source_size: (height, width) of the video, upright.
    source_fps: the video's own median rate.
    start: second of the video at which they begin.
    index: of the frame of the video with which they begin.
  """

  frames: UInt8[np.ndarray, "t h w 3"]
  fps: float
  source_size: tuple[int, int]
  source_fps: float
  start: float = 0.0
  index: int = 0


def is_video(path: Path) -> bool:
  """Whether a file is to be treated as a video rather than as a photo.

  The content decides: photos are photos under any name, and an animated image of at least `MIN_FRAMES` frames
  (GIF, PNG, WebP, AVIF) is a video. The suffix decides where the content is unknown.

  Args:
    path: a file.

  Raises:
    UserError: the file cannot be opened, or is empty.
  """
  with open_to_read(path) as file:
    head = file.read(16)
  if animations.is_webp(head):
    return animations.count_frames(path) >= MIN_FRAMES
  if head.startswith(_MAYBE_MOVING) or (head[4:8] == b"ftyp" and head[8:12] == AVIF_BRANDS[1]):
    return _count_frames(path, limit=MIN_FRAMES) >= MIN_FRAMES
  if head.startswith(_STILL) or (head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS):
    return False
  known = head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or head[8:12] == b"AVI "
  return known or path.suffix.lower() in VIDEO_SUFFIXES


def read_frame(path: Path, *, index: int) -> UInt8[np.ndarray, "h w 3"]:
  """One frame [h w 3] of a video, as large as the video has it.

  Raises:
    UserError: unreadable, no video, or over before the frame.
  """
  with contextlib.closing(decode_frames(path)) as decoded:
    for frame, _ in itertools.islice(decoded, index, None):
      return frame
  raise UserError(f"{path} holds no frames" if not index else f"{path} ends before frame {index}")


def read_shot(
  path: Path,
  *,
  size: Callable[[int, int], tuple[int, int]],
  start: float = 0.0,
  num_frames: int = 150,
  fps: float = 30.0,
  warn: Callable[[str], None] = warnings.warn,
) -> Shot:
  """Reads the first seconds of a video, or some later ones, that have no cut, fade, dissolve or black frame in them.

  Where the seconds from `start` on have one, the longest stretch without in the 30 s from there is taken; one in which
  nothing moves, such as a title, is passed over.

  Args:
    path: any video that can be decoded, however long and large.
    size: the (h, w) wanted for a video of given (h, w).
    start: seconds to skip.
    num_frames: at most so many frames; a shorter stretch gives all it has.
    fps: their rate.
    warn: is told in one line that another stretch was taken, or that the video is slow.

  Returns:
    The shot; frame i is the one shown nearest to its start + i / fps.

  Raises:
    UserError: unreadable, no video, over before `start`, nothing moves, no stretch of `MIN_FRAMES` frames, or under 6
      different frames per second.
  """
  source_size = read_frame(path, index=0).shape[:2]
  held = _hold(path, source_size, size(*source_size), start=start, seconds=num_frames / fps, fps=fps)
  if start and not held.frames:
    raise UserError(f"--start is {start:g} s, but {path} ends after {held.end:.1f} s")
  lasts = held.times[-1] + held.interval
  needed = f"measuring motion needs {MIN_FRAMES / fps:g} s or more"
  if lasts * fps < MIN_FRAMES - 0.5:
    rest = f" after --start {start:g}" if start else ""
    raise UserError(f"{path} lasts {lasts:.2f} s{rest}; {needed}")
  _check_rate(path, 1 / held.interval)
  begin, end = _choose(held, num_frames / fps)
  times = held.times[begin:end]
  seconds = times[-1] - times[0] + held.interval if end > begin else 0.0
  if seconds * fps < MIN_FRAMES - 0.5:
    longest = f"{seconds:.2f} s at most without cuts, fades and black frames"
    raise UserError(f"{path} has {longest} in the {lasts:.1f} s looked at; {needed}")
  changes = make_overview(held.frames[begin:end]).changes
  rate = (1 - measure_repeats(changes)) * (len(times) - 1) / (times[-1] - times[0])
  _check_rate(path, rate)
  resampled = resample_clip(Clip(np.stack(held.frames[begin:end]), times - times[0]), fps=fps)
  if _measure_change(make_overview(resampled.frames).changes) < _STILL_CHANGE:
    raise UserError(f"nothing moves in {path}: four of five frames repeat the one before; give another video")
  from_second = start + times[0]
  if begin or seconds < min(num_frames / fps, lasts) - 1 / fps:
    warn(
      f"{path}: used are the {min(seconds, num_frames / fps):.1f} s from {from_second:.1f} s on, the longest stretch"
      " without cuts, fades and black frames")
  if rate < MIN_FPS:
    warn(f"{path} shows {rate:.1f} different frames per second; what swings faster than {rate / 5:.1g} Hz is lost")
  return Shot(
    resampled.frames[:num_frames], fps, source_size, 1 / held.source_interval, float(from_second), held.indices[begin])


class _Held(NamedTuple):
  """Frames of a video at the working size, with their repaired times from the first of them and their places in it."""

  frames: list[np.ndarray]
  times: np.ndarray
  indices: list[int]
  interval: float
  source_interval: float
  end: float


def _hold(
  path: Path, source_size: tuple[int, int], size: tuple[int, int], *, start: float, seconds: float, fps: float
) -> _Held:
  """Reads until the first stretch proves good, or all there is to choose from."""
  height, width = size
  frames: list[np.ndarray] = []
  stamps: list[float] = []
  kept: list[int] = []
  skipped, looked = 0, False
  origin, elapsed, last = None, 0.0, -math.inf
  with contextlib.closing(decode_frames(path, short_side=2 * min(height, width))) as decoded:
    for frame, time in decoded:
      if math.isfinite(time):
        origin = time if origin is None else origin
        elapsed = time - origin
      else:
        elapsed += 1 / fps
      if elapsed < start:
        skipped += 1
        continue
      stamps.append(time)
      if 0 < elapsed - last < 0.9 / (4 * fps):
        continue  # a faster camera than anybody needs
      last = elapsed
      kept.append(len(stamps) - 1)
      frames.append(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
      if not looked and len(frames) > 1 and elapsed >= start + seconds + _MARGIN_SECONDS:
        looked = True
        so_far = _gather(frames, stamps, kept, skipped, elapsed)
        begin, end = _choose(so_far, seconds)
        lasts = begin == 0 < end and so_far.times[end - 1] + so_far.interval >= seconds
        if lasts and _measure_change(make_overview(so_far.frames[:end]).changes) >= _STILL_CHANGE:
          break
      if elapsed >= start + _LOOK_SECONDS or len(frames) >= _MAX_FRAMES:
        break
  return _gather(frames, stamps, kept, skipped, elapsed)


def _gather(frames: list[np.ndarray], stamps: list[float], kept: list[int], skipped: int, end: float) -> _Held:
  steady = repair_times(np.asarray(stamps)) if stamps else np.zeros(1)
  times = steady[kept] if kept else steady
  middle = lambda values: float(np.median(np.diff(values))) if len(values) > 1 else 0.0
  return _Held(frames, times, [skipped + i for i in kept], middle(times), middle(steady), end)


def _choose(held: _Held, seconds: float) -> tuple[int, int]:
  """(begin, end) in frames of the first stretch that lasts so many seconds, or else of the longest.

  A stretch in which nothing moves, such as a title, is only taken where none is lively.
  """
  overview = make_overview(held.frames)
  found = find_shots(overview, held.times)
  begin, end = _find_longest(held, seconds, found)
  if _measure_change(overview.changes[begin:end]) < _STILL_CHANGE:
    lively = [(first, last) for first, last in found if _measure_change(overview.changes[first:last]) > _LIVELY_CHANGE]
    if lively:
      return _find_longest(held, seconds, lively)
  return begin, end


def _find_longest(held: _Held, seconds: float, found: Sequence[tuple[int, int]]) -> tuple[int, int]:
  begin, end = 0, 0
  longest = 0.0
  for first, last in found:
    # One frame more than the seconds ask for, which the last one may lie nearest to.
    last = min(last, int(np.searchsorted(held.times, held.times[first] + seconds - 1e-6)) + 1)
    lasts = min(held.times[last - 1] - held.times[first] + held.interval, seconds)
    if lasts > longest + held.interval / 2:
      begin, end, longest = first, last, lasts
  return begin, end


def _measure_change(changes: np.ndarray) -> float:
  """The grey levels by which four of five frames of a stretch differ at most from the one before."""
  return float(np.percentile(changes[1:], 80)) if len(changes) > 1 else 0.0


def _check_rate(path: Path, rate: float) -> None:
  if rate < 0.99 / MAX_GAP:
    raise UserError(
      f"{path} shows {rate:.1f} different frames per second; measuring motion needs {1 / MAX_GAP:.0f} or more")


def _count_frames(path: Path, *, limit: int) -> int:
  try:
    with open_video(path) as container:
      # An animated AVIF has a still beside its frames.
      stream = container.streams.best("video")
      return 0 if stream is None else sum(1 for _ in itertools.islice(container.decode(stream), limit))
  except (OSError, av.error.FFmpegError):
    return 0
