"""Leafy branches, vines, bushes and blossoming twigs of a simulated scene."""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.flowers import KINDS, add_head
from data_pipeline.synthetic.foliage import (
  LeafKind,
  add_flutters,
  add_leaves,
  add_stem,
  choose_near,
  pick_bark,
  pick_green,
  pick_leaf_kind,
  vary,
)
from data_pipeline.synthetic.layers import Strips
from data_pipeline.synthetic.shapes import make_curve
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.world import World

LAYOUTS = {"edge": 0.22, "bush": 0.6, "vine": 0.08, "blossom": 0.1}
_LEAF_METRES = (0.035, 0.13)
_MOST_LEAVES = 620
_AUTUMN = np.array([(176, 104, 48), (190, 148, 62), (150, 66, 50), (168, 128, 70)], float)


class _Style(NamedTuple):
  """What the branches of one plant have in common."""

  kind: LeafKind
  leaf: float  # length in pixels
  colors: np.ndarray  # [2 3], the second for some leaves
  bark: np.ndarray
  spread: float  # of the leaves' angle to their twig
  droop: float
  flutters: np.ndarray


def add_branches(world: World) -> None:
  """Adds leafy boughs from an edge, hanging vines, a bush, up to one that fills the picture, or blossoming twigs."""
  rng, w = world.rng, world.shape[1]
  layout = str(rng.choice(list(LAYOUTS), p=list(LAYOUTS.values())))
  smallest = 0.042 if layout == "bush" else 0.024
  leaf = float(np.clip(np.exp(rng.uniform(*np.log(_LEAF_METRES))) / world.metres, smallest, 0.2) * w)
  colors = np.stack([pick_green(rng)] * 2)
  colors[1] = colors[0] * rng.uniform(0.8, 1.2, 3) if rng.random() < 0.7 else _AUTUMN[rng.integers(len(_AUTUMN))]
  if rng.random() < 0.12:
    colors = _AUTUMN[rng.integers(len(_AUTUMN), size=2)] * rng.uniform(0.9, 1.15)
  if rng.random() < (0.0 if layout == "bush" else 0.18):
    colors = colors * rng.uniform(0.12, 0.35)  # against the light
  flutters = add_flutters(world, 32, scale=(0.06, 0.34))
  kind = pick_leaf_kind(rng)
  if layout == "bush" and kind.slim < 0.2:  # a bush is dense
    kind = kind._replace(slim=kind.slim + 0.08)
  style = _Style(kind, leaf, colors, pick_bark(world), rng.uniform(0.5, 1.0), rng.uniform(0.2, 0.8), flutters)
  side = int(rng.choice(4, p=[0.4, 0.22, 0.16, 0.22]))  # from above, right, below, left
  if layout == "bush":
    side = int(rng.choice(4, p=[0.0, 0.2, 0.6, 0.2]))
  passes = [(0.3, rng.uniform(1.0, 2.2)), (1.0, rng.uniform(0.42, 0.58))]
  if layout != "bush" and rng.random() < 0.5:
    passes = passes[1:]
  fill = rng.uniform(0.35, 1.1)  # how far a bush reaches into the picture
  for near, blur in passes:
    layer = world.new_strips(blur=blur * max(world.unit, 0.6), shadow=near == 1.0)
    dim = style._replace(colors=style.colors * (0.62 + 0.38 * near))
    if layout == "vine":
      _add_vines(world, layer, dim)
    elif layout == "blossom":
      _add_blossom(world, layer, dim, side)
    else:
      _add_boughs(world, layer, dim, side, bush=layout == "bush", fill=fill)
    world.layers.append(layer.finish())


def _pick_root(world: World, side: int, place: float, *, low: bool = False) -> tuple[np.ndarray, float]:
  """A point just outside an edge and the direction, radians, into the picture."""
  h, w = world.shape
  below = (1.25 if low else 1.05) * h
  root = [(place * w, -0.04 * h), (1.03 * w, place * h), (place * w, below), (-0.03 * w, place * h)][side]
  return np.array(root), (np.pi / 2, np.pi, -np.pi / 2, 0.0)[side]


