"""From a video file to sequences of one length, rate and size, in bounded memory (section 6)."""

import contextlib
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from gid_jax.errors import UserError
from gid_jax.files import PathLike
from gid_jax.media.cuts import Crop, Overview, find_picture, find_shots, make_overview, measure_repeats
from gid_jax.media.decoding import decode_frames, describe_truncation, find_nearest_frames, repair_times
from gid_jax.types import Clip

MIN_FPS = 15.0
# A clip a little too short is completed by playing its end backwards: at most a quarter of the window.
_MIN_FRACTION = 0.75
# Of the published loops, those that close stay under 3 and those that do not start at 5.
_MAX_SEAM_RATIO = 4.0
# All of a loop is held at once, because its last window needs its first frame.
_MAX_LOOP_SECONDS = 20.0
MAX_CLIP_BYTES = 2 << 30
# An hour at 30 frames per second, whose overview fills 170 MB.
_MAX_FRAMES = 108_000
Frames = Sequence[UInt8[np.ndarray, "h w 3"]] | UInt8[np.ndarray, "t h w 3"]


def seam_ratio(overview: Overview) -> float:
  """Measures the seam of a loop: the step from last to first frame over the median step, 1 if perfect."""
  return overview.seam / max(float(np.median(overview.changes[1:])), 1e-3)


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


