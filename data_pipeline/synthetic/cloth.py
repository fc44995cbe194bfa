"""Cloth of a simulated world: flags on poles, curtains, and what hangs on lines; sheets with one edge pinned.

A sheet's height z above its plane is a sum of waves, `z = sum_i a_i(t) g_i(s, c)`, over the distance s from the
pinned edge and c along it. It is seen at an angle, so a point moves by z times the view's direction, and it comes
nearer to the pinned edge by half the integral of the squared slope, as cloth does not stretch: LINEAR and SQUARE
courses of each wave (products of two waves, which mostly cancel along the sheet, are left out). Waves come in pairs a
quarter cycle apart and so travel away from the pinned edge, growing on the way (Shelley and Zhang 2011);
hung sheets swing as a hanging chain of their length does. What is drawn as frame 0 is the sheet in the pose that the
waves have then, shaded for its slopes.
"""

import cv2
import numpy as np

from data_pipeline.synthetic.fabrics import DYES, PAPERS, cut_outline, make_folds, paint_cloth, paint_flag
from data_pipeline.synthetic.hanging import add_rope
from data_pipeline.synthetic.layers import NO_MAP, Texture
from data_pipeline.synthetic.materials import pick_color
from data_pipeline.synthetic.props import GRAVITY, SWING_DAMPING, add_hung, add_texture, make_grid, paint, soft_step
from data_pipeline.synthetic.shapes import smooth_noise
from data_pipeline.synthetic.wind import LINEAR, SQUARE, course_index
from data_pipeline.synthetic.world import World

_CHAIN_ROOTS = (2.4048, 5.5201)  # zeros of the Bessel function J0: the modes of a hanging chain
_WAVE_SPEED = (1.2, 4.0)  # metres per second along a flag: part of a fresh breeze's
_FASTEST = 3.5  # Hz; video shows little above
_STEEPEST = 0.55  # gradient of a displacement, so that it inverts quickly


def chain_mode(s: np.ndarray, mode: int) -> np.ndarray:
  """Sideways travel of a hanging chain's mode (0 or 1) at s in [0, 1] from its upper end, one at the lower end."""
  x = _CHAIN_ROOTS[mode] ** 2 / 4 * (1 - s)
  term, total = np.ones_like(x), np.ones_like(x)
  for k in range(1, 16):  # J0(root * sqrt(1 - s))
    term = -term * x / k**2
    total = total + term
  return total


def chain_hz(metres: float, mode: int) -> float:
  """Natural frequency of a hanging chain or sheet `metres` long: Hz."""
  return _CHAIN_ROOTS[mode] / 2 * np.sqrt(GRAVITY / metres) / (2 * np.pi)


