"""Flowers of a simulated scene: heads of several kinds, seen from any side, on the tips of leafy stems."""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.foliage import (
  LeafKind,
  add_flutters,
  add_leaves,
  add_stem,
  choose_near,
  pick_green,
  shade,
  vary,
)
from data_pipeline.synthetic.grasses import MAKES, lay_grass
from data_pipeline.synthetic.layers import Strips
from data_pipeline.synthetic.shapes import make_curve, rotate90
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.textures import BLADE, FLUFF, PETAL
from data_pipeline.synthetic.wind import COSINE, SINE, course_index
from data_pipeline.synthetic.world import World

# Petals in full light, at the tip: white, cream, yellow, orange, scarlet, crimson, pink, rose, mauve, violet, blue.
_COLORS = np.array([
  (236, 234, 226), (238, 224, 186), (232, 196, 52), (226, 132, 46), (204, 58, 40), (166, 34, 52), (222, 130, 156),
  (232, 178, 190), (178, 128, 186), (120, 84, 168), (98, 110, 186),
], float)  # fmt: skip


class Ring(NamedTuple):
  """Petals around a head.

  Attributes:
    num: least and most.
    lift: angle above the head's plane where they begin, radians; curl: how much it grows to the tip.
    long, slim: length of the head's radius, half width of that length.
    cup: how far their edges stand up, radians.
    tip: above 1 for pointed petals, below for blunt ones.
    rise: spread of `lift` and shrinking of `long` from the first petal to the last (roses).
  """

  num: tuple[int, int]
  lift: float
  curl: float
  long: float
  slim: float
  cup: float = 0.25
  tip: float = 0.7
  rise: float = 0.0


class HeadKind(NamedTuple):
  """A kind of flower: its rings, radius of the disc of florets, how upright it stands (1 faces the sky), colours."""

  rings: tuple[Ring, ...]
  disc: float
  upright: tuple[float, float]
  colors: tuple[int, ...]
  second: bool = False  # the last ring is of a deeper colour


KINDS = {
  "daisy": HeadKind((Ring((9, 15), 0.05, -0.2, 1.0, 0.13), Ring((9, 15), 0.25, -0.3, 0.95, 0.13)), 0.3, (0.1, 1.0),
                    (0, 0, 2, 3, 6, 8, 9)),
  "cosmos": HeadKind((Ring((4, 4), 0.1, -0.2, 1.0, 0.36, tip=0.5), Ring((4, 4), 0.2, -0.2, 1.0, 0.36, tip=0.5)), 0.15,
                     (0.0, 0.9), (0, 6, 7, 8, 3)),
  "poppy": HeadKind((Ring((2, 3), 0.35, 0.5, 1.0, 0.62, 0.35, 0.5), Ring((2, 3), 0.6, 0.6, 0.95, 0.6, 0.35, 0.5)), 0.14,
                    (0.2, 1.0), (3, 4, 4, 2, 6)),
  "tulip": HeadKind((Ring((3, 3), 1.0, 0.75, 1.5, 0.34, 0.55, 0.75), Ring((3, 3), 1.1, 0.6, 1.5, 0.34, 0.5, 0.75)), 0.0,
                    (0.75, 1.0), (0, 2, 3, 4, 5, 6, 9)),
  "rose": HeadKind((Ring((28, 44), 0.15, 0.35, 1.0, 0.5, 0.5, 0.45, 1.25),), 0.0, (0.1, 0.9), (0, 1, 3, 4, 5, 6, 7)),
  "carnation": HeadKind((Ring((36, 56), -0.1, 0.2, 1.0, 0.33, -0.3, 0.35, 1.35),), 0.0, (0.4, 1.0), (0, 5, 6, 7, 8)),
  "daffodil": HeadKind((Ring((3, 3), 0.1, -0.1, 1.0, 0.3, 0.2, 0.9), Ring((3, 3), 0.2, -0.1, 1.0, 0.3, 0.2, 0.9),
                        Ring((11, 14), 1.4, -0.35, 0.62, 0.2, 0.0, 0.3)), 0.0, (-0.1, 0.5), (0, 1, 2, 2), True),
  "small": HeadKind((Ring((5, 6), 0.25, -0.2, 1.0, 0.4, tip=0.5),), 0.2, (0.0, 1.0), (0, 2, 7, 8, 10, 9)),
  "spike": HeadKind((), 0.0, (1.0, 1.0), (6, 8, 9, 9, 10, 4)),
  "umbel": HeadKind((), 0.0, (1.0, 1.0), (0, 0, 1, 2)),
}  # fmt: skip
_NEAR = ("daisy", "cosmos", "poppy", "tulip", "rose", "carnation", "daffodil", "spike")
_FAR = ("daisy", "daisy", "cosmos", "poppy", "tulip", "rose", "daffodil", "small", "spike", "spike", "umbel")


