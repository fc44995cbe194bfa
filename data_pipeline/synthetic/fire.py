"""Flames of a simulated world: candles, tea lights and open fires before a dark backdrop.

A flame is a picture that sways and stretches from its foot upwards; bends travel up it, as the puffs of a buoyant
flame do (about 1.5 / sqrt(diameter) Hz: Cetegen and Ahmed 1993). Of a candle's that is more than 10 Hz, so what is
seen of it is a slow sway in the draught and a slight flicker of its light, which its glow shares.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.materials import WOODS, pick_color
from data_pipeline.synthetic.props import add_texture, halve, lay_over, make_grid, paint, soft_step
from data_pipeline.synthetic.shapes import smooth_noise
from data_pipeline.synthetic.wind import LINEAR, course_index
from data_pipeline.synthetic.world import World

WAXES = np.array(
  [(226, 206, 170), (214, 180, 120), (150, 44, 38), (190, 110, 60), (222, 214, 204), (96, 110, 90)], float
)
_PUFFS = 1.5  # Hz times the root of the diameter in metres
_DRAUGHT = (0.4, 1.2)  # Hz
_FLICKER = 0.03  # of the light
_SPARE_LIGHT = np.array([255, 148, 52], float)  # of a flame on what is near


def darken_backdrop(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
  """Makes an evening of [h w 3]: dark, warm, out of focus towards the edges: [h w 3] float32."""
  h, w = background.shape[:2]
  gray = background.mean(-1, keepdims=True)
  warm = 0.4 * background + 0.6 * gray * np.array([1.15, 0.95, 0.75], np.float32)
  v, u = make_grid(h, w)
  fall = np.exp(-rng.uniform(0.2, 1.3) * ((u - rng.uniform(-0.4, 0.4)) ** 2 + (v - 0.2) ** 2))[..., None]
  dark = warm * np.exp(rng.uniform(np.log(0.03), np.log(0.3))) * fall
  return cv2.GaussianBlur(dark, (0, 0), rng.uniform(0.5, 4) * w / 256).astype(np.float32)


def add_flames(world: World) -> None:
  """Adds candles, tea lights or an open fire; for a dark backdrop."""
  rng = world.rng
  kind = rng.choice(["candles", "tea lights", "fire"], p=[0.45, 0.25, 0.3])
  if kind == "fire":
    _add_fire(world)
  else:
    _add_candles(world, low=kind == "tea lights")


def _add_flame(
  world: World,
  rgba: np.ndarray,
  x: float,
  foot: float,
  *,
  hz: float,
  sway: float,
  stretch: float,
  flicker: int,
  blur: float,
):
  """Adds a flame's picture whose lower middle is at (x, foot); it reaches `sway` px to a side and `stretch` px up."""
  rng, (tall, wide) = world.rng, rgba.shape[:2]
  number = rng.uniform(0.25, 0.7)
  lean = world.wind.add_driver(rng.uniform(*_DRAUGHT), x=x, scale=0.8 * sway)
  wave = world.wind.add_driver(hz, x=x, scale=0.6 * sway)
  lift = world.wind.add_driver(rng.uniform(*_DRAUGHT) * 2, x=x, scale=stretch)
  drivers = [lean, wave, world.wind.add_quadrature(wave), lift]

  def fields(px, py):
    s = np.clip((foot - py) / tall, 0, 1.2)
    grown, phase, still = s**1.6, 2 * np.pi * number * s, 0 * s
    sideways = [grown, grown * np.cos(phase), grown * np.sin(phase)]
    narrow = 0.35 * s * (px - x) / tall  # what is drawn up grows thin
    return [*(np.stack([push, still], -1) for push in sideways), np.stack([-narrow, -grown], -1)]

  index = [course_index(driver, LINEAR) for driver in drivers]
  margin = 1.5 * (sway + stretch) + 2
  add_texture(
    world, rgba, (x - wide / 2, foot - tall), fields=fields, index=index, margin=margin, flicker=flicker, blur=blur
  )


def _add_glow(world: World, x: float, y: float, radius: float, strength: float, flicker: int) -> None:
  """Adds the light of a flame on haze and on what is near it: light that covers nothing."""
  side = int(2.5 * radius)
  v, u = make_grid(2 * side + 1, 2 * side + 1)
  r = 2.5 * np.hypot(u, v)
  level = strength * (0.55 * np.exp(-((r / 0.28) ** 2)) + 0.45 / (1 + (r / 0.4) ** 2) ** 1.5)
  level = level * np.clip(1 - np.hypot(u, v), 0, 1) ** 0.5
  tint = _SPARE_LIGHT * level[..., None]
  add_texture(world, np.concatenate([tint, 0 * level[..., None]], -1), (x - side, y - side), flicker=flicker)


