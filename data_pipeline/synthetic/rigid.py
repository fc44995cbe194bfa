"""Rigid things of a simulated world that stand before or among what moves, partly cut by the picture's edge."""

import cv2
import numpy as np

from data_pipeline.synthetic import still_life
from data_pipeline.synthetic.materials import STONES, WALLS, WOODS, paint_planks, pick_color, shade_relief
from data_pipeline.synthetic.props import add_texture, lay_over, paint, soft_step
from data_pipeline.synthetic.shapes import smooth_noise
from data_pipeline.synthetic.world import World


def add_rigid(world: World) -> None:
  """Adds something that never moves, often before what does: stones, pots, books, posts, a trunk, wall or fence."""
  rng, (h, w) = world.rng, world.shape
  kind = rng.choice(
    ["stone", "turned", "box", "trunk", "wall", "fence", "sign"], p=[0.24, 0.2, 0.05, 0.22, 0.11, 0.1, 0.08]
  )
  light = (0.6 * np.sign(world.light), -0.8)
  if kind == "trunk":
    _add_trunk(world)
  elif kind == "wall":
    _add_wall(world, light)
  elif kind in ("fence", "sign"):
    _add_boards(world, light, fence=kind == "fence")
  else:
    size, foot = rng.uniform(0.25, 0.65) * h, rng.uniform(0.9, 1.05) * h
    x = rng.choice([rng.uniform(0, 0.3), rng.uniform(0.7, 1)]) * w
    seed, turned = rng.integers(2**32), str(rng.choice(["pot", "cup", "vase", "post"]))
    pictures = []
    for base in (0, 255):  # drawn on black and on white, which tells its alpha and that of its shadow
      image, own = np.full((h, w, 3), base, np.float32), np.random.default_rng(seed)
      if kind == "stone":
        for _ in range(3):
          place = x + own.normal(0, 0.12) * w, foot + own.uniform(-0.08, 0.02) * h
          still_life.draw_stone(own, image, *place, size * own.uniform(0.6, 1.1), light)
      elif kind == "box":
        still_life.draw_boxes(own, image, x, min(foot, 0.98 * h), size, light)
      else:
        still_life.draw_turned(own, image, x, foot, size, light, kind=turned)
      pictures.append(image)
    alpha = np.clip(255 - (pictures[1] - pictures[0]).mean(-1, keepdims=True), 0, 255)
    add_texture(world, np.concatenate([np.clip(pictures[0], 0, 255), alpha], -1), (0, 0), blur=rng.uniform(0.4, 0.8))


