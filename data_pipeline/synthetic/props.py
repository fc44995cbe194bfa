"""Things of a simulated world that are one picture each: cloth, ornaments, cut-outs, poles and rocks.

Each builder appends layers to a `World`, back to front.
"""

import dataclasses

import cv2
import numpy as np

from data_pipeline.synthetic.layers import Texture
from data_pipeline.synthetic.shapes import rotate90, smooth_noise
from data_pipeline.synthetic.wind import COSINE, LINEAR, SINE, SQUARE, course_index
from data_pipeline.synthetic.world import FLAGS, GREENS, PETALS, World


def add_texture(world: World, rgba: np.ndarray, corner, fields, index, *, margin: float, pose=()) -> None:
  """Adds a picture [h w 4] uint8 (straight alpha) at `corner` (x, y) with room to move `margin` px each way.

  `fields(x, y)` gives the displacement basis, a list of [h w 2], for picture coordinates [h w]. With `pose`,
  one number per field, the picture is first deformed so: its shape at frame 0.
  """
  pad = int(margin) + 4
  rgba = np.pad(rgba, ((pad, pad), (pad, pad), (0, 0))).astype(np.float32)
  rgba[..., :3] *= rgba[..., 3:] / 255
  rgba = cv2.GaussianBlur(rgba, (0, 0), 0.5).round().astype(np.uint8)
  left, top = int(corner[0]) - pad, int(corner[1]) - pad
  x, y = np.meshgrid(np.arange(rgba.shape[1]) + left, np.arange(rgba.shape[0]) + top)
  basis = np.array(fields(x.astype(np.float32), y.astype(np.float32)), np.float32)
  layer = Texture((left, top), rgba, basis.reshape(-1, *rgba.shape[:2], 2), np.array(index, int), world.new_part())
  if len(pose):
    layer.rgba = dataclasses.replace(layer, index=np.arange(len(pose))).render(np.asarray(pose))
  world.layers.append(layer)


def add_cloth(world: World) -> None:
  """Adds a flag on a pole, pinned at its left edge, or hung laundry, pinned at the top; waves travel away."""
  rng, (h, w) = world.rng, world.shape
  flag, size = rng.random() < 0.6, np.array([rng.uniform(0.25, 0.6) * w, rng.uniform(0.25, 0.6) * h]).astype(int)
  x0, y0 = int(rng.uniform(0.08, 0.5) * w), int(rng.uniform(0.06, 0.35) * h)
  v, u = np.meshgrid(np.linspace(0, 1, size[1]), np.linspace(0, 1, size[0]), indexing="ij")
  along, wave_number = (u if flag else v), 2 * np.pi * rng.uniform(0.7, 1.6)
  stripes = u if rng.random() < 0.5 else v
  palette = np.array([world.pick(FLAGS, spread=5) for _ in range(rng.integers(1, 5))])
  color = palette[np.minimum((stripes * len(palette)).astype(int), len(palette) - 1)]
  if rng.random() < 0.4:
    color[np.hypot((u - 0.5) * size[0], (v - 0.5) * size[1]) < 0.27 * size.min()] = world.pick(FLAGS)
  fold = 1 + 1.2 * world.light * along**0.5 * np.sin(wave_number * along + rng.uniform(0, 6) + 1.5 * (v if flag else u))
  weave = 1 + 0.05 * smooth_noise(rng, size[1], size[0], coarsest=8)
  rgba = np.concatenate([color * (fold * weave)[..., None], np.full((*u.shape, 1), 255)], -1)
  span = float(size[0] if flag else size[1])
  reach, driver = min(world.reach(span), 0.09 * span), []
  for speed in (world.hz(span), 2.2 * world.hz(span)):
    first = world.wind.add_driver(min(speed, 3), x=x0, scale=reach / (1 + len(driver)))
    driver += [first, world.wind.add_quadrature(first)]
  index = [course_index(d, LINEAR) for d in driver]

  def fields(x, y):
    free = np.clip((x - x0) / span if flag else (y - y0) / span, 0, 1.3)
    cross = ((y - y0) if flag else (x - x0)) / span
    out = []
    for k in (wave_number, 1.8 * wave_number):
      for wave in (np.cos(k * free + 0.8 * cross), np.sin(k * free + 0.8 * cross)):
        push, pull = free**0.8 * wave, 0.25 * free * wave
        out.append(np.stack([pull, push] if flag else [push, pull], -1))
    return out

  if flag:
    add_pole(world, x0, y0)
  else:
    rope = np.full((max(1, round(world.unit)), w, 4), [120, 110, 95, 255])
    add_texture(world, rope, (0, y0), lambda x, y: [], [], margin=0)
  pose = rng.normal(0, 0.5 * reach, len(index))
  add_texture(world, np.clip(rgba, 0, 255), (x0, y0), fields, index, margin=3.5 * reach, pose=pose)