def draw_candle_flame(rng: np.random.Generator, tall: int, *, hot: float) -> np.ndarray:
  """A candle's flame `tall` px high: blue at its foot, a dark wick, white within, orange at its rim: [h w 4]."""
  tall = max(tall, 6)
  wide = int(tall * rng.uniform(0.3, 0.42)) + 4
  v, u = make_grid(2 * tall, 2 * wide)
  s = (1 - v) / 2  # from the foot up
  peak = rng.uniform(0.22, 0.32)
  below, above = np.clip(s / peak, 0, 1), np.clip((s - peak) / (0.97 - peak), 0, 0.999)
  half = np.sin(np.pi / 2 * below) ** 0.7 * np.cos(np.pi / 2 * above) ** 0.9
  across = u - rng.normal(0, 0.12) * s**2 * (1 - 0.3 * s)
  r = np.abs(across) / np.maximum(half * 0.72, 1e-3)
  inside = soft_step(1 - r, 0.75) * (half > 0)
  core = np.clip(1.25 - r**2 * 0.9, 0, 1) * soft_step(s - 0.16, 0.22)
  yellow, orange, blue = np.array([255, 244, 206]), np.array([255, 150, 44]), np.array([50, 74, 190])
  colors = orange + (yellow - orange) * np.clip(core * hot, 0, 1)[..., None]
  base = soft_step(0.13 - s, 0.16)[..., None]
  colors = colors + (blue * 0.75 - colors) * base
  alpha = inside * (1 - 0.55 * base[..., 0]) * (1 - 0.25 * soft_step(0.3 - s, 0.2) * np.exp(-((across / 0.22) ** 2)))
  out = paint(colors, alpha)
  wick = soft_step(0.06 - np.abs(across - 0.06 * s), 0.08) * soft_step(0.17 - s, 0.04)
  lay_over(
    out, paint(np.array([70, 34, 20]) + 150 * soft_step(s - 0.13, 0.05)[..., None] * np.array([1, 0.4, 0.1]), wick)
  )
  return halve(out)