def add_flowers(world: World, *, near: bool) -> None:
  """Adds flowers whose heads ride and nod on the tips of bending stems: a few large ones when `near`, else a bed."""
  rng, (h, w) = world.rng, world.shape
  size = (rng.uniform(0.1, 0.24) if near else np.exp(rng.uniform(np.log(0.014), np.log(0.06)))) * w
  count = int(rng.integers(1, 5) if near else np.clip(rng.uniform(0.2, 0.8) * w / size, 4, 34))
  kinds = []
  for name in rng.choice(_NEAR if near else _FAR, 1 if near else 2):
    kinds.append((str(name), _COLORS[rng.choice(KINDS[str(name)].colors)], pick_green(rng)))
  leaf = LeafKind(rng.uniform(0.07, 0.22), rng.uniform(0.8, 1.1), gloss=rng.uniform(0, 0.25))
  flutters = add_flutters(world, 24, scale=(0.04, 0.16))
  top, spread = rng.uniform(0.28 if near else 0.15, 0.55) * h, (0.12 if near else rng.uniform(0.1, 0.35)) * h
  meadow = not near and rng.random() < 0.7
  if meadow:
    make = MAKES[str(rng.choice(["meadow", "foxtail", "straw"], p=[0.75, 0.15, 0.1]))]
    lay_grass(world, make, str(rng.choice(["full", "field", "fringe"], p=[0.4, 0.3, 0.3])))
  depths = np.sort(rng.uniform(0, 1, count)) if count > 1 else np.ones(1)
  back = 0.45 if not near else 0.3
  for low, high, blur in ((-1.0, back, rng.uniform(0.8, 2.2)), (back, 1.0, rng.uniform(0.42, 0.6))):
    chosen = depths[(depths > low) & (depths <= high)]
    if not len(chosen):
      continue
    layer = world.new_strips(blur=blur * max(world.unit, 0.6), shadow=near)
    if not near and not meadow:
      _add_undergrowth(world, layer, kinds[0][2], leaf, size, top, flutters, order=low)
    for depth in chosen:
      name, petal, green = kinds[0 if rng.random() < 0.8 else -1]
      scale = size * (0.65 + 0.35 * depth) * rng.uniform(0.85, 1.15)
      root = np.array([rng.uniform(0.02, 0.98) * w, h * rng.uniform(1.0, 1.12)])
      rise = max(root[1] - (top + spread * (1.2 * depth - 0.6 + 0.5 * rng.normal())), 1.6 * scale)
      nodes = make_curve(root, angle=-np.pi / 2 + 0.12 * rng.normal(), curl=0.4 * rng.normal(), length=rise, num=14)
      stem = Stem(world.wind, nodes, reach=world.reach(rise), hz=world.hz(1.3 * rise + 1.5 * scale))  # heads are heavy
      thick = np.linspace(1, 0.7, 15) * max(0.055 * scale, 0.5 * world.unit) * rng.uniform(0.8, 1.3)
      dusk = np.linspace(0.55, 1, 14) if not near else 1.0
      add_stem(world, layer, stem, thick, green, order=depth, open=dusk, texture=BLADE)
      leaves = int(rng.integers(2, 7))
      side = rng.choice([-1, 1], leaves)
      along = rng.uniform(0.05, 0.75, leaves)
      add_leaves(world, layer, stem, along, angle=-np.pi / 2 + side * rng.uniform(0.3, 1.2, leaves),
                 length=scale * rng.uniform(0.6, 2.2, leaves) * (1.1 - along), kind=leaf,
                 color=vary(rng, green, leaves), open=0.5 + 0.5 * along, order=depth + 1e-4 * rng.normal(size=leaves),
                 flutter=choose_near(world, flutters, np.full(leaves, root[0])), droop=0.7)  # fmt: skip
      nod = int(choose_near(world, flutters, root[:1])[0])
      order = depth + 2e-4
      if name == "spike":
        _add_spike(world, layer, stem, scale, vary(rng, petal, 1)[0], green, nod, order)
      elif name == "umbel":
        _add_umbel(world, layer, stem, scale, vary(rng, petal, 1)[0], green, nod, order)
      else:
        add_head(world, layer, stem, -1, scale, KINDS[name], vary(rng, petal, 1)[0], green, nod, order)
    world.layers.append(layer.finish())