def add_sheet(
  world: World, rgba: np.ndarray, corner, *, pinned: str, folds: np.ndarray, reach: float, view, backlit=0.0, blur=0.5,
  droop=0.0, mirrored=False, shadow=False,
) -> None:  # fmt: skip
  """Adds cloth [h w 4] (premultiplied, as if flat) that is pinned at its "left" or "top" edge.

  Args:
    world: what it is added to.
    rgba: [h w 4] 0..255.
    corner: (x, y) pixels.
    pinned: "left" or "top".
    folds: [h w] heights of its standing folds, pixels.
    reach: how far its free edge travels towards the viewer and back, pixels.
    view: (x, y) travel on the picture per travel towards the viewer.
    backlit: share of light that comes through the cloth.
    blur: deviation in pixels that puts it out of focus.
    droop: how far its free edge hangs down at rest, pixels.
    mirrored: swaps left and right.
    shadow: whether something near lies behind to receive one.
  """
  tall, wide = rgba.shape[:2]
  flag, light = pinned == "left", -world.light if mirrored else world.light
  span = float(wide if flag else tall)
  pad = int(0.06 * span + droop + (2.2 * reach + np.ptp(folds) / 2) * np.max(np.abs(view))) + 4
  step = 2 if span < 80 else 3  # shapes are smooth, so they are found on a coarse grid
  down, right = (-(-(n + 2 * pad) // step) * step - n - pad for n in (tall, wide))
  rgba = np.pad(rgba.astype(np.float32), ((pad, down), (pad, right), (0, 0)))
  folds = np.pad(folds, ((pad, down), (pad, right)), mode="edge").astype(np.float32)
  size = folds.shape[1] // step, folds.shape[0] // step
  folds = cv2.resize(folds, size, interpolation=cv2.INTER_AREA)
  y, x = np.meshgrid(*(np.arange(n) * step + (step - 1) / 2 - pad for n in folds.shape), indexing="ij")
  s, c = (x / span, y / span) if flag else (y / span, x / span)
  s, c = np.clip(s, 0, 1.1).astype(np.float32), c.astype(np.float32)
  waves = _flag_waves(world, s, c, span, corner, reach) if flag else _hung_waves(world, s, c, span, corner, reach)
  drivers, shapes = np.array([driver for driver, _ in waves]), np.stack([shape for _, shape in waves])
  times = np.arange(0, world.wind.num_frames, max(world.wind.num_frames // 50, 1))
  linear = world.wind.courses(times)[:, 1 + 4 * drivers + LINEAR]
  pose = -linear.mean(0).astype(np.float32)  # a wave has no mean, so this is where it is at frame 0
  courses = np.concatenate([linear, linear**2], 1).astype(np.float32)
  lowered = np.stack([0 * s, droop * s**2], -1)
  for _ in range(4):
    basis, start = _project(shapes, folds, pose, step, 1 if flag else 0, view)
    source, basis = _pose(basis, start + lowered, step)
    steep = _measure_steepness(basis, courses) / step
    if steep < _STEEPEST:
      break
    shapes, folds = shapes * (0.9 * _STEEPEST / steep), 0.85 * folds
  height = folds + np.einsum("i,ihw->hw", pose, shapes)
  full = rgba.shape[1::-1]
  rgba[..., :3] *= cv2.resize(_shade(height, light, backlit, step), full, interpolation=cv2.INTER_CUBIC)[..., None]
  source = cv2.resize(np.asarray(source * step + (step - 1) / 2), full, interpolation=cv2.INTER_CUBIC)
  rgba = cv2.remap(rgba, source, NO_MAP, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
  rgba = np.clip(cv2.GaussianBlur(rgba, (0, 0), blur) + 0.5, 0, 255).astype(np.uint8)
  basis = np.stack([cv2.resize(field, full, interpolation=cv2.INTER_CUBIC) for field in basis])
  if mirrored:
    rgba, basis = np.ascontiguousarray(rgba[:, ::-1]), basis[:, :, ::-1] * np.array([-1, 1], np.float32)
  index = [course_index(driver, kind) for kind in (LINEAR, SQUARE) for driver in drivers]
  place = int(corner[0]) - (right if mirrored else pad), int(corner[1]) - pad
  world.layers.append(
    Texture(
      world.shape, place, rgba, basis, np.array(index), world.new_part(), shadow=world.shadow if shadow else 0.0
    )
  )  # fmt: skip


def _project(shapes, folds, pose, step: int, axis: int, view) -> tuple[np.ndarray, np.ndarray]:
  """Displacement basis [2n h w 2], per LINEAR then per SQUARE course, and the start [h w 2] that gives the pose."""
  slopes = np.gradient(shapes, step, axis=axis + 1)
  rest = np.gradient(folds, step, axis=axis) + np.einsum("i,ihw->hw", pose, slopes)
  along = np.array([1, 0] if axis == 1 else [0, 1], np.float32)
  view = np.asarray(view, np.float32)
  linear = shapes[..., None] * view - step * np.cumsum(rest * slopes, axis + 1)[..., None] * along
  square = -step * np.cumsum(slopes**2, axis + 1)[..., None] / 2 * along
  start = (folds + np.einsum("i,ihw->hw", pose, shapes))[..., None] * view
  start = start - step * np.cumsum(rest**2, axis)[..., None] / 2 * along
  return np.concatenate([linear, square]).astype(np.float32), start.astype(np.float32)


def _pose(basis: np.ndarray, start: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
  """Where each grid point of the posed sheet comes from [h w 2], grid units, and the basis [m h w 2] there."""
  grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in start.shape[1::-1])), -1)
  start = start.astype(np.float32) / step
  source = grid - start
  for _ in range(10):
    source = 0.5 * (source + grid - cv2.remap(start, source, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
  moved = [cv2.remap(field, source, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for field in basis]
  return source, np.stack(moved)


def _measure_steepness(basis: np.ndarray, courses: np.ndarray) -> float:
  """Largest change of a displacement from one grid point to the next over the window."""
  across = [
    np.abs(np.einsum("tm,mhwc->thwc", courses, np.diff(basis, axis=axis)[:, ::2, ::2])).max() for axis in (1, 2)
  ]
  return float(np.hypot(*across))


def _shade(height: np.ndarray, light: float, backlit: float, step: int) -> np.ndarray:
  """Brightness [h w] of cloth of `height` px on a grid of `step` px, lit from above and one side; hollows are dark."""
  dx, dy = cv2.Sobel(height, -1, 1, 0) / (8 * step), cv2.Sobel(height, -1, 0, 1) / (8 * step)
  lx, ly, lz = np.sign(light) * (0.45 + 1.2 * abs(light)), -0.4, 0.8
  lit = (lz - lx * dx - ly * dy) / np.sqrt(1 + dx**2 + dy**2) / np.sqrt(lx**2 + ly**2 + lz**2)
  away = cv2.GaussianBlur(height, (0, 0), 0.04 * max(height.shape)) - height
  hollow = np.clip(away / (0.025 * step * max(height.shape) + 0.5), -0.5, 1)
  shade = np.clip(0.03 + 1.25 * lit - 0.3 * hollow, 0.3, 1.35)
  return (shade * (1 - backlit) + backlit * (1.15 - 0.5 * np.hypot(dx, dy))).astype(np.float32)


def _flag_waves(world: World, s, c, span: float, corner, reach: float) -> list[tuple[int, np.ndarray]]:
  """Drivers and shapes [h w] of the waves that run along a flag: one about as long as it, and one of half that."""
  rng = world.rng
  number, slant = rng.uniform(0.7, 1.5), rng.normal(0, 0.35)
  hz = rng.uniform(*_WAVE_SPEED) * number / (span * world.metres / world.shape[1])
  hz = min(hz, _FASTEST / 1.9)
  waves = []
  for order, size in ((1.0, 1.0), (1.9, rng.uniform(0.2, 0.45))):
    driver = world.wind.add_driver(order * hz, x=corner[0], scale=reach * size, damping=(0.04, 0.12))
    phase = 2 * np.pi * number * order * (s + slant * c)
    grown = s ** rng.uniform(0.8, 1.1)
    waves.append((driver, grown * np.cos(phase)))
    waves.append((world.wind.add_quadrature(driver), grown * np.sin(phase)))
  return waves


def _hung_waves(world: World, s, c, span: float, corner, reach: float) -> list[tuple[int, np.ndarray]]:
  """Drivers and shapes [h w] of the two slowest swings of a hung sheet and ripples that run across and down it."""
  rng, metres = world.rng, span * world.metres / world.shape[1]
  waves = []
  for mode, size in ((0, 1.0), (1, rng.uniform(0.15, 0.4))):
    hz = min(chain_hz(metres, mode) * rng.lognormal(0, 0.1), _FASTEST)
    driver = world.wind.add_driver(hz, x=corner[0], scale=reach * size, damping=SWING_DAMPING)
    tilt = 1 + rng.normal(0, 0.3) * (c - c.mean())
    waves.append((driver, chain_mode(np.minimum(s, 1), mode) * tilt + (s > 1) * (s - 1)))
  down, across = rng.uniform(0.4, 1.0), rng.uniform(0.6, 1.6) * rng.choice([-1, 1])
  hz = min(1.4 * chain_hz(metres, 0), _FASTEST)
  driver = world.wind.add_driver(hz, x=corner[0], scale=0.45 * reach, damping=SWING_DAMPING)
  phase = 2 * np.pi * (down * s + across * c)
  waves.append((driver, s * np.cos(phase)))
  waves.append((world.wind.add_quadrature(driver), s * np.sin(phase)))
  return waves


def add_cloth(world: World) -> None:
  """Adds a flag, far or filling the picture, a curtain, or a line with washing, notes or pennants."""
  kind = world.rng.choice(["flag", "curtain", "line"], p=[0.46, 0.08, 0.46])
  {"flag": _add_flag, "curtain": _add_curtain, "line": _add_line}[str(kind)](world)


def _add_flag(world: World) -> None:
  rng, (h, w) = world.rng, world.shape
  wide = int(np.exp(rng.uniform(np.log(0.22), np.log(1.0))) * w)
  tall = int(wide * rng.uniform(0.5, 0.72))
  x = int(rng.uniform(0.05, max(1.02 - wide / w, 0.1)) * w) if wide < 0.75 * w else int(rng.uniform(-0.1, 0.05) * w)
  y = int(rng.uniform(0.04, max(0.95 - tall / h, 0.08) * 0.7) * h) if tall < 0.9 * h else int(rng.uniform(-0.2, 0) * h)
  s, c = np.linspace(0, 1, wide), np.linspace(0, 1, tall)[:, None] * tall / wide
  folds = make_folds(rng, tall, wide, along=1, number=tall / wide * rng.uniform(2, 5), slant=rng.uniform(-0.9, -0.2))
  folds = (
    (folds + 0.4 * smooth_noise(rng, tall, wide, coarsest=3, octaves=3))
    * tall
    * rng.uniform(0.01, 0.03)
    * s**0.6
    * (1.3 - s)
  )
  billow = rng.uniform(0.8, 1.7) * (s + rng.normal(0, 0.3) * c + 0.05 * np.sin(5 * s + 3 * c)) + rng.random()
  folds = folds + wide * rng.uniform(0.035, 0.09) * s**0.8 * np.sin(2 * np.pi * billow)
  reach = float(np.clip(3 * world.reach(wide), 0.08 * wide, 0.25 * wide))
  rgba, mirrored = paint(paint_flag(rng, tall, wide), np.ones((tall, wide))), rng.random() < 0.5
  _add_flagpole(world, x + wide if mirrored else x, y - 0.05 * tall, 0.025 * wide, side=1 if mirrored else -1)
  add_sheet(
    world, rgba, (x, y), pinned="left", folds=folds, reach=reach, blur=rng.uniform(0.4, 0.7), mirrored=mirrored,
    view=(rng.uniform(-0.2, 0.2), rng.choice([-1, 1]) * rng.uniform(0.25, 0.6)), droop=rng.uniform(0, 0.3) * tall,
    backlit=rng.choice([0, rng.uniform(0, 0.6)]),
  )  # fmt: skip


def _add_flagpole(world: World, x: float, y: float, thick: float, *, side: int) -> None:
  rng, tall = world.rng, world.shape[0] - int(y) + 8
  thick = max(thick * rng.uniform(0.6, 1.4), 1.0)
  _, u = make_grid(tall, 2 * int(thick + 3))
  u = u * (int(thick + 3)) / thick
  metal = pick_color(rng, np.array([(190, 190, 188), (120, 118, 116), (150, 112, 70), (226, 224, 220)], float))
  shade = 0.45 + 0.75 * np.exp(-(((u - 0.4 * np.sign(world.light)) / 0.5) ** 2)) - 0.15 * np.abs(u)
  shade = shade * (1 + 0.03 * smooth_noise(rng, *u.shape, coarsest=4))
  pole = paint(metal * shade[..., None], soft_step(1 - np.abs(u), 1 / thick))
  add_texture(world, pole, (x - int(thick + 3) + 0.6 * side * thick, y), blur=0.5)


def _add_curtain(world: World) -> None:
  rng, (h, w) = world.rng, world.shape
  wide = int(rng.uniform(0.3, 0.65) * w)
  tall = int((rng.uniform(0.6, 0.95) if rng.random() < 0.4 else 1.2) * h)
  s, u = make_grid(tall, wide)
  s, pleats = (s + 1) / 2, rng.uniform(3, 8)
  wander = (
    0.3
    / pleats
    * (smooth_noise(rng, 2, wide, coarsest=4, octaves=2)[:1] + 0.35 * s * smooth_noise(rng, tall, wide, coarsest=2))
  )
  depth = 0.65 + 0.35 * smooth_noise(rng, 2, wide, coarsest=6, octaves=1)[:1]
  folds = wide / pleats * rng.uniform(0.06, 0.14) * depth * (0.7 + 0.4 * s) * np.sin(np.pi * pleats * (u + wander))
  folds = folds + 0.012 * wide / pleats * smooth_noise(rng, tall, wide, coarsest=4, octaves=3)
  colors = paint_cloth(rng, tall, wide, dyes=DYES[[2, 3, 5, 7, 9, 10, 12, 13]], plain=0.6)
  x = rng.choice([-0.06 * w, w - 0.94 * wide, rng.uniform(0, 1) * (w - wide)])
  side = -1 if x > 0.4 * (w - wide) else 1
  add_sheet(
    world, paint(colors, np.ones((tall, wide))), (int(x), -6), pinned="top", folds=folds,
    reach=min(2 * world.reach(tall), 0.16 * tall), view=(side * rng.uniform(0.3, 0.6), rng.uniform(-0.1, 0.2)),
    backlit=rng.choice([0, rng.uniform(0.2, 0.7)]), blur=rng.uniform(0.4, 1.0), shadow=True,
  )  # fmt: skip


def _add_peg(world: World, x: float, y: float, size: float, *, blur: float) -> None:
  tall, wide = int(2 * size) + 2, max(int(0.5 * size), 2) + 2
  v, u = make_grid(tall, wide)
  color = world.pick([(176, 140, 92), (196, 164, 116), (150, 60, 56), (70, 100, 140)])
  shade = 0.8 + 0.5 * np.sign(world.light) * u - 0.35 * np.exp(-(((v + 0.1) / 0.12) ** 2))
  add_texture(
    world, paint(color * shade[..., None], soft_step(0.9 - np.abs(u), 0.5)), (x - wide / 2, y - size), blur=blur
  )


def _add_line(world: World) -> None:
  """Adds a line with things pegged to it: washing, paper notes, or pennants."""
  rng, (h, w) = world.rng, world.shape
  kind, blur = rng.choice(["washing", "notes", "pennants"], p=[0.55, 0.22, 0.23]), rng.uniform(0.4, 0.7)
  rope = add_rope(
    world, sag=rng.uniform(0.0, 0.14) * h, high=rng.uniform(0.04, 0.4) * h, thick=0.55 * world.unit, blur=blur
  )
  size = (rng.uniform(0.22, 0.62) if kind == "washing" else rng.uniform(0.12, 0.42)) * h
  view = (rng.uniform(0.2, 0.6) * rng.choice([-1, 1]), rng.uniform(0.1, 0.35) * rng.choice([-1, 1]))
  backlit, at = rng.choice([0, rng.uniform(0.1, 0.6)]), rng.uniform(-0.1, 0.15) * w
  loose = rng.uniform(0.05, 0.6)
  for _ in range(10):
    if at > 0.98 * w:
      break
    garment = str(rng.choice(["shirt", "trousers", "sock", "towel", "bedsheet"], p=[0.3, 0.15, 0.1, 0.3, 0.15]))
    name = {"washing": garment, "notes": "note", "pennants": "pennant"}[str(kind)]
    ratio = {"shirt": 1.0, "trousers": 0.5, "sock": 0.6, "towel": 0.65, "bedsheet": 1.5, "note": 0.9, "pennant": 0.75}[
      name
    ]
    tall = max(int(size * (0.4 if name == "sock" else 1) * rng.uniform(0.8, 1.2)), 10)
    wide = max(int(ratio * tall * rng.uniform(0.85, 1.15)), 8)
    _add_pegged(world, name, tall, wide, at, rope, view=view, backlit=backlit, blur=blur)
    at += wide * (1.02 + loose * rng.random())


def _add_pegged(world: World, name: str, tall: int, wide: int, at: float, rope, *, view, backlit, blur) -> None:
  rng = world.rng
  y = float(rope(at + wide / 2))
  if name == "note":
    colors = (
      pick_color(rng, PAPERS)
      * np.ones((tall, wide, 1))
      * (1 + 0.05 * smooth_noise(rng, tall, wide, coarsest=2, octaves=2))[..., None]
    )
    ink = np.zeros((tall, wide), np.float32)
    for row in range(rng.integers(0, 4)):
      x = np.arange(0.15 * wide, rng.uniform(0.5, 0.88) * wide)
      line = tall * (0.3 + 0.18 * row) + 0.05 * tall * np.sin(x * rng.uniform(0.8, 1.6) + 1.5 * np.sin(0.7 * x))
      points = np.round(np.stack([x, line], -1) * 8).astype(np.int32)
      cv2.polylines(ink, [points], False, 0.7, 1, cv2.LINE_AA, 3)
    v, u = make_grid(tall, wide)
    curl = 1 + world.light * rng.uniform(-1, 1) * u + rng.uniform(-0.16, 0.05) * v * np.abs(v)
    rgba = paint(colors * curl[..., None] * (1 - ink[..., None]), np.ones((tall, wide)))
    add_hung(world, rgba, (at, y - 1), rest=rng.normal(0, 0.08), twist=rng.uniform(0.1, 0.6), blur=blur, length=tall)
    _add_peg(world, at + wide / 2, y, 0.13 * tall + 1.5, blur=blur)
    return
  folds = make_folds(rng, tall, wide, along=0, number=max(2.5 * wide / tall, 2), slant=rng.normal(0, 0.2))
  folds = folds * tall * rng.uniform(0.012, 0.035) * (1.1 - 0.5 * np.linspace(0, 1, tall)[:, None])
  folds = folds + 0.005 * tall * smooth_noise(rng, tall, wide, coarsest=3, octaves=3)
  creases = make_folds(
    rng, tall, wide, along=0, number=4 * wide / tall + 1, slant=rng.choice([-1, 1]) * rng.uniform(0.4, 1)
  )
  folds = folds + rng.uniform(0.004, 0.012) * tall * creases
  colors = paint_cloth(rng, tall, wide, plain=0.75 if name == "pennant" else 0.5)
  if name == "trousers" and rng.random() < 0.5:
    colors = colors * 0.3 + np.array([58, 74, 104]) * 0.7
  rgba = paint(colors, cut_outline(rng, name, tall, wide))
  reach = min(2 * world.reach(tall), 0.2 * tall)
  add_sheet(
    world, rgba, (at, y - 1), pinned="top", folds=folds, reach=reach, view=view, backlit=backlit, blur=blur
  )  # fmt: skip
  if name != "pennant":
    inset = 0.22 if name == "shirt" else 0.08
    for x in (at + inset * wide, at + (1 - inset) * wide):
      _add_peg(world, x, y, 0.02 * tall + 2, blur=blur)