def add_pole(world: World, x: float, y: float) -> None:
  """Adds a rigid pole or trunk from row `y` to below the picture, its right edge at column `x`."""
  rng = world.rng
  width = int(max(2, rng.uniform(2, 7) * world.unit))
  tall = max(world.shape[0] - int(y) + 4, 8)
  round_ = 1 + 0.5 * np.sign(world.light) * np.linspace(-1, 1, width)[None, :, None]
  grain = 1 + 0.1 * smooth_noise(rng, tall, width)[..., None]
  color = world.pick([(120, 110, 100), (90, 70, 50), (170, 170, 170)]) * round_ * grain
  rgba = np.concatenate([np.clip(color, 0, 255), np.full((tall, width, 1), 255)], -1)
  add_texture(world, rgba, (x - width, y - 2), lambda x, y: [], [], margin=0)


def add_ornament(world: World) -> None:
  """Adds a lantern or ball that swings about the pivot its cord hangs from (turned exactly, not sheared)."""
  rng, (h, w) = world.rng, world.shape
  wide = int(rng.uniform(0.06, 0.3) * w)
  tall = int(wide * rng.uniform(0.8, 1.7))
  cord = int(rng.uniform(0.05, 0.4) * h)
  v, u = np.meshgrid(np.linspace(-1, 1, tall), np.linspace(-1, 1, wide), indexing="ij")
  power = rng.choice([2.0, 3.5, 8.0])
  alpha = (np.abs(u) ** power + np.abs(v) ** power) < 1
  ribs = 1 + 0.12 * np.sign(np.sin(rng.uniform(8, 22) * v + 0.6 * u**2)) * (rng.random() < 0.7)
  glow = 1.25 - 0.5 * np.sqrt(u**2 + v**2) + 2 * world.light * u
  body = world.pick(PETALS + FLAGS) * (glow * ribs * (1 + 0.04 * smooth_noise(rng, tall, wide)))[..., None]
  body[np.abs(v) > 0.87] = world.pick([(60, 50, 40), (150, 120, 60)])
  rgba = np.zeros((tall + cord, wide, 4))
  rgba[cord:, :, :3], rgba[cord:, :, 3] = np.clip(body, 0, 255), 255 * alpha
  line = max(1, round(world.unit))
  rgba[: cord + 3, wide // 2 : wide // 2 + line] = [70, 60, 50, 255]
  add_hung(world, rgba, (rng.uniform(0.05, 0.9) * w - wide / 2, rng.uniform(-0.15, 0.15) * h))


def add_hung(world: World, rgba: np.ndarray, corner) -> None:
  """Adds a picture [h w 4] that swings as a rigid pendulum about the middle of its upper edge."""
  tall, wide = rgba.shape[:2]
  corner = np.round(corner)
  pivot, reach = corner + np.array([wide / 2, 0]), world.reach(tall)
  driver = world.wind.add_driver(world.hz(1.5 * tall), x=pivot[0], scale=min(reach / tall, 0.3))

  def fields(x, y):
    arm = np.stack([x - pivot[0], y - pivot[1]], -1)
    return [rotate90(arm), arm]

  index = [course_index(driver, SINE), course_index(driver, COSINE)]
  add_texture(world, rgba, corner, fields, index, margin=2.5 * reach)


def add_rooted(world: World, rgba: np.ndarray, corner) -> None:
  """Adds a picture [h w 4] that bends as a cantilever from its lower edge, its crown fluttering a little."""
  rng, tall = world.rng, len(rgba)
  bottom = corner[1] + tall
  reach = min(world.reach(tall), 0.2 * tall)
  drivers = [world.wind.add_driver(world.hz(tall), x=corner[0], scale=reach)]
  drivers += [
    world.wind.add_driver(rng.uniform(1, 3), x=corner[0], scale=min(reach, 0.06 * tall) * rng.uniform(0.1, 0.6))
    for _ in range(3)
  ]
  index = [course_index(drivers[0], LINEAR), course_index(drivers[0], SQUARE)]
  index += [course_index(d, LINEAR) for d in drivers[1:]]
  waves = rng.uniform(1.5, 5, (3, 2)) * rng.choice([-1, 1], (3, 2)) / tall
  phases, turns = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0, 2 * np.pi, 3)

  def fields(x, y):
    v = np.clip((bottom - y) / tall, 0, None)
    shape = v**2 * (3 - v) / 2
    # Bending by shape(v) lowers a point by half the integral of its squared slope, which keeps lengths.
    drop = (3 * v**3 - 2.25 * v**4 + 0.45 * v**5) / (2 * tall)
    out = [np.stack([shape, 0 * v], -1), np.stack([0 * v, drop], -1)]
    for wave, phase, turn in zip(waves, phases, turns, strict=True):
      ripple = v * np.sin(wave[0] * x + wave[1] * y + phase)
      out.append(np.stack([np.cos(turn) * ripple, np.sin(turn) * ripple], -1))
    return out

  add_texture(world, rgba, corner, fields, index, margin=2.5 * reach)


