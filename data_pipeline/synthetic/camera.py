"""The camera of a simulated scene: what happens to the light on its way to a stored picture."""

import numpy as np


def sample_tone(rng: np.random.Generator) -> np.ndarray:
  """A camera's exposure, contrast and colour cast as a table [256 1 3] uint8."""
  level = np.arange(256)[:, None, None] / 255
  gain = rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3)
  curve = level ** np.exp(rng.normal(0, 0.18))
  contrast = rng.uniform(0.8, 1.15)
  return np.clip(255 * (0.5 + contrast * (gain * curve - 0.5)), 0, 255).round().astype(np.uint8)
