"""What a simulated scene holds: settings, each with its scale in metres and the families of things that fit it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.backdrops import paint_interior, sample_backdrop
from data_pipeline.synthetic.branches import add_branches
from data_pipeline.synthetic.cloth import add_cloth
from data_pipeline.synthetic.fire import add_flames, darken_backdrop
from data_pipeline.synthetic.flowers import add_flowers
from data_pipeline.synthetic.grasses import add_grass
from data_pipeline.synthetic.hanging import add_hanging
from data_pipeline.synthetic.props import add_sprites
from data_pipeline.synthetic.rigid import add_rigid
from data_pipeline.synthetic.trees import add_trees
from data_pipeline.synthetic.vegetation import segment_vegetation
from data_pipeline.synthetic.water import add_water_plants, tint_backdrop
from data_pipeline.synthetic.world import World


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
  "meadow": Setting(0.27, (0.6, 5.0), (("grass", 3), ("flowers", 2), ("cutout", 1)), 4),
  "closeup": Setting(0.12, (0.15, 0.6), (("flowers", 2), ("branches", 0.5), ("cutout", 1)), 2),
  "foliage": Setting(0.2, (0.5, 4.0), (("branches", 3), ("grass", 1), ("cutout", 0.7)), 3),
  "woods": Setting(0.06, (6.0, 30.0), (("trees", 3), ("grass", 1)), 2),
  "flags": Setting(0.06, (2.0, 8.0), (("cloth", 1), ("grass", 1)), 2),
  "porch": Setting(0.06, (0.5, 3.0), (("hanging", 1), ("branches", 1), ("cutout", 0.7)), 3),
  "indoors": Setting(0.06, (0.3, 1.2), (("flowers", 2), ("hanging", 1), ("branches", 1)), 1),
  "hearth": Setting(0.055, (0.12, 0.6), (("flames", 1),), 1),
  "pond": Setting(0.055, (0.5, 3.0), (("water plants", 1),), 1),
  "still": Setting(0.06, (0.3, 10.0), (), 0),
}
_NO_CUTOUTS_FIRST = ("woods", "flags", "hearth", "pond")
_CUTOUT_FIRST = 0.15  # of the other scenes, if there are any
_RIGID_SHARE = 0.2
_RIGID_IN_STILL = 0.5
_INTERIOR_SHARE = 0.85  # of the backdrops indoors; the others are photos


def compose(world: World, setting: str, sprites: Sequence[np.ndarray]) -> list[str]:
  """Fills `world` with the things of a setting, back to front, and returns their families, sorted.

  Args:
    world: empty.
    setting: a name in `SETTINGS`.
    sprites: cut-outs [h w 4] uint8, straight alpha; without any there are none.
  """
  rng, kind = world.rng, SETTINGS[setting]
  found: list[str] = []
  if setting == "still":
    found.append("still")
  else:
    names = [name for name, _ in kind.things if name != "cutout" or len(sprites)]
    weights = np.array([weight for name, weight in kind.things if name in names])
    replaced = len(sprites) and setting not in _NO_CUTOUTS_FIRST and rng.random() < _CUTOUT_FIRST
    more = rng.choice(names, rng.integers(0, kind.most), p=weights / weights.sum())
    for name in rng.permutation(["cutout" if replaced else names[0], *more]):
      _add(world, str(name), setting, sprites)
      found.append(str(name))
  if rng.random() < (_RIGID_IN_STILL if setting == "still" else _RIGID_SHARE):
    add_rigid(world)
    found.append("rigid")
  return sorted(set(found))


def _add(world: World, family: str, setting: str, sprites: Sequence[np.ndarray]) -> None:
  builders: dict[str, Callable[[], None]] = {
    "grass": lambda: add_grass(world),
    "flowers": lambda: add_flowers(world, near=setting in ("closeup", "indoors")),
    "branches": lambda: add_branches(world),
    "trees": lambda: add_trees(world),
    "cloth": lambda: add_cloth(world),
    "hanging": lambda: add_hanging(world),
    "flames": lambda: add_flames(world),
    "water plants": lambda: add_water_plants(world),
    "cutout": lambda: add_sprites(world, sprites),
  }
  builders[family]()


def paint_for_setting(
  rng: np.random.Generator, height: int, width: int, photos: Sequence[np.ndarray], setting: str, *, side: float
) -> np.ndarray:
  """Draws a backdrop [h w 3] that fits a setting: dark round flames, bluish under water, indoors an interior.

  What is painted is lit from `side`: -1 left, 1 right.
  """
  if setting == "indoors" and rng.random() < _INTERIOR_SHARE:
    return paint_interior(rng, height, width, side)
  # A world in which the foliage of a photo stands still would teach just that.
  background = sample_backdrop(rng, height, width, photos, side=side, vegetation=segment_vegetation)
  change = {"hearth": darken_backdrop, "pond": tint_backdrop}.get(setting)
  return change(rng, background) if change else background


def draw_setting(rng: np.random.Generator) -> tuple[str, float]:
  """Draws a setting and what its width shows, metres."""
  names = list(SETTINGS)
  shares = np.array([SETTINGS[name].share for name in names])
  setting = names[rng.choice(len(names), p=shares / shares.sum())]
  low, high = np.log(SETTINGS[setting].metres)
  return setting, float(np.exp(rng.uniform(low, high)))
