"""What the builders of a simulated scene share: wind, light, colours, and how a thing's size sets its motion."""

import numpy as np

from data_pipeline.synthetic.layers import Strips, Texture
from data_pipeline.synthetic.textures import make_textures
from data_pipeline.synthetic.wind import Wind

GREENS = [(70, 120, 40), (100, 140, 50), (60, 105, 55), (125, 150, 70), (150, 160, 90), (85, 110, 35)]
BARKS = [(85, 65, 50), (110, 95, 75), (70, 75, 45), (150, 145, 135)]

# Elastic similarity (McMahon 1973): frequency falls as the square root of the length. 1.6 Hz at half a metre gives 0.30
# Hz at 14.2 m, where Milne (1991) measured 0.35 Hz on spruces.
_HZ_AT_HALF_METRE, _HZ_SPREAD, _HZ_RANGE = 1.6, 0.6, (0.15, 3.5)


class World:
  """The random stream, the wind, the picture's shape and scale, the light, and the layers so far.

  Args:
    rng: the scene's random stream.
    wind: drives everything.
    shape: (h, w) of the picture in pixels.
    metres: what the picture's width shows at the distance of the things in it.

  Attributes:
    unit: pixels per 1/256 of the width; sizes in builders are written for a picture 256 pixels wide.
    strength: how far things of one size travel in this scene, pixels per 256.
    light: which side is lit, below zero the left one, and how much brighter it is.
    sun: [3] unit vector towards the light: right, down, towards the camera (below zero when it shines from behind).
    textures: fine structure for ribbons.
    shadow: how dark shadows on near surfaces are.
    layers: back to front.
  """

  def __init__(self, rng: np.random.Generator, wind: Wind, shape: tuple[int, int], *, metres: float = 1.5):
    self.rng, self.wind, self.shape, self.metres = rng, wind, shape, metres
    self.unit = shape[1] / 256
    self.strength = float(np.exp(rng.uniform(np.log(5.3), np.log(127))))
    self.light = rng.uniform(0.05, 0.3) * rng.choice([-1, 1])
    behind = rng.uniform(-0.5, 0.8)
    self.sun = np.array([np.sign(self.light) * rng.uniform(0.3, 0.9), -rng.uniform(0.5, 1.0), behind])
    self.sun /= np.linalg.norm(self.sun)
    self.shadow = float(rng.choice([0.0, rng.uniform(0.1, 0.45)]))
    self.textures = make_textures(rng)
    self.layers: list[Strips | Texture] = []
    self.num_parts = 0

  def new_part(self) -> int:
    """Takes the next part id, from 1; 0 is the background."""
    self.num_parts += 1
    return self.num_parts

  def new_parts(self, num: int) -> np.ndarray:
    """Takes the next `num` part ids: [num]."""
    self.num_parts += num
    return np.arange(self.num_parts - num, self.num_parts) + 1

  def pick(self, colors, *, spread: float = 12.0) -> np.ndarray:
    """One of `colors` with random variation, RGB 0..255."""
    color = np.array(colors[self.rng.integers(len(colors))])
    return color * self.rng.uniform(0.8, 1.15) + self.rng.normal(0, spread, 3)

  def reach(self, length: float) -> float:
    """How far the tip of something `length` px long travels, px: the scene's strength, tied to size."""
    travel = self.strength * self.rng.lognormal(0, 0.3) * self.unit
    return float(min(travel * np.sqrt(length / (70 * self.unit)), 0.35 * length))

  def hz(self, length: float) -> float:
    """Natural frequency of something `length` px long, Hz."""
    metres = length * self.metres / self.shape[1]
    hz = _HZ_AT_HALF_METRE * (metres / 0.5) ** -0.5 * self.rng.lognormal(0, _HZ_SPREAD)
    return float(np.clip(hz, *_HZ_RANGE))

  def new_strips(self, *, blur: float, shadow: bool = False) -> Strips:
    """An empty layer of ribbons; `shadow` where something near lies behind to receive one."""
    return Strips(self.shape, self.textures, blur=blur, shadow=self.shadow if shadow else 0.0)
