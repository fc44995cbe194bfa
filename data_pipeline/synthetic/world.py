"""What the builders of a simulated scene share: the wind, the light, colours, and how size sets speed and reach."""

import numpy as np

from data_pipeline.synthetic.layers import Strips, Texture
from data_pipeline.synthetic.wind import Wind

GREENS = [(70, 120, 40), (100, 140, 50), (60, 105, 55), (125, 150, 70), (150, 160, 90), (85, 110, 35)]
STRAWS = [(190, 165, 95), (170, 140, 85), (200, 180, 130), (150, 85, 70), (160, 120, 110)]
PETALS = [(235, 200, 50), (230, 120, 40), (210, 45, 50), (220, 110, 150), (150, 90, 190), (240, 238, 228)]
FLAGS = [(190, 40, 45), (40, 70, 150), (235, 230, 220), (225, 185, 60), (50, 120, 80), (70, 150, 190), (35, 35, 45)]


class World:
  """What builders share: the random stream, the wind, the picture's shape, the light and the layers so far."""

  def __init__(self, rng: np.random.Generator, wind: Wind, shape: tuple[int, int]):
    self.rng, self.wind, self.shape = rng, wind, shape
    self.unit = shape[1] / 256  # sizes below are written for a picture 256 pixels wide
    self.light = rng.uniform(0.05, 0.3) * rng.choice([-1, 1])
    self.layers: list[Strips | Texture] = []
    self.num_parts = 0

  def new_part(self) -> int:
    """Takes the next part id, from 1; 0 is the background."""
    self.num_parts += 1
    return self.num_parts

  def pick(self, colors, *, spread: float = 12.0) -> np.ndarray:
    """One of `colors` with random variation, RGB 0..255."""
    return np.array(colors[self.rng.integers(len(colors))]) * self.rng.uniform(0.8, 1.15) + self.rng.normal(
      0, spread, 3
    )

  def reach(self, length: float) -> float:
    """Travel of a tip of something `length` px long: log-uniform 1..15 px per 256 px, tied to size."""
    travel = np.exp(self.rng.uniform(0, np.log(15))) * self.unit
    return float(min(travel * np.sqrt(length / (70 * self.unit)), 0.35 * length))

  def hz(self, length: float) -> float:
    """Natural frequency of something `length` px long, Hz."""
    return float(np.clip(1.1 * (70 * self.unit / length) ** 0.8 * self.rng.lognormal(0, 0.25), 0.2, 3.0))