def _add_undergrowth(world, layer: Strips, green, leaf: LeafKind, size, top, flutters, *, order: float) -> None:
  """Adds the leaves between which flowers stand, on short stems."""
  rng, (h, w) = world.rng, world.shape
  floor = min(top + rng.uniform(0.1, 0.4) * h, 0.92 * h)
  for _ in range(12):
    root = np.array([rng.uniform(-0.05, 1.05) * w, 1.15 * h])
    rise = root[1] - floor * rng.uniform(0.85, 1.12)
    nodes = make_curve(root, angle=-np.pi / 2 + 0.3 * rng.normal(), curl=0.5 * rng.normal(), length=rise, num=8)
    stem = Stem(world.wind, nodes, reach=0.6 * world.reach(rise), hz=world.hz(rise))
    num = int(np.clip(40 * 20 * world.unit / max(size, 6 * world.unit), 22, 60))
    along = rng.uniform(0.15, 1.0, num)
    depth = rng.uniform(0, 1, num)
    long = np.clip(size, 9 * world.unit, 40 * world.unit) * rng.uniform(0.7, 1.8, num)
    add_leaves(world, layer, stem, along, angle=-np.pi / 2 + rng.normal(0, 0.9, num), length=long, kind=leaf,
               color=vary(rng, green, num, tone=0.14), open=(0.15 + 0.7 * along) * (0.4 + 0.6 * depth),
               order=order - 1 + depth, flutter=choose_near(world, flutters, np.full(num, root[0])),
               droop=0.8)  # fmt: skip


