"""Rigid things that stand about plants: pots, cups, vases, posts, stones, boxes and books, with their shadows."""

import cv2
import numpy as np

from data_pipeline.synthetic.materials import STONES, WOODS, pick_color
from data_pipeline.synthetic.shapes import smooth_noise

GLAZES = np.array(
  [(172, 98, 66), (205, 200, 190), (62, 84, 110), (120, 130, 110), (60, 58, 60), (190, 160, 90), (150, 60, 50)], float
)


def place_still_life(rng: np.random.Generator, image: np.ndarray, floor: float, light, *, count: int) -> None:
  """Stands `count` things on the ground of `image` [h w 3] float32, in place; far ones at row `floor`, lit from x."""
  h, w = image.shape[:2]
  for depth in np.sort(rng.random(count)):
    foot = floor + (h - floor) * 0.7 * depth
    size = h * rng.uniform(0.18, 0.5) * (0.6 + 0.6 * depth)
    kind = rng.choice(["pot", "cup", "vase", "post", "stone", "box"], p=[0.24, 0.13, 0.15, 0.12, 0.2, 0.16])
    x = rng.uniform(0, w)
    if kind == "stone":
      draw_stone(rng, image, x, foot, size * rng.uniform(0.4, 0.9), light)
    elif kind == "box":
      draw_boxes(rng, image, x, foot, size, light)
    else:
      draw_turned(rng, image, x, foot, size, light, kind=str(kind))


def _drop_shadow(image, x: float, foot: float, wide: float, light) -> None:
  """Darkens the ground under and beside a thing `wide` pixels wide that stands at (x, foot)."""
  h, w = image.shape[:2]
  left, right = max(0, int(x - 2.2 * wide)), min(w, int(x + 2.2 * wide) + 1)
  top, low = max(0, int(foot - 0.5 * wide)), min(h, int(foot + 0.5 * wide) + 1)
  if left >= right or top >= low:
    return
  v = (np.arange(top, low, dtype=np.float32)[:, None] - foot) / (0.16 * wide)
  u = (np.arange(left, right, dtype=np.float32) - x) / (0.62 * wide)
  cast = (u + 0.9 * np.sign(light[0])) / 1.5
  dark = 0.62 * np.exp(-((u**2 + v**2) ** 1.5)) + 0.38 * np.exp(-((cast**2 + (0.9 * v) ** 2) ** 1.5))
  image[top:low, left:right] *= 1 - np.minimum(dark, 0.8)[..., None]


def _blend(image, left: int, top: int, colors, alpha) -> None:
  """Lays `colors` [a b 3] with `alpha` [a b] over the picture at (left, top), cut to it."""
  h, w = image.shape[:2]
  y0, x0, y1, x1 = max(0, top), max(0, left), min(h, top + alpha.shape[0]), min(w, left + alpha.shape[1])
  if y0 >= y1 or x0 >= x1:
    return
  part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
  image[y0:y1, x0:x1] += (colors[part] - image[y0:y1, x0:x1]) * alpha[part][..., None]


def draw_turned(rng: np.random.Generator, image, x: float, foot: float, size: float, light, *, kind: str) -> None:
  """Draws a thing turned on a wheel or lathe, `size` pixels high: a "pot", "cup", "vase" or "post"."""
  v = np.linspace(0, 1, 40)  # from the rim down
  if kind == "pot":
    radius = rng.uniform(0.38, 0.55) * (1 - rng.uniform(0.2, 0.4) * v) * np.where(v < 0.17, 1.1, 1)
  elif kind == "cup":
    radius = rng.uniform(0.36, 0.5) * (1 - 0.3 * np.clip(v - 0.6, 0, 1) * rng.uniform(0, 3)) + 0 * v
  elif kind == "vase":
    radius = 0.12 + rng.uniform(0.1, 0.25) * np.sin(np.pi * np.clip(v, 0, 0.93)) ** rng.uniform(0.8, 2)
  else:
    size, radius = size * rng.uniform(1.2, 2.5), np.full(40, rng.uniform(0.05, 0.11))
  size = max(size, 6)
  wide = radius.max() * size
  half, squash = int(wide) + 2, 0.22
  tall = int(size + 2 * squash * wide) + 3
  y = np.arange(tall, dtype=np.float32)[:, None] - squash * radius[0] * size
  u0 = np.arange(-half, half + 1, dtype=np.float32)
  r = np.interp(np.clip(y / size, 0, 1), v, radius).astype(np.float32) * size
  u = np.clip(u0 / np.maximum(r, 0.5), -1, 1)
  facing = np.sqrt(1 - u**2)
  low = y - squash * r * facing  # the front of each ring hangs lower
  alpha = np.clip(r - np.abs(u0) + 0.5, 0, 1) * np.clip(size * 0.98 - low, 0, 1) * np.clip(low + 0.5, 0, 1)
  color = pick_color(rng, WOODS if kind == "post" else GLAZES)
  side = np.sign(light[0])
  shade = 0.42 + 0.6 * np.clip(0.75 * facing + 0.6 * side * u, 0, 1) + 0.08 * (u * side < -0.85)
  rough = smooth_noise(rng, tall, 2 * half + 1, coarsest=6, octaves=4)
  shade = shade * (1 + 0.06 * rough) * (1 - 0.35 * np.clip(low / size - 0.75, 0, 1))
  colors = color * shade[..., None]
  if kind == "pot":
    colors *= np.where(np.abs(low / size - 0.2) < 0.03, 0.72, 1)[..., None]
  if rng.random() < 0.35 and kind != "post":  # a glazed band
    colors[np.abs(low / size - rng.uniform(0.3, 0.7)) < rng.uniform(0.02, 0.12)] *= np.exp(rng.normal(0, 0.25, 3))
  if kind in ("cup", "vase"):
    gleam = np.exp(-(((u - 0.45 * side) / 0.1) ** 2)) * np.exp(-(((low / size - 0.35) / 0.25) ** 2))
    colors += 110 * rng.uniform(0.1, 1) * gleam[..., None]
  ring = np.hypot(u0 / (radius[0] * size), y / (squash * radius[0] * size))
  opening = np.clip((1 - ring) * squash * radius[0] * size + 0.5, 0, 1)
  inside = color * (1.05 if kind == "post" else 0.35) * (1 - 0.3 * side * u0 / half)[..., None]
  _drop_shadow(image, x, foot, 0.6 * (wide + radius[-1] * size), light)
  left, top = int(x) - half, int(foot - size - squash * radius[0] * size)
  _blend(image, left, top, colors, alpha)
  _blend(image, left, top, color * (1.0 + 0.15 * (ring > 0.85))[..., None] + 0 * colors, opening)
  _blend(image, left, top, inside + 0 * colors, opening * np.clip((0.86 - ring) * 8, 0, 1))


