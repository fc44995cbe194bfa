"""Grass of a simulated scene: meadows, tufts, reeds, cereals, foxtails, from one ear to a full field."""

import itertools
from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic.foliage import HAZE, add_flutters, add_ground, choose_near, pick_green, shade, vary
from data_pipeline.synthetic.layers import Strips
from data_pipeline.synthetic.shapes import make_curve, make_ribbon, rotate90
from data_pipeline.synthetic.stems import Sheaf, Stem
from data_pipeline.synthetic.textures import BLADE, FLUFF
from data_pipeline.synthetic.world import World

# Sunlit colours of dry, reddish and silvery grass.
_DRY = np.array([(196, 172, 112), (178, 150, 92), (206, 190, 148), (160, 134, 84), (186, 160, 120)], float)
_RED = np.array([(160, 108, 88), (172, 124, 96), (148, 92, 82), (176, 132, 112)], float)
_NUM_LEADERS, _NUM_FLUTTERS = 36, 40
_HINGE = 0.62  # where along a blade its fluttering tip begins


class Head(NamedTuple):
  """What a stalk bears on its tip: many spikelets, florets or hairs.

  Attributes:
    long: of the stalk's length, range.
    num: how many when near.
    size: length of one, of the head's.
    slim: its half width, of its own length.
    spread: angle to the stalk, radians, at the foot of the head and at its end.
    droop: how far they turn down, radians.
    bulge: how their length falls off towards both ends: 0 even, 1 spindle.
    loose: how much they differ from each other.
  """

  long: tuple[float, float]
  num: int
  size: float
  slim: float
  spread: tuple[float, float]
  droop: float
  bulge: float
  loose: float


HEADS = {
  "ear": Head((0.09, 0.15), 34, 0.17, 0.24, (0.55, 0.3), 0.1, 0.6, 0.12),
  "barley": Head((0.11, 0.18), 44, 0.62, 0.022, (0.4, 0.16), 0.15, 0.3, 0.25),
  "foxtail": Head((0.16, 0.28), 90, 0.15, 0.06, (0.95, 0.6), 0.2, 0.6, 0.2),
  "plume": Head((0.2, 0.36), 130, 0.3, 0.02, (0.6, 0.25), 0.9, 0.5, 0.35),
  "timothy": Head((0.14, 0.22), 130, 0.085, 0.3, (1.25, 0.9), 0.1, 0.5, 0.3),
  "panicle": Head((0.16, 0.3), 50, 0.2, 0.07, (0.8, 0.35), 0.5, 0.8, 0.5),
}


class Make(NamedTuple):
  """A kind of grass: chances of green, dry and red colour, half width of blades, lean, droop, and its heads."""

  colors: tuple[float, float, float]
  slim: tuple[float, float]
  lean: float
  droop: tuple[float, float]
  heads: tuple[str, ...]
  headed: tuple[float, float]
  metres: tuple[float, float]


MAKES = {
  "meadow": Make((0.85, 0.1, 0.05), (0.8, 1.5), 0.25, (0.2, 1.3), ("panicle", "timothy"), (0.0, 0.2), (0.2, 0.7)),
  "straw": Make((0.15, 0.75, 0.1), (0.45, 0.8), 0.25, (0.1, 0.7), ("panicle",), (0.0, 0.3), (0.3, 0.9)),
  "reeds": Make((0.3, 0.65, 0.05), (0.9, 1.7), 0.2, (0.1, 0.8), ("plume",), (0.2, 0.5), (1.0, 2.2)),
  "cereal": Make((0.35, 0.5, 0.15), (0.6, 1.0), 0.12, (0.2, 0.9), ("ear", "barley", "barley"), (0.35, 0.7), (0.5, 1.0)),
  "foxtail": Make((0.55, 0.3, 0.15), (0.5, 0.9), 0.22, (0.2, 0.9), ("foxtail", "plume"), (0.2, 0.5), (0.4, 1.0)),
  "red": Make((0.1, 0.1, 0.8), (0.5, 0.9), 0.2, (0.1, 0.6), ("panicle", "plume", "ear"), (0.3, 0.6), (0.4, 0.9)),
}
_SHARES = (0.36, 0.14, 0.14, 0.12, 0.14, 0.10)
LAYOUTS = {"full": 0.62, "field": 0.26, "fringe": 0.07, "few": 0.05}


