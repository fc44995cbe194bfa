"""Plants of a simulated scene: grass, flowers on stems, leafy branches.

Each builder appends one layer of ribbons to a `World`, back to front.
"""

import numpy as np

from data_pipeline.synthetic.layers import Strips
from data_pipeline.synthetic.shapes import make_curve, make_ribbon, rotate90, shade_ribbon
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.wind import COSINE, SINE, course_index
from data_pipeline.synthetic.world import GREENS, PETALS, STRAWS, World


def add_grass(world: World, *, amount: float) -> None:
  """Adds clumps of bending blades along the lower edge; `amount` 0..1 from a tuft to a meadow."""
  rng, (h, w) = world.rng, world.shape
  field = amount > 0.7  # covers the ground up to a horizon
  count = int(12 * 20**amount * (1.7 if field else 1))
  size = np.exp(rng.uniform(np.log(0.14), np.log(0.4 if field else 0.8))) * h
  color, spread = world.pick(GREENS if rng.random() < 0.7 else STRAWS), rng.uniform(4, 14)
  layer = Strips(world.shape, blur=rng.uniform(0.45, 0.7))
  clumps = rng.uniform(-0.05, 1.05, rng.integers(1, 7)) * w
  scatter = w * (1.0 if field else rng.uniform(0.03, 0.5))
  top, reach = (rng.uniform(0.4, 0.7) if field else rng.uniform(0.75, 1.0)) * h, world.reach(size)
  depths = np.sort(rng.uniform(0, 1, count))
  for depth in depths:
    x = (rng.choice(clumps) + rng.normal() * scatter + 0.1 * w) % (1.2 * w) - 0.1 * w
    y = top + (h * 1.04 - top) * depth
    length = size * rng.uniform(0.5, 1.2) * (0.5 + 0.5 * depth)
    nodes = make_curve((x, y), angle=-np.pi / 2 + 0.22 * rng.normal(), curl=0.45 * rng.normal(), length=length, num=9)
    stem = Stem(world.wind, nodes, reach=reach * length / size, hz=world.hz(length))
    taper = np.linspace(1, 0.04, 10) ** rng.uniform(0.5, 0.9)
    points = make_ribbon(nodes, taper * length**0.5 * rng.uniform(0.15, 0.38) * world.unit**0.5)
    tint = color * (0.7 + 0.4 * depth) * rng.uniform(0.8, 1.2) + rng.normal(0, spread, 3)
    colors = shade_ribbon(rng, tint, 9, light=world.light, dark=0.55)
    layer.add(points, stem.carry(points, np.arange(10)[:, None]), stem.index, colors, world.new_part())
    if rng.random() < 0.15:  # an ear of seeds on the tip
      _add_ear(world, layer, stem, tint)
  world.layers.append(layer.finish())


def _add_ear(world: World, layer: Strips, stem: Stem, color: np.ndarray) -> None:
  axis = stem.nodes[-1] - stem.nodes[-3]
  nodes = stem.nodes[-1] + np.linspace(-0.7, 0.7, 6)[:, None] * axis
  points = make_ribbon(nodes, np.array([0.2, 0.9, 1.0, 0.9, 0.6, 0.1]) * 0.16 * np.linalg.norm(axis))
  tint = 0.6 * color + 0.4 * np.array(STRAWS[0])
  colors = shade_ribbon(world.rng, tint, 5, light=world.light, dark=0.2, vein=0.2)
  layer.add(points, stem.carry(points, -1), stem.index, colors, world.new_part())