def _add_boughs(world, layer: Strips, style: _Style, side: int, *, bush: bool, fill: float) -> None:
  """Boughs from an edge, branches on them, leaves on both."""
  rng, (h, w) = world.rng, world.shape
  depth = (h if side % 2 == 0 else 0.8 * w) * (fill + 0.2 if bush else 1.0)
  count = int(rng.integers(6, 10) if bush else rng.integers(1, 4))
  center = rng.uniform(0.15, 0.85)
  places = (np.arange(count) + rng.uniform(0, 1, count)) / count if bush else center + rng.normal(0, 0.22, count)
  twigs: list[tuple[Stem, float, float]] = []
  for number, place in enumerate(places):
    root, inward = _pick_root(world, side, float(place), low=bush)
    lean = (0.28 if bush else 0.45) * rng.normal()
    if not bush:  # towards the middle of the picture
      lean += (place - 0.5) * rng.uniform(0, 1.2) * (1, 1, -1, -1)[side]
    length = depth * (rng.uniform(0.75, 1.05) if bush else rng.uniform(0.45, 1.0))
    weight = 0.35 * np.cos(inward + lean) * rng.uniform(0, 1.2)  # boughs droop
    nodes = make_curve(root, angle=inward + lean, curl=0.35 * rng.normal() + weight, length=length, num=12)
    bough = Stem(world.wind, nodes, reach=0.45 * world.reach(length), hz=world.hz(1.6 * length))
    order = number / count
    thick = np.linspace(1, 0.3, 13) * max((0.008 if bush else 0.013) * length, 0.6 * world.unit)
    add_stem(world, layer, bough, thick, style.bark, order=order - 0.4, open=0.5 if bush else 0.75)
    twigs.append((bough, order, 0.12 if bush else 0.45))
    for i in range(int(rng.integers(5, 8))):
      node = int(np.clip((1 if bush else 2) + i * 1.7 + rng.integers(0, 2), 2, 12))
      step = nodes[min(node, 11) + 1] - nodes[min(node, 11)]
      turn = (-1) ** i * rng.uniform(0.35, 0.95)
      long = length * rng.uniform(0.22, 0.42) * (1.1 - 0.05 * node)
      curve = make_curve(nodes[node], angle=np.arctan2(step[1], step[0]) + turn, curl=-0.4 * turn + 0.25 * rng.normal(),
                         length=long, num=8)  # fmt: skip
      branch = Stem(world.wind, curve, reach=0.7 * world.reach(long), hz=world.hz(long), parent=(bough, node))
      rank = order + rng.uniform(-0.3, 0.3)
      add_stem(world, layer, branch, np.linspace(1, 0.4, 9) * max(0.4 * thick[node], 0.4 * world.unit), style.bark,
               order=rank - 0.05, open=0.8)  # fmt: skip
      twigs.append((branch, rank, 0.05))
  lengths = np.array([np.linalg.norm(np.diff(stem.nodes, axis=0), axis=1).sum() for stem, *_ in twigs])
  wanted = (rng.uniform(4.5, 7.0) if bush else rng.uniform(2.0, 3.6)) * lengths / style.leaf
  wanted *= min(1.0, _MOST_LEAVES / wanted.sum() / max(len(style.kind.leaflets) / 2, 1))
  low, high = min(rank for _, rank, _ in twigs), max(rank for _, rank, _ in twigs)
  for (stem, rank, bare), number in zip(twigs, wanted, strict=True):
    outer = (rank - low) / (high - low + 1e-6)
    _add_foliage(world, layer, stem, int(np.ceil(number)), style, rank, bare=bare,
                 dark=(0.35 + 0.65 * outer) if bush else (0.6 + 0.4 * outer))  # fmt: skip


def _add_foliage(world, layer, stem: Stem, num: int, style: _Style, order: float, *, bare: float, dark: float) -> None:
  """Leaves in turn on both sides of a twig and one at its tip, the inner ones darker."""
  rng = world.rng
  along = np.append(bare + (1 - bare) * np.sqrt((np.arange(num) + rng.random(num)) / num), 1.0)
  num += 1
  place = np.minimum((along * (len(stem.nodes) - 1)).astype(int), len(stem.nodes) - 2)
  step = stem.nodes[place + 1] - stem.nodes[place]
  turn = style.spread * np.where(np.arange(num) % 2, 1, -1) * (along < 1) + rng.normal(0, 0.35, num)
  angle = np.arctan2(step[:, 1], step[:, 0]) + turn
  hang = style.droop * 0.5 * np.cos(angle)  # weight turns leaves down
  front = rng.uniform(0, 1, num)
  tint = style.colors[(rng.random(num) < 0.15).astype(int)]
  color = np.stack([vary(rng, one, 1, tone=0.15, hue=0.07)[0] for one in tint]) * (0.9 + 0.25 * (along > 0.85))[:, None]
  open, rank = dark * (0.4 + 0.35 * front + 0.3 * along), order + 0.3 * front - 0.1
  add_leaves(world, layer, stem, along, angle=angle + hang, length=style.leaf * rng.uniform(0.6, 1.25, num),
             kind=style.kind, color=color, open=open, order=rank,
             flutter=choose_near(world, style.flutters, stem.nodes[place, 0]), droop=style.droop)  # fmt: skip