class Stand(NamedTuple):
  """Where stalks stand: their roots [r 2], distance [r] from 0 (far) to 1 (near), and scale [r] of sizes.

  edge: [w] row where ground that shows between them begins, the picture's height for none.
  """

  roots: np.ndarray
  near: np.ndarray
  scale: np.ndarray
  edge: np.ndarray


def add_grass(world: World) -> None:
  """Adds grass of one kind: filling the picture, a field up to a horizon, a fringe or tufts below, or a few stalks."""
  rng = world.rng
  make = str(rng.choice(list(MAKES), p=_SHARES))
  lay_grass(world, MAKES[make], str(rng.choice(list(LAYOUTS), p=list(LAYOUTS.values()))))


def lay_grass(world: World, make: Make, layout: str) -> None:
  """Adds grass of the kind `make` in one of the `LAYOUTS`."""
  rng, (h, w) = world.rng, world.shape
  tall = rng.uniform(*make.metres) / world.metres * w
  low, high = {"full": (0.5, 1.3), "field": (0.3, 0.8), "fringe": (0.16, 0.8), "few": (0.7, 1.15)}[layout]
  tall = np.clip(tall, low * h, high * h)
  slim = rng.uniform(*make.slim)
  stand = _place_stalks(world, layout, tall, slim)
  flutters = add_flutters(world, _NUM_FLUTTERS, scale=(0.05, 0.24))
  leaders = _raise_leaders(world, tall)
  green, dry, red = pick_green(rng), _DRY[rng.integers(len(_DRY))], _RED[rng.integers(len(_RED))]
  mixture = np.array(make.colors) * rng.dirichlet([3, 3, 3]) + [0.02, 0.02, 0.0]
  palette = rng.uniform(0.95, 1.2) * np.stack([green, dry, red]), mixture / mixture.sum()
  cuts = {"few": [-1.0, 2.0], "fringe": [-1.0, 0.35, 2.0], "field": [-1.0, 0.3, 2.0], "full": [-1.0, 0.4, 2.0]}[layout]
  haze, lean = rng.uniform(0, 0.4) * (layout == "field"), rng.normal(0, 0.12 if layout == "few" else make.lean)
  headed = 0.8 if layout == "few" else rng.uniform(*make.headed)
  style = _Style(make, HEADS[str(rng.choice(make.heads))], headed, lean, haze,
                 layout in ("full", "field"), np.exp(rng.normal(0, 0.25)), slim,
                 {"full": 0.36, "field": 0.26}.get(layout, 0.45))  # fmt: skip
  dark = (palette[0] * palette[1][:, None]).sum(0) * rng.uniform(0.4, 0.6)
  add_ground(world, stand.edge, dark, haze=haze)
  for back, front in itertools.pairwise(cuts):
    chosen = (stand.near > back) & (stand.near <= front)
    if not chosen.any():
      continue
    last = front > 1
    blur = rng.uniform(0.42, 0.6) if last else rng.uniform(0.6, 1.5)
    layer = world.new_strips(blur=blur * max(world.unit, 0.6), shadow=last and layout == "few")
    part = Stand(stand.roots[chosen], stand.near[chosen], stand.scale[chosen], stand.edge)
    if style.dense:  # what can be made out between the blades: broad dark ones
      some = rng.permutation(np.flatnonzero(chosen))[:200]
      dark = Stand(stand.roots[some], stand.near[some] - 1e-3, stand.scale[some], stand.edge)
      thatch = style._replace(headed=0.0, slim=2.6 * style.slim, fan=0.9 * style.fan, floor=0.3)
      _add_stand(world, layer, dark, 0.62 * tall, thatch, leaders, flutters, (0.5 * palette[0], palette[1]))
    _add_stand(world, layer, part, tall, style, leaders, flutters, palette)
    world.layers.append(layer.finish())
  if layout in ("full", "fringe") and rng.random() < 0.2:  # something close to the lens, out of focus
    few = int(rng.integers(2, 6))
    roots = np.stack([rng.uniform(-0.1, 1.1, few) * w, np.full(few, 1.1 * h)], -1)
    near = Stand(roots, np.ones(few), rng.uniform(1.0, 1.6, few), stand.edge)
    layer = world.new_strips(blur=rng.uniform(1.6, 2.6) * max(world.unit, 0.6))
    close = style._replace(headed=0.3, slim=1.6 * style.slim)
    _add_stand(world, layer, near, 0.7 * tall, close, leaders, flutters, palette)
    world.layers.append(layer.finish())


