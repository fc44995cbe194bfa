"""The seam of a loop: what changes from its last frame to its first, against what changes between frames inside."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gid_jax.app.sheet import COLUMN, GREY, LEFTS, MARGIN, WIDTH, Page
from gid_jax.types import SpectralVolume


class Seam(NamedTuple):
  """Root mean squares over the pixels of the motion grid, from each frame to the next, the last to the first.

  Attributes:
    steps: [n] change of place, pixels of the video.
    turns: [n] change of velocity, pixels of the video per frame.
  """

  steps: Float[np.ndarray, "n"]
  turns: Float[np.ndarray, "n"]

  @property
  def gap(self) -> float:
    """The velocity gap at the seam, pixels per frame."""
    return float(self.turns[-1])

  @property
  def median(self) -> float:
    """The median change of velocity inside, pixels per frame."""
    return float(np.median(self.turns[:-1]))

  def describe(self) -> str:
    """One line for the user."""
    ratio = f", {self.gap / self.median:.2f} of it" if self.median > 0 else ""
    return (f"Seam: the velocity changes by {self.gap:.3g} px a frame, in the median step inside by "
            f"{self.median:.3g}{ratio}")  # fmt: skip


def measure_seam(spectrum: SpectralVolume, *, num_frames: int, width: int) -> Seam:
  """Measures a volume [k h w 4] of which one period is shown as `num_frames` frames, `width` pixels across."""
  coefficients = np.asarray(spectrum.coefficients, np.float64)
  scale = width / coefficients.shape[-2] / spectrum.num_frames
  bands = np.arange(len(coefficients))
  # The rms of a difference needs the powers of the series only, but these are few numbers more.
  weights = np.where((bands == 0) | (2 * bands == spectrum.num_frames), 1.0, 2.0) * scale
  series = (coefficients[..., :2] + 1j * coefficients[..., 2:]).reshape(len(bands), -1)
  turns = 2j * np.pi * bands / num_frames
  steps, changes = [], []
  for index in range(num_frames):
    before, after = (np.exp(turns * (index + ahead)) for ahead in (0, 1))
    if index == num_frames - 1:
      after = np.ones_like(before)
    for found, factor in ((steps, weights), (changes, weights * turns)):
      difference = (((after - before) * factor) @ series).real
      found.append(np.sqrt(np.square(difference).sum() / (series.shape[1] / 2)))
  return Seam(np.asarray(steps), np.asarray(changes))


def seam_to_png(
  seam: Seam, title: str, *, first: np.ndarray, last: np.ndarray, slice_xt: np.ndarray, fps: float
) -> bytes:
  """Draws a seam as a PNG file: both frames [h w 3], the X-t slice [t w 3] played twice, and the changes.

  Raises:
    UserError: matplotlib is not installed.
  """
  height, width = first.shape[:2]
  tall = min((COLUMN - 0.2) / width * height, 3.8)
  images, curves = 2.55, 2.55 + tall + 1.2
  page = Page(curves + 3.4)
  page.head(title, f"one period of {len(seam.turns)} frames at {fps:g} fps; changes are rms over all places",
            ((f"{seam.gap:.3g} px", "velocity gap at the seam"),
             (f"{seam.median:.3g} px", "median change inside"),
             (f"{seam.gap / max(seam.median, 1e-12):.2f}", "gap over median"),
             (f"{seam.steps[-1]:.3g} px", "moves across the seam"),
             (f"{np.median(seam.steps[:-1]):.3g} px", "moves in the median step")))  # fmt: skip
  difference = (127.5 + (first.astype(np.float32) - last) / 2).astype(np.uint8)
  panels = ("Last frame", last), ("First frame", first), ("First minus last", difference)
  for left, (name, picture) in zip(LEFTS, panels, strict=True):
    page.title(left, images, name, note="grey where nothing changes" if name.startswith("First minus") else "")
    page.place_image(left, images, tall / height * width, tall, picture)
  page.title(MARGIN, curves, "Change of velocity from each frame to the next", note="px a frame; the seam is the last")
  axes = page.place(MARGIN + 0.3, curves, WIDTH / 2 - MARGIN - 0.6, 2.6)
  axes.plot(np.arange(len(seam.turns)) / fps, seam.turns, color="#0072B2", linewidth=1.3)
  axes.plot((len(seam.turns) - 1) / fps, seam.gap, "o", color="#D55E00")
  axes.axhline(seam.median, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)))
  axes.set_ylim(bottom=0)
  axes.set_xlabel("time (s)", size=9.5)
  left = WIDTH / 2 + 0.1
  page.title(left, curves, "X–t slice, played twice", note="the seam is in the middle, at the line")
  axes, _ = page.place_image(left, curves, WIDTH - MARGIN - left, 2.6, np.concatenate([slice_xt, slice_xt]))
  page.draw_row(axes, len(slice_xt))
  return page.to_png()
