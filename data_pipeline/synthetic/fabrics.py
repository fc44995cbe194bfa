"""What cloth looks like when it lies flat: dyes, weaves, prints, flags, the cut of garments; and its folds."""

import cv2
import numpy as np

from data_pipeline.synthetic.materials import pick_color
from data_pipeline.synthetic.props import make_grid, soft_step
from data_pipeline.synthetic.shapes import smooth_noise

DYES = np.array([
  (168, 36, 42), (34, 52, 104), (226, 222, 210), (204, 164, 62), (44, 96, 66), (86, 132, 168), (40, 40, 46),
  (196, 120, 92), (130, 74, 96), (150, 158, 130), (214, 190, 160), (104, 92, 84), (206, 150, 160), (238, 236, 232),
], float)  # fmt: skip
PAPERS = np.array(
  [(226, 190, 80), (214, 96, 108), (150, 206, 180), (232, 160, 96), (226, 224, 214), (140, 180, 214)], float
)


def make_folds(rng: np.random.Generator, tall: int, wide: int, *, along: int, number: float, slant=0.0) -> np.ndarray:
  """Standing folds [tall wide] of unit deviation that run down (`along` 0) or sideways (1), about `number` of them."""
  a, b = (tall, wide) if along == 0 else (wide, tall)
  grid = rng.normal(size=(4, max(int(2 * number), 3))).astype(np.float32)
  long = int(1.5 * b)
  folds = cv2.resize(grid, (long, a), interpolation=cv2.INTER_CUBIC)
  shift = (slant * (np.arange(a, dtype=np.float32)[:, None] / a - 0.5) + 0.25) * b
  x = (np.arange(b) + shift).astype(np.float32)
  y = np.broadcast_to(np.arange(a, dtype=np.float32)[:, None], x.shape)
  folds = cv2.remap(folds, x, np.ascontiguousarray(y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
  folds = folds / (folds.std() + 1e-6)
  return folds if along == 0 else folds.T


def paint_cloth(rng: np.random.Generator, tall: int, wide: int, *, dyes=DYES, plain=0.4) -> np.ndarray:
  """The colours [tall wide 3] of flat cloth: plain, striped, checked, dotted or printed, with its weave and hem."""
  v, u = make_grid(tall, wide)
  colors = np.stack([pick_color(rng, dyes) for _ in range(3)])
  pitch = rng.uniform(0.08, 0.3) * min(tall, wide)
  y, x = (v + 1) * tall / 2, (u + 1) * wide / 2
  kind = rng.choice(["plain", "stripe", "check", "dot", "print"], p=[plain, *[(1 - plain) / 4] * 4])
  if kind == "plain":
    mix = 0 * u
  elif kind == "stripe":
    mix = soft_step(np.sin(2 * np.pi * (x if rng.random() < 0.6 else y) / pitch), 0.6)
  elif kind == "check":
    mix = 0.5 * (soft_step(np.sin(2 * np.pi * x / pitch), 0.5) + soft_step(np.sin(2 * np.pi * y / pitch), 0.5))
  elif kind == "dot":
    mix = soft_step(np.cos(2 * np.pi * x / pitch) * np.cos(2 * np.pi * y / pitch) - rng.uniform(0.3, 0.7), 0.3)
  else:
    mix = soft_step(smooth_noise(rng, tall, wide, coarsest=int(rng.integers(6, 14)), octaves=2) - 0.6, 0.5)
  out = colors[0] + (colors[1] - colors[0]) * mix[..., None] * rng.uniform(0.4, 1)
  return out * _weave(rng, tall, wide)


def _weave(rng: np.random.Generator, tall: int, wide: int) -> np.ndarray:
  """Fine unevenness of cloth and its sewn edge: [tall wide 1], about 1."""
  threads = cv2.GaussianBlur(rng.normal(size=(tall, wide)), (0, 0), sigmaX=3, sigmaY=0.5) + cv2.GaussianBlur(
    rng.normal(size=(tall, wide)), (0, 0), sigmaX=0.5, sigmaY=3
  )
  y, x = np.arange(tall)[:, None], np.arange(wide)
  edge = np.minimum(np.minimum(x, wide - 1 - x), np.minimum(y, tall - 1 - y))
  hem = 1 - 0.09 * np.exp(-((edge - 0.025 * min(tall, wide) - 1.5) ** 2))
  return ((1 + 0.022 * threads + 0.035 * smooth_noise(rng, tall, wide, coarsest=5)) * hem)[..., None]


def paint_flag(rng: np.random.Generator, tall: int, wide: int) -> np.ndarray:
  """The colours [tall wide 3] of a flag: bars, many stripes with a canton, a cross, a disc or a diagonal."""
  v, u = make_grid(tall, wide)
  v, u = (v + 1) / 2, (u + 1) / 2
  colors = np.stack([pick_color(rng, DYES[:7]) for _ in range(3)])
  kind, soft = rng.choice(["bars", "stripes", "cross", "disc", "diagonal", "cloth"]), 2.0 / tall
  if kind == "cloth":
    return paint_cloth(rng, tall, wide, plain=0.2)
  image = np.broadcast_to(colors[0], (tall, wide, 3)).copy()

  def fill(mask, color):
    image[:] += (color - image) * np.clip(mask, 0, 1)[..., None]

  if kind == "bars":
    t = u if rng.random() < 0.4 else v
    fill(soft_step(t - 1 / 3, soft), colors[1])
    fill(soft_step(t - 2 / 3, soft), colors[2])
  elif kind == "stripes":
    count = int(rng.integers(3, 8))
    fill(soft_step(np.sin(2 * np.pi * count * v), 4 * np.pi * count * soft), colors[1])
    canton = soft_step(0.4 - u, soft) * soft_step(0.54 - v, soft)
    fill(canton, colors[2])
    star = np.cos(2 * np.pi * u / 0.1) * np.cos(2 * np.pi * v / 0.14)
    fill(soft_step(star - 0.6, 0.3) * (canton > 0.9), np.array([228, 226, 220]))
  elif kind == "cross":
    for width, color in ((0.13, colors[1]), (0.06, colors[2])):
      arm = np.maximum(
        soft_step(width - np.abs(v - 0.5), soft), soft_step(width - np.abs(u - 0.38) * wide / tall, soft)
      )
      fill(arm, color)
  elif kind == "disc":
    fill(soft_step(0.28 - np.hypot(v - 0.5, (u - 0.5) * wide / tall), soft), colors[1])
  else:
    fill(soft_step(u - v, 3 * soft), colors[1])
    fill(soft_step(0.08 - np.abs(u - v), soft), colors[2])
  return image * _weave(rng, tall, wide)


def cut_outline(rng: np.random.Generator, kind: str, tall: int, wide: int) -> np.ndarray:
  """Where a garment is, [tall wide] 0..1: "shirt", "trousers", "sock", "pennant", else all."""
  shapes = {
    "shirt": [
      (0.2, 0), (0.38, 0), (0.5, 0.07), (0.62, 0), (0.8, 0), (1, 0.34), (0.84, 0.42), (0.78, 0.3), (0.79, 1), (0.21, 1),
      (0.22, 0.3), (0.16, 0.42), (0, 0.34),
    ],
    "trousers": [(0.1, 0), (0.9, 0), (1, 1), (0.6, 1), (0.5, 0.3), (0.4, 1), (0, 1)],
    "sock": [(0.1, 0), (0.6, 0), (0.62, 0.62), (0.95, 0.8), (0.95, 1), (0.3, 1), (0.12, 0.85)],
    "pennant": [(0, 0), (1, 0), (0.5, 1)],
  }  # fmt: skip
  if kind not in shapes:
    return np.ones((tall, wide), np.float32)
  points = np.array(shapes[kind]) + rng.normal(0, 0.012, (len(shapes[kind]), 2)) * [1, 0.5]
  mask = np.zeros((4 * tall, 4 * wide), np.float32)
  cv2.fillPoly(mask, [np.round(np.clip(points, 0, 1) * [4 * wide - 1, 4 * tall - 1]).astype(np.int32)], 1.0)
  mask = cv2.GaussianBlur(mask, (0, 0), 3.0)
  return soft_step(cv2.resize(mask, (wide, tall), interpolation=cv2.INTER_AREA) - 0.5, 0.5).astype(np.float32)
