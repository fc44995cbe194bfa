"""Things of a simulated world that are one picture each: the tools to draw and move them, and given cut-outs.

Each builder appends layers to a `World`, back to front. Pictures of things are [h w 4] float32 with premultiplied
alpha, 0..255 (`paint`, `lay_over`). Physics: a hung thing is a pendulum, f = sqrt(g / L) / 2 pi, turned exactly; a
standing one is a cantilever (see `Stem`) whose cross-sections turn with its slope.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from data_pipeline.synthetic.layers import Texture
from data_pipeline.synthetic.shapes import rotate90
from data_pipeline.synthetic.stems import Stem
from data_pipeline.synthetic.wind import COSINE, LINEAR, SINE, course_index
from data_pipeline.synthetic.world import GREENS, World

GRAVITY = 9.81
LARGEST_SWING = 0.35  # radians
SWING_DAMPING = (0.02, 0.1)
_LARGEST_LEAN = 0.22  # reach of a cut-out by its height
_FLUTTER = (0.01, 0.04)  # of a crown, by its height


def paint(colors, alpha) -> np.ndarray:
  """A picture of `colors` [h w 3] 0..255 and `alpha` [h w] 0..1: [h w 4] float32, premultiplied."""
  alpha = np.clip(alpha, 0, 1)[..., None]
  return np.concatenate([np.clip(colors, 0, 255) * alpha, 255 * alpha], -1).astype(np.float32)


def lay_over(below: np.ndarray, above: np.ndarray, *, corner=(0, 0)) -> None:
  """Lays a premultiplied picture [a b 4] over another [h w 4] in place, its corner (x, y) there; it must fit."""
  part = below[corner[1] : corner[1] + above.shape[0], corner[0] : corner[0] + above.shape[1]]
  part *= 1 - above[..., 3:] / 255
  part += above


def make_grid(tall: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
  """Coordinates (v, u), each [tall wide] float32, from -1 to 1."""
  v, u = np.linspace(-1, 1, tall, dtype=np.float32), np.linspace(-1, 1, wide, dtype=np.float32)
  return np.repeat(v[:, None], wide, 1), np.repeat(u[None], tall, 0)


def halve(image: np.ndarray) -> np.ndarray:
  """Half the size of [h w c], so that what was drawn hard becomes smooth."""
  return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


def soft_step(x, width: float) -> np.ndarray:
  """Goes from 0 to 1 where `x` goes from -width / 2 to width / 2."""
  return np.clip(np.asarray(x) / width + 0.5, 0, 1)


def add_texture(
  world: World, rgba: np.ndarray, corner, *, fields=None, index=(), margin=0.0, blur=0.5, shadow=False, flicker=0
) -> None:
  """Adds a picture [h w 4], premultiplied, at `corner` (x, y).

  Args:
    world: what it is added to.
    rgba: [h w 4] 0..255.
    corner: (x, y) pixels.
    fields: gives the displacement basis, a list of m [h w 2], for picture coordinates x, y [h w]; else it is rigid.
    index: [m] courses.
    margin: room to move, pixels each way.
    blur: deviation in pixels that puts it out of focus.
    shadow: whether something near lies behind to receive one.
    flicker: see `Texture`.
  """
  pad = int(margin + 2 * blur) + 3
  rgba = cv2.GaussianBlur(np.pad(rgba, ((pad, pad), (pad, pad), (0, 0))).astype(np.float32), (0, 0), blur)
  left, top = int(corner[0]) - pad, int(corner[1]) - pad
  basis = np.zeros((0, *rgba.shape[:2], 2), np.float32)
  if fields is not None:
    x, y = np.meshgrid(np.arange(rgba.shape[1]) + left, np.arange(rgba.shape[0]) + top)
    basis = np.array(fields(x.astype(np.float32), y.astype(np.float32)), np.float32)
  world.layers.append(
    Texture(
      world.shape, (left, top), np.clip(rgba + 0.5, 0, 255).astype(np.uint8), basis, np.asarray(index, int),
      world.new_part(), shadow=world.shadow if shadow else 0.0, flicker=flicker,
    )
  )  # fmt: skip


def pendulum_hz(world: World, length: float) -> float:
  """Frequency of a simple pendulum `length` px long, with some spread for how its mass lies: Hz."""
  metres = max(length, 1.0) * world.metres / world.shape[1]
  return float(np.clip(np.sqrt(GRAVITY / metres) / (2 * np.pi) * world.rng.lognormal(0, 0.1), 0.15, 5.0))


def add_hung(world: World, rgba: np.ndarray, corner, *, twist=0.0, blur=0.5, rest=0.0, length=None) -> None:
  """Adds a picture [h w 4] that swings as a rigid pendulum about the middle of its upper edge.

  Args:
    world: what it is added to.
    rgba: [h w 4] 0..255, premultiplied.
    corner: (x, y) pixels.
    twist: how far it turns about its vertical axis, radians.
    blur: deviation in pixels that puts it out of focus.
    rest: by how much it hangs turned at rest, radians.
    length: of the pendulum in pixels, else three quarters of the picture's.
  """
  rng, (tall, wide) = world.rng, rgba.shape[:2]
  corner = np.round(corner)
  pivot = corner + np.array([wide / 2, 0])
  if rest:
    side = int(np.hypot(wide / 2, tall)) + 1
    turn = cv2.getRotationMatrix2D((wide / 2, 0.0), np.degrees(rest), 1.0)
    turn[:, 2] += np.array([side - wide / 2, 0])
    rgba, corner = cv2.warpAffine(rgba, turn, (2 * side, side), flags=cv2.INTER_LINEAR), pivot - [side, 0]
  length = 0.75 * tall if length is None else length
  swing = min(world.reach(length) / length, LARGEST_SWING)
  drivers = [world.wind.add_driver(pendulum_hz(world, length), x=pivot[0], scale=swing, damping=SWING_DAMPING)]
  index = [course_index(drivers[0], SINE), course_index(drivers[0], COSINE)]
  if twist:
    drivers.append(world.wind.add_driver(rng.uniform(0.3, 1.0), x=pivot[0], scale=twist))
    index.append(course_index(drivers[1], COSINE))

  def fields(x, y):
    arm = np.stack([x - pivot[0], y - pivot[1]], -1)
    return [rotate90(arm), arm, arm * np.array([1, 0], np.float32)][: len(index)]

  add_texture(world, rgba, corner, fields=fields, index=index, margin=1.5 * swing * tall + 2, blur=blur)


def bend_fields(stem: Stem):
  """Displacement fields of a picture that bends with an upright `stem`: rows turn with it, above its tip rigidly."""

  def fields(x, y):
    heights = -stem.nodes[:, 1]
    place = np.interp(-y, heights, np.arange(len(heights)))
    low = np.minimum(place.astype(int), len(heights) - 2)
    share = (place - low)[..., None, None]
    points = np.stack([x, y], -1)
    basis = stem.carry(points, low) * (1 - share) + stem.carry(points, low + 1) * share
    return np.moveaxis(basis * (y < -heights[0])[..., None, None], -2, 0)

  return fields


def add_rooted(world: World, rgba: np.ndarray, corner, *, tip: float = 0.0, blur=0.5) -> None:
  """Adds a picture [h w 4] that bends as a cantilever from its lower edge.

  Args:
    world: what it is added to.
    rgba: [h w 4] 0..255, premultiplied.
    corner: (x, y) pixels.
    tip: rows from its upper edge that ride on the cantilever's tip as a rigid head; without any, its crown flutters.
    blur: deviation in pixels that puts it out of focus.
  """
  rng, (tall, wide) = world.rng, rgba.shape[:2]
  foot, middle = corner[1] + tall, corner[0] + wide / 2
  length = tall - tip
  reach = min(world.reach(tall), _LARGEST_LEAN * length)
  nodes = np.stack([np.full(17, middle), foot - length * np.linspace(0, 1, 17)], -1)
  stem = Stem(world.wind, nodes, reach=reach, hz=world.hz(tall))
  bend, index, waves = bend_fields(stem), list(stem.index), []
  for _ in range(0 if tip else 3):
    size = min(reach, rng.uniform(*_FLUTTER) * tall)
    driver = world.wind.add_driver(rng.uniform(1, 3), x=middle, scale=size)
    index.append(course_index(driver, LINEAR))
    turn = rng.uniform(0, 2 * np.pi)
    waves.append((rng.uniform(2, 6, 2) * rng.choice([-1, 1], 2) / tall, rng.uniform(0, 6), np.cos(turn), np.sin(turn)))

  def fields(x, y):
    up = np.clip((foot - y) / tall, 0, 1)
    ripples = [(up * np.sin(k[0] * x + k[1] * y + phase), cos, sin) for k, phase, cos, sin in waves]
    return [*bend(x, y), *(np.stack([cos * ripple, sin * ripple], -1) for ripple, cos, sin in ripples)]

  add_texture(world, rgba, corner, fields=fields, index=index, margin=1.6 * reach + 2, blur=blur)


def sprite_to_rgba(rng: np.random.Generator, sprite: np.ndarray, tall: int) -> np.ndarray | None:
  """Cuts a given picture [h w 4] uint8 (straight alpha) to what it shows, `tall` px high (never enlarged).

  Its cut edge is taken off and its colours are calmed: premultiplied, or None if it is empty.
  """
  solid = sprite[..., 3] > 40
  rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
  if not len(rows):
    return None
  sprite = sprite[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, :]
  cut = np.pad(sprite[..., 3], 1)
  alpha = cv2.erode(cut, np.ones((3, 3), np.uint8))[1:-1, 1:-1].astype(np.float32)
  if min(sprite.shape[:2]) < 100:  # thin parts would be lost
    alpha = 0.5 * alpha + 0.5 * sprite[..., 3]
  tall = max(min(tall, len(sprite)), 4)
  wide = max(round(sprite.shape[1] * tall / len(sprite)), 4)
  picture = np.dstack([sprite[..., :3] * (alpha[..., None] / 255), alpha])
  picture = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)
  gray = picture[..., :3].mean(-1, keepdims=True)
  calm = (gray + rng.uniform(0.6, 0.92) * (picture[..., :3] - gray)) * rng.uniform(0.72, 1.0)
  picture[..., :3] = calm + rng.uniform(0, 14) / 255 * picture[..., 3:]
  return np.clip(picture, 0, picture[..., 3:])


def _relight(rng: np.random.Generator, picture: np.ndarray, scale: float, light: float) -> np.ndarray:
  """A copy of [h w 4], `scale` <= 1 times as large, mirrored at random and lit from the scene's side."""
  tall, wide = (max(4, round(scale * n)) for n in picture.shape[:2])
  picture = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)[:, :: rng.choice([-1, 1])].copy()
  v, u = make_grid(tall, wide)
  picture[..., :3] *= (1 + 0.7 * light * u - rng.uniform(0, 0.15) * v)[..., None]
  return np.minimum(picture, picture[..., 3:])