def draw_stone(rng: np.random.Generator, image, x: float, foot: float, size: float, light) -> None:
  """Draws a rough stone or boulder `size` pixels high."""
  tall, wide = max(4, int(size)), max(6, int(size * rng.uniform(1.1, 2.0)))
  bumps = smooth_noise(rng, tall, wide, coarsest=3)
  v, u = np.meshgrid(np.linspace(-1.05, 1.05, tall), np.linspace(-1.05, 1.05, wide), indexing="ij")
  power = rng.uniform(1.8, 3.2)
  radius = np.abs(u) ** power + np.abs(np.where(v > 0, 0.95 * v, v)) ** power + 0.1 * bumps
  height = np.sqrt(np.clip(1.02 - radius, 0, 1)).astype(np.float32) * 0.5 * tall + 0.05 * tall * bumps
  dx, dy = cv2.Sobel(height, -1, 1, 0) / 8, cv2.Sobel(height, -1, 0, 1) / 8
  lit = (1 - light[0] * dx - light[1] * dy) / np.sqrt(1 + dx**2 + dy**2)
  shade = (0.4 + 0.6 * np.clip(lit, 0, 1.4)) * (1 + 0.06 * smooth_noise(rng, tall, wide, coarsest=10))
  shade *= 1 - 0.45 * np.clip(v, 0, 1) ** 2
  alpha = np.clip((0.95 - radius) * 0.25 * tall + 0.5, 0, 1)
  _drop_shadow(image, x, foot - 0.06 * tall, 0.7 * wide, light)
  _blend(image, int(x - wide / 2), int(foot - 0.94 * tall), pick_color(rng, STONES) * shade[..., None], alpha)


def draw_boxes(rng: np.random.Generator, image, x: float, foot: float, size: float, light) -> None:
  """Draws a crate, or a pile or row of books, about `size` pixels high."""
  crate = rng.random() < 0.3
  wide, row = size * rng.uniform(0.9, 1.6), foot
  _drop_shadow(image, x, foot, 0.8 * wide, light)
  for _ in range(1 if crate else rng.integers(2, 6)):
    tall = size * (0.8 if crate else rng.uniform(0.09, 0.17))
    half = wide * (0.5 if crate else rng.uniform(0.36, 0.5))
    h, w = max(2, int(tall)), max(4, int(2 * half))
    color = pick_color(rng, WOODS if crate else np.concatenate([GLAZES, STONES]))
    v, u = np.meshgrid(np.linspace(0, 1, h), np.linspace(0, 1, w), indexing="ij")
    shade = (0.9 + 0.2 * np.sign(light[0]) * (u - 0.5)) * (1 - 0.35 * np.clip(v - 0.8, 0, 1) / 0.2)
    if crate:
      shade = shade * np.where((v * 5) % 1 < 0.12, 0.4, 1)
    else:
      shade = shade * np.where(np.abs(u - 0.5) > 0.42, 0.8, 1) * np.where(np.abs(u - 0.3) < 0.015, 1.3, 1)
    shade = shade * (1 + 0.05 * smooth_noise(rng, h, w, coarsest=8))
    lid = max(1, int(0.12 * size)) if crate else 1
    left, top = int(x - half), int(row - h)
    _blend(image, left, top, color * shade[..., None], np.ones((h, w), np.float32))
    _blend(image, left, top - lid, np.full((lid, w, 3), 1.2 * color), np.ones((lid, w), np.float32))
    row -= h