def _add_leaf(world, layer, stem, node, *, angle, length, width, color, flutter, squash=1.0, curl=0.0, part=None):
  """Adds a leaf or petal that rides on a stem's node and swings about its own base by the driver `flutter`."""
  rng, num = world.rng, int(np.clip(length / (3 * world.unit), 4, 16))
  base = stem.nodes[node]
  nodes = make_curve((0, 0), angle=angle, curl=curl, length=length, num=num) * [1, squash] + base
  u = np.linspace(0, 1, num + 1)
  blunt = part is not None  # petals are round at the tip, leaves pointed
  outline = np.sin(np.pi * np.clip(u, 0.06, 0.97) ** (1.4 if blunt else 0.8)) ** (0.6 if blunt else 1.0) * width
  points = make_ribbon(nodes, outline)
  basis = stem.carry(points, node)
  index = stem.index
  if flutter is not None:
    own = np.stack([rotate90(points - base), points - base], -2)
    basis = np.concatenate([basis, own], -2)
    index = np.concatenate([index, [course_index(flutter, SINE), course_index(flutter, COSINE)]])
  side = (0.2 if blunt else 0.6) * world.light * np.sign(np.cos(angle) + 1e-3)
  colors = shade_ribbon(rng, color * rng.uniform(0.85, 1.15), num, light=side, dark=0.3, vein=0.03)
  colors = colors * (1 + (0.012 if blunt else 0.03) * (-1.0) ** np.arange(num))[:, None, None]  # side veins
  layer.add(points, basis, index, colors, part or world.new_part())


def add_flowers(world: World, *, size: float, count: int) -> None:
  """Adds `count` flowers whose heads, about `size` px wide, ride and turn on the tips of bending stems."""
  rng, (h, w) = world.rng, world.shape
  green, petal, heart = world.pick(GREENS), world.pick(PETALS), world.pick([(200, 150, 40), (90, 60, 30)])
  num_petals, cup = int(rng.integers(5, 22)), rng.random() < 0.25
  layer = Strips(world.shape, blur=rng.uniform(0.45, 0.75))
  far = rng.uniform(0.2, 0.75) * h
  for depth in np.sort(rng.uniform(0, 1, count)):
    head = size * (0.7 + 0.3 * depth) * rng.uniform(0.8, 1.2)
    root = np.array([rng.uniform(0.05, 0.95) * w, h * rng.uniform(1.0, 1.1)])
    rise = max(root[1] - (far + 0.2 * h * depth + 0.12 * h * rng.normal()), 1.2 * head)
    nodes = make_curve(root, angle=-np.pi / 2 + 0.12 * rng.normal(), curl=0.35 * rng.normal(), length=rise, num=12)
    stem = Stem(world.wind, nodes, reach=world.reach(rise), hz=world.hz(rise + head))
    thick = np.linspace(1, 0.7, 13) * max(0.035 * head, 0.6 * world.unit) * rng.uniform(0.8, 1.3)
    points = make_ribbon(nodes, thick)
    colors = shade_ribbon(rng, green, 12, light=2 * world.light, dark=0.5)
    basis = stem.carry(points, np.arange(13)[:, None])
    layer.add(points, basis, stem.index, colors, world.new_part())
    for _ in range(rng.integers(0, 6)):
      length = head * rng.uniform(0.5, 1.5)
      turn = min(rng.uniform(0.02, 0.25), 7 * world.unit / length)
      flutter = world.wind.add_driver(rng.uniform(1, 3), x=root[0], scale=turn)
      _add_leaf(
        world, layer, stem, int(rng.integers(1, 9)), angle=-np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.4, 1.4),
        length=length, width=length * rng.uniform(0.08, 0.22), color=green, flutter=flutter,
        curl=0.8 * rng.normal(),
      )  # fmt: skip
    _add_head(world, layer, stem, head, num_petals, petal, heart, cup=cup)
  world.layers.append(layer.finish())