def add_sprites(world: World, sprites: Sequence[np.ndarray]) -> None:
  """Adds one of the given cut-outs [h w 4] uint8, straight alpha: once, or a group where it is small.

  A squat one is a flower's head on a drawn stalk, a tall one stands on its lower edge; a few hang.
  """
  rng, (h, w) = world.rng, world.shape
  sprite = sprites[int(rng.integers(len(sprites)))]
  squat = _is_squat(sprite)
  metres = (0.05, 0.12) if squat else (0.3, 1.5) if world.metres < 3 else (2, 8)
  size = np.exp(rng.uniform(*np.log(metres))) * w / world.metres
  size = float(np.clip(size, 0.14 * h, (0.6 if squat else 1.05) * h))
  count = 1 if size > 0.4 * h else int(rng.integers(1, 4)) if size > 0.2 * h else int(rng.integers(2, 7))
  blur, hung, far = rng.uniform(0.4, 0.9), rng.random() < 0.1, rng.uniform(0.2, 0.6) * h
  cut = sprite_to_rgba(rng, sprite, int(1.1 * size))
  if cut is None:
    return
  for depth in np.sort(rng.random(count)):
    head = _relight(rng, cut, 0.7 + 0.3 * depth, world.light)
    x = rng.uniform(0.02, 0.98) * w - head.shape[1] / 2
    if hung:
      add_hung(world, head, (x, rng.uniform(-0.1, 0.3) * h), blur=blur)
    elif not squat:
      add_rooted(world, head, (int(x), int(h * rng.uniform(0.98, 1.08)) - len(head)), blur=blur)
    else:
      top = min(far + 0.25 * h * (depth - 0.5) + 0.05 * h * rng.normal(), h - 0.8 * len(head))
      flower, tip = _put_on_stalk(world, head, max(int(1.04 * h - top), int(1.5 * len(head))))
      add_rooted(world, flower, (int(x), int(top)), tip=tip, blur=blur)


