"""Measures the motion of a video, and how much of the video that motion explains.

The same chain that makes training data is run on the video, and its first frame is then moved along the result, once
by the measured motion and once by what the lowest bands keep of it. Beside the film this shows where measuring,
moving pixels and truncation lose something.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from gid_jax import sizes
from gid_jax.flow.tracking import MeasuredMotion, mean_magnitude, measure_motion
from gid_jax.media import shots
from gid_jax.motion import spectral, splat, visualize
from gid_jax.types import SpectralVolume

Progress = Callable[[str, int, int], None]

_WORKING_AREA = 256 * 160


class Reconstruction(NamedTuple):
  """How well a moved first frame reproduces the film.

  Attributes:
    error: mean absolute difference over pixels, colours and frames, grey levels of 255.
    slice_xt: [t w 3] uint8, its X-t slice.
  """

  error: float
  slice_xt: UInt8[np.ndarray, "t w 3"]


class Inspection(NamedTuple):
  """What is known of a video's motion.

  Attributes:
    path: the video.
    start: second at which the shot begins.
    shot: the frames that were measured.
    motion: [t h w 2] pixels of the shot's frames, without the camera's shift.
    confidence: [h w] in [0, 1].
    shift: [t 2] pixels, the camera.
    spectrum: of `motion`, all bands.
    num_bands: how many of them a model would keep.
    row: the scanline of the X-t slices.
    still, measured, kept: the film against its first frame at rest, moved by `motion`, and by the kept bands.
  """

  path: Path
  start: float
  shot: shots.Shot
  motion: Float[np.ndarray, "t h w 2"]
  confidence: Float[np.ndarray, "h w"]
  shift: Float[np.ndarray, "t 2"]
  spectrum: SpectralVolume
  num_bands: int
  row: int
  still: Reconstruction
  measured: Reconstruction
  kept: Reconstruction


def fit_working_size(height: int, width: int) -> tuple[int, int]:
  """The grid (h, w) on which a video is measured: the training area, its own aspect, not larger than it is."""
  area = min(_WORKING_AREA, max(height * width, 32 * 32))
  return sizes.working_size(height, width, area=area, multiple=8)


def keep_bands(spectrum: SpectralVolume, num_bands: int) -> SpectralVolume:
  """Drops all but the lowest bands of a volume [k h w 4]."""
  return spectrum.replace(coefficients=spectrum.coefficients[:num_bands])


def peak_frequency(spectrum: SpectralVolume) -> float:
  """Frequency in Hz at which a volume [k h w 4] swings most.

  That is the band of most power among those that stand out of their neighbours and hold a hundredth of all power.
  A drift fills the lowest bands without standing out; only where nothing else does, the strongest band is taken.
  """
  power = np.asarray(spectral.motion_power(spectrum)).sum(-1)[1:]
  inner = power[1:-1]
  stands_out = (inner > power[:-2]) & (inner > power[2:]) & (inner >= 0.01 * power.sum())
  band = 1 + (1 + (inner * stands_out).argmax() if stands_out.any() else power.argmax())
  return float(band) * spectrum.fps / spectrum.num_frames


@jax.jit
def _move(image: Float[Array, "h w 3"], flow: Float[Array, "h w 2"], depth: Float[Array, "h w"]):
  moved, mass = splat.softmax_splat(image, flow, depth)
  # Half a pixel's area counts as the whole: along a seam the film's own colour is sharper than a filled one.
  return splat.fill_holes(moved, 2 * mass)


def reconstruct(
  frames: UInt8[np.ndarray, "t h w 3"],
  motion: Float[np.ndarray, "t h w 2"],
  *,
  row: int,
  progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
  """Moves the first frame along a motion by softmax splatting (no network) and compares it with the film.

  Args:
    frames: [t h w 3] uint8 RGB, the film.
    motion: [t h w 2] pixels from frame 0 to each frame.
    row: of the X-t slice.
    progress: called as (done, total) after every frame.
  """
  image = frames[0].astype(np.float32) / 255
  depth = mean_magnitude(motion)
  error, rows = 0.0, []
  for index, (frame, flow) in enumerate(zip(frames, motion, strict=True)):
    moved = 255 * np.asarray(_move(image, flow, depth))
    error += float(np.abs(moved - frame).mean()) / len(frames)
    rows.append(np.rint(moved[row]).astype(np.uint8))
    if progress is not None:
      progress(index + 1, len(frames))
  return Reconstruction(error, np.stack(rows))


def _measure(shot: shots.Shot, report: Progress) -> MeasuredMotion:
  report("Measuring", 0, len(shot.frames) - 1)
  return measure_motion(shot.frames, progress=functools.partial(report, "Measuring"))


def measure_spectrum(shot: shots.Shot, *, num_bands: int = 16, progress: Progress | None = None) -> SpectralVolume:
  """The spectral volume of a shot on its own grid, the camera's shift included, so that it can be compared with it.

  Args:
    shot: at least `shots.MIN_FRAMES` frames.
    num_bands: lowest bands kept, at most all there are.
    progress: called as (step, done, total).
  """
  motion, _, shift = _measure(shot, progress or (lambda step, done, total: None))
  num_bands = min(num_bands, len(motion) // 2 + 1)
  return spectral.motion_to_spectrum(motion + shift[:, None, None], num_bands=num_bands, fps=shot.fps)


class FilmComparison:
  """Compares rendered frames with the film they imitate, as they pass.

  Attributes:
    num_frames: rendered frames compared so far: those shown at the time of a frame of the film.
    error: their mean absolute difference from the film, grey levels of 255.
    still_error: the same for the film's first frame, at rest.
  """

  def __init__(self, shot: shots.Shot, *, fps: float):
    """Takes the film and the rate of the frames that will pass."""
    self._shot, self._fps = shot, fps
    self.num_frames, self.error, self.still_error = 0, 0.0, 0.0

  def watch(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Passes on frames [h w 3] of any size, frame i shown at i / fps, and compares them at the film's size."""
    film = self._shot.frames
    size = (film.shape[2], film.shape[1])
    for index, frame in enumerate(frames):
      place = index * self._shot.fps / self._fps
      nearest = round(place)
      if abs(place - nearest) < 0.01 and nearest < len(film):
        real = film[nearest].astype(np.float32)
        resized = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        self.num_frames += 1
        self.error += (float(np.abs(resized - real).mean()) - self.error) / self.num_frames
        self.still_error += (float(np.abs(film[0] - real).mean()) - self.still_error) / self.num_frames
      yield frame