def find_active_crop(frames: Frames, target: tuple[int, int], zoom: float) -> Crop | None:
  """Finds the place where a crop `zoom` times smaller than the largest one sees most change.

  Args:
    frames: t frames [h w 3] uint8 RGB.
    target: (height, width) of the window.
    zoom: over 1.

  Returns:
    The crop, or None when it would have fewer pixels than the window.
  """
  size = frames[0].shape[:2]
  scale = min(size[0] / target[0], size[1] / target[1]) / zoom
  if scale < 1:
    return None
  height, width = round(target[0] * scale), round(target[1] * scale)
  sample = np.stack([frame.mean(-1, dtype=np.float32) for frame in frames[:: max(1, len(frames) // 30)]])
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
  frames: Frames, crop: Crop, *, height: int, width: int
) -> UInt8[np.ndarray, "t height width 3"]:
  """Crops t frames [h w 3] and resizes them to [t height width 3], by area average where they shrink."""
  interpolation = cv2.INTER_AREA if crop.height >= height else cv2.INTER_CUBIC
  rows, columns = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
  resized = [cv2.resize(frame[rows, columns], (width, height), interpolation=interpolation) for frame in frames]
  return np.stack(resized)


def clip_to_sequences(
  source: Clip | str | Path,
  *,
  num_frames: int = 150,
  fps: float = 30.0,
  height: int = 160,
  width: int = 256,
  stride: int = 10,
  zoom: float = 1.5,
  max_sequences: int | None = None,
  loop: bool = False,
) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
  """Cuts a clip into sequences of one length, rate and size.

  Every `stride` frames a sequence starts, in one to three crop positions and once more closer up where most moves.
  Sequences hold no cut, flash, dissolve, fade, black frame or gap in time, and black bars are cropped. A shot that is
  short by less than a quarter is completed by playing its end backwards.

  A file is decoded twice, at the least size that the closer crop needs: once to find its shots, once to cut them.
  In memory are the frames of the sequences that overlap in time, however long and large the video is.

  Args:
    source: a video file, or its frames and times.
    num_frames: length T of a sequence.
    fps: its rate.
    height: rows, pixels.
    width: columns, pixels.
    stride: frames from one start to the next.
    zoom: enlargement of the closer crop; 1 for none.
    max_sequences: at most so many, spread evenly over time and crops.
    loop: the clip may be a seamless loop: if it closes, sequences start anywhere and wrap around.

  Yields:
    [num_frames height width 3] uint8 RGB.

  Raises:
    UserError: not a readable video, under 15 different frames per second, a still picture, or no shot is long
      enough. A damaged or very long file first yields the sequences of its good beginning.
  """
  def read_frames() -> Iterator[tuple[np.ndarray, float]]:
    if isinstance(source, Clip):
      return zip(source.frames, source.times, strict=True)
    return decode_frames(source, short_side=math.ceil(zoom * max(height, width)))

  overview, times, problem = _survey(read_frames())
  if problem is None and not isinstance(source, Clip):
    problem = describe_truncation(source, num_frames=len(times), seconds=times[-1])
  try:
    picture = find_picture(overview.brightest)
    plans = _plan_indices(overview, times, num_frames=num_frames, fps=fps, stride=stride, loop=loop)
  except UserError as error:
    raise UserError(f"{problem}; {error}" if problem else str(error)) from error
  size = (picture.height, picture.width)
  crops: list[Crop | None] = [*plan_crops(size, (height, width))]
  if zoom > 1 and min(size[0] / height, size[1] / width) >= zoom:
    crops.append(None)
  choices = [(plan, crop) for plan in range(len(plans)) for crop in crops]
  if max_sequences is not None and len(choices) > max_sequences:
    choices = [choices[i] for i in np.linspace(0, len(choices) - 1, max_sequences).round().astype(int)]
  chosen = {plan: [crop for _, crop in group] for plan, group in itertools.groupby(choices, lambda choice: choice[0])}
  rows = slice(picture.top, picture.top + picture.height)
  columns = slice(picture.left, picture.left + picture.width)
  with contextlib.closing((frame[rows, columns] for frame, _ in read_frames())) as frames:
    for shot, places in zip(_gather_frames(frames, [plans[i] for i in chosen]), chosen.values(), strict=True):
      for place in places:
        crop = place or find_active_crop(shot, (height, width), zoom)
        assert crop is not None  # The size was checked above.
        yield cut_frames(shot, crop, height=height, width=width)
  if problem is not None:
    raise UserError(f"{problem}; only what comes before is used")


def _survey(frames: Iterator[tuple[np.ndarray, float]]) -> tuple[Overview, np.ndarray, str | None]:
  """Looks at all frames up to the first damage; gives overview, repaired times, and what was wrong, if anything."""
  times: list[float] = []
  problem: list[str] = []

  def look() -> Iterator[np.ndarray]:
    try:
      for frame, time in frames:
        if len(times) == _MAX_FRAMES:
          problem.append(f"the video has more than {_MAX_FRAMES:,} frames")
          return
        times.append(time)
        yield frame
    except UserError as error:
      if len(times) < 2:
        raise
      problem.append(str(error))

  looked = look()
  first = next(looked, None)
  second = next(looked, None)
  if first is None or second is None:
    raise UserError(f"{'no' if first is None else 'one'} frame: a clip needs at least 2")
  overview = make_overview(itertools.chain([first, second], looked))
  return overview, repair_times(np.asarray(times)), problem[0] if problem else None


def _plan_indices(
  overview: Overview, times: np.ndarray, *, num_frames: int, fps: float, stride: int, loop: bool
) -> list[np.ndarray]:
  """Lists, for every sequence in time, which frames of the clip it shows."""
  rate = 1 / float(np.median(np.diff(times)))
  shown = rate * (1 - measure_repeats(overview.changes))
  if shown < MIN_FPS:
    repeats = f" different from one another ({rate:.1f} in all)" if shown < 0.99 * rate else ""
    needed = f"at least {MIN_FPS:.0f} are needed to follow 3 Hz motion"
    raise UserError(f"{shown:.1f} frames per second{repeats}: {needed}.")
  if np.percentile(overview.changes[1:], 80) < 0.01:
    raise UserError("nothing moves: it is a still picture.")
  if loop and times[-1] <= _MAX_LOOP_SECONDS and seam_ratio(overview) <= _MAX_SEAM_RATIO:
    # The last frame is shown for one step too: the period is longer than the last time stamp.
    wanted = np.arange(round((times[-1] + 1 / rate) * fps)) / fps
    distance = np.abs(wanted[:, None] - times[None])
    indices = np.minimum(distance, times[-1] + 1 / rate - distance).argmin(1)
    return [indices[(start + np.arange(num_frames)) % len(indices)] for start in range(0, len(indices), stride)]
  plans, longest = [], 0
  for begin, end in find_shots(overview, times):
    indices = begin + find_nearest_frames(times[begin:end] - times[begin], fps=fps)
    length = len(indices)
    longest = max(longest, length)
    if length >= num_frames:
      plans += [indices[start : start + num_frames] for start in range(0, length - num_frames + 1, stride)]
    elif length >= _MIN_FRACTION * num_frames:
      steps = np.arange(num_frames)
      plans.append(indices[np.where(steps < length, steps, 2 * length - 2 - steps)])
  if not plans:
    found = f"the longest in {times[-1] + 1 / rate:.2f} s lasts {longest / fps:.2f} s"
    raise UserError(f"No shot of at least {_MIN_FRACTION * num_frames / fps:.2f} s: {found}.")
  return plans


def _gather_frames(frames: Iterator[np.ndarray], plans: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
  """Yields the frames of each plan as soon as they are read; keeps only what later plans need."""
  uses = Counter(index for plan in plans for index in {*plan.tolist()})
  held: dict[int, np.ndarray] = {}
  waiting = deque(plans)
  for index, frame in enumerate(frames):
    if uses[index]:
      held[index] = frame
    while waiting and waiting[0].max() <= index:
      plan = waiting.popleft().tolist()
      yield [held[i] for i in plan]
      for i in {*plan}:
        uses[i] -= 1
        if not uses[i]:
          del held[i]
    if not waiting:
      return


def read_clip(path: PathLike, *, max_frames: int | None = None, short_side: int | None = None) -> Clip:
  """Decodes a video with the time at which each frame is shown; see `gid_jax.media.decoding.decode_frames`.

  Times come from the presentation time stamps, never from the header's frame rate; see `repair_times` for
  stamps that are missing or run backwards.

  Args:
    path: any file that FFmpeg decodes.
    max_frames: stop after this many frames; None reads all.
    short_side: the most pixels the shorter side may have; larger frames are averaged down. None keeps the size.

  Returns:
    A `Clip`: frames [t h w 3] uint8 RGB and times [t] float64 seconds from the first frame.

  Raises:
    UserError: no such readable file, not a video, damaged, fewer than 2 frames, or over 2 GB of frames.
  """
  # A growing buffer, because stacking a list would hold the clip twice.
  pixels, shape = bytearray(), (0, 0, 3)
  times: list[float] = []
  with contextlib.closing(decode_frames(path, short_side=short_side)) as decoded:
    for frame, time in decoded:
      shape = frame.shape
      pixels += frame.data
      times.append(time)
      if len(times) == max_frames:
        break
      if len(pixels) > MAX_CLIP_BYTES:
        size = f"{shape[1]} x {shape[0]}"
        raise UserError(f"{path} fills 2 GB after {len(times)} frames of {size}; shorten it or make it smaller")
  if len(times) < 2:
    held = "1 frame" if times else "no frames"
    raise UserError(f"{path} holds {held}; a clip needs at least 2 frames")
  frames = np.frombuffer(pixels, np.uint8).reshape(-1, *shape)
  return Clip(frames=frames, times=repair_times(np.asarray(times)))


def resample_clip(clip: Clip, *, fps: float) -> Clip:
  """Resamples a clip to a constant rate by taking the frame nearest in time.

  Frames are never blended: a blend of two frames holds every edge twice, which no optical flow can explain. A
  rate above the clip's own therefore repeats frames, a lower one skips some; an exact tie takes the earlier.

  Args:
    clip: frames [t h w 3] uint8 and times [t] seconds.
    fps: frames per second of the result, positive.

  Returns:
    A `Clip` whose frame i is shown at i / fps, up to the clip's last stamp rounded to the nearest 1 / fps.

  Raises:
    UserError: the clip is too short to give 2 frames at this rate, or its stamps have a gap no video has.
  """
  indices = find_nearest_frames(clip.times, fps=fps)
  if len(indices) < 2:
    length = f"a clip of {clip.times[-1]:.3f} s"
    raise UserError(f"{length} gives 1 frame at {fps:g} fps; a clip needs at least 2 frames")
  return Clip(frames=clip.frames[indices], times=np.arange(len(indices)) / fps)
