"""Trees of a simulated scene, seen from afar: single ones, groups, and the edge of a wood across the picture."""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.foliage import HAZE, add_flutters, add_ground, add_stem, pick_bark, pick_green, shade, vary
from data_pipeline.synthetic.layers import Strips
from data_pipeline.synthetic.shapes import make_curve, make_ribbon, rotate90, smooth_noise
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.textures import CLUMP
from data_pipeline.synthetic.wind import COSINE, SINE, course_index
from data_pipeline.synthetic.world import World

LAYOUTS = {"single": 0.35, "group": 0.3, "line": 0.35}
_TRUNK_SHARE, _BOUGH_SHARE = 0.25, 0.5  # of what grass of that length would travel
_LOBES = (2, 4, 6)  # nodes of a bough that bear balls of leaves
_MOST_CLUMPS = 9000
_AUTUMN = np.array([(172, 108, 52), (188, 150, 66), (150, 72, 52)], float)


class TreeKind(NamedTuple):
  """The make of a tree, lengths as shares of its height.

  Attributes:
    crown: where the crown begins.
    wide: half width of the crown, range.
    boughs: how many, range.
    rise: angle of the boughs to the trunk, radians: at the foot of the crown and at its top.
    outline: half width of the crown at equal steps from its foot to its top, of `wide`.
    lobe: radius of the balls of leaves, of `wide`; flat: their height over their width.
    hang: length of hanging strands.
    value: factor of the leaves' colour.
  """

  crown: float
  wide: tuple[float, float]
  boughs: tuple[int, int]
  rise: tuple[float, float]
  outline: tuple[float, ...]
  lobe: float
  flat: float
  hang: float = 0.0
  value: float = 1.0


class _Look(NamedTuple):
  """What a tree's leaves look like: colour, size of a handful in pixels, haze before it, and drivers of flutter."""

  color: np.ndarray
  leaf: float
  haze: float
  flutters: np.ndarray


KINDS = {
  "broad": TreeKind(0.22, (0.32, 0.48), (8, 12), (1.35, 0.3), (0.75, 1.0, 1.0, 0.8, 0.35), 0.42, 0.8),
  "tall": TreeKind(0.2, (0.2, 0.3), (8, 12), (1.1, 0.3), (0.7, 1.0, 0.95, 0.75, 0.3), 0.45, 0.95),
  "poplar": TreeKind(0.08, (0.09, 0.14), (9, 13), (0.35, 0.2), (0.7, 1.0, 1.0, 0.8, 0.3), 0.7, 1.7),
  "conifer": TreeKind(0.06, (0.17, 0.26), (24, 30), (1.85, 0.9), (1.0, 0.85, 0.62, 0.38, 0.1), 0.5, 0.42, value=0.62),
  "pine": TreeKind(0.5, (0.2, 0.3), (6, 9), (1.4, 0.6), (0.8, 1.0, 0.9, 0.7, 0.4), 0.45, 0.55, value=0.7),
  "willow": TreeKind(0.3, (0.34, 0.46), (9, 12), (1.1, 0.35), (0.95, 1.0, 0.9, 0.7, 0.4), 0.22, 0.8, hang=0.34),
}
_SHARES = (0.36, 0.18, 0.13, 0.14, 0.07, 0.12)


