"""Where a video's shots begin and end: cuts, flashes, dissolves, fades, gaps in time; and its black bars (section 6).

Everything is judged on an overview of 1.5 kB a frame, so that an hour of video needs no more than 200 MB.
"""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

_THUMBNAIL = (48, 32)
# Grey levels up to which nothing is seen, and from which all is white.
_BLACK, _WHITE = 24, 232
# Motion is measured up to 3 Hz, which needs a picture every sixth of a second.
MAX_GAP = 1 / 6
_CHUNK = 2048


class Overview(NamedTuple):
  """What a video looks like over time.

  Attributes:
    thumbnails: [t 32 48] uint8 grey.
    changes: [t] mean absolute difference to the frame before, of every other pixel; 0 for the first.
    brightest: [h w] uint8, the brightest grey each pixel ever has.
    seam: the same between the last frame and the first.
  """

  thumbnails: UInt8[np.ndarray, "t 32 48"]
  changes: Float[np.ndarray, "t"]
  brightest: UInt8[np.ndarray, "h w"]
  seam: float


class Crop(NamedTuple):
  """A rectangle of a frame, whole pixels."""

  top: int
  left: int
  height: int
  width: int


def make_overview(frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Overview:
  """Looks at each of one or more frames [h w 3] uint8 RGB of one size, once and in order."""
  thumbnails, changes = [], []
  first = before = brightest = np.zeros((1, 1), np.uint8)
  for frame in frames:
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    half = np.ascontiguousarray(frame[::2, ::2])
    if not thumbnails:
      first, before, brightest = half, half, gray
    thumbnails.append(cv2.resize(gray, _THUMBNAIL, interpolation=cv2.INTER_AREA))
    changes.append(float(cv2.absdiff(half, before).mean()))
    before, brightest = half, np.maximum(brightest, gray)
  return Overview(np.stack(thumbnails), np.asarray(changes), brightest, float(cv2.absdiff(before, first).mean()))


def find_cuts(thumbnails: UInt8[np.ndarray, "t 32 48"]) -> list[int]:
  """Finds the frames that begin a new shot; a flash counts as one, because brightness constancy ends there.

  A cut stands out in one of two ways. The step is over 12 grey levels and 5 times the ordinary steps around it (the
  80th percentile of 12). Or, where both shots flicker like fire, the medians of 5 frames before and after show other
  pictures (correlation under 0.6), further apart than twice what either side varies.

  Args:
    thumbnails: [t 32 48] uint8 grey, from `make_overview`.

  Returns:
    Indices i in 1 ... t-1 for which a cut lies between frames i-1 and i.
  """
  steps = _mean_differences(thumbnails, 1)
  cuts = []
  for i in np.flatnonzero(steps > 6):
    nearby = np.concatenate([steps[max(0, i - 6) : i], steps[i + 1 : i + 7]])
    stands_out = len(nearby) == 0 or steps[i] > 5 * np.percentile(nearby, 80)
    before, after = (thumbnails[a:b].astype(np.float32) for a, b in ((max(0, i - 4), i + 1), (i + 1, i + 6)))
    if (steps[i] > 12 and stands_out) or _is_other_picture(before, after, float(steps[i])):
      cuts.append(int(i) + 1)
  return cuts


def find_dissolves(thumbnails: UInt8[np.ndarray, "t 32 48"], *, fps: float) -> Bool[np.ndarray, "t"]:
  """Marks the frames in which one picture turns into another.

  Two frames of a dissolve show other pictures (correlation under 0.5), and the frames at every eighth of the
  way are blends of both (within a quarter of their difference). Things that move or flicker go other ways.

  Args:
    thumbnails: [t 32 48] uint8 grey, from `make_overview`.
    fps: frames per second.

  Returns:
    [t] true within a dissolve of 0.25 to 2 s.
  """
  marked = np.zeros(len(thumbnails), bool)
  for seconds in (0.27, 0.53, 1.07, 2.13):
    step = max(1, round(seconds * fps / 8))
    lag = 8 * step
    for begin in range(0, len(thumbnails) - lag, _CHUNK):
      part = thumbnails[begin : begin + _CHUNK + lag].astype(np.float32)
      first, last = part[:-lag], part[lag:]
      distance = np.abs(last - first).mean((1, 2))
      bends = [
        np.abs(part[i * step : i * step - lag] - (first * (8 - i) + last * i) / 8).mean((1, 2)) for i in range(1, 8)
      ]
      straight = np.max(bends, axis=0) < 0.25 * distance
      for i in begin + np.flatnonzero(straight & (distance > 8) & (_correlate(first, last) < 0.5)):
        marked[i : i + lag + 1] = True
  return marked


def find_fades(thumbnails: UInt8[np.ndarray, "t 32 48"]) -> Bool[np.ndarray, "t"]:
  """Marks the frames [t 32 48] that are black or white all over, and those that fade towards them or from them."""
  low, high = thumbnails.min((1, 2)), thumbnails.max((1, 2))
  blank = (high <= _BLACK) | (low >= _WHITE)
  marked = blank.copy()
  brightness = thumbnails.mean((1, 2))
  sign = np.where(high <= _BLACK, 1, -1)
  for i in np.flatnonzero(blank):
    for step in (1, -1):
      place = i + step
      # A frame is on its way if it goes on from there by a quarter of a level, or of the step that led to it.
      while 0 <= place < len(blank) and 0 <= place + step < len(blank) and not blank[place]:
        came, goes = (sign[i] * (brightness[p] - brightness[p - step]) for p in (place, place + step))
        if goes < 0.25 * max(came, 1):
          break
        marked[place] = True
        place += step
  return marked


def find_shots(overview: Overview, times: Float[np.ndarray, "t"]) -> list[tuple[int, int]]:
  """Divides a video into shots without cuts, flashes, dissolves, fades, black frames or gaps of over 1/6 s.

  Args:
    overview: of the video.
    times: [t] seconds, strictly increasing.

  Returns:
    (begin, end) of each shot in frames, end excluded.
  """
  fps = 1 / float(np.median(np.diff(times)))
  usable = ~(find_dissolves(overview.thumbnails, fps=fps) | find_fades(overview.thumbnails))
  borders = {0, len(times), *find_cuts(overview.thumbnails)}
  borders.update(int(i) + 1 for i in np.flatnonzero(np.diff(times) > MAX_GAP))
  borders.update(int(i) + 1 for i in np.flatnonzero(np.diff(usable)))
  return [(begin, end) for begin, end in itertools.pairwise(sorted(borders)) if usable[begin]]


def find_picture(brightest: UInt8[np.ndarray, "h w"]) -> Crop:
  """Finds the picture between black bars: equal ones above and below or on both sides, with a sharp edge.

  A dark surrounding that is part of the picture has no sharp edge on both sides at once, and stays.

  Args:
    brightest: [h w] uint8, from `make_overview`.

  Returns:
    The picture without its bars and two lines of blur beside them; all of [h w] where there are none.
  """
  (top, bottom), (left, right) = (_find_bars(np.percentile(brightest, 98, axis=axis)) for axis in (1, 0))
  return Crop(top, left, bottom - top, right - left)


def measure_repeats(changes: Float[np.ndarray, "t"]) -> float:
  """The share of frames that repeat the one before: change [t] under a tenth of the largest within 3 frames."""
  steps = changes[1:]
  largest = np.lib.stride_tricks.sliding_window_view(np.pad(steps, 3), 7).max(1)
  return float((steps < 0.1 * largest).mean())


def _find_bars(profile: np.ndarray) -> tuple[int, int]:
  visible = np.flatnonzero(profile > _BLACK)
  size = len(profile)
  if len(visible) < size / 4:
    return 0, size
  before, after = int(visible[0]), size - 1 - int(visible[-1])
  equal = min(before, after) >= max(2, 0.02 * size) and abs(before - after) <= 2 + 0.02 * size
  sharp = min(profile[before + 2], profile[size - 3 - after]) > 2 * _BLACK
  return (before + 2, size - 2 - after) if equal and sharp else (0, size)


def _mean_differences(thumbnails: np.ndarray, lag: int) -> np.ndarray:
  parts = [thumbnails[i : i + _CHUNK + lag].astype(np.float32) for i in range(0, len(thumbnails) - lag, _CHUNK)]
  return np.concatenate([np.abs(part[lag:] - part[:-lag]).mean((1, 2)) for part in parts] or [np.zeros(0)])


def _correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  first, second = (a - a.mean((1, 2), keepdims=True) for a in (first, second))
  return (first * second).sum((1, 2)) / np.sqrt((first**2).sum((1, 2)) * (second**2).sum((1, 2)) + 1)


def _is_other_picture(before: np.ndarray, after: np.ndarray, step: float) -> bool:
  a, b = np.median(before, 0), np.median(after, 0)
  distance = float(np.abs(a - b).mean())
  varies = max(np.abs(side - middle).mean() for side, middle in ((before, a), (after, b)))
  other = distance > 8 and distance > 2 * varies and step > 0.7 * distance
  return bool(other and _correlate(a[None], b[None])[0] < 0.6)
