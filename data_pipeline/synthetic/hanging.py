"""Things that hang and swing: lanterns, baubles, wind chimes, hats and bags on hooks, cords, alone or in strings.

Pictures of things are drawn at twice their size. Every one is a pendulum about the point that it hangs from.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.materials import WOODS, pick_color, shade_relief
from data_pipeline.synthetic.props import add_hung, add_texture, halve, lay_over, make_grid, paint, soft_step
from data_pipeline.synthetic.shapes import smooth_noise
from data_pipeline.synthetic.world import World

LAMPS = np.array([(172, 38, 32), (196, 62, 36), (214, 150, 60), (226, 206, 172), (200, 88, 96), (88, 112, 140)], float)
GLASSES = np.array([(160, 30, 34), (176, 140, 70), (44, 78, 122), (150, 152, 156), (52, 96, 62), (120, 60, 100)], float)
WOOLS = np.array([(150, 138, 118), (92, 84, 80), (124, 54, 50), (66, 78, 98), (170, 150, 110), (96, 104, 84)], float)
_SOOT = np.array([48, 40, 34], float)
_TWIST = (0.1, 0.5)  # radians, about the cord


def add_hanging(world: World) -> None:
  """Adds something that swings about the point it hangs from, or a string of them across the picture."""
  rng, (h, w) = world.rng, world.shape
  kind = rng.choice(["lantern", "string", "bauble", "chime", "hat", "cord"], p=[0.26, 0.28, 0.14, 0.12, 0.14, 0.06])
  blur = rng.uniform(0.4, 0.8)
  if kind == "string":
    for _ in range(rng.integers(1, 4)):
      _add_string(world, blur=blur)
    return
  x, y = rng.uniform(0.15, 0.85) * w, rng.uniform(-0.2, -0.01) * h
  wide = np.exp(rng.uniform(np.log(0.1), np.log(0.45))) * w
  if kind == "chime":
    _add_chime(world, x, rng.uniform(0, 0.2) * h, 0.7 * wide, blur=blur)
    return
  draw = {"lantern": draw_lantern, "bauble": draw_bauble, "hat": draw_hat, "cord": draw_cord}[str(kind)]
  scale = {"bauble": 0.7, "hat": 1.3, "cord": 0.5}.get(str(kind), 1.0)
  thing = draw(rng, int(scale * wide), world.light)
  if kind == "hat":
    y = rng.uniform(0.03, 0.15) * h
    _add_hook(world, x, y)
  thing = hang_on_cord(rng, thing, 3 if kind == "hat" else int(rng.uniform(0.1, 0.45) * h), world.unit)
  twist = 0.0 if kind in ("hat", "cord") else rng.uniform(*_TWIST)
  add_hung(world, thing, (x - thing.shape[1] / 2, y), twist=twist, blur=blur, rest=rng.normal(0, 0.03))


def hang_on_cord(rng: np.random.Generator, thing: np.ndarray, length: int, unit: float) -> np.ndarray:
  """Puts a cord `length` px long above the middle of a picture [h w 4]."""
  out = np.pad(thing, ((length, 0), (0, 0), (0, 0)))
  x = np.abs(np.arange(out.shape[1]) - out.shape[1] / 2)
  thick = rng.uniform(0.5, 1.0) * unit
  cord = np.repeat(soft_step(thick - x, 1.0)[None], length + 2, 0)
  shade = 0.9 + 0.25 * np.sin(np.arange(length + 2) * rng.uniform(1, 2.5))[:, None, None]
  under = np.zeros_like(out)
  lay_over(under, paint(_SOOT * rng.uniform(0.7, 2.2) * shade * np.ones((1, out.shape[1], 1)), cord))
  lay_over(under, out)
  return under


def draw_lantern(rng: np.random.Generator, wide: int, light: float) -> np.ndarray:
  """A paper or silk lantern, round or a cylinder, `wide` px wide, perhaps lit inside: [h w 4] premultiplied."""
  squash = rng.uniform(0.75, 1.6)
  power = rng.choice([2.0, 2.4, 6.0])
  wide = max(wide, 8)
  tall = int(wide * squash)
  v, u = make_grid(2 * tall, 2 * wide)
  v, u = 1.04 * v, 1.04 * u
  width = np.clip(1 - np.abs(v) ** power, 0, 1) ** (1 / power) * (1 - 0.06 * v)
  across = np.clip(u / np.maximum(width, 1e-3), -1.2, 1.2)
  facing = np.sqrt(np.clip(1 - across**2, 0, 1))
  side = np.sign(light)
  lit = 0.5 + 0.45 * np.clip(0.75 * facing + 0.5 * side * across - 0.3 * v, 0, 1.2)
  ribs = rng.integers(7, 16)
  phase = (np.arcsin(np.clip(v, -1, 1)) if power < 3 else v) * ribs + 0.25 * facing
  paper = (phase % 1.0) - 0.5
  lit = lit * (1 - 0.22 * np.exp(-((paper / 0.1) ** 2))) * (1 + 0.14 * paper)
  if rng.random() < 0.6:  # seams from pole to pole
    lit = lit * (1 - 0.12 * np.exp(-((np.sin(np.arcsin(np.clip(across, -1, 1)) * rng.integers(3, 6)) / 0.18) ** 2)))
  lit = lit * (1 + 0.04 * smooth_noise(rng, 2 * tall, 2 * wide, coarsest=4))
  color = pick_color(rng, LAMPS)
  colors = color * lit[..., None]
  if rng.random() < 0.45:
    lamp = np.exp(-(u**2 + (v - 0.15) ** 2) * rng.uniform(0.8, 2.0))[..., None] * rng.uniform(0.5, 1.0)
    colors += (np.array([255, 190, 105]) * 0.55 + 0.45 * color) * lamp * (0.75 + 0.25 * lit[..., None])
  out = paint(colors, soft_step((width - np.abs(u)) * wide, 1.5) * (np.abs(v) < 0.985))
  ring = (1 - 0.94**power) ** (1 / power) + 0.1
  brass = pick_color(rng, np.array([_SOOT, (140, 110, 52), (40, 34, 32)]))
  for end in (-1, 1):
    cap = soft_step((ring - np.abs(u)) * wide, 1.5) * soft_step((0.07 - np.abs(v - 0.95 * end)) * tall, 1.5)
    lay_over(out, paint(brass * (0.6 + 0.7 * facing * (1 + 0.4 * side * u))[..., None], cap))
  out = np.pad(halve(out), ((0, int(0.45 * tall)), (0, 0), (0, 0)))
  if rng.random() < 0.6:
    _draw_tassel(rng, out, tall, color * rng.uniform(0.6, 1.0))
  return out


def _draw_tassel(rng, out: np.ndarray, top: int, color) -> None:
  """Lays a tassel over [h w 4] from row `top` to the lower edge, in place."""
  room, wide = out.shape[0] - top, out.shape[1]
  long = int(room * rng.uniform(0.5, 1.0))
  s, x = np.linspace(0, 1, long)[:, None], np.arange(wide) - wide / 2
  half = wide * rng.uniform(0.04, 0.08) * np.where(s < 0.3, 0.35 + 0.4 * (np.abs(s - 0.2) < 0.08), 0.5 + 0.5 * s)
  streak = cv2.GaussianBlur(rng.normal(size=(long, wide)), (0, 0), sigmaX=0.6, sigmaY=5) * 3
  lay_over(
    out, paint(color * (0.85 + 0.2 * streak - 0.2 * s)[..., None], soft_step(half - np.abs(x), 1.2)), corner=(0, top)
  )


def draw_bauble(rng: np.random.Generator, wide: int, light: float) -> np.ndarray:
  """A glass ball or drop `wide` px wide that mirrors its surroundings: [h w 4] premultiplied."""
  wide = max(wide, 8)
  v, u = make_grid(2 * wide, 2 * wide)
  v, u = 1.03 * v, 1.03 * u
  r = np.hypot(u, v)
  z = np.sqrt(np.clip(1 - r**2, 0, 1))
  up = np.clip(-2 * z * v, -1, 1)  # of the mirrored ray
  rough = 0.25 * smooth_noise(rng, 2 * wide, 2 * wide, coarsest=5)
  matte = rng.uniform(0, 1)
  world_seen = 0.25 + 0.55 * soft_step(up + 0.4 * rough * z, 0.5 + matte) + 0.18 * np.exp(-(((up - 0.1) / 0.2) ** 2))
  side = np.sign(light)
  lambert = np.clip(0.6 * z - 0.5 * v + 0.4 * side * u, 0, 1.3)
  tone = 0.3 + (1 - matte) * 0.75 * world_seen + (0.35 + matte * 0.5) * lambert
  colors = pick_color(rng, GLASSES) * tone[..., None]
  if rng.random() < 0.4:
    band = np.exp(-(((v - 0.25 * np.cos(1.4 * u) + rng.uniform(-0.1, 0.3)) / rng.uniform(0.08, 0.25)) ** 2))
    colors = colors * (1 - 0.4 * band[..., None]) + 50 * band[..., None]
  spot = np.exp(-((u - 0.36 * side) ** 2 + (v + 0.42) ** 2) / (0.006 + 0.05 * matte)) * (1 - 0.6 * matte)
  rim = 0.25 * (1 - z) ** 4
  colors += (230 * spot + 140 * rim)[..., None]
  ball = paint(colors, soft_step((1 - r) * wide, 1.5))
  cap = np.zeros((int(0.3 * wide) // 2 * 2 + 2, 2 * wide, 4), np.float32)
  b, a = make_grid(len(cap), 2 * wide)
  gold = np.array([176, 148, 88]) * (0.5 + 0.7 * np.clip(1 - (a / 0.16) ** 2, 0, 1) + 0.3 * side * a)[..., None]
  lay_over(cap, paint(gold, soft_step((0.16 - np.abs(a)) * wide, 1.5) * (b > -0.1)))
  return halve(np.concatenate([cap, ball]))


def draw_hat(rng: np.random.Generator, wide: int, light: float) -> np.ndarray:
  """A knitted hat, or a bag, that hangs from the middle of its upper edge: [h w 4] premultiplied."""
  wide = max(wide, 12)
  hat = rng.random() < 0.5
  tall = int(wide * (rng.uniform(0.7, 0.95) if hat else rng.uniform(0.9, 1.2)))
  v, u = make_grid(2 * tall, 2 * wide)
  lean = rng.uniform(-0.2, 0.2)
  u = u - lean * (v + 1) / 2 * (1 - 0.5 * (v + 1) / 2)
  down = (v + 1) / 2
  handle = 0.0 if hat else rng.uniform(0.25, 0.4)
  inner = np.clip((down - handle) / (1 - handle), 0, 1)
  power = rng.uniform(2.0, 3.0)
  dome = (1 - (1 - inner) ** power) ** (1 / power)
  half = 0.8 * (dome if hat else 0.75 + 0.15 * inner + 0.08 * np.sin(3 * inner))
  half = half * (1 + 0.03 * smooth_noise(rng, 2, 2 * tall, coarsest=4)[:1].T)
  across = u / np.maximum(half, 0.02)
  facing = np.sqrt(np.clip(1 - across**2, 0, 1))
  brim = hat and rng.random() < 0.8
  cuff = soft_step(inner - 0.72 + 0.05 * facing, 0.02) if brim else 0 * inner
  rib = np.sin(np.arcsin(np.clip(across, -1, 1)) * rng.integers(14, 26))
  folds = cv2.GaussianBlur(smooth_noise(rng, 2 * tall, 2 * wide, coarsest=2, octaves=2), (0, 0), 0.08 * wide)
  knit = 1 + 0.13 * rib * (1 if hat else 0.15) + 0.05 * np.sin(inner * tall * 1.2 + 2 * rib)
  relief = shade_relief((folds * 0.10 * wide).astype(np.float32), (np.sign(light), -0.6), 0.5)[..., 0]
  shade = (0.5 + 0.5 * np.clip(0.8 * facing + 1.5 * light * across, 0, 1.2)) * knit * relief * (1.05 - 0.25 * inner)
  shade = shade * (1 + 0.08 * cuff) * (1 - 0.45 * np.exp(-(((inner - 0.71 + 0.05 * facing) / 0.018) ** 2)) * brim)
  color = pick_color(rng, WOOLS)
  colors = color * shade[..., None]
  if not hat and rng.random() < 0.5:
    colors = np.where((np.abs(inner - 0.5) < 0.14)[..., None], colors * 0.55 + 60, colors)
  out = np.zeros((2 * tall, 2 * wide, 4), np.float32)
  if handle:
    loop = np.abs(np.hypot(u / 0.42, (down - handle - 0.02) / handle) - 0.93)
    lay_over(out, paint(color * (0.7 + 0.3 * folds)[..., None], soft_step(0.07 - loop, 0.05) * (down < handle + 0.05)))
  end = 1 - 0.03 - 0.06 * (1 - facing) * hat
  body = soft_step((half - np.abs(u)) * wide, 2.0) * soft_step((end - inner) * tall, 2.0)
  lay_over(out, paint(colors, body * (down >= handle)))
  return halve(out)


def draw_cord(rng: np.random.Generator, wide: int, light: float) -> np.ndarray:
  """A coiled cord with a grip at its end, or a loop of rope: [h w 4] premultiplied."""
  wide = max(wide, 16)
  tall, coil = int(wide * rng.uniform(1.5, 3.0)), wide * rng.uniform(0.05, 0.09)
  turns = int(tall / (coil * rng.uniform(0.45, 0.7)))
  color = pick_color(rng, np.array([(36, 36, 40), (210, 204, 190), (150, 60, 50), (160, 130, 90)], float))
  image, alpha = np.zeros((2 * tall, 2 * wide, 3), np.float32), np.zeros((2 * tall, 2 * wide), np.float32)
  loose, phase = rng.uniform(0.02, 0.14) * wide, rng.uniform(0, 6)
  t = np.linspace(0, 1, turns * 14)
  x = wide + 2 * loose * np.sin(2 * np.pi * t + phase) * np.sin(np.pi * t) + 2 * coil * np.cos(2 * np.pi * turns * t)
  y = 2 * (0.86 * tall * t + 0.3 * coil * np.sin(2 * np.pi * turns * t))
  front, thick = np.sin(2 * np.pi * turns * t), max(1, round(0.55 * coil))
  points = np.round(np.stack([x, y], -1) * 8).astype(int)
  for pass_ in (-1, 1):  # the far half of each turn first
    for i in np.flatnonzero(np.sign(front[:-1]) == pass_):
      tone = (0.62 + 0.38 * front[i]) * (1 + light * np.cos(2 * np.pi * turns * t[i]))
      a, b = (tuple(int(n) for n in points[j]) for j in (i, i + 1))
      cv2.line(image, a, b, (color * tone).tolist(), thick, cv2.LINE_AA, 3)
      cv2.line(alpha, a, b, 1.0, thick, cv2.LINE_AA, 3)
  grip = (wide, int(1.84 * tall))
  for inset in range(int(0.1 * wide), 0, -1):
    tone = 0.5 + 0.5 * (1 - inset / (0.1 * wide))
    cv2.ellipse(image, grip, (inset, int(inset + 0.08 * tall)), 0, 0, 360, (color * tone).tolist(), -1, cv2.LINE_AA)
  cv2.ellipse(alpha, grip, (int(0.1 * wide), int(0.1 * wide + 0.08 * tall)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
  return halve(np.concatenate([image, 255 * alpha[..., None]], -1))


def _add_hook(world: World, x: float, y: float) -> None:
  """Adds a rod along the upper part of the picture, or a peg, for something to hang from at (x, y)."""
  rng, w = world.rng, world.shape[1]
  thick = rng.uniform(0.008, 0.025) * w
  tall = int(2 * thick) + 6
  lean = rng.uniform(-0.05, 0.05)
  grid = np.arange(w + 8, dtype=np.float32)
  v = (np.arange(tall, dtype=np.float32)[:, None] - tall / 2 - lean * (grid - x - 4)) / thick
  if abs(lean) > 0.02 or rng.random() < 0.4:
    v = np.where(np.abs(grid - x - 4) > 2.2 * thick, 9, v)  # a peg
  metal = np.array([130, 126, 120]) if rng.random() < 0.5 else pick_color(rng, WOODS)
  shade = 0.35 + 0.8 * np.exp(-(((v + 0.35) / 0.45) ** 2)) + 0.05 * smooth_noise(rng, tall, w + 8, coarsest=40)
  add_texture(
    world, paint(metal * shade[..., None], soft_step(1 - np.abs(v), 1 / thick)), (-4, y - tall / 2), shadow=True
  )


def add_rope(world: World, *, sag: float, high: float, thick: float, blur=0.5):
  """Adds a still rope across the picture, about at row `high`; returns its row as a function of the column."""
  rng, (h, w) = world.rng, world.shape
  slope, tone = rng.normal(0, 0.08) * h, rng.uniform(0.6, 2.6)

  def rope(x):
    t = np.asarray(x, np.float32) / w
    return high + slope * (t - 0.5) + sag * (1 - (2 * t - 1) ** 2)

  x = np.arange(w + 8, dtype=np.float32) - 4
  rows = rope(x)
  top = int(rows.min()) - 4
  y = np.arange(top, int(rows.max()) + 5, dtype=np.float32)[:, None]
  off = (y - rows) / thick
  color = _SOOT * tone * (0.9 - 0.3 * off + 0.2 * np.sin(1.7 * x - y))[..., None]
  add_texture(world, paint(color, soft_step(1 - np.abs(off), 1 / thick)), (-4, top), blur=blur)
  return rope


def _add_string(world: World, *, blur: float) -> None:
  """Adds a rope with several lanterns or baubles, alike or of all colours."""
  rng, (h, w) = world.rng, world.shape
  rope = add_rope(
    world, sag=rng.uniform(0, 0.2) * h, high=rng.uniform(0.02, 0.5) * h, thick=0.6 * world.unit, blur=blur
  )
  count = int(rng.integers(3, 9))
  wide = min(rng.uniform(0.03, 0.12) * w, 0.8 * w / count)
  draw = draw_lantern if rng.random() < 0.75 else draw_bauble
  alike, things = rng.random() < 0.6, []
  cord = int(rng.uniform(0.2, 1.0) * wide)
  for i in range(count):
    if i == 0 or not alike:
      things.append(hang_on_cord(rng, draw(rng, int(wide), world.light), cord, 0.7 * world.unit))
    x = (i + 0.5 + rng.uniform(-0.25, 0.25)) * w / count
    thing = things[-1] * np.array([*[rng.uniform(0.85, 1)] * 3, 1], np.float32)
    corner = (x - thing.shape[1] / 2, float(rope(x)))
    add_hung(world, thing, corner, twist=rng.uniform(*_TWIST), blur=blur, rest=rng.normal(0, 0.05))


def _add_chime(world: World, x: float, y: float, wide: float, *, blur: float) -> None:
  """Adds a wind chime: tubes that swing one by one below a disc."""
  rng = world.rng
  count, long = int(rng.integers(4, 8)), wide * rng.uniform(1.0, 2.0)
  metal = pick_color(rng, np.array([(176, 172, 164), (168, 120, 66), (140, 150, 120), (190, 165, 110)], float))
  thick = max(wide / count * rng.uniform(0.4, 0.7), 2)
  for i in rng.permutation(count):
    cord, tube = int(0.25 * wide), int(long * (1 - 0.35 * abs(i / (count - 1) - rng.uniform(0, 0.3))))
    b, a = make_grid(2 * tube, 2 * int(np.ceil(thick)) + 4)
    a = a * (thick + 2) / thick
    shade = 0.35 + 0.9 * np.exp(-(((a - 0.4 * np.sign(world.light)) / 0.35) ** 2)) + 0.15 * a + 0.08 * np.sin(9 * b)
    body = halve(paint(metal * shade[..., None], soft_step(1 - np.abs(a), 2 / thick)))
    place = x + (i / (count - 1) - 0.5) * 0.85 * wide - body.shape[1] / 2
    add_hung(world, hang_on_cord(rng, body, cord, 0.6 * world.unit), (place, y + 0.06 * wide), blur=blur)
  b, a = make_grid(2 * int(0.22 * wide) + 4, 2 * int(wide))
  grain = 1 + 0.1 * cv2.resize(smooth_noise(rng, len(b), max(4, b.shape[1] // 8)), b.shape[::-1])
  disc = halve(
    paint(
      pick_color(rng, WOODS) * (grain * (0.9 - 0.35 * b))[..., None], soft_step((1 - np.abs(a) ** 3 - b**2) * 8, 2.0)
    )
  )
  add_texture(world, disc, (x - disc.shape[1] / 2, y - 0.5 * len(disc)), blur=blur, shadow=True)
  b, a = make_grid(int(y) + 4, 5)
  add_texture(world, paint(_SOOT * np.ones((*a.shape, 3)), soft_step(0.3 - np.abs(a), 0.6)), (x - 2.5, -4), blur=blur)