def add_head(world, layer: Strips, stem: Stem, node: int, size, kind: HeadKind, petal, green, nod: int, order) -> None:
  """Adds a flower of radius `size` px on a stem's node; it nods about the node by the driver `nod`."""
  rng = world.rng
  up = rng.uniform(*kind.upright)
  facing = np.array([rng.normal(0, 0.45), -up, 0.15 + max(1 - up, 0) * rng.uniform(0.5, 1.2)])
  facing /= np.linalg.norm(facing)
  across = np.array([1.0, 0, 0]) - facing[0] * facing
  across /= np.linalg.norm(across)
  frame = np.stack([across, np.cross(facing, across), facing])
  center, part = stem.nodes[node], world.new_parts(1)
  heart = petal * np.array([0.85, 0.62, 0.6]) if rng.random() < 0.5 else 0.4 * petal + [120, 120, 40]
  if petal.min() > 0.7 * petal.max():  # white flowers are at most greenish within
    heart = petal * np.array([0.88, 0.93, 0.72])
  pieces = []
  for number, ring in enumerate(kind.rings):
    tint = petal
    if kind.second and number == len(kind.rings) - 1:
      tint = np.minimum(petal * np.array([1.0, 0.82, 0.45]), 245)
    pieces.append(_make_ring(world, ring, frame, size, tint, heart, first=np.pi * number / ring.num[0]))
  if kind.disc:
    pollen = np.array([206.0, 160, 50]) if petal[2] > 80 else 0.3 * petal
    pieces.append(_make_disc(world, kind.disc * size, frame, pollen))
  if size > 8 * world.unit and kind.upright[0] >= 0:  # the calyx
    sepal = Ring((5, 5), -0.6, 1.0, 0.35, 0.3, 0.2, 1.2)
    points, height, colors = _make_ring(world, sepal, frame, size, green, green, first=0.3)
    pieces.append((points, height - 0.15 * size * facing[2] - 0.02 * size, colors))
  for points, height, colors in pieces:
    points = points + center
    own = np.stack([rotate90(points - center), points - center], -2)
    basis = np.concatenate([stem.carry(points, node), own], -2)
    index = np.concatenate([stem.index, [course_index(nod, SINE), course_index(nod, COSINE)]])
    rank = order + 1e-5 * np.clip(height / size, -3, 3)
    layer.add(points, basis, np.tile(index, (len(points), 1)), colors, np.repeat(part, len(points)), rank,
                   texture=PETAL if points.shape[1] > 2 else FLUFF)  # fmt: skip


