"""An engine for tests of the command: a small motion, not a sampled one, and frames without compiling anything."""

from typing import ClassVar

import numpy as np
from motion_volumes import make_volume


class FakeAnimator:
  """Stands in for `Animator` and `ImageRenderer`: samples a fixed motion, and shows the photo shifted to and fro.

  Attributes:
    spectrum: what is sampled.
    loops: for each sampling, whether it was guided.
  """

  spectrum = make_volume(num_bands=6, scale=0.5)
  loops: ClassVar[list[bool]] = []
  num_bands = 6
  period = spectrum.num_frames / spectrum.fps

  class motion_settings:
    label = "of the test"

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, *, steps=None, loop=False, progress=None):
    self.loops.append(loop)
    return self.spectrum

  def render(self, image, spectrum, *, frames, fps=30.0, **options):
    shown = np.uint8(255 * image + 0.5)
    for index in range(frames):
      yield np.roll(shown, round(2 * np.sin(2 * np.pi * index / frames)), axis=1)


def install(monkeypatch):
  """Puts the fake engine in the place of the real one."""
  from gid_jax import pipeline, rendering
  from gid_jax.app import moving

  monkeypatch.setattr(moving, "configure_jax", lambda: None)
  monkeypatch.setattr(FakeAnimator, "loops", [])
  monkeypatch.setattr(pipeline, "Animator", FakeAnimator)
  monkeypatch.setattr(rendering, "ImageRenderer", FakeAnimator)