def _add_vines(world, layer: Strips, style: _Style) -> None:
  """Thin strands that hang from above, leaves along them."""
  rng, (h, w) = world.rng, world.shape
  count = int(rng.integers(3, 14))
  middle, wide = rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.5)
  for _ in range(count):
    root = np.array([(middle + wide * rng.normal()) * w, -0.04 * h])
    length = rng.uniform(0.3, 1.0) * h
    nodes = make_curve(root, angle=np.pi / 2 + 0.15 * rng.normal(), curl=0.3 * rng.normal(), length=length, num=14)
    stem = Stem(world.wind, nodes, reach=world.reach(length), hz=world.hz(length))
    order = rng.uniform(0, 1)
    add_stem(world, layer, stem, np.linspace(1, 0.5, 15) * 0.8 * world.unit, 0.5 * (style.bark + style.colors[0]),
             order=order - 0.1, open=0.8)  # fmt: skip
    num = int(np.clip(rng.uniform(2, 4) * length / style.leaf, 5, 700 / count / len(style.kind.leaflets)))
    _add_foliage(world, layer, stem, num, style, order, bare=0.0, dark=0.6 + 0.4 * order)


def _add_blossom(world, layer: Strips, style: _Style, side: int) -> None:
  """Bare dark twigs from an edge with blossoms, buds and a few young leaves."""
  rng, (h, w) = world.rng, world.shape
  petal = np.array([(236, 228, 226), (232, 196, 202), (214, 130, 152), (240, 236, 224)][rng.integers(4)], float)
  size = float(np.clip(0.35 * style.leaf, 0.015 * w, 0.045 * w))
  count, left = int(rng.integers(2, 5)), 40
  for number in range(count):
    root, inward = _pick_root(world, side, rng.uniform(0.1, 0.9))
    length = rng.uniform(0.5, 1.1) * h
    nodes = make_curve(root, angle=inward + 0.4 * rng.normal(), curl=0.5 * rng.normal(), length=length, num=12)
    bough = Stem(world.wind, nodes, reach=0.5 * world.reach(length), hz=world.hz(1.6 * length))
    dark = style.bark * 0.6
    add_stem(world, layer, bough, np.linspace(1, 0.35, 13) * max(0.013 * length, 0.7 * world.unit), dark, order=number)
    stems = [bough]
    for i in range(int(rng.integers(3, 6))):
      node = int(rng.integers(3, 11))
      step = nodes[node + 1] - nodes[node]
      curve = make_curve(nodes[node], angle=np.arctan2(step[1], step[0]) + (-1) ** i * rng.uniform(0.4, 1.0),
                         curl=0.4 * rng.normal(), length=length * rng.uniform(0.2, 0.5), num=8)  # fmt: skip
      long = length * 0.35
      twig = Stem(world.wind, curve, reach=0.7 * world.reach(long), hz=world.hz(long), parent=(bough, node))
      add_stem(world, layer, twig, np.linspace(1, 0.5, 9) * 0.7 * world.unit, dark, order=number)
      stems.append(twig)
    for stem in stems:
      young = style._replace(leaf=0.5 * style.leaf)
      _add_foliage(world, layer, stem, int(rng.integers(1, 4)), young, number, bare=0.2, dark=0.9)
      for _ in range(min(int(rng.integers(2, 7)), left)):
        left -= 1
        node = int(rng.integers(2, len(stem.nodes)))
        nod = int(choose_near(world, style.flutters, stem.nodes[node, :1])[0])
        calyx, tint = 0.5 * style.colors[0] + [40, 10, 10], vary(rng, petal, 1, tone=0.04)[0]
        rank = number + 0.2 + 0.1 * rng.random()
        add_head(world, layer, stem, node, size * rng.uniform(0.6, 1.2), KINDS["small"], tint, calyx, nod, rank)
