"""What the server does with a photo: sample its motion, write its page, render its video."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from gid_jax.bundle import Bundle

Report = Callable[[str, int, int], None]
# Width and height of photos whose programs are made before anyone asks: phones' and cameras'.
_SHAPES = ((1920, 1440), (1440, 1920), (1920, 1280), (1280, 1920))
_VIDEO_SIDE = 1080
_VIDEO_FRAMES, _VIDEO_FPS = 150, 30.0


class Maker(Protocol):
  """What a `Desk` has its work done by; every call comes from one thread at a time, and none overlap.

  `report(phase, done, total)` says how far it is and raises when nobody waits for the work any more.
  """

  def sample(self, photo: UInt8[np.ndarray, "h w 3"], seed: int, report: Report) -> Bundle:
    """Samples the motion of a photo [h w 3]."""
    ...

  def write_page(self, bundle: Bundle, path: Path, *, title: str) -> None:
    """Writes the page in which the photo answers to touch, .html."""
    ...

  def write_video(self, bundle: Bundle, path: Path, report: Report) -> None:
    """Writes the moving photo as .mp4."""
    ...

  def warm_up(self) -> Iterator[None]:
    """Gets ready for the first photo, a piece between one yield and the next."""
    ...


class Generator:
  """The trained models at work, loaded when they are first needed and then kept."""

  def __init__(self, weights: Path | None = None):
    """Takes the folder of the weights, the embedded ones when None."""
    self._weights = weights
    self._known: set[tuple[int, int]] = set()

  @functools.cached_property
  def _animator(self):
    from gid_jax.pipeline import Animator

    return Animator.from_pretrained(self._weights)

  def sample(self, photo: UInt8[np.ndarray, "h w 3"], seed: int, report: Report) -> Bundle:
    """Samples the motion of a photo [h w 3], as `gid animate --seed SEED` does."""
    import jax

    report("seeing", 0, 0)
    animator = self._animator
    grid = animator.working_size(*photo.shape[:2])
    if grid not in self._known:
      report("compiling", 0, 0)
    spectrum = animator.predict_spectrum(
      jax.random.key(seed), photo.astype(np.float32) / 255,
      progress=lambda done, total: report("sampling", done, total))  # fmt: skip
    self._known.add(grid)
    settings = {"steps": None, "loop": False}
    return Bundle(photo, spectrum, seed, settings, weights_label=animator.motion_settings.label)

  def write_page(self, bundle: Bundle, path: Path, *, title: str) -> None:
    """Writes the page in which the photo answers to touch, .html."""
    from gid_jax.touch.export import export_html

    export_html(bundle.photo.astype(np.float32) / 255, bundle.spectrum, path, title=title)

  def write_video(self, bundle: Bundle, path: Path, report: Report) -> None:
    """Writes one period of the motion as .mp4."""
    from gid_jax.media.encoding import write_video

    report("rendering", 0, _VIDEO_FRAMES)
    frames = self._animator.render(
      bundle.photo.astype(np.float32) / 255, bundle.spectrum, frames=_VIDEO_FRAMES, fps=_VIDEO_FPS, size=_VIDEO_SIDE)

    def watch():
      for number, frame in enumerate(frames):
        report("rendering", number, _VIDEO_FRAMES)
        yield frame

    write_video(path, watch(), fps=_VIDEO_FPS, overwrite=True)  # one that was cancelled at its end may be there

  def warm_up(self) -> Iterator[None]:
    """Loads the model, then compiles for photos of the commonest shapes, one between two yields."""
    _ = self._animator
    yield
    for width, height in _SHAPES:
      if self._animator.working_size(height, width) in self._known:
        continue
      light = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
      with tempfile.TemporaryDirectory(prefix="gid-") as folder:
        self.write_page(self.sample(light, 0, lambda *_: None), Path(folder) / "warm.html", title="")
      yield