def _add_trunk(world: World) -> None:
  """Adds the trunk of a tree, from edge to edge of the picture."""
  rng, (h, w) = world.rng, world.shape
  wide = int(np.exp(rng.uniform(np.log(0.04), np.log(0.3))) * w)
  tall, box = h + 8, int(1.5 * wide) + 8
  y, x = np.arange(tall, dtype=np.float32)[:, None], np.arange(box, dtype=np.float32)
  wander = 0.05 * wide * smooth_noise(rng, 2, tall, coarsest=3, octaves=3)[:1].T
  middle = box / 2 + wander + rng.uniform(-0.15, 0.15) * wide * (y / tall - 0.5)
  half = 0.42 * wide * (1 + 0.25 * (y / tall) ** 3) * (1 + 0.03 * smooth_noise(rng, 2, tall, coarsest=8)[:1].T)
  u = (x - middle) / half
  cells = cv2.resize(
    smooth_noise(rng, max(8, tall // 4), box, coarsest=max(3, int(16 * box / wide)), octaves=4), (box, tall)
  )
  ridges = np.abs(cells) ** 0.7 + 0.25 * smooth_noise(rng, tall, box, coarsest=30, octaves=2)
  side = np.sign(world.light)
  shade = 0.45 + 0.6 * np.clip(0.55 * np.sqrt(np.clip(1 - u**2, 0, 1)) + 0.5 * side * u + 0.1, 0, 1)
  color = pick_color(rng, np.concatenate([WOODS[[1, 4]], STONES[[1, 4]], [(92, 80, 66)]])) * 0.85
  relief = shade_relief(ridges.astype(np.float32) * 3, (side * 0.9, -0.4), 0.22)[..., 0]
  tone = shade * relief * (0.75 + 0.28 * ridges)
  moss = 0.7 * soft_step(smooth_noise(rng, tall, box, coarsest=3) - side * u - rng.uniform(0.6, 2.5), 1.0)[..., None]
  colors = (color + (np.array([96, 104, 50]) - color) * moss) * tone[..., None]
  x0 = rng.choice([rng.uniform(0, 0.25), rng.uniform(0.75, 1)]) * w - box / 2
  add_texture(world, paint(colors, soft_step(1 - np.abs(u), 2 / half.mean())), (x0, -4), blur=rng.uniform(0.4, 1.2))


def _add_wall(world: World, light) -> None:
  """Adds the end of a wall at one side of the picture, or a low wall along its lower edge."""
  rng, (h, w) = world.rng, world.shape
  blur, painter = rng.uniform(0.4, 1.5), WALLS[rng.integers(len(WALLS))]
  if rng.random() < 0.5:
    wide, reveal = int(rng.uniform(0.08, 0.25) * w), int(rng.uniform(0.01, 0.04) * w) + 2
    colors = painter(rng, h + 8, wide + reveal, light)
    colors[:, wide:] *= 0.5 if light[0] < 0 else 1.2
    right = rng.random() < 0.5
    colors = colors[:, ::-1] if right else colors
    corner = (w - wide - reveal + 4 if right else -4, -4)
  else:
    tall = int(rng.uniform(0.1, 0.28) * h)
    colors, cap = painter(rng, tall, w + 8, light), max(3, int(0.16 * tall))
    colors[:cap] = pick_color(rng, STONES) * (1.05 + 0.06 * smooth_noise(rng, cap, w + 8, coarsest=40))[..., None]
    colors[cap : cap + 3] *= 0.55
    corner = (-4, h - tall + 3)
  add_texture(world, paint(colors * rng.uniform(0.65, 0.95), np.ones(colors.shape[:2])), corner, blur=blur, shadow=True)


def _add_boards(world: World, light, *, fence: bool) -> None:
  """Adds a fence of pales and rails along the lower edge, or a board with writing on a post."""
  rng, (h, w) = world.rng, world.shape
  tall = int(rng.uniform(0.2, 0.45) * h) if fence else int(rng.uniform(0.35, 0.7) * h)
  wide = w + 8 if fence else int(rng.uniform(0.16, 0.32) * w)
  y, x = np.arange(tall, dtype=np.float32)[:, None], np.arange(wide, dtype=np.float32)
  wood = paint_planks(rng, tall, wide, light, upright=fence or rng.random() < 0.5) * rng.uniform(0.6, 1.0)
  out = np.zeros((tall, wide, 4), np.float32)
  if fence:
    pitch = rng.uniform(0.05, 0.12) * w
    at = x % pitch / pitch
    number = (x // pitch).astype(int)
    tones, rise = rng.uniform(0.8, 1.1, number.max() + 1)[number], rng.uniform(0, 0.03 * h, number.max() + 1)[number]
    gap = rng.uniform(0.25, 0.5)
    middle = (at - 0.5) / (1 - gap) * 2
    for row in (0.3, 0.75):
      rail = soft_step(0.05 * tall - np.abs(y - row * tall), 1.0) * np.ones_like(x)
      lay_over(out, paint(wood * 0.7 * (1 - 0.5 * soft_step(y - row * tall, 0.06 * tall))[..., None], rail))
    pale = soft_step((1 - np.abs(middle)) * pitch * (1 - gap) / 2, 1.0) * soft_step(
      y - rise - 0.06 * tall * middle**2 - 2, 1.5
    )
    tone = tones * (1 + 0.25 * np.sign(light[0]) * middle) * np.ones_like(y)
    lay_over(out, paint(wood * tone[..., None], pale))
    corner = (-4, h - tall + 4)
  else:
    post, plate = 0.05 * wide + 1, 0.5 * tall
    rough = 0.6 * smooth_noise(rng, 2, tall, coarsest=10)[:1].T
    u = (x - 0.5 * wide + rough) / post
    lay_over(
      out,
      paint(wood * 0.75 * (1 + 0.35 * np.sign(light[0]) * np.clip(u, -1, 1))[..., None], soft_step(1 - np.abs(u), 0.4)),
    )
    ink = np.zeros((tall, wide), np.float32)
    for row in range(rng.integers(1, 4)):
      at, letter = 0.12 * wide, 0.028 * wide + 1
      while at < 0.85 * wide:
        if rng.random() < 0.82:
          center = int(at), int((0.2 + 0.24 * row) * plate)
          begin, end = sorted(rng.uniform(0, 360, 2))
          axes, thickness = (int(letter * 0.8), int(letter * 1.3)), max(1, int(letter / 3))
          cv2.ellipse(ink, center, axes, 0, begin, end, 1.0, thickness, cv2.LINE_AA)
        at += 2.4 * letter
    frame = np.minimum(np.minimum(x, wide - 1 - x), np.minimum(y, plate - y)) + 0.5 * rough
    board = wood * (1 - 0.65 * ink[..., None]) * (0.8 + 0.2 * soft_step(frame - 1.5, 1.5))[..., None]
    lay_over(out, paint(board, soft_step(frame, 1.2)))
    corner = (rng.choice([rng.uniform(0.0, 0.25), rng.uniform(0.7, 0.95)]) * w - wide / 2, h - tall + 3)
  add_texture(world, out, corner, blur=rng.uniform(0.4, 1.0), shadow=True)
