"""From a video file to cut sequences: constant rate, one aspect, no cut inside, no black lead-in (section 6)."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from gid_jax.errors import UserError
from gid_jax.media import resample_clip
from gid_jax.types import Clip

_SUFFIXES = {".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"}
_MIN_FPS = 15.0
# A clip a little too short is completed by playing its end backwards: at most a quarter of the window.
_MIN_FRACTION = 0.75


class Crop(NamedTuple):
  """A rectangle of the source frame, whole pixels."""

  top: int
  left: int
  height: int
  width: int


def find_clips(folder: str | Path) -> list[Path]:
  """Lists the video files of a folder, sorted by name.

  Raises:
    UserError: the folder is missing or holds no video.
  """
  folder = Path(folder)
  paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
  if not paths:
    raise UserError(f"No videos in {folder}: give a folder with {', '.join(sorted(_SUFFIXES))} files.")
  return paths


def _thumbnails(frames: np.ndarray) -> np.ndarray:
  size = (48, 32)
  return np.stack([
    cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA) for frame in frames
  ]).astype(np.float32)


def find_cuts(frames: UInt8[np.ndarray, "t h w 3"], *, threshold: float = 12.0, ratio: float = 5.0) -> list[int]:
  """Finds the frames that begin a new shot.

  A cut changes the frame by more than `threshold` grey levels on average, and by `ratio` times more than the
  strongest ordinary change nearby, so that flicker and fast motion are not cuts.

  Args:
    frames: [t h w 3] uint8 RGB.
    threshold: mean absolute grey difference of two thumbnails.
    ratio: how far the change must stand out of the 12 changes around it (their 80th percentile).

  Returns:
    Indices i in 1 ... t-1 for which a cut lies between frames i-1 and i.
  """
  steps = np.abs(np.diff(_thumbnails(frames), axis=0)).mean((1, 2))
  cuts = []
  for i in np.flatnonzero(steps > threshold):
    nearby = np.concatenate([steps[max(0, i - 6) : i], steps[i + 1 : i + 7]])
    if len(nearby) == 0 or steps[i] > ratio * np.percentile(nearby, 80):
      cuts.append(int(i) + 1)
  return cuts


def count_black_lead(frames: UInt8[np.ndarray, "t h w 3"]) -> int:
  """Counts the first of [t h w 3] frames that show nothing: no thumbnail pixel brighter than 24 of 255."""
  visible = (_thumbnails(frames) > 24).any((1, 2))
  return int(visible.argmax()) if visible.any() else len(frames)


def seam_ratio(frames: UInt8[np.ndarray, "t h w 3"]) -> float:
  """Measures the seam of a loop [t h w 3]: the step from last to first frame over the median step, 1 if perfect."""
  gray = frames[:, ::2, ::2].mean(-1, dtype=np.float32)
  steps = np.abs(np.diff(gray, axis=0)).mean((1, 2))
  return float(np.abs(gray[-1] - gray[0]).mean() / max(np.median(steps), 1e-3))


def _loop_to_rate(clip: Clip, fps: float) -> np.ndarray:
  # The last frame is shown for one step too: the period is longer than the last time stamp.
  period = clip.times[-1] + float(np.median(np.diff(clip.times)))
  wanted = np.arange(round(period * fps)) / fps
  distance = np.abs(wanted[:, None] - clip.times[None])
  return clip.frames[np.minimum(distance, period - distance).argmin(1)]


def _plan_indices(frames: np.ndarray, *, num_frames: int, stride: int, wrap: bool) -> list[np.ndarray]:
  """Lists the frame indices of every window in time."""
  if wrap:
    return [(start + np.arange(num_frames)) % len(frames) for start in range(0, len(frames), stride)]
  lead = count_black_lead(frames)
  borders = [lead, *(cut for cut in find_cuts(frames) if cut > lead), len(frames)]
  plans = []
  for begin, end in itertools.pairwise(borders):
    length = end - begin
    if length >= num_frames:
      plans += [begin + start + np.arange(num_frames) for start in range(0, length - num_frames + 1, stride)]
    elif length >= _MIN_FRACTION * num_frames:
      steps = np.arange(num_frames)
      plans.append(begin + np.where(steps < length, steps, 2 * length - 2 - steps))
  return plans


def plan_crops(size: tuple[int, int], target: tuple[int, int]) -> list[Crop]:
  """Places the largest crops of the target's aspect: 1 to 3 of them, by how much the aspects differ.

  Args:
    size: (height, width) of the source frame.
    target: (height, width) of the window.

  Returns:
    Crops side by side along the longer direction, ends included, or the central one when over 85 % fits.
  """
  scale = min(size[0] / target[0], size[1] / target[1])
  height, width = min(round(target[0] * scale), size[0]), min(round(target[1] * scale), size[1])
  free_rows, free_columns = size[0] - height, size[1] - width
  slack = max(free_rows / height, free_columns / width)
  places = [0.5] if slack < 0.15 else [0.0, 1.0] if slack < 0.8 else [0.0, 0.5, 1.0]
  return [Crop(round(place * free_rows), round(place * free_columns), height, width) for place in places]


def find_active_crop(frames: UInt8[np.ndarray, "t h w 3"], target: tuple[int, int], zoom: float) -> Crop | None:
  """Finds the place where a crop `zoom` times smaller than the largest one sees most change.

  Args:
    frames: [t h w 3] uint8 RGB.
    target: (height, width) of the window.
    zoom: over 1.

  Returns:
    The crop, or None when it would have fewer pixels than the window.
  """
  size = frames.shape[1:3]
  scale = min(size[0] / target[0], size[1] / target[1]) / zoom
  if scale < 1:
    return None
  height, width = round(target[0] * scale), round(target[1] * scale)
  sample = frames[:: max(1, len(frames) // 30)].mean(-1, dtype=np.float32)
  change = np.abs(np.diff(sample, axis=0)).mean(0)
  total = cv2.integral(change)
  best, crop = -1.0, None
  for top in np.linspace(0, size[0] - height, 5).astype(int):
    for left in np.linspace(0, size[1] - width, 5).astype(int):
      upper, lower = total[top], total[top + height]
      inside = lower[left + width] - lower[left] - upper[left + width] + upper[left]
      if inside > best:
        best, crop = inside, Crop(int(top), int(left), height, width)
  return crop


def cut_frames(
  frames: UInt8[np.ndarray, "t h w 3"], crop: Crop, *, height: int, width: int
) -> UInt8[np.ndarray, "t height width 3"]:
  """Crops frames [t h w 3] and resizes them to [t height width 3], by area average where they shrink."""
  interpolation = cv2.INTER_AREA if crop.height >= height else cv2.INTER_CUBIC
  rows, columns = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
  resized = [cv2.resize(frame[rows, columns], (width, height), interpolation=interpolation) for frame in frames]
  return np.stack(resized)


def clip_to_sequences(
  clip: Clip,
  *,
  num_frames: int = 150,
  fps: float = 30.0,
  height: int = 160,
  width: int = 256,
  stride: int = 50,
  zoom: float = 1.5,
  max_sequences: int | None = None,
  wrap: bool = False,
) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
  """Cuts a clip into sequences of one length, rate and size.

  Every `stride` frames a sequence starts, in one to three crop positions and once more closer up where most moves.
  Sequences never span a cut nor begin in black. A shot that is short by less than a quarter is completed by
  playing its end backwards.

  Args:
    clip: frames and times.
    num_frames: length T of a sequence.
    fps: its rate.
    height: rows, pixels.
    width: columns, pixels.
    stride: frames from one start to the next.
    zoom: enlargement of the closer crop; 1 for none.
    max_sequences: at most so many, spread evenly over time and crops.
    wrap: the clip is a seamless loop: start anywhere and wrap around.

  Yields:
    [num_frames height width 3] uint8 RGB.

  Raises:
    UserError: the clip's own rate is under 15 frames per second, or no shot is long enough.
  """
  native = 1 / float(np.median(np.diff(clip.times)))
  if native < _MIN_FPS:
    raise UserError(f"{native:.1f} frames per second: at least {_MIN_FPS:.0f} are needed to follow 3 Hz motion.")
  frames = _loop_to_rate(clip, fps) if wrap else resample_clip(clip, fps=fps).frames
  plans = _plan_indices(frames, num_frames=num_frames, stride=stride, wrap=wrap)
  if not plans:
    raise UserError(f"No shot of at least {_MIN_FRACTION * num_frames / fps:.2f} s in {len(frames) / fps:.2f} s.")
  crops: list[Crop | None] = [*plan_crops(frames.shape[1:3], (height, width))]
  if zoom > 1 and min(frames.shape[1] / height, frames.shape[2] / width) >= zoom:
    crops.append(None)
  choices = [(plan, crop) for plan in plans for crop in crops]
  if max_sequences is not None and len(choices) > max_sequences:
    choices = [choices[i] for i in np.linspace(0, len(choices) - 1, max_sequences).round().astype(int)]
  for plan, crop in choices:
    shot = frames[plan]
    crop = crop or find_active_crop(shot, (height, width), zoom)
    assert crop is not None  # The size was checked above.
    yield cut_frames(shot, crop, height=height, width=width)
