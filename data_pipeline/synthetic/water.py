"""Plants under water: ribbons of weed that sway slowly and far in the surge, in a column of hazy water with light
shafts.

A ribbon's tangent at arc s turns by `sum_i D_i(t) a_i(s)`; a pair of courses a quarter cycle apart carries the bend
from the root to the tip (the "monami" of eelgrass: Ghisalberti and Nepf 2002). Lengths are kept to second order.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.materials import STONES, pick_color, shade_relief
from data_pipeline.synthetic.props import add_texture, make_grid, paint, soft_step
from data_pipeline.synthetic.shapes import make_curve, make_ribbon, rotate90, smooth_noise
from data_pipeline.synthetic.textures import BLADE
from data_pipeline.synthetic.wind import LINEAR, SQUARE, course_index
from data_pipeline.synthetic.world import World

WATERS = np.array([(46, 112, 128), (38, 94, 132), (60, 120, 104), (76, 112, 86), (30, 72, 100)], float)
WEEDS = [(78, 96, 36), (104, 100, 40), (56, 92, 48), (120, 92, 44), (84, 116, 58)]
_SURGE = (0.12, 0.5)  # Hz: swell of 2 to 8 seconds
_BEND = (0.15, 0.55)  # radians at the tip
_NUM_NODES = 16


def tint_backdrop(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
  """Sinks [h w 3] in water: its reds are taken out, far is hazy, and light falls in from above: [h w 3] float32."""
  h, w = background.shape[:2]
  water = pick_color(rng, WATERS)
  soft = cv2.GaussianBlur(background.astype(np.float32), (0, 0), rng.uniform(1.5, 6) * w / 256)
  v, u = make_grid(h, w)
  share = rng.uniform(0.55, 0.85) + 0.1 * v[..., None]
  down = 1.35 - 0.5 * (v + 1)[..., None] * rng.uniform(0.5, 1.0)
  image = soft * np.array([0.45, 0.85, 0.9], np.float32) * (1 - share) + water * share * down
  return (image * (1 + 0.25 * _draw_shafts(rng, v, u)[..., None])).astype(np.float32)


def _draw_shafts(rng: np.random.Generator, v, u) -> np.ndarray:
  """Brightness [h w] of shafts of light that fan out from above and fade on the way down, about zero to two."""
  source = np.array([rng.uniform(-1.2, 1.2), rng.uniform(-3.5, -1.6)])
  angle = (u - source[0]) / (v - source[1])
  line = np.abs(smooth_noise(rng, 2, 256, coarsest=6, octaves=4)[0])
  level = np.interp(angle, np.linspace(angle.min(), angle.max(), 256), line)
  return cv2.GaussianBlur(level.astype(np.float32), (0, 0), 1.5) * np.clip(0.9 - 0.6 * (v + 1), 0, 1)


def add_water_plants(world: World) -> None:
  """Adds weed on the bottom of clear water, far ones lost in its haze."""
  rng, (h, w) = world.rng, world.shape
  water, green = pick_color(rng, WATERS), world.pick(WEEDS, spread=5)
  direction, slim = rng.choice([-1, 1]), rng.uniform(0.01, 0.04)
  hz = np.exp(rng.uniform(*np.log(_SURGE)))
  bends = [world.wind.add_driver(hz * f, x=x * w, scale=1.0) for x in (0.1, 0.5, 0.9) for f in (0.9, 1.2)]
  drivers = [(driver, world.wind.add_quadrature(driver)) for driver in bends]
  far = rng.uniform(0.6, 0.85)
  for depth in (0.3, 1.0) if rng.random() < 0.5 else (0.2, 0.55, 1.0):
    _add_haze(world, water, 0.42)
    bed = h * (far + (1.03 - far) * depth)
    _add_bed(world, bed, water, 1 - depth)
    layer = world.new_strips(blur=0.5 + 1.3 * (1 - depth))
    count = int(rng.uniform(9, 22) * (2.0 - depth))
    clump = rng.uniform(0.1, 0.9, 3)
    for _ in range(count):
      x = w * (rng.choice(clump) + 0.12 * rng.normal() if rng.random() < 0.7 else rng.uniform(-0.05, 1.05))
      long = h * rng.uniform(0.35, 0.95) * (0.45 + 0.55 * depth)
      color = green * rng.uniform(0.6, 1.2) + rng.normal(0, 5, 3)
      color = color + (water - color) * 0.6 * (1 - depth)
      _add_weed(world, layer, (x, bed + 4), long, slim * w * (0.4 + 0.6 * depth), color, direction, drivers)
    world.layers.append(layer.finish())
  _add_haze(world, water, 0.16)


def _add_weed(world: World, layer, root, long: float, wide: float, color, direction: int, drivers) -> None:
  """Adds one ribbon to `layer`, streaming to one side, with leaves like teeth where it is broad."""
  rng = world.rng
  lean = direction * rng.uniform(0.1, 0.9)
  nodes = make_curve(root, angle=-np.pi / 2, curl=lean + 0.2 * rng.normal(), length=long, num=_NUM_NODES)
  s = np.linspace(0, 1, _NUM_NODES + 1)
  sway = 0.05 * long * np.sin(2 * np.pi * (rng.uniform(0.6, 1.4) * s + rng.random())) * s
  nodes = nodes + np.stack([sway, 0 * s], -1)
  half = 0.5 * wide * rng.uniform(0.5, 1.2) * np.minimum(1, 0.35 + 3 * s) * np.clip(1.02 - s, 0, 1) ** 0.35
  points = make_ribbon(nodes, half * (1 + rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * rng.uniform(2, 5) * s)))
  pair = drivers[int(rng.integers(len(drivers)))]
  bend, number = rng.uniform(*_BEND), rng.uniform(0.3, 0.8)
  phase = 2 * np.pi * number * s
  basis = []
  for angle in (bend * s * np.cos(phase), bend * s * np.sin(phase)):
    step, middle = np.diff(nodes, axis=0), ((angle[1:] + angle[:-1]) / 2)[:, None]
    for turn, bent, offset in (
      (angle, middle * rotate90(step), rotate90(points - nodes[:, None])),
      (angle**2, -(middle**2) / 2 * step, -(points - nodes[:, None]) / 2),
    ):
      travel = np.concatenate([np.zeros((1, 2)), np.cumsum(bent, 0)])
      basis.append(travel[:, None] + turn[:, None, None] * offset)
  index = [course_index(driver, kind) for driver in pair for kind in (LINEAR, SQUARE)]
  # A flat blade turns: now one half, now the other lets light through.
  twist = rng.uniform(0.05, 0.22) * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * s[1:] + rng.random()))[:, None]
  sides = 1 + twist * [1, -1] + 0.35 * np.abs(twist)
  colors = (color + 40 * np.maximum(twist, 0).mean()) * (sides * np.linspace(0.5, 1.15, _NUM_NODES)[:, None])[..., None]
  layer.add(points[None], np.stack(basis, -2)[None], np.array([index]), colors[None], world.new_parts(1), np.zeros(1),
            texture=BLADE)  # fmt: skip


def _add_haze(world: World, water, share: float) -> None:
  """Adds water between what is behind and what comes next: it covers `share` of it, below shafts of light."""
  rng, (h, w) = world.rng, world.shape
  v, u = make_grid(h, w)
  shafts = _draw_shafts(rng, v, u)
  colors = water * (1.35 - 0.4 * (v + 1) + 0.35 * shafts)[..., None]
  add_texture(world, paint(colors, share * (1 + 0 * v)), (0, 0), blur=0.5)


def _add_bed(world: World, row: float, water, haze: float) -> None:
  """Adds the bottom from `row` down: sand and stones, with the net of light that waves throw on it."""
  rng, (h, w) = world.rng, world.shape
  tall = int(h - row) + int(0.08 * h) + 8
  lumps = smooth_noise(rng, tall, w + 8, coarsest=7, octaves=5)
  edge = 0.03 * h * smooth_noise(rng, 2, w + 8, coarsest=4, octaves=4)[:1] + 0.04 * h
  y = np.arange(tall, dtype=np.float32)[:, None]
  net = 1 - np.abs(smooth_noise(rng, max(tall, 2), w + 8, coarsest=14, octaves=2))
  tone = shade_relief(lumps, (np.sign(world.light) * 0.6, -0.8), 0.6)[..., 0] * (0.6 + 0.25 * np.clip(net, 0, 1) ** 4)
  color = pick_color(rng, STONES) * np.array([0.75, 1.0, 0.95])
  colors = color * tone[..., None]
  colors = colors + (water - colors) * (0.25 + 0.5 * haze)
  add_texture(world, paint(colors, soft_step(y - edge, 3.0)), (-4, row - 0.08 * h), blur=0.6 + 1.5 * haze)