def _draw_body(rng: np.random.Generator, tall: int, wide: int, *, low: bool, light: float) -> tuple[np.ndarray, float]:
  """A candle or a tea light [h w 4] lit from its own flame, and how far the wick is below its upper edge, px."""
  tilt = rng.uniform(0.12, 0.3) if low else rng.uniform(0.05, 0.16)
  rim = max(tilt * wide / 2, 1.0)
  rows = tall + int(2 * rim) + 2
  y, x = (
    np.arange(2 * rows, dtype=np.float32)[:, None] / 2,
    np.arange(2 * wide + 8, dtype=np.float32) / 2 - wide / 2 - 2,
  )
  u = x / (wide / 2)
  arc = rim * np.sqrt(np.clip(1 - u**2, 0, 1))
  wobble = 0.0 if low else rng.uniform(0, 0.06) * wide * smooth_noise(rng, 2, x.size, coarsest=3, octaves=2)[:1]
  top, bottom = rim - arc + wobble, rim + tall + 0.8 * arc
  down = (y - rim) / max(tall, 1)
  color = pick_color(rng, WAXES)
  if low:
    shine = 0.18 + 0.9 * np.exp(-(((u - 0.5 * rng.choice([-1, 1])) / 0.2) ** 2)) + 0.3 * np.sin(9 * u + 2) ** 8
    side = np.array([196, 150, 96]) * (shine * (0.75 - 0.5 * down) * rng.uniform(0.4, 1.0))[..., None]
  else:
    glow = np.exp(-np.clip(down * tall / wide, 0, None) / rng.uniform(0.5, 1.6)) * (1 - 0.35 * u**2)
    shade = 0.10 + 0.12 * np.clip(np.sqrt(np.clip(1 - u**2, 0, 1)) + 2 * light * u, 0, 1.5)
    run = 1 + 0.06 * cv2.resize(smooth_noise(rng, 8, x.size, coarsest=5), (x.size, y.size))
    side = color * (shade * run)[..., None] + (0.55 * color + 0.45 * _SPARE_LIGHT) * (1.05 * glow * run)[..., None]
  body = soft_step(1 - np.abs(u), 2.0 / wide) * soft_step(y - top, 1.0) * soft_step(bottom - y, 1.0)
  out = paint(side + 0 * y[..., None], body)
  ring = np.hypot(u, (y - rim - wobble) / rim)
  pool = (0.5 * color + 0.5 * np.array([255, 196, 116])) * (1.1 - 0.35 * ring**2)[..., None]
  pool = np.where((ring > 0.86)[..., None], (np.array([220, 180, 120]) if low else 0.9 * color + 30) * 0.9, pool)
  lay_over(out, paint(pool, soft_step((1 - ring) * rim, 1.0)))
  return halve(out[:, : out.shape[1] // 2 * 2]), rim


def _add_table(world: World, row: float, lights: list[tuple[float, float]]) -> None:
  """Adds a dark table from `row` down, lit near the `lights` (column, strength) and mirroring them a little."""
  rng, (h, w) = world.rng, world.shape
  tall = int(h - row) + 4
  y, x = np.arange(tall, dtype=np.float32)[:, None], np.arange(w + 8, dtype=np.float32) - 4
  grain = cv2.resize(smooth_noise(rng, tall, max(8, w // 10), coarsest=5), (w + 8, tall))
  level = 0.05 + sum(
    a * np.exp(-(((x - at) / (0.16 * w)) ** 2) - ((y - 0.35 * tall) / (0.8 * tall)) ** 2) for at, a in lights
  )
  gloss = (
    sum(a * np.exp(-(((x - at) / (0.02 * w)) ** 2)) for at, a in lights)
    * np.exp(-2.0 * y / tall)
    * rng.uniform(0, 0.35)
  )
  color = pick_color(rng, WOODS) * np.array([1.1, 0.8, 0.55])
  colors = (
    color * (np.minimum(level, 0.9) * (1 + 0.16 * grain))[..., None] + _SPARE_LIGHT * np.minimum(gloss, 1)[..., None]
  )
  add_texture(world, paint(colors, soft_step(y - 2 + 0 * x, 3.0)), (-4, row - 2), blur=rng.uniform(0.6, 1.4))


def _add_candles(world: World, *, low: bool) -> None:
  rng, (h, w) = world.rng, world.shape
  count = int(rng.integers(1, 8) if low else rng.integers(1, 6))
  wide = rng.uniform(0.14, 0.3) * w if low else rng.uniform(0.06, 0.2) * w
  wide *= 1.5 - 0.12 * count
  row = rng.uniform(0.35, 0.75) * h if low else rng.uniform(0.6, 1.1) * h
  middle = w * (0.5 + (np.arange(count) - (count - 1) / 2) / max(count, 2) * rng.uniform(0.7, 1.0))
  columns = rng.permutation(middle + rng.normal(0, 0.04, count) * w)
  feet = np.sort(row + (h - row) * (rng.uniform(0.1, 0.9, count) if low else rng.uniform(0.1, 0.5, count)))
  if row < 0.95 * h:
    _add_table(world, row, [(float(x), 0.45 if low else 0.3) for x in columns])
  hot, blur = rng.uniform(0.85, 1.3), rng.uniform(0.4, 0.8)
  for x, foot in zip(columns, feet, strict=True):
    near = 0.7 + 0.45 * (foot - row) / max(h - row, 1) if low else rng.uniform(0.8, 1.2)
    own = max(wide * near, 7)
    tall = own * (rng.uniform(0.25, 0.4) if low else rng.uniform(0.8, 2.6))
    flame = int(own * (rng.uniform(0.35, 0.6) if low else rng.uniform(0.7, 1.4)))
    flame = int(np.clip(flame, 7, 0.4 * h))
    tall = max(min(tall, foot - flame - 0.16 * own - 0.04 * h), 0.3 * own)  # the flame is in the picture
    body, rim = _draw_body(rng, int(tall), int(own), low=low, light=world.light)
    top = foot - len(body)
    light = course_index(world.wind.add_driver(_PUFFS / np.sqrt(0.015), x=x, scale=_FLICKER), LINEAR)
    _add_glow(world, x, top + rim - 0.5 * flame, 1.1 * flame + 0.15 * w, rng.uniform(0.12, 0.32), light)
    add_texture(world, body, (x - body.shape[1] / 2, top), blur=blur)
    sway = min(1.5 * world.reach(flame), 0.16 * flame)
    _add_flame(
      world, draw_candle_flame(rng, flame, hot=hot), x, top + rim + 1, hz=rng.uniform(1.5, 3), sway=sway,
      stretch=0.5 * sway, flicker=light, blur=blur,
    )  # fmt: skip


def draw_tongue(rng: np.random.Generator, tall: int, wide: int) -> np.ndarray:
  """One tongue of an open fire: streaked, ragged, white within and red at its rim: [h w 4] premultiplied."""
  tall, wide = max(tall, 10), max(wide, 8)
  v, u = make_grid(2 * tall, 2 * wide)
  s = (1 - v) / 2
  bends = smooth_noise(rng, 2, 2 * tall, coarsest=3, octaves=3)[:1].T
  rough = cv2.resize(smooth_noise(rng, max(6, tall // 4), 2 * wide, coarsest=5, octaves=4), (2 * wide, 2 * tall))
  fine = cv2.resize(smooth_noise(rng, max(6, tall // 2), 2 * wide, coarsest=12, octaves=3), (2 * wide, 2 * tall))
  half = 0.62 * np.clip(s / 0.12, 0, 1) ** 0.5 * np.clip(1 - s, 0, 1) ** rng.uniform(0.5, 0.9)
  depth = half - np.abs(u + 0.16 * bends * s) + (0.10 * rough + 0.05 * fine) * (0.4 + s)
  heat = np.clip(depth / 0.45, 0, 1) * (1.15 - 0.55 * s) * (1 + 0.16 * rough)
  stops = np.array([0, 0.18, 0.42, 0.75, 1.0])
  ramp = np.array([(120, 26, 6), (216, 84, 16), (250, 150, 44), (255, 214, 122), (255, 246, 214)], float)
  colors = np.stack([np.interp(heat, stops, ramp[:, c]) for c in range(3)], -1)
  alpha = soft_step(depth - 0.03, 0.12) * soft_step(s - 0.03, 0.08)
  return halve(paint(colors, alpha))


def _add_fire(world: World) -> None:
  """Adds a fire: tongues of flame behind and before charred logs."""
  rng, (h, w) = world.rng, world.shape
  foot, x, size = rng.uniform(0.8, 1.08) * h, rng.uniform(0.3, 0.7) * w, rng.uniform(0.5, 1.0) * h
  spread, metres = rng.uniform(0.5, 1.0) * size, size * world.metres / w
  puff = float(np.clip(_PUFFS / np.sqrt(max(0.6 * metres, 0.05)), 1.0, 6.0))
  light = course_index(world.wind.add_driver(puff, x=x, scale=_FLICKER), LINEAR)
  _add_glow(world, x, foot - 0.4 * size, 0.9 * size, rng.uniform(0.3, 0.6), light)
  count = int(rng.integers(9, 15))
  for i in range(count):
    if i == count - 4:
      for _ in range(rng.integers(2, 5)):
        _add_log(world, x + rng.normal(0, 0.2) * spread, foot + rng.uniform(-0.02, 0.05) * size, spread)
    off = np.clip(rng.normal(0, 0.3), -0.75, 0.75)
    tall = size * (1 - 0.75 * abs(off)) * rng.uniform(0.5, 1.0) * (1 - 0.45 * i / count)
    wide = tall * rng.uniform(0.4, 0.8)
    sway = 0.09 * tall * rng.uniform(0.5, 1.0)
    _add_flame(
      world, draw_tongue(rng, int(tall), int(wide)), x + off * spread, foot + rng.uniform(0, 0.05) * size, sway=sway,
      stretch=0.9 * sway, hz=puff * rng.uniform(0.8, 1.2), flicker=light, blur=rng.uniform(0.5, 1.0),
    )  # fmt: skip


def _add_log(world: World, x: float, foot: float, size: float) -> None:
  rng = world.rng
  long, thick, turn = size * rng.uniform(0.7, 1.5), size * rng.uniform(0.06, 0.12), rng.normal(0, 0.28)
  side = int(long / 2 + thick) + 2
  v, u = make_grid(2 * side, 2 * side)
  along = (u * np.cos(turn) + v * np.sin(turn)) * side
  across = (v * np.cos(turn) - u * np.sin(turn)) * side / thick
  bark = smooth_noise(rng, 2 * side, 2 * side, coarsest=12, octaves=4)
  ember = soft_step(bark + 0.7 * across - rng.uniform(0.2, 1.2), 0.7) * rng.uniform(0.3, 0.9)
  char = np.array([44, 34, 28]) * (0.7 + 0.35 * bark - 0.6 * across)[..., None]
  lit = _SPARE_LIGHT * (0.3 * np.exp(-((across + 0.9) ** 2) * 4))[..., None]
  colors = char + lit + np.array([225, 80, 20]) * ember[..., None]
  alpha = soft_step((1 - np.abs(across + 0.1 * bark)) * thick, 1.5) * soft_step(long / 2 - np.abs(along), 3.0)
  add_texture(world, paint(colors, alpha), (x - side, foot - side), blur=0.6)