def _add_head(world, layer, stem, head, num_petals, petal, heart, *, cup) -> None:
  rng, part = world.rng, world.new_part()
  squash, start = rng.uniform(0.5, 1.0), rng.uniform(0, 2 * np.pi)
  flutter = world.wind.add_driver(rng.uniform(1.5, 3), x=stem.nodes[0, 0], scale=rng.uniform(0.01, 0.12))
  tint = petal + rng.normal(0, 6, 3)
  if cup:
    angles, squash = -np.pi / 2 + np.array([-0.75, 0.75, -0.4, 0.4, 0]), 1.0
  else:
    angles = start + np.arange(num_petals) * 2 * np.pi / num_petals + rng.normal(0, 0.06, num_petals)
    angles = angles[np.argsort(np.arange(num_petals) % 2, kind="stable")]
  width = head * (0.2 if cup else min(1.5 / len(angles), 0.24))
  for i, angle in enumerate(angles):
    shade = (0.78 + 0.22 * (i >= len(angles) / 2)) * (1 + world.light * np.cos(angle) * 1.2)
    _add_leaf(
      world, layer, stem, -1, angle=angle, length=head * (0.9 if cup else 0.5) * rng.uniform(0.9, 1.1),
      width=width, color=tint * shade, flutter=flutter, squash=squash, part=part, curl=0.15 * rng.normal(),
    )  # fmt: skip
  if cup:
    return
  radius = head * rng.uniform(0.08, 0.17)
  for _ in range(int(rng.integers(10, 40))):
    r, turn = radius * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    center = stem.nodes[-1] + r * np.array([np.cos(turn), squash * np.sin(turn)])
    dot = make_ribbon(
      center + np.linspace(-1, 1, 4)[:, None] * [0, 0.3 * radius], 0.3 * radius * np.array([0.3, 1, 1, 0.3])
    )
    own = np.stack([rotate90(dot - stem.nodes[-1]), dot - stem.nodes[-1]], -2)
    index = np.concatenate([stem.index, [course_index(flutter, SINE), course_index(flutter, COSINE)]])
    colors = shade_ribbon(rng, heart * (1.1 - 0.5 * r / radius), 3, light=world.light, dark=0.1, vein=0.15)
    layer.add(dot, np.concatenate([stem.carry(dot, -1), own], -2), index, colors, part)


def add_branches(world: World, *, count: int, leaf: float) -> None:
  """Adds `count` leafy branches from an edge (a bush when from below); leaves of `leaf` px flutter on them."""
  rng, (h, w) = world.rng, world.shape
  layer, green = Strips(world.shape, blur=rng.uniform(0.45, 0.8)), world.pick(GREENS)
  if rng.random() < 0.2:
    green = world.pick([(170, 90, 40), (190, 140, 50), (140, 50, 45)])  # autumn
  bark, side = world.pick([(85, 65, 50), (110, 95, 75), (70, 75, 45)]), int(rng.integers(4))
  center, slim = rng.uniform(0.2, 0.8), rng.uniform(0.16, 0.4)
  pool = [
    world.wind.add_driver(rng.uniform(1, 3), x=rng.uniform(0, w), scale=rng.uniform(0.03, 0.35)) for _ in range(24)
  ]
  leaves = max(14, int(rng.uniform(150, 450) / count))
  for _ in range(count):
    along = center + 0.2 * rng.normal()
    root = [(along * w, -4), (w + 4, along * h), (along * w, h + 4), (-4, along * h)][side]
    angle = [np.pi / 2, np.pi, -np.pi / 2, 0][side] + 0.45 * rng.normal()
    length = rng.uniform(0.35, 0.9) * h
    nodes = make_curve(root, angle=angle, curl=0.6 * rng.normal(), length=length, num=10)
    stem = Stem(world.wind, nodes, reach=world.reach(length), hz=world.hz(1.3 * length))
    points = make_ribbon(nodes, np.linspace(1, 0.3, 11) * length * 0.014)
    colors = shade_ribbon(rng, bark, 10, light=2 * world.light, dark=0.3)
    layer.add(points, stem.carry(points, np.arange(11)[:, None]), stem.index, colors, world.new_part())
    shades = np.sort(rng.uniform(0.55, 1.2, leaves))
    for shade in shades:
      node = int(rng.integers(2, 11))
      long = leaf * rng.uniform(0.6, 1.3)
      _add_leaf(
        world, layer, stem, node, angle=angle + rng.normal() * 1.1, length=long, width=long * slim,
        color=green * shade + rng.normal(0, 5, 3), flutter=pool[rng.integers(24)], curl=0.5 * rng.normal(),
        squash=rng.uniform(0.6, 1.0),
      )  # fmt: skip
  world.layers.append(layer.finish())
