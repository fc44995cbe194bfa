"""What plants are put together from: the light on them, their colours, stalks, leaves, and the ground below.

Everything works on arrays of many ribbons at once. Directions in space are (right, down, towards the camera).
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from data_pipeline.synthetic.layers import Strips, Texture
from data_pipeline.synthetic.shapes import make_curve, make_ribbon, rotate90, smooth_noise
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.textures import BARK, LEAF
from data_pipeline.synthetic.wind import COSINE, SINE, course_index
from data_pipeline.synthetic.world import BARKS, World

_FLUTTER_HZ = (1.2, 4.5)
_FULL_SUN = 0.3  # of `World.light`
HAZE = np.array([184.0, 194, 204])
_PALE_SKY = np.array([205.0, 212.0, 220.0])


def shade(world: World, color, normal, *, open, thin: float = 0.5, gloss: float = 0.0) -> np.ndarray:
  """Colours [... 3] of surfaces of the colour `color` [... 3] in the scene's light.

  Args:
    world: the light.
    color: [... 3] RGB 0..255.
    normal: [... 3] unit vectors of the side that is seen.
    open: [...] how much sky sees it, 0 deep inside to 1.
    thin: how much light passes through from behind, turned yellow.
    gloss: how much it mirrors the sky.
  """
  sun = np.abs(world.light) / _FULL_SUN
  open = np.asarray(open)[..., None]
  facing = np.einsum("...c,c->...", normal, world.sun)[..., None]
  sky = (0.9 - 0.4 * sun) * (0.82 - 0.18 * normal[..., 1:2]) * np.array([0.94, 1.0, 1.06])
  front = np.maximum(facing, 0) * np.array([1.06, 1.0, 0.88])
  through = thin * np.maximum(-facing, 0) * np.array([1.12, 1.1, 0.6])
  level = open * sky + 0.95 * sun * open**1.5 * (front + through)
  half = world.sun + np.array([0.0, 0.0, 1.0])
  mirror = np.clip(np.einsum("...c,c->...", normal, half / np.linalg.norm(half)), 0, 1)[..., None] ** 14
  return np.asarray(color) * level + gloss * (0.3 + 0.7 * sun) * open * mirror * _PALE_SKY


def vary(rng: np.random.Generator, color, num: int, *, tone: float = 0.1, hue: float = 0.05) -> np.ndarray:
  """`num` relatives [num 3] of one colour: spread of lightness and, between yellowish and bluish, of hue."""
  yellow = rng.normal(0, hue, (num, 1)) * np.array([1.0, 0.25, -1.2])
  return np.asarray(color) * np.exp(rng.normal(0, tone, (num, 1)) + yellow)


def pick_green(rng: np.random.Generator) -> np.ndarray:
  """The colour of a plant's leaves in full light: between olive, blue-green and yellow-green, mostly dull."""
  value, hue, chroma = rng.uniform(105, 175), rng.normal(0, 0.5), rng.uniform(0.32, 0.62)
  red = 0.83 + 0.09 * np.clip(hue, -1.3, 1.3)
  return value * np.array([red, 1.0, max(1 - chroma - 0.1 * hue, 0.2)])


def add_flutters(world: World, num: int, *, scale: tuple[float, float]) -> np.ndarray:
  """Adds drivers [num] for small things, spread evenly across the picture: number i stands near (i + 0.5) / num."""
  rng = world.rng
  columns = (np.arange(num) + 0.5) / num * world.shape[1]
  slowest, fastest = np.log(_FLUTTER_HZ)
  speeds = np.exp(rng.uniform(slowest, fastest, num))
  drivers = [
    world.wind.add_driver(speed, x=x, scale=rng.uniform(*scale)) for speed, x in zip(speeds, columns, strict=True)
  ]
  return np.array(drivers)


def choose_near(world: World, pool: np.ndarray, x: np.ndarray) -> np.ndarray:
  """For things at the columns `x` [r] a driver each [r] out of `pool`, which is spread evenly across the picture."""
  place = x / world.shape[1] * len(pool) + world.rng.normal(0, 1.5, len(x))
  return pool[np.clip(place, 0, len(pool) - 1).astype(int)]