def add_sprite(world: World, sprite: np.ndarray) -> None:
  """Adds a given cut-out [h w 4] uint8: rooted at the lower edge (on a drawn stem if squat), or hung."""
  rng, (h, w) = world.rng, world.shape
  solid = sprite[..., 3] > 40
  rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
  if not len(rows):
    return
  sprite = sprite[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  tall = int(np.clip(np.exp(rng.uniform(np.log(0.2), np.log(1.0))) * h, 8, 2 * len(sprite)))
  wide = int(np.clip(sprite.shape[1] * tall / len(sprite), 4, 1.2 * w))
  premultiplied = sprite.astype(np.float32)
  premultiplied[..., :3] *= premultiplied[..., 3:] / 255
  small = cv2.resize(premultiplied, (wide, tall), interpolation=cv2.INTER_AREA)
  small[..., :3] /= np.maximum(small[..., 3:], 1) / 255
  small = np.clip(small[:, :: rng.choice([-1, 1])], 0, 255)
  x = rng.uniform(-0.1, 0.95) * w - wide / 2
  if rng.random() < 0.12:
    add_hung(world, small, (x, rng.uniform(-0.1, 0.3) * h))
    return
  y = int(h * rng.uniform(0.85, 1.08)) - tall
  foot_color = small[-max(1, tall // 16) :][small[-max(1, tall // 16) :, :, 3] > 127]
  bark = len(foot_color) > 0 and foot_color[:, :3].max(1).mean() < 130  # trees and stalks stand by themselves
  if wide > 0.75 * tall and not bark:
    foot = int(max(min(rng.uniform(0.4, 1.5) * tall, h - 0.9 * tall), 0.15 * tall))
    thick = max(2, int(0.04 * wide))
    middle = int(np.median(np.flatnonzero(small[-max(1, tall // 12) :, :, 3].max(0) > 40)))
    small = np.pad(small, ((0, foot), (0, 0), (0, 0)))
    left = np.clip(middle - thick // 2, 0, wide - thick)
    stalk = world.pick(GREENS) * (1 + 2 * world.light * np.linspace(-1, 1, thick))[:, None]
    below = small[tall - 3 :, left : left + thick]
    below[..., :3], below[..., 3] = np.clip(stalk, 0, 255), 255
    y = int(h * rng.uniform(1.0, 1.08)) - len(small)
  add_rooted(world, small, (int(x), y))


def add_rock(world: World) -> None:
  """Adds a rigid rock at the lower edge, often in front of what moves."""
  rng, (h, w) = world.rng, world.shape
  wide, tall = int(rng.uniform(0.12, 0.4) * w), int(rng.uniform(0.1, 0.35) * h)
  v, u = np.meshgrid(np.linspace(-1, 1, tall), np.linspace(-1, 1, wide), indexing="ij")
  rough = smooth_noise(rng, tall, wide, coarsest=3)
  alpha = (u**2 + v**2 + 0.12 * rough) < 0.8
  gray = world.pick([(120, 115, 108), (95, 90, 88), (140, 125, 105)])
  color = gray * (1 - 0.35 * v + 2 * world.light * u + 0.14 * rough)[..., None]
  rgba = np.concatenate([np.clip(color, 0, 255), 255.0 * alpha[..., None]], -1)
  add_texture(world, rgba, (rng.uniform(0, 0.8) * w, h - 0.8 * tall), lambda x, y: [], [], margin=0)