def inspect_video(
  path: Path,
  *,
  start: float = 0.0,
  num_bands: int = 16,
  progress: Progress | None = None,
  warn: Callable[[str], None] = warnings.warn,
) -> Inspection:
  """Measures the motion of five seconds of a video.

  Args:
    path: the video; a shorter one is measured as far as it goes.
    start: seconds to skip.
    num_bands: bands that a model would keep.
    progress: called as (step, done, total).
    warn: see `gid_jax.media.shots.read_shot`.

  Raises:
    UserError: see `gid_jax.media.shots.read_shot`.
  """
  report = progress or (lambda step, done, total: None)
  shot = shots.read_shot(path, size=fit_working_size, start=start, warn=warn)
  motion, confidence, shift = _measure(shot, report)
  num_frames = len(motion)
  spectrum = spectral.motion_to_spectrum(motion, num_bands=num_frames // 2 + 1, fps=shot.fps)
  num_bands = min(num_bands, num_frames // 2 + 1)
  kept = np.asarray(spectral.spectrum_to_motion(keep_bands(spectrum, num_bands)))
  row = visualize.find_liveliest_row(motion)
  still = np.abs(shot.frames.astype(np.float32) - shot.frames[0]).mean()
  total = 2 * num_frames
  camera = shift[:, None, None]
  return Inspection(
    path, shot.start, shot, motion, confidence, shift, spectrum, num_bands, row,
    still=Reconstruction(float(still), visualize.slice_xt(shot.frames, row)),
    measured=reconstruct(
      shot.frames, motion + camera, row=row, progress=lambda done, _: report("Comparing", done, total)),
    kept=reconstruct(
      shot.frames, kept + camera, row=row, progress=lambda done, _: report("Comparing", num_frames + done, total)),
  )
