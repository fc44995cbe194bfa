"""The models of a command, loaded when they are first needed."""

import functools
import gc
from pathlib import Path


class Models:
  """What animates, loaded when it is first needed and kept for the sources that follow.

  All that is large has been imported then, so the search for cycles, see `gid_jax.app.animate`, goes on.
  """

  def __init__(self, weights: Path | None):
    """Takes the folder of the weights; the embedded ones without."""
    self._weights = weights

  @functools.cached_property
  def animator(self):
    """Samples and renders."""
    from gid_jax.pipeline import Animator

    gc.enable()
    return Animator.from_pretrained(self._weights)

  @functools.cached_property
  def renderer(self):
    """Renders only."""
    from gid_jax.rendering import ImageRenderer

    gc.enable()
    return ImageRenderer.from_pretrained(self._weights)