def add_stem(
  world: World, layer: Strips, stem: Stem, half_widths, color, *, order: float, open: float | np.ndarray = 1.0,
  texture=BARK,
):  # fmt: skip
  """Draws a stem as a round stalk with `half_widths` [n+1] pixels; `open` [n] or a number as in `shade`."""
  n = len(stem.nodes) - 1
  points = make_ribbon(stem.nodes, half_widths)
  basis = stem.carry(points, np.arange(n + 1)[:, None])
  side = rotate90(np.diff(stem.nodes, axis=0))
  side /= np.linalg.norm(side, axis=-1, keepdims=True) + 1e-9
  normal = np.concatenate([side[:, None] * np.array([[-0.75], [0.75]]), np.full((n, 2, 1), 0.66)], -1)
  colors = shade(world, color, normal, open=np.broadcast_to(np.asarray(open, float), n)[:, None], thin=0.0)
  layer.add(points[None], basis[None], stem.index[None], colors[None], world.new_parts(1), np.array([order]),
                 texture=texture)  # fmt: skip


def add_ground(world: World, edge: np.ndarray, color, *, haze: float = 0.0, shadows: Sequence[tuple] = ()) -> None:
  """Adds a meadow that stands still, from the rows `edge` [w] down, with `shadows` (x, y, half width) px of trees."""
  rng, (h, w) = world.rng, world.shape
  top = max(int(edge.min()) - 1, 0)
  rows = h - top
  if rows < 2:
    return
  near, x, y = np.arange(rows)[:, None] / rows, np.arange(w), np.arange(rows)[:, None] + top
  blades = cv2.GaussianBlur(rng.normal(size=(rows, w)), (0, 0), sigmaX=1.1, sigmaY=0.7)
  patches = smooth_noise(rng, rows, max(w // 7, 2), coarsest=4, octaves=4)  # foreshortened
  patches = cv2.resize(patches, (w, rows), interpolation=cv2.INTER_CUBIC)
  tone = 0.82 + 0.08 * patches + 0.28 * (0.35 + 0.65 * near) * blades
  for at, foot, half in shadows:
    aside = x - at + 0.25 * np.sign(world.light) * half
    tone -= 0.3 * np.exp(-((aside / (0.9 * half)) ** 2) - ((y - foot - 0.12 * half) / (0.22 * half)) ** 2)
  picture = shade(world, color, np.array([0.0, -0.9, 0.4]), open=1.0) * np.maximum(tone, 0.3)[..., None]
  picture += (HAZE - picture) * (0.5 * haze * (1 - near))[..., None]
  alpha = np.clip((y - edge) / 1.5, 0, 1)[..., None]
  rgba = np.concatenate([np.clip(picture, 0, 255) * alpha, 255 * alpha], -1).astype(np.uint8)
  still = np.zeros((0, rows, w, 2), np.float32)
  world.layers.append(Texture(world.shape, (0, top), rgba, still, np.zeros(0, int), world.new_part()))


def pick_bark(world: World) -> np.ndarray:
  """The colour of wood in full light."""
  return world.pick(BARKS, spread=6)


class LeafKind(NamedTuple):
  """The make of a plant's leaves.

  Attributes:
    slim: half width of a leaflet, of its length.
    widest: where along its length it is widest, under 1 near the stalk.
    leaflets: (along the leaf, angle to its axis, length as share of the leaf's) of each.
    thin, gloss: as in `shade`.
    lobes: number of pairs of lobes, 0 for a plain edge.
  """

  slim: float
  widest: float
  leaflets: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 1.0),)
  thin: float = 0.5
  gloss: float = 0.15
  lobes: float = 0.0


def pick_leaf_kind(rng: np.random.Generator) -> LeafKind:
  """One of oval, lance-shaped, heart-shaped, lobed, palm-like, feathered or needles."""
  pairs = [(0.2 + 0.16 * i, side * 0.95, 0.42) for i in range(4) for side in (-1, 1)]
  feather = (*pairs, (0.78, 0.0, 0.45))
  palm = ((0.08, -1.25, 0.62), (0.08, 1.25, 0.62), (0.08, -0.62, 0.85), (0.08, 0.62, 0.85), (0.06, 0.0, 1.0))
  kinds = [
    LeafKind(rng.uniform(0.2, 0.3), rng.uniform(0.8, 1.1), gloss=rng.uniform(0.05, 0.4)),
    LeafKind(rng.uniform(0.1, 0.16), rng.uniform(0.75, 1.0), gloss=rng.uniform(0.05, 0.35)),
    LeafKind(rng.uniform(0.32, 0.42), rng.uniform(0.55, 0.7), gloss=rng.uniform(0.05, 0.3)),
    LeafKind(rng.uniform(0.26, 0.36), rng.uniform(1.0, 1.2), lobes=rng.uniform(2.5, 4)),
    LeafKind(rng.uniform(0.13, 0.2), rng.uniform(0.8, 1.2), palm),
    LeafKind(rng.uniform(0.2, 0.32), rng.uniform(0.8, 1.1), feather),
    LeafKind(0.05, 0.7, tuple((0.0, turn, 1.0) for turn in (-0.9, -0.3, 0.3, 0.9)), thin=0.1),
  ]
  return kinds[rng.choice(len(kinds), p=[0.26, 0.16, 0.14, 0.14, 0.1, 0.12, 0.08])]


