"""What a simulated scene holds: settings, each with its scale in metres and the families of things that belong in it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic import plants, props
from data_pipeline.synthetic.world import World

FAMILIES = ("grass", "flowers", "branches", "cloth", "hanging", "cutout", "rigid", "still")


class Setting(NamedTuple):
  """A kind of scene.

  Attributes:
    share: of all scenes.
    metres: range of what the picture's width shows.
    things: (family, weight) of what may stand in it; the first is always there.
    most: how many things at most.
  """

  share: float
  metres: tuple[float, float]
  things: tuple[tuple[str, float], ...]
  most: int


SETTINGS = {
  "meadow": Setting(0.20, (0.8, 6.0), (("grass", 3), ("flowers", 2), ("cutout", 1)), 3),
  "closeup": Setting(0.20, (0.15, 0.6), (("flowers", 2), ("branches", 0.5), ("cutout", 1)), 2),
  "foliage": Setting(0.20, (0.5, 4.0), (("branches", 3), ("grass", 1), ("cutout", 0.7)), 3),
  "line": Setting(0.10, (2.0, 8.0), (("cloth", 1), ("grass", 1)), 2),
  "porch": Setting(0.10, (0.5, 3.0), (("hanging", 1), ("branches", 1), ("cutout", 0.7)), 3),
  "still": Setting(0.14, (0.3, 10.0), (("still", 1),), 0),
}
_RIGID_SHARE = 0.2
_BESIDE_STILL = 0.4  # of still scenes have something small that moves


def compose(world: World, setting: str, sprites: Sequence[np.ndarray]) -> list[str]:
  """Fills `world` with the things of a setting, back to front, and returns their families."""
  rng, kind = world.rng, SETTINGS[setting]
  found: list[str] = []
  names = [name for name, _ in kind.things if name != "cutout" or len(sprites)]
  weights = np.array([weight for name, weight in kind.things if name in names])
  if setting == "still":
    found.append("still")
  else:
    first = "cutout" if len(sprites) and setting != "line" and rng.random() < 0.25 else names[0]
    chosen = [first, *rng.choice(names, rng.integers(0, kind.most), p=weights / weights.sum())]
    for name in rng.permutation(chosen):
      _add(world, str(name), setting, sprites)
      found.append(str(name))
  if rng.random() < (_BESIDE_STILL if setting == "still" else _RIGID_SHARE):
    for _ in range(rng.integers(1, 3)):
      props.add_rigid(world)
    found.append("rigid")
  return sorted(set(found))


def _add(world: World, family: str, setting: str, sprites: Sequence[np.ndarray]) -> None:
  builders: dict[str, Callable[[], None]] = {
    "grass": lambda: plants.add_grass(world),
    "flowers": lambda: plants.add_flowers(world, near=setting == "closeup"),
    "branches": lambda: plants.add_branches(world),
    "cloth": lambda: props.add_cloth(world),
    "hanging": lambda: props.add_ornament(world),
    "cutout": lambda: props.add_sprites(world, sprites),
  }
  builders[family]()


def draw_setting(rng: np.random.Generator) -> tuple[str, float]:
  """Draws a setting and what its width shows, metres."""
  names = list(SETTINGS)
  shares = np.array([SETTINGS[name].share for name in names])
  setting = names[rng.choice(len(names), p=shares / shares.sum())]
  low, high = np.log(SETTINGS[setting].metres)
  return setting, float(np.exp(rng.uniform(low, high)))