class _Style(NamedTuple):
  make: Make
  head: Head
  headed: float
  lean: float
  haze: float
  dense: bool
  fan: float
  slim: float
  floor: float  # how much light reaches the ground


def _place_stalks(world: World, layout: str, tall: float, slim: float) -> Stand:
  rng, (h, w) = world.rng, world.shape
  thin, none = max(tall / h, 0.3), np.full(w, float(h))
  if layout == "few":
    count = int(rng.integers(2, 7))
    x = (rng.uniform(0.15, 0.85) + rng.normal(0, 0.2, count)) * w
    near = np.sort(rng.uniform(0.3, 1, count))
    return Stand(np.stack([x, np.full(count, 1.04 * h)], -1), near, 0.6 + 0.4 * near, none)
  cover = {"full": rng.uniform(1.6, 2.2), "field": rng.uniform(1.3, 1.9), "fringe": rng.uniform(0.1, 0.7)}[layout]
  blade = 1.3 * slim * world.unit * (tall / (90 * world.unit)) ** 0.5 * tall  # its area
  count = int(np.clip(cover * h * w / blade, *{"full": (450, 1100), "field": (700, 1300), "fringe": (50, 420)}[layout]))
  near = np.sort(rng.uniform(0, 1, count) ** (1.35 if layout == "field" else 1.0))
  x = rng.uniform(-0.12, 1.12, count)
  if layout == "fringe":
    tufts = rng.uniform(-0.05, 1.05, rng.integers(1, 9))
    x = tufts[rng.integers(len(tufts), size=count)] + rng.normal(0, 1, count) * rng.choice([0.03, 0.08, 0.3])
    return Stand(np.stack([x * w, h * (1.0 + 0.1 * near)], -1), near, 0.55 + 0.45 * near, none)
  # Tussocks: blades stand closer together here and there.
  x += 0.02 * np.sin(2 * np.pi * (x * rng.uniform(5, 15) + 3 * near))
  if layout == "full":
    top = min(rng.uniform(0.25, 0.5) * h, 0.5 * tall)
    y = top + (1.45 * h - top) * near
    return Stand(np.stack([x * w, y], -1), near, 0.75 + 0.25 * near + 0.2 * thin * near,
                 none if rng.random() < 0.3 else none - h - 2)  # fmt: skip
  horizon = rng.uniform(0.42, 0.72) * h
  slope, wave = rng.normal(0, 0.06) + rng.choice([0, 0.35]) * rng.uniform(-1, 1) * 0.6, rng.uniform(0, 0.04) * h
  turns, phase = rng.uniform(0.5, 2), rng.random()
  ground = lambda x: horizon + slope * w * (x - 0.5) + wave * np.sin(2 * np.pi * (x * turns + phase))
  scale = 0.2 + 0.8 * near**1.2
  y = ground(x) + (1.3 * h - horizon) * near**1.5
  return Stand(np.stack([x * w, y], -1), near, scale, ground((np.arange(w) + 0.5) / w) - 0.008 * h)


def _raise_leaders(world: World, tall: float) -> list[Stem]:
  """Stems across the picture whose bending the grass beside them shares."""
  leaders, rng = [], world.rng
  reach = world.reach(tall)
  for i in range(_NUM_LEADERS):
    x = ((i + 0.5) / _NUM_LEADERS * 1.1 - 0.05) * world.shape[1]
    long = tall * rng.uniform(0.6, 1.1)
    nodes = make_curve((x, 0.0), angle=-np.pi / 2, curl=0.0, length=long, num=8)
    leaders.append(Stem(world.wind, nodes, reach=reach * long / tall, hz=world.hz(long)))
  return leaders