def add_leaves(
  world: World, layer: Strips, stem: Stem, along, *, angle, length, kind: LeafKind, color, open, order, flutter,
  droop: float = 0.3,
) -> None:  # fmt: skip
  """Adds r leaves that ride on a stem at `along` [r] (0 root, 1 tip) and turn about their bases by own drivers.

  Args:
    world: light and random stream.
    layer: what they are added to.
    stem: what they grow on.
    along: [r].
    angle, length: [r] of the leaf's axis in the picture, radians and pixels.
    kind: their make.
    color: [r 3].
    open, order: [r] as in `shade` and `Strips.add`.
    flutter: [r] drivers.
    droop: spread of the leaves' own curving, radians.
  """
  rng, num = world.rng, len(along)
  place = np.asarray(along) * (len(stem.nodes) - 1)
  node = np.rint(place).astype(int)
  low = np.minimum(place.astype(int), len(stem.nodes) - 2)
  base = stem.nodes[low] + (place - low)[:, None] * (stem.nodes[low + 1] - stem.nodes[low])
  start, turn, share = np.array(kind.leaflets).T
  k = len(start)
  pitch, roll = rng.normal(0, 0.5, (num, 1)), rng.normal(0, 0.6, (num, 1)) + rng.normal(0, 0.2, (num, k))
  shown = np.asarray(length)[:, None] * np.cos(pitch)
  heading = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None]
  theta = np.asarray(angle)[:, None] + turn * np.where(rng.random((num, 1)) < 0.5, 1, -1)
  n = int(np.clip(np.mean(shown) * np.mean(share) / (3.5 * world.unit), 2, 7 + 5 * (kind.lobes > 0)))
  curl = droop * rng.normal(size=(num, k))
  feet = base[:, None] + heading * (start * shown)[..., None]
  nodes = make_curve(feet, angle=theta, curl=curl, length=share * shown, num=n)
  u = np.linspace(0, 1, n + 1)
  outline = np.sin(np.pi * np.clip(u, 0.03, 0.985) ** kind.widest) * (1 - 0.45 * _cut_lobes(kind, u, n))
  widths = outline * kind.slim * (share * shown * np.maximum(np.abs(np.cos(roll)), 0.3))[..., None]
  points = make_ribbon(nodes, widths)
  fold = rng.uniform(0.15, 0.5)
  lean = roll[..., None] + fold * np.array([-1, 1])  # either half takes light alone
  cos, sin = np.cos(theta)[..., None], np.sin(theta)[..., None]
  normal = np.stack([-cos * np.sin(pitch)[..., None] - sin * np.sin(lean),
                     -sin * np.sin(pitch)[..., None] + cos * np.sin(lean),
                     np.cos(pitch)[..., None] * np.cos(lean)], -1)[:, :, None]  # fmt: skip
  bent = curl[..., None] * (u[1:] + u[:-1]) / 2
  normal = normal + np.stack([0 * bent, -0.5 * np.abs(bent), 0 * bent], -1)[..., None, :]
  seen = (np.asarray(open)[:, None] * (1 + 0.08 * rng.normal(size=(num, k))))[..., None, None]
  albedo = np.asarray(color)[:, None, None, None] * (0.9 + 0.2 * (u[1:] + u[:-1]) / 2)[:, None, None]
  colors = shade(world, albedo, normal, open=np.broadcast_to(seen, normal.shape[:-1]), thin=kind.thin, gloss=kind.gloss)
  flat = points.reshape(num * k, n + 1, 3, 2)
  root = np.repeat(base, k, 0)[:, None, None]
  own = np.stack([rotate90(flat - root), flat - root], -2)
  basis = np.concatenate([stem.carry(flat, np.repeat(node, k)[:, None, None]), own], -2)
  flutters = np.stack([course_index(flutter, SINE), course_index(flutter, COSINE)], -1)
  index = np.repeat(np.concatenate([np.tile(stem.index, (num, 1)), flutters], -1), k, 0)
  parts = np.repeat(world.new_parts(num), k)
  layer.add(flat, basis, index, colors.reshape(num * k, n, 2, 3), parts, np.repeat(order, k), texture=LEAF)


def _cut_lobes(kind: LeafKind, u: np.ndarray, n: int) -> np.ndarray:
  """How far the edge of a leaf of n segments is cut in at `u`, 0..1: between its lobes, where n shows them."""
  return 0.5 - 0.5 * np.cos(2 * np.pi * kind.lobes * u) if kind.lobes and n >= 8 else np.zeros_like(u)