def add_trees(world: World) -> None:
  """Adds one tree, a group of trees, or a line of trees across the picture, mostly with the ground they stand on."""
  rng, (h, w) = world.rng, world.shape
  layout = str(rng.choice(list(LAYOUTS), p=list(LAYOUTS.values())))
  name = str(rng.choice(list(KINDS), p=_SHARES))
  low, high, count = {"single": (0.75, 1.35, 1), "group": (0.5, 1.0, int(rng.integers(2, 5))),
                      "line": (0.3, 0.65, 0)}[layout]  # fmt: skip
  tall = rng.uniform(low, high) * h
  count = count or int(np.clip(rng.uniform(1.8, 3.2) * w / tall, 5, 15))
  foot = rng.uniform(0.7, 0.95) * h if layout != "single" or rng.random() < 0.6 else 1.12 * h
  green = pick_green(rng) * rng.uniform(0.7, 0.95)
  if rng.random() < 0.12:
    green = _AUTUMN[rng.integers(len(_AUTUMN))]
  haze = rng.uniform(0, 0.12) if layout == "single" else rng.uniform(0.02, 0.35)
  x = (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count if count > 1 else rng.uniform(0.25, 0.75, 1)
  if foot < h:
    soil = 0.6 * pick_green(rng) + np.array([40, 34, 14]) * rng.uniform(0.3, 1.2)
    edge = foot - 0.012 * h + 0.008 * h * smooth_noise(rng, 2, w, coarsest=5, octaves=6)[0]
    add_ground(world, edge, soil, haze=haze, shadows=[(at * w, foot, 0.3 * tall) for at in x])
  scale = rng.uniform(0.65, 1.1, count)
  flutters = add_flutters(world, 18, scale=(0.2, 0.8))
  leaf = max(0.0085 * w, 1.5 * world.unit) * (tall / h) ** 0.4 * rng.uniform(0.9, 1.4)
  layer = world.new_strips(blur=rng.uniform(0.42, 0.7) * max(world.unit, 0.6))
  budget = _MOST_CLUMPS / count / scale.mean() ** 2
  for i in map(int, np.argsort(rng.normal(foot, 0.03 * h, count))):
    other = name if rng.random() < 0.6 else str(rng.choice(list(KINDS), p=_SHARES))
    base = np.array([x[i] * w, foot + rng.uniform(-0.005, 0.02) * h])
    leaves = green if KINDS[other].value == 1.0 or green[0] < green[1] else 0.6 * green[[1, 0, 2]]  # evergreen
    look = _Look(vary(rng, leaves, 1, tone=0.16, hue=0.09)[0] * KINDS[other].value, leaf, haze, flutters)
    detail = {"single": 1.0, "group": 0.6, "line": 0.36}[layout]
    _add_tree(world, layer, KINDS[other], base, tall * scale[i], look, budget * scale[i] ** 2, float(i), detail)
  if foot < h:
    look = _Look(0.85 * green, leaf, haze, flutters)
    _add_thicket(world, layer, foot, tall, look, 6 if layout == "line" else 2, float(count))
  world.layers.append(layer.finish())


def _add_tree(
  world, layer: Strips, kind: TreeKind, base, tall: float, look: _Look, budget: float, order, detail
) -> None:
  """Adds a tree of at most `budget` handfuls of leaves; `detail` is the share of its boughs that are drawn."""
  rng, leaf = world.rng, look.leaf
  wide = tall * rng.uniform(*kind.wide)
  nodes = make_curve(base, angle=-np.pi / 2 + 0.04 * rng.normal(), curl=0.1 * rng.normal(), length=0.92 * tall, num=12)
  trunk = Stem(world.wind, nodes, reach=_TRUNK_SHARE * world.reach(tall), hz=world.hz(tall))
  bark = pick_bark(world) * 0.8
  veil = np.array(bark) + (HAZE - bark) * look.haze
  thick = np.linspace(1, 0.12, 13) * tall * rng.uniform(0.018, 0.03)
  add_stem(world, layer, trunk, thick * (1 + 0.5 * np.exp(-np.arange(13.0))), veil, order=order, open=0.7)
  count = int(np.ceil(rng.integers(kind.boughs[0], kind.boughs[1] + 1) * detail))
  boughs: list[tuple[Stem, float, float]] = []
  for i in range(count):
    s = (i + rng.uniform(0.2, 0.8)) / count
    half = wide * np.interp(s, np.linspace(0, 1, len(kind.outline)), kind.outline)
    node = int(np.clip(np.rint((kind.crown + (1 - kind.crown) * s * 0.9) / 0.92 * 12), 1, 12))
    toward = rng.uniform(-1, 1) if kind.value == 1.0 else (-1) ** i * rng.uniform(0.05, 1.0)
    rise = (kind.rise[0] + (kind.rise[1] - kind.rise[0]) * s) * (0.35 + 0.65 * abs(toward))
    long = max(half * (0.45 + 0.5 * abs(toward)), 0.05 * tall)
    curve = make_curve(
      nodes[node], angle=-np.pi / 2 + np.copysign(rise, toward), curl=-0.3 * toward, length=long, num=6
    )
    bough = Stem(world.wind, curve, reach=_BOUGH_SHARE * world.reach(long), hz=world.hz(long), parent=(trunk, node))
    away = np.sqrt(1 - toward**2) * rng.choice([-1, 1])  # towards the camera or away
    add_stem(world, layer, bough, np.linspace(0.45, 0.12, 7) * thick[node] + 0.25 * world.unit, veil,
             order=order + 0.01 * away, open=0.55)  # fmt: skip
    boughs.append((bough, half, away))
  radii = [np.maximum(kind.lobe * half * rng.uniform(0.7, 1.15, len(_LOBES)), 1.5 * leaf) for _, half, _ in boughs]
  area = np.sum(np.square(radii)) * kind.flat
  density = min(4.5 / leaf**2, budget / area)
  size = leaf * np.clip(np.sqrt(4.5 / leaf**2 / density), 1, 1.8)
  middle = nodes[-1] + [0, 0.5 * (1 - kind.crown) * tall]
  for (bough, _, away), radius in zip(boughs, radii, strict=True):
    which = np.repeat(np.arange(len(_LOBES)), np.maximum(density * radius**2 * kind.flat, 4).astype(int))
    num, at, radius = len(which), np.array(_LOBES)[which], radius[which][:, None]
    ball = rng.normal(size=(num, 3))
    ball *= rng.random((num, 1)) ** 0.3 * rng.lognormal(0, 0.16, (num, 1)) / np.linalg.norm(ball, axis=1, keepdims=True)
    shift = rng.normal(0, 0.15, (len(_LOBES), 2))[which] * radius
    spot = bough.nodes[at] + shift + ball[:, :2] * radius * [1, kind.flat]
    z = away + 0.5 * ball[:, 2] * radius[:, 0] / wide
    crown = np.stack([(spot[:, 0] - middle[0]) / wide, (spot[:, 1] - middle[1]) / (0.5 * tall), z], -1)
    deep = np.clip(0.5 * np.linalg.norm(crown, axis=1) + 0.5 * np.linalg.norm(ball, axis=1), 0, 1)
    open = (0.24 + 0.8 * deep**1.8) * np.clip(0.8 - 0.45 * ball[:, 1], 0.3, 1.1)
    _add_clumps(world, layer, bough, at, spot, 0.9 * ball + 0.4 * crown, look._replace(leaf=size), open,
                order + 0.02 * z, lean=1.2 if kind.value < 1 else np.pi)  # fmt: skip
    if kind.hang:
      _hang_strands(world, layer, bough, 6, spot[rng.permutation(num)[: max(num // 14, 3)]], kind.hang * tall,
                    look._replace(leaf=size), order + 0.02 * away)  # fmt: skip


def _hang_strands(world, layer, bough: Stem, node: int, tops, long: float, look: _Look, order) -> None:
  """Curtains of thin leafy twigs (willow): a few stems that hang from a bough, each with strands side by side."""
  rng = world.rng
  root = bough.nodes[node]
  length = long * rng.uniform(0.6, 1.1)
  nodes = make_curve(root, angle=np.pi / 2 + 0.08 * rng.normal(), curl=0.15 * rng.normal(), length=length, num=9)
  stem = Stem(world.wind, nodes, reach=world.reach(length), hz=world.hz(length), parent=(bough, node))
  for top in tops:
    num = int(np.clip(2.2 * length / look.leaf, 5, 26))
    at = np.sort(rng.uniform(0, 1, num)) * rng.uniform(0.5, 1)
    place = np.rint(at * 9).astype(int)
    spot = np.stack([top[0] + rng.normal(0, 0.25 * look.leaf, num), top[1] + at * length], -1)
    normal = np.stack([rng.normal(0, 0.5, num), rng.normal(-0.1, 0.3, num), np.full(num, 0.8)], -1)
    _add_clumps(world, layer, stem, place, spot, normal, look, 0.95 - 0.4 * at, order + rng.uniform(0, 0.02, num),
                lean=0.3, heading=np.pi / 2, slim=0.3)  # fmt: skip


def _add_clumps(
  world, layer, stem: Stem, node, spot, normal, look: _Look, open, order, *, lean, heading=None, slim=0.55
) -> None:  # fmt: skip
  """Handfuls of leaves [r] at `spot` that ride on a stem's node (number or [r]) and turn about their own feet."""
  rng, num = world.rng, len(spot)
  node = np.broadcast_to(node, num)
  angle = rng.uniform(-lean, lean, num) + (np.arctan2(normal[:, 1], normal[:, 0]) if heading is None else heading)
  long = look.leaf * rng.lognormal(0, 0.25, num)
  foot = spot - 0.5 * long[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
  nodes = make_curve(foot, angle=angle, curl=0.0, length=long, num=1)
  points = make_ribbon(nodes, slim * long[:, None] * rng.uniform([0.6, 0.2], [1.2, 0.8], (num, 2)))
  jitter = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6) + rng.normal(0, 0.3, (num, 3))
  jitter /= np.linalg.norm(jitter, axis=1, keepdims=True)
  colors = shade(world, vary(rng, look.color, num, tone=0.17), jitter, open=np.minimum(open, 1.05), thin=0.6)
  colors = colors + (HAZE - colors) * look.haze
  own = np.stack([rotate90(points - foot[:, None, None]), points - foot[:, None, None]], -2)
  basis = np.concatenate([stem.carry(points, node[:, None, None]), own], -2)
  column = int(np.clip(stem.nodes[0, 0] / world.shape[1], 0, 0.999) * len(look.flutters))
  driver = look.flutters[np.clip(column + rng.integers(-1, 2, num), 0, len(look.flutters) - 1)]
  turn = np.stack([course_index(driver, SINE), course_index(driver, COSINE)], -1)
  index = np.concatenate([np.tile(stem.index, (num, 1)), turn], -1)
  faces = np.broadcast_to(colors[:, None, None], (num, 1, 2, 3)) * np.array([0.9, 1.1])[:, None]
  layer.add(points, basis, index, faces, world.new_parts(num), order, texture=CLUMP)


def _add_thicket(world, layer, foot: float, tall: float, look: _Look, count: int, order: float) -> None:
  """Bushes at the trees' feet."""
  rng, w = world.rng, world.shape[1]
  for _ in range(count):
    base = np.array([rng.uniform(0, 1) * w, foot + 0.02 * tall])
    long, wide = tall * rng.uniform(0.08, 0.2), tall * rng.uniform(0.12, 0.35)
    stem = Stem(world.wind, make_curve(base, angle=-np.pi / 2, curl=0.0, length=long, num=6),
                reach=0.4 * world.reach(long), hz=world.hz(long))  # fmt: skip
    num = int(np.clip(2.2 * wide * long / look.leaf**2, 20, 260))
    ball = rng.normal(size=(num, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    up = -np.abs(ball[:, 1]) * rng.random(num) ** 0.4
    spot = base + np.stack([ball[:, 0] * wide * rng.random(num) ** 0.3, up * long], -1)
    normal = np.stack([ball[:, 0], up, np.abs(ball[:, 2])], -1)
    _add_clumps(world, layer, stem, np.rint(-up * 5).astype(int), spot, normal, look, 0.3 - 0.7 * up,
                order + 0.1 * ball[:, 2], lean=np.pi)  # fmt: skip