def _add_stand(world, layer: Strips, stand: Stand, tall, style: _Style, leaders, flutters, palette) -> None:
  """Adds blades, and on some of the stalks heads, to a layer."""
  rng, num = world.rng, len(stand.roots)
  make = style.make
  stalk = rng.random(num) < style.headed
  length = tall * stand.scale * np.where(stalk, rng.uniform(0.85, 1.3, num), rng.uniform(0.35, 1.05, num))
  tint = rng.choice(3, num, p=palette[1])
  color = np.empty((num, 3))
  for kind in range(3):
    color[tint == kind] = vary(rng, palette[0][kind], (tint == kind).sum(), tone=0.14)
  x = stand.roots[:, 0]
  curl = np.where(stalk, 0.5, 1.0) * rng.uniform(*make.droop, num) * rng.choice([-1, 1], num, p=[0.4, 0.6])
  angle = -np.pi / 2 + style.lean + style.fan * rng.normal(0, np.where(stalk, 0.08, 0.2), num)
  curl = np.where(np.sign(curl) == np.sign(angle + np.pi / 2), curl, 0.6 * curl)
  pixels = max(np.median(length), 1) / world.unit
  n = int(np.clip(pixels / 9, 4, 9))
  nodes = make_curve(stand.roots, angle=angle, curl=curl, length=length, num=n, bend=rng.uniform(1.0, 2.2))
  choice = (x / world.shape[1] + 0.05) / 1.1 * _NUM_LEADERS + rng.normal(0, 0.6, num)
  factor = rng.lognormal(0, 0.17, num) * np.clip(length / (tall * stand.scale), 0.4, 1.2) ** 0.5
  sheaf = Sheaf(nodes, leaders, np.clip(choice, 0, _NUM_LEADERS - 1).astype(int), factor=factor,
                hinge=int(_HINGE * n), flutter=choose_near(world, flutters, x))  # fmt: skip
  u = np.linspace(0, 1, n + 1)
  taper = np.where(stalk[:, None], 0.55 - 0.2 * u, np.sin(np.pi * np.clip(0.3 + 0.7 * u, 0, 0.99)) ** 0.8)
  wide = style.slim * rng.lognormal(0, 0.3, num) * stand.scale * (tall / (90 * world.unit)) ** 0.5 * world.unit
  points = make_ribbon(nodes, taper * np.maximum(wide, 0.4 * world.unit)[:, None])
  middle = (u[1:] + u[:-1]) / 2
  deep = np.clip(middle * (length / (tall * stand.scale))[:, None], 0, 1) ** 0.8
  open = (style.floor + (1.08 - style.floor) * deep) * (1 + 0.1 * rng.normal(size=(num, 1)))
  tangent = np.diff(nodes, axis=1) / (length / n)[:, None, None]
  azimuth = rng.normal(0, 0.9, (num, 1)) + 0.3 * np.sin(6 * middle)  # a blade twists a little
  fold = azimuth[..., None] + rng.uniform(0.1, 0.5) * np.array([-1, 1])
  across = rotate90(tangent)[:, :, None]
  flat = np.abs(tangent[..., :1])[..., None] * np.cos(fold)[..., None]  # a bowed blade shows the sky its upper side
  normal = np.concatenate([np.sin(fold)[..., None] * across, np.cos(fold)[..., None] * (1 - 0.5 * np.abs(flat))], -1)
  normal[..., 1:2] -= 0.7 * np.abs(flat)
  along = 1 + np.array([0.12, 0.05, -0.1]) * (0.5 - middle[:, None])  # yellower at the foot
  albedo = (color[:, None] * along)[:, :, None]
  colors = shade(world, albedo, normal, open=open[..., None], thin=0.65, gloss=0.12)
  pale = style.haze * (1 - stand.near)[:, None, None, None]
  veil = HAZE * (1.05 - 0.5 * style.dense * (1 - deep[..., None, None]))
  colors = colors + (veil - colors) * pale
  parts, order = world.new_parts(num), stand.near + 1e-4 * np.arange(num) / num
  who = np.arange(num)[:, None, None]
  basis = sheaf.carry(points, np.arange(n + 1)[None, :, None], who)
  layer.add(points, basis, sheaf.index, colors, parts, order, texture=BLADE)
  bearers = np.flatnonzero(stalk & (np.abs(x / world.shape[1] - 0.5) < 0.65))
  if len(bearers):
    _add_heads(world, layer, sheaf, bearers, style, color, length, parts, order, pale)