def _is_squat(sprite: np.ndarray) -> bool:
  """Whether a cut-out [h w 4] uint8 needs a stalk: as wide as high, not brown or dark below, nor on a pole."""
  solid = sprite[..., 3] > 40
  rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
  if not len(rows):
    return False
  height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
  low = slice(rows[-1] - height // 3, rows[-1] + 1)
  r, g, b = sprite[low][solid[low]][:, :3].mean(0)
  brown = r > 1.1 * max(g, b) and min(g, b) > 0.58 * r and g > 0.95 * b
  earthy = brown or max(r, g, b) < 90  # mushrooms and trees stand by themselves
  foot = np.flatnonzero(solid[rows[-1] - height // 5 :].any(0))
  own_pole = np.ptp(foot) < 0.3 * width and abs(foot.mean() - columns.mean()) > 0.3 * width  # a flag's
  return bool(width > 0.7 * height and not earthy and not own_pole)


def _put_on_stalk(world: World, head: np.ndarray, tall: int) -> tuple[np.ndarray, float]:
  """A flower `tall` px high with a stalk and leaves below `head`, and how many of its rows are the head."""
  rng, (high, wide) = world.rng, head.shape[:2]
  bottom = np.flatnonzero(head[-max(1, high // 8) :, :, 3].max(0) > 100)
  middle = int(np.median(bottom)) if len(bottom) else wide // 2
  half = max(wide - middle, middle) + 2
  out = np.zeros((tall, 2 * half, 4), np.float32)
  y, x = np.arange(tall, dtype=np.float32)[:, None], np.arange(2 * half, dtype=np.float32) - half
  below = np.maximum(y - 0.5 * high, 0)
  thick = max(0.018 * high * rng.uniform(0.8, 1.6), 0.7 * world.unit) * (1 + 0.5 * below / tall)
  bend = rng.normal(0, 0.10) * half * np.sin(np.pi * np.clip(below / (tall - 0.5 * high), 0, 1))
  across = (x - bend) / thick
  green = world.pick(GREENS)
  streak = 1 + 0.10 * cv2.GaussianBlur(rng.normal(size=(tall, 2 * half)), (0, 0), sigmaX=0.6, sigmaY=7) * 4
  shade = (1 + 3 * world.light * across - 0.25 * across**2) * streak * (0.85 - 0.4 * below / tall)
  lay_over(out, paint(green * shade[..., None], soft_step(1 - np.abs(across), 1.0 / thick) * (y > 0.6 * high)))
  for _ in range(rng.integers(1, 5)):
    side, root = rng.choice([-1, 1]), rng.uniform(high, max(tall, high + 1))
    long, slim = rng.uniform(0.5, 0.95) * half, rng.uniform(0.12, 0.3)
    s = side * (x - bend) / long
    axis = root - long * (rng.uniform(0.2, 1.3) * s - rng.uniform(0.1, 0.9) * s**2)
    room = slim * long * np.sqrt(np.clip(s, 0, 1)) * np.clip(1 - s, 0, 1) * 1.6
    off = y - axis
    rib = np.exp(-((off / max(0.05 * long, 0.6)) ** 2))
    shade = (0.85 + 0.25 * np.sign(off) * side * np.sign(world.light) * 0.5 + 0.2 * rib) * (0.9 + 0.2 * streak - 0.2)
    lay_over(
      out, paint(green * shade[..., None] * rng.uniform(0.7, 1.15), soft_step(room - np.abs(off), 1.5) * (s > 0))
    )
  lay_over(out, head, corner=(half - middle, 0))
  return out, 0.75 * high