def _make_ring(world, ring: Ring, frame, size, color, heart, *, first: float):
  """Petals of a ring about (0, 0): points [r n+1 3 2], how near they are [r], colours [r n 2 3]."""
  rng = world.rng
  num = int(rng.integers(ring.num[0], ring.num[1] + 1))
  inner = np.arange(num) / num if ring.rise else np.zeros(num)
  turn = 2.39996 * np.arange(num) if ring.rise else 2 * np.pi * np.arange(num) / num
  turn = turn + first + rng.normal(0, 0.06 if num > 6 else 0.04, num)
  n = int(np.clip(size * ring.long / (2.3 * world.unit), 3, 11))
  u = np.linspace(0, 1, n + 1)
  middle = (u[1:] + u[:-1]) / 2
  lift = ring.lift + ring.rise * inner + rng.normal(0, 0.1, num)
  curl = ring.curl * rng.uniform(0.7, 1.3, num) * (1 + 0.4 * inner)
  raised = lift[:, None] + curl[:, None] * middle
  radial = np.cos(turn)[:, None] * frame[0] + np.sin(turn)[:, None] * frame[1]
  tangent = -np.sin(turn)[:, None] * frame[0] + np.cos(turn)[:, None] * frame[1]
  long = size * ring.long * (1 - 0.62 * inner) * rng.uniform(0.92, 1.08, num)
  cos, sin = np.cos(raised)[..., None], np.sin(raised)[..., None]
  step = (cos * radial[:, None] + sin * frame[2]) * (long / n)[:, None, None]
  path = np.pad(np.cumsum(step, 1), ((0, 0), (1, 0), (0, 0)))
  if not ring.rise:  # petals grow from a ring, not from a point
    path = path + 0.07 * size * radial[:, None]
  inward = -sin * radial[:, None] + cos * frame[2]
  ends = np.concatenate([inward[:, :1], (inward[:, 1:] + inward[:, :-1]) / 2, inward[:, -1:]], 1)
  shape = np.sin(np.pi * np.clip(u, 0.05, 0.97) ** (1.5 if ring.tip < 0.8 else 1.0)) ** ring.tip
  wide = (shape * (ring.slim * long * rng.uniform(0.9, 1.1, num))[:, None])[..., None]
  ruffle = ring.cup * (1 + 0.5 * rng.normal(size=(num, n + 1, 2)) * (u[:, None] > 0.5))
  aside, up = np.cos(ruffle)[..., None] * tangent[:, None, None], np.sin(ruffle)[..., None] * ends[:, :, None]
  edges = path[:, :, None] + wide[..., None] * (np.array([[-1.0], [1.0]]) * aside + up)
  points = np.stack([edges[:, :, 0], path, edges[:, :, 1]], 2)
  cup = 0.2 * np.abs(ring.cup)
  normal = inward[:, :, None] * np.cos(cup) + np.sin(cup) * np.array([[1.0], [-1.0]]) * tangent[:, None, None]
  outside = normal[..., 2:] < 0
  normal = np.where(outside, -normal, normal)
  gradient = np.clip(middle / 0.45, 0, 1)[:, None]
  albedo = heart + (color - heart) * (0.25 + 0.75 * gradient)
  albedo = albedo[None, :, None] * np.exp(rng.normal(0, 0.05, (num, 1, 1, 1)))
  albedo = np.where(outside, 0.2 * albedo.mean(-1, keepdims=True) + 0.76 * albedo, albedo)
  depth = np.where(outside[..., 0], 0.95, 0.76 + 0.26 * middle[:, None] - 0.12 * inner[:, None, None])
  colors = shade(world, albedo, normal, open=depth, thin=0.75, gloss=0.06)
  height = path[:, 2 * (n + 1) // 3, 2]
  return points[..., :2], height, colors


def _make_disc(world, radius, frame, color):
  """The florets of a head's domed middle, as in `_make_ring`."""
  rng = world.rng
  num = int(np.clip(5 * (radius / world.unit) ** 1.3, 8, 90))
  r, turn = np.sqrt((np.arange(num) + 0.5) / num), 2.39996 * np.arange(num)
  flat = np.cos(turn)[:, None] * frame[0] + np.sin(turn)[:, None] * frame[1]
  dome = (r[:, None] * flat + 0.55 * (1 - r[:, None] ** 2) * frame[2]) * radius + 0.1 * radius * frame[2]
  half = radius * 1.5 / num**0.5
  box = np.array([[[-1, -1], [0, -1.2], [1, -1]], [[-1, 1], [0, 1.2], [1, 1]]]) * half
  points = dome[:, None, None, :2] + box * rng.uniform(0.7, 1.2, (num, 1, 1, 1))
  normal = flat * r[:, None] * 0.9 + frame[2]
  normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
  normal = np.where(normal[:, 2:] < 0, normal * [1, 1, -1], normal)
  tint = color * np.exp(rng.normal(0, 0.13, (num, 1))) * (0.75 + 0.3 * r[:, None])
  colors = shade(world, tint, normal, open=np.full(num, 0.92), thin=0.2)
  return points, dome[:, 2] + 0.05 * radius, np.broadcast_to(colors[:, None, None], (num, 1, 2, 3))


def _add_florets(world, layer, stem: Stem, node, base, angle, long, wide, color, open, normal, nod: int, order) -> None:
  """Adds small petals [r] at `base` [r 2] that ride on a stem's nodes `node` [r] and nod about the lowest."""
  n = 2
  nodes = make_curve(base, angle=angle, curl=0.5 * world.rng.normal(size=len(base)), length=long, num=n)
  across = rotate90(np.stack([np.cos(angle), np.sin(angle)], -1))
  side = across[:, None] * (wide[:, None] * [0.35, 1.0, 0.45])[..., None]
  points = np.stack([nodes - side, nodes, nodes + side], 2)
  pivot = stem.nodes[np.min(node)]
  own = np.stack([rotate90(points - pivot), points - pivot], -2)
  basis = np.concatenate([stem.carry(points, node[:, None, None]), own], -2)
  index = np.concatenate([stem.index, [course_index(nod, SINE), course_index(nod, COSINE)]])
  colors = shade(world, color[:, None, None] * np.array([0.8, 1.1])[:, None, None], normal[:, None, None],
                 open=open[:, None, None], thin=0.6)  # fmt: skip
  layer.add(points, basis, np.tile(index, (len(base), 1)), np.broadcast_to(colors, (len(base), n, 2, 3)),
                 np.repeat(world.new_parts(1), len(base)), order, texture=PETAL)  # fmt: skip


def _add_spike(world, layer, stem: Stem, size, petal, green, nod: int, order: float) -> None:
  """Lavender or lupin: whorls of florets around the upper part of the stem."""
  rng, n = world.rng, len(stem.nodes) - 1
  length = np.linalg.norm(stem.nodes[1] - stem.nodes[0]) * n
  share = float(np.clip(rng.uniform(2.6, 4.5) * size / length, 0.1, 0.6))
  num = int(np.clip(9 * size / world.unit, 24, 220))
  whorls = int(rng.integers(5, 11))
  s = np.clip((np.floor(rng.random(num) * whorls) + 0.5 + 0.22 * rng.normal(size=num)) / whorls, 0, 1)
  place = (1 - share + share * s) * n
  low = np.minimum(place.astype(int), n - 1)
  axis = stem.nodes[low + 1] - stem.nodes[low]
  turn = rng.uniform(0, 2 * np.pi, num)
  width = size * (0.42 - 0.26 * s)
  outward = rotate90(axis) / np.linalg.norm(axis, axis=1, keepdims=True) * np.sin(turn)[:, None]
  base = stem.nodes[low] + (place - low)[:, None] * axis + 0.3 * width[:, None] * outward
  angle = np.arctan2(axis[:, 1], axis[:, 0]) + np.sin(turn) * rng.uniform(0.7, 1.3, num)
  normal = np.concatenate([outward, np.cos(turn)[:, None]], 1)
  normal[:, 1] -= 0.3
  bud = (rng.random(num) < 0.25 + 0.3 * s)[:, None]
  color = np.where(bud, 0.5 * green + 0.35 * petal, petal) * np.exp(rng.normal(0, 0.15, (num, 1)))
  _add_florets(world, layer, stem, np.rint(place).astype(int), base, angle, width * rng.uniform(0.7, 1.2, num),
               0.3 * width, color, 0.75 + 0.25 * np.cos(turn), normal, nod,
               order + 1e-5 * np.cos(turn))  # fmt: skip


def _add_umbel(world, layer, stem: Stem, size, petal, green, nod: int, order: float) -> None:
  """Cow parsley or yarrow: a flat plate of many clusters on rays from the tip of the stem."""
  rng, rays = world.rng, int(world.rng.integers(9, 18))
  turn, reach = rng.uniform(0, 2 * np.pi, rays), 1.5 * size * np.sqrt(rng.uniform(0.05, 1, rays))
  flat = rng.uniform(0.2, 0.5)
  ends = np.stack([np.cos(turn) * reach, np.sin(turn) * reach * flat - size * 0.9 + 0.12 * reach], -1)
  tip, last = stem.nodes[-1], len(stem.nodes) - 1
  angle, up = np.arctan2(ends[:, 1], ends[:, 0]), np.tile([0.0, -0.3, 0.9], (rays, 1))
  node = np.full(rays, last)
  _add_florets(world, layer, stem, node, np.tile(tip, (rays, 1)), angle, np.hypot(*ends.T),
               np.full(rays, 0.3 * world.unit), np.tile(green, (rays, 1)), np.full(rays, 0.8), up, nod,
               np.full(rays, order))  # fmt: skip
  num = int(np.clip(3 * size / world.unit, 4, 16))
  small = 0.34 * size
  base = tip + np.repeat(ends, num, 0) + small * rng.normal(0, 0.55, (rays * num, 2)) * [1, 0.6]
  shine = rng.uniform(0.55, 1.0, rays * num)
  _add_florets(world, layer, stem, np.full(rays * num, last), base, rng.uniform(0, 2 * np.pi, rays * num),
               np.full(rays * num, 0.5 * small), np.full(rays * num, 0.22 * small),
               vary(rng, petal, rays * num, tone=0.08), shine, np.tile([0.0, -0.5, 0.85], (rays * num, 1)), nod,
               order + 1e-5 * (1 + np.repeat(np.sin(turn), num)))  # fmt: skip