def _add_heads(world, layer: Strips, sheaf: Sheaf, bearers, style: _Style, color, length, parts, order, pale) -> None:
  rng, head, n = world.rng, style.head, sheaf.nodes.shape[1] - 1
  share = rng.uniform(*head.long) * rng.lognormal(0, 0.12, len(bearers))
  long = length[bearers] * np.clip(share, 0.05, 0.45)
  detail = np.clip(np.mean(long) / (34 * world.unit), 0.12, 1.6)
  k = int(np.clip(head.num * detail, 5, max(2600 / len(bearers), 5)))
  s = np.clip((np.arange(k) + rng.uniform(0, 1, (len(bearers), k))) / k, 0, 1)
  along = 1 - (1 - s) * (long / length[bearers])[:, None]
  place = along * n
  low = np.minimum(place.astype(int), n - 1)
  who = np.broadcast_to(bearers[:, None], s.shape)
  base = sheaf.nodes[who, low] + (place - low)[..., None] * (sheaf.nodes[who, low + 1] - sheaf.nodes[who, low])
  axis = sheaf.nodes[who, low + 1] - sheaf.nodes[who, low]
  tangent = np.arctan2(axis[..., 1], axis[..., 0])
  round_ = rng.uniform(0, 2 * np.pi, s.shape)  # where around the stalk; its sine is seen
  spread = head.spread[0] + (head.spread[1] - head.spread[0]) * s
  angle = tangent + np.sin(round_) * spread * (1 + 0.5 * head.loose * rng.normal(size=s.shape))
  falls = head.droop * np.sign(np.cos(angle)) * rng.uniform(0.3, 1.0, s.shape)
  bulge = 1 - head.bulge * np.abs(2 * s - 0.8) ** 1.5 / 1.3
  size = head.size * long[:, None] * np.clip(bulge, 0.2, 1) * rng.lognormal(0, head.loose, s.shape)
  shown = size * np.hypot(np.cos(spread), np.sin(spread) * np.sin(round_))
  rows = 3 if head.droop > 0.4 else 2
  nodes = make_curve(base, angle=angle, curl=falls, length=shown, num=rows).reshape(-1, rows + 1, 2)
  u = np.linspace(0, 1, rows + 1)
  outline = np.sin(np.pi * np.clip(u, 0.12, 0.93) ** 0.9)
  width = np.maximum(head.slim * size, 0.22 * world.unit).reshape(-1, 1)
  points = make_ribbon(nodes, outline * width)
  ripe = 0.55 * color[bearers] + 0.45 * np.array([205, 178, 128]) * rng.uniform(0.75, 1.1)
  albedo = (ripe[:, None] * np.exp(rng.normal(0, 0.16, (*s.shape, 1)))).reshape(-1, 1, 1, 3)
  front = np.cos(round_)
  side = np.stack([np.cos(angle), np.sin(angle)], -1) * np.abs(np.sin(round_))[..., None]
  normal = np.concatenate([side, np.abs(front)[..., None]], -1).reshape(-1, 1, 1, 3)
  open = (0.72 + 0.3 * np.maximum(front, -0.7)).reshape(-1, 1, 1)
  colors = shade(world, albedo * (0.85 + 0.3 * u[1:, None, None]), normal, open=open, thin=0.9)
  colors = np.broadcast_to(colors, (s.size, rows, 2, 3))
  pale = np.repeat(np.broadcast_to(pale, (len(color), 1, 1, 1))[bearers], k, 0)
  colors = colors + (HAZE - colors) * pale
  node = np.rint(place).astype(int).reshape(-1, 1, 1)
  basis = sheaf.carry(points, node, who.reshape(-1, 1, 1))
  rank = (order[bearers][:, None] + 1e-7 * (1 + front)).ravel()
  layer.add(points, basis, np.repeat(sheaf.index[bearers], k, 0), colors, np.repeat(parts[bearers], k), rank,
                 texture=FLUFF)  # fmt: skip
